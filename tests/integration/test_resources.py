"""Resources: what they show and refuse, and completion of ids."""

import json
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    Completion,
    PromptReference,
    ResourceTemplateReference,
    TextResourceContents,
)

from fivetran_state.sandbox import Sandbox
from tests.calls import IDLE, LARGE, PAUSED, STATELESS, SYNCING, call
from tests.conftest import ERAS, Connect
from tests.integration.test_history import update


def state_uri(connection_id: str) -> str:
    return f"fivetran://connections/{connection_id}/state"


def history_uri(connection_id: str) -> str:
    return f"fivetran://connections/{connection_id}/history"


def workflow_uri(workflow_id: str) -> str:
    return f"fivetran://workflows/{workflow_id}"


async def text_of(client: Client, uri: str) -> str:
    (contents,) = (await client.read_resource(uri)).contents
    assert isinstance(contents, TextResourceContents)
    assert (contents.uri, contents.mime_type) == (uri, "application/json")
    return contents.text


async def read(client: Client, uri: str) -> Any:
    return json.loads(await text_of(client, uri))


async def unreadable(client: Client, uri: str) -> MCPError:
    with pytest.raises(MCPError) as caught:
        await client.read_resource(uri)
    return caught.value


# What they show


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_the_templates_are_listed_and_the_list_of_resources_asks_nobody(
    connect: Connect, era: str
) -> None:
    async with connect(era, FIVETRAN_API_URL="http://127.0.0.1:9") as client:
        templates = (await client.list_resource_templates()).resource_templates
        resources = (await client.list_resources()).resources
        capabilities = client.server_capabilities

    assert {each.name: each.uri_template for each in templates} == {
        "state": "fivetran://connections/{connection_id}/state",
        "history": "fivetran://connections/{connection_id}/history",
        "workflow": "fivetran://workflows/{workflow_id}",
    }
    assert all(each.title and each.description for each in templates)
    assert {each.mime_type for each in templates} == {"application/json"}
    assert resources == []
    assert capabilities.resources is not None
    assert capabilities.completions is not None


@pytest.mark.parametrize("era", ERAS)
async def test_a_resource_says_what_the_tool_of_the_same_purpose_says(
    connect: Connect, era: str
) -> None:
    async with connect(era) as client:
        done = await update(client, IDLE, merge_patch={"cursor": "2020"}, reason="bad rows")
        workflow_id = done["workflow_id"]

        shown = await read(client, state_uri(IDLE))
        assert shown == await call(client, "get_state", connection_id=IDLE)
        assert shown["state"]["cursor"] == "2020"

        shown = await read(client, history_uri(IDLE))
        assert shown == await call(client, "list_workflows", connection_id=IDLE)
        assert shown["workflows"][0]["workflow_id"] == workflow_id

        shown = await read(client, workflow_uri(workflow_id))
        assert shown == await call(client, "workflow_status", workflow_id=workflow_id)
        assert shown["reason"] == "bad rows"


async def test_a_large_state_comes_as_an_outline(connect: Connect) -> None:
    async with connect() as client:
        text = await text_of(client, state_uri(LARGE))

    assert "state" not in json.loads(text)
    assert json.loads(text)["outline"]
    assert len(text) < 20_000


# What they refuse


MISSING = {
    "connection_not_found": state_uri("no_such_connection"),
    "state_not_kept": state_uri(STATELESS),
    "workflow_not_found": workflow_uri(f"{IDLE}:7"),
    "not_allowed": state_uri(PAUSED),
    "not_allowed history": history_uri(PAUSED),
    "not_allowed workflow": workflow_uri(f"{PAUSED}:1"),
    "invalid_request": state_uri("etc%2Fpasswd"),
    "invalid_request workflow": workflow_uri("no_number"),
}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("uri", MISSING.values(), ids=MISSING)
async def test_what_is_not_there_or_not_allowed_is_an_invalid_parameter_that_is_explained(
    connect: Connect, request: pytest.FixtureRequest, era: str, uri: str
) -> None:
    async with connect(era, FIVETRAN_STATE_ALLOWED_CONNECTIONS="*_*n,no_*,postgres_*") as client:
        error = await unreadable(client, uri)

    assert error.code == INVALID_PARAMS
    assert error.data["code"] == request.node.callspec.id.split("-")[0].split()[0]
    assert error.message == f"{error.data['message']} {error.data['hint']}"
    assert error.data["uri"] == uri


@pytest.mark.parametrize(
    "uri", ["fivetran://connections", state_uri(".."), f"{state_uri(IDLE)}/x", "file:///etc/passwd"]
)
async def test_what_is_no_resource_of_this_server_is_an_invalid_parameter(
    connect: Connect, uri: str
) -> None:
    async with connect() as client:
        error = await unreadable(client, uri)

    assert (error.code, error.data) == (INVALID_PARAMS, {"uri": uri})


async def test_trouble_that_is_not_the_caller_s_is_an_internal_error_that_is_explained(
    connect: Connect,
) -> None:
    async with connect(FIVETRAN_API_KEY="") as client:
        error = await unreadable(client, state_uri(IDLE))

    assert (error.code, error.data["code"]) == (INTERNAL_ERROR, "missing_credentials")
    assert "FIVETRAN_API_KEY" in error.message


# Completion


TEMPLATE = ResourceTemplateReference(
    type="ref/resource", uri="fivetran://connections/{connection_id}/state"
)
PROMPT = PromptReference(type="ref/prompt", name="explain_state")


async def completed(client: Client, name: str, value: str) -> Completion:
    ref = TEMPLATE if name == "connection_id" else TEMPLATE.model_copy(update={"uri": "x"})
    return (await client.complete(ref=ref, argument={"name": name, "value": value})).completion


@pytest.mark.parametrize("era", ERAS)
async def test_connections_that_keep_a_state_are_completed_by_the_beginning_of_id_or_name(
    connect: Connect, era: str
) -> None:
    async with connect(era) as client:
        by_id = await completed(client, "connection_id", "Speak")
        by_name = await completed(client, "connection_id", "orders")
        by_middle = await completed(client, "connection_id", "inexpensive")
        stateless = await completed(client, "connection_id", "postgres")
        everything = await completed(client, "connection_id", "")
        argument = {"name": "connection_id", "value": "speak"}
        for_prompt = (await client.complete(ref=PROMPT, argument=argument)).completion

    assert by_id == by_name == for_prompt
    assert (by_id.values, by_id.total, by_id.has_more) == ([SYNCING], 1, False)
    assert (by_middle.values, stateless.values) == ([], [])
    assert len(everything.values) == everything.total == 7


async def test_completion_offers_at_most_100_values_and_tells_how_many_there_are(
    connect: Connect, sandbox: Sandbox
) -> None:
    for number in range(120):
        sandbox.add_connection(f"zinc_{number:03}", service="connector_sdk", schema="zinc")
    async with connect() as client:
        found = await completed(client, "connection_id", "zinc_")

    assert found.values == [f"zinc_{number:03}" for number in range(100)]
    assert (found.total, found.has_more) == (120, True)


async def test_updates_are_completed_by_the_beginning_of_their_id(
    connect: Connect,
) -> None:
    async with connect() as client:
        for cursor in range(3):
            await update(client, PAUSED, merge_patch={"cursor": cursor})
        await update(client, IDLE, merge_patch={"cursor": "2020"})

        of_one = await completed(client, "workflow_id", f"{PAUSED}:")
        begun = await completed(client, "workflow_id", IDLE[:4])
        unknown = await completed(client, "workflow_id", "%")
        everything = await completed(client, "workflow_id", "")

    assert set(of_one.values) == {f"{PAUSED}:{number}" for number in (1, 2, 3)}
    assert begun.values == [f"{IDLE}:1"]
    assert unknown.values == []
    assert set(everything.values) == {*of_one.values, *begun.values}


async def test_completion_offers_only_what_is_allowed(connect: Connect) -> None:
    async with connect() as client:
        await update(client, PAUSED, merge_patch={"cursor": "2020"})
        await update(client, IDLE, merge_patch={"cursor": "2020"})
    async with connect(FIVETRAN_STATE_ALLOWED_CONNECTIONS=IDLE) as client:
        connections = await completed(client, "connection_id", "")
        updates = await completed(client, "workflow_id", "")

    assert (connections.values, updates.values) == ([IDLE], [f"{IDLE}:1"])


async def test_an_argument_of_another_name_is_not_completed(connect: Connect) -> None:
    async with connect() as client:
        assert (await completed(client, "table", "or")).values == []


async def test_completion_that_cannot_work_says_why(connect: Connect) -> None:
    async with connect(FIVETRAN_API_KEY="") as client:
        with pytest.raises(MCPError) as caught:
            await completed(client, "connection_id", "")

    assert (caught.value.code, caught.value.data["code"]) == (INTERNAL_ERROR, "missing_credentials")


async def test_a_fault_of_the_program_shows_nothing_of_its_inside(
    connect: Connect, sandbox: Sandbox
) -> None:
    sandbox.fault("status", path="/connections$", status=200, body='{"code":"Success","data":{}}')
    async with connect() as client:
        with pytest.raises(MCPError) as caught:
            await completed(client, "connection_id", "")

    assert caught.value.code == INTERNAL_ERROR
    assert caught.value.message == "Error completing argument connection_id"
    assert caught.value.data is None
