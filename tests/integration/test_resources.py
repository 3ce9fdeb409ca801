"""Resources: their content and refusals, notifications of ended updates, and completion of ids."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    Completion,
    PromptReference,
    ResourceTemplateReference,
    ResourceUpdatedNotification,
    TextResourceContents,
)

from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.conftest import ERAS, Connect
from tests.support.calls import (
    API_KEY,
    API_SECRET,
    EXACT,
    IDLE,
    LARGE,
    PAUSED,
    STATELESS,
    SYNCING,
    call,
    update,
    updates_in,
)
from tests.support.postgres import Postgres
from tests.support.processes import noticed_once_more, running
from tests.support.updates import BEFORE, start_update, start_update_that_hangs

pytestmark = pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")


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
    assert [each.uri for each in resources] == ["ui://fivetran-state/app"]
    assert capabilities.resources is not None
    assert capabilities.resources.subscribe is True
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
        assert shown == await call(client, "state_history", connection_id=IDLE)
        assert updates_in(shown)[0]["workflow_id"] == workflow_id

        shown = await read(client, workflow_uri(workflow_id))
        assert shown == await call(client, "workflow_status", workflow_id=workflow_id)
        assert shown["reason"] == "bad rows"


async def changed_together(client: Client, *ids: str) -> str:
    """Changes these as a group; returns its id."""
    change = {"connection_ids": list(ids), "merge_patch": {"cursor": "2020"}}
    plan = await call(client, "update_states", **change)
    seen = {"expected_version": plan["version"], "wait_seconds": 50}
    made = await call(client, "update_states", **change, **seen)
    return str(made["workflow_id"])


@pytest.mark.parametrize("era", ERAS)
async def test_a_group_is_shown_as_by_workflow_status(connect: Connect, era: str) -> None:
    async with connect(era) as client:
        group = await changed_together(client, IDLE, PAUSED)

        shown = await read(client, workflow_uri(group))
        assert shown == await call(client, "workflow_status", workflow_id=group)
        assert shown["counts"] == {"updated": 2}


@pytest.mark.slow
async def test_a_large_group_comes_with_few_of_its_updates(
    connect: Connect, sandbox: Sandbox
) -> None:
    ids = [f"ferry_{at:02}" for at in range(30)]
    for connection_id in ids:
        sandbox.add_connection(connection_id, state="{}", paused=True)
    async with connect() as client:
        shown = await read(client, workflow_uri(await changed_together(client, *ids)))

    assert (shown["total"], len(shown["updates"])) == (30, 20)


async def test_a_group_with_a_connection_that_is_not_allowed_is_not_shown_or_completed(
    connect: Connect,
) -> None:
    async with connect() as client:
        group = await changed_together(client, IDLE, PAUSED)
    async with connect(FIVETRAN_STATE_ALLOWED_CONNECTIONS=IDLE) as client:
        error = await unreadable(client, workflow_uri(group))
        found = [await completed(client, "workflow_id", typed) for typed in (group[:12], "")]

    assert (error.code, error.data["code"]) == (INVALID_PARAMS, "not_allowed")
    assert [each.values for each in found] == [[], [f"{IDLE}:1"]]


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


# Who is told of an ended update


class Ear:
    """Receives notifications of updated resources, in either era."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, message: object) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            self._heard.put_nowait(message.params.uri)

    async def hear(self, times: int = 1) -> list[str]:
        """The next resources that were notified; fails the test after 30 s."""
        return [await asyncio.wait_for(self._heard.get(), 30) for _ in range(times)]


@asynccontextmanager
async def listening(client: Client, *uris: str) -> AsyncIterator[None]:
    if client.mode == "legacy":
        for uri in uris:
            await client.subscribe_resource(uri)
        yield
        for uri in uris:
            await client.unsubscribe_resource(uri)
    else:
        async with client.listen(resource_subscriptions=uris) as subscription:
            assert subscription.honored.resource_subscriptions == list(uris)
            yield


@pytest.mark.parametrize("era", ERAS)
async def test_listeners_of_a_connection_and_of_its_update_are_told_when_it_has_ended(
    connect: Connect, era: str
) -> None:
    ear = Ear()
    uris = {state_uri(IDLE), history_uri(IDLE), workflow_uri(f"{IDLE}:2")}
    async with (
        connect(era, on_message=ear) as client,
        listening(client, *uris, state_uri(PAUSED), workflow_uri(f"{IDLE}:4")),
    ):
        await update(client, IDLE, merge_patch={"cursor": "2020"})
        assert set(await ear.hear(2)) == {state_uri(IDLE), history_uri(IDLE)}
        assert (await read(client, state_uri(IDLE)))["state"]["cursor"] == "2020"

        await update(client, IDLE, merge_patch={"cursor": "2021"})
        assert set(await ear.hear(3)) == uris

        await update(client, PAUSED, merge_patch={"cursor": "2022"})
        assert await ear.hear() == [state_uri(PAUSED)]


@pytest.mark.parametrize("era", ERAS)
async def test_who_listens_no_more_is_told_no_more(connect: Connect, era: str) -> None:
    ear = Ear()
    async with connect(era, on_message=ear) as client:
        async with listening(client, state_uri(PAUSED)):
            async with listening(client, state_uri(IDLE)):
                pass
            await update(client, IDLE, merge_patch={"cursor": "2020"})
            # The second is notified after all updates that ended before the first.
            await update(client, PAUSED, merge_patch={"cursor": "2020"})
            await update(client, PAUSED, merge_patch={"cursor": "2021"})

            assert await ear.hear(2) == [state_uri(PAUSED)] * 2
        await update(client, PAUSED, merge_patch={"cursor": "2022"})
        async with listening(client, state_uri(IDLE)):
            await update(client, IDLE, merge_patch={"cursor": "2021"})
            assert await ear.hear() == [state_uri(IDLE)]


@pytest.mark.slow
@pytest.mark.parametrize("era", ERAS)
async def test_an_update_of_another_server_on_the_same_database_is_told(
    connect: Connect, environment: dict[str, str], tmp_path: Path, era: str
) -> None:
    ear = Ear()
    async with (
        running(environment, tmp_path) as other,
        connect(era, on_message=ear) as client,
        listening(client, state_uri(IDLE)),
    ):
        done = await update(other.client, IDLE, merge_patch={"cursor": "2020"})

        assert await ear.hear() == [state_uri(IDLE)]
        assert (await read(client, state_uri(IDLE)))["version"] == done["version_after"]


async def test_an_update_that_outlived_its_server_is_told_when_it_has_been_completed(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    ear = Ear()
    async with connect(on_message=ear) as client, AsyncExitStack() as stack:
        other = await stack.enter_async_context(running(environment, tmp_path))
        workflow_id = await start_update_that_hangs(other.client, sandbox, BEFORE, at_call=4)
        async with listening(client, workflow_uri(workflow_id)):
            await other.kill()

            assert await ear.hear() == [workflow_uri(workflow_id)]
            assert (await read(client, workflow_uri(workflow_id)))["status"] == "updated"


@pytest.mark.slow
async def test_numbers_that_another_account_has_used_do_not_keep_listeners_waiting(
    connect: Connect, environment: dict[str, str], tmp_path: Path
) -> None:
    ear = Ear()
    other = Sandbox(api_key=API_KEY, api_secret=API_SECRET)
    other.api.account_id = "other_account"
    with SandboxServer(other) as door:
        async with (
            running(environment | {"FIVETRAN_API_URL": door.url}, tmp_path) as theirs,
            connect(on_message=ear) as client,
            listening(client, workflow_uri(f"{IDLE}:2"), workflow_uri(f"{IDLE}:3")),
        ):
            await start_update_that_hangs(theirs.client, other, BEFORE, at_call=4)
            done = [await update(client, IDLE, merge_patch={"cursor": n}) for n in range(2)]

            assert [each["workflow_id"] for each in done] == [f"{IDLE}:2", f"{IDLE}:3"]
            assert await ear.hear(2) == [workflow_uri(f"{IDLE}:2"), workflow_uri(f"{IDLE}:3")]
            # Otherwise it would leave its update to a process without Fivetran.
            await theirs.kill()
    other.close()


@pytest.mark.slow
async def test_listening_outlasts_a_database_that_is_away(
    on_postgres: dict[str, str], postgres: Postgres, tmp_path: Path
) -> None:
    async with (
        running(on_postgres, tmp_path) as server,
        server.client.listen(resource_subscriptions=[state_uri(IDLE)]) as subscription,
    ):
        with postgres.stopped():
            await noticed_once_more(tmp_path)
        workflow_id = await start_update(server.client)

        event = await asyncio.wait_for(anext(subscription), 30)
        assert event.uri == state_uri(IDLE)  # type: ignore[union-attr]
        shown = await read(server.client, workflow_uri(workflow_id))
        assert shown["status"] == "updated"


NOT_TO_BE_HEARD = [
    state_uri(PAUSED),
    workflow_uri(f"{PAUSED}:1"),
    state_uri("etc%2Fpasswd"),
    workflow_uri("no_number"),
    "file:///etc/passwd",
]


@pytest.mark.parametrize("uri", NOT_TO_BE_HEARD)
async def test_listening_to_what_is_not_allowed_or_no_resource_is_refused_to_older_clients(
    connect: Connect, uri: str
) -> None:
    async with connect("legacy", FIVETRAN_STATE_ALLOWED_CONNECTIONS=IDLE) as client:
        with pytest.raises(MCPError) as caught:
            await client.subscribe_resource(uri)

    assert caught.value.code == INVALID_PARAMS
    assert caught.value.data["code"] in ("not_allowed", "invalid_request")


async def test_listening_is_acknowledged_only_for_what_is_allowed_and_a_resource(
    connect: Connect,
) -> None:
    uris = [*NOT_TO_BE_HEARD, state_uri(IDLE)]
    async with (
        connect(FIVETRAN_STATE_ALLOWED_CONNECTIONS=IDLE) as client,
        client.listen(resource_subscriptions=uris, tools_list_changed=True) as subscription,
    ):
        assert subscription.honored.resource_subscriptions == [state_uri(IDLE)]
        assert subscription.honored.tools_list_changed is True


async def test_one_listener_has_at_most_100_resources(connect: Connect) -> None:
    ear = Ear()
    uris = [workflow_uri(f"{IDLE}:{number}") for number in range(1, 102)]
    async with (
        connect() as client,
        client.listen(resource_subscriptions=uris) as subscription,
    ):
        assert subscription.honored.resource_subscriptions == uris[:100]
    async with connect("legacy", on_message=ear) as client:
        for uri in [*uris[:100], uris[0]]:
            await client.subscribe_resource(uri)
        with pytest.raises(MCPError, match="This listener listens to 100") as caught:
            await client.subscribe_resource(uris[100])
        await client.unsubscribe_resource(uris[99])
        await client.subscribe_resource(uris[100])
        await update(client, IDLE, merge_patch={"cursor": "2020"})
        assert await ear.hear() == [uris[0]]

    assert (caught.value.code, caught.value.data["code"]) == (INVALID_PARAMS, "invalid_request")


@pytest.mark.parametrize("era", ERAS)
async def test_listening_that_cannot_work_is_refused(connect: Connect, era: str) -> None:
    async with connect(era, FIVETRAN_API_KEY="") as client:
        with pytest.raises(MCPError) as caught:
            async with listening(client, state_uri(IDLE)):
                pass

    assert (caught.value.code, caught.value.data["code"]) == (INTERNAL_ERROR, "missing_credentials")


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
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    async with connect(era) as client:
        by_id = await completed(client, "connection_id", "Speak")
        by_name = await completed(client, "connection_id", "orders")
        by_middle = await completed(client, "connection_id", "inexpensive")
        stateless = await completed(client, "connection_id", "postgres")
        everything = await completed(client, "connection_id", "")
        argument = {"name": "connection_id", "value": "speak"}
        for_prompt = (await client.complete(ref=PROMPT, argument=argument)).completion

    assert by_id == for_prompt
    assert (by_id.values, by_id.total, by_id.has_more) == ([SYNCING], 1, False)
    assert by_name.values == [SYNCING, "twin_harvest"]
    assert (by_middle.values, stateless.values) == ([], [])
    keeping = [each.id for each in sandbox.world.connections() if each.keeps_state]
    assert everything.values == keeping
    assert everything.total == len(keeping)


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


async def test_groups_are_completed_by_the_beginning_of_their_id_or_their_kind(
    connect: Connect,
) -> None:
    async with connect() as client:
        first = await changed_together(client, IDLE, PAUSED)
        await update(client, PAUSED, merge_patch={"cursor": "2021"})
        second = await changed_together(client, IDLE, EXACT)

        kind = await completed(client, "workflow_id", "tog")
        begun = await completed(client, "workflow_id", first[:20])
        whole = await completed(client, "workflow_id", second)
        none = await completed(client, "workflow_id", "together:x")
        everything = await completed(client, "workflow_id", "")

    assert sorted(kind.values) == sorted([first, second])
    assert first in begun.values
    assert whole.values == [second]
    assert none.values == []
    assert {first, second, f"{PAUSED}:2"} <= set(everything.values)


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


async def test_an_answer_of_fivetran_that_cannot_be_used_is_explained(
    connect: Connect, sandbox: Sandbox
) -> None:
    sandbox.fault("status", path="/connections$", status=200, body='{"code":"Success","data":{}}')
    async with connect() as client:
        with pytest.raises(MCPError) as caught:
            await completed(client, "connection_id", "")

    assert caught.value.code == INTERNAL_ERROR
    assert caught.value.data["code"] == "fivetran_unavailable"
