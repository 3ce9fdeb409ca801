"""Agent libraries that know nothing of us use the tools as they are."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from fivetran_state.sandbox import Sandbox
from tests.clients import libraries
from tests.clients.libraries import Agent
from tests.support.calls import IDLE, ROOT, Watch, state_of

pytestmark = pytest.mark.slow

PATCH = {"cursor": "2020"}

Start = Callable[[], AbstractContextManager[Agent]]


LIBRARIES = ["langchain", "openai"]
MORE = ["crewai", "google", "llamaindex", "pydantic", "smolagents", "strands"]
TOOLS = {
    *("list_connections", "get_state", "update_state", "update_states", "cancel_update"),
    *("workflow_status", "state_history"),
}


@pytest.fixture(params=LIBRARIES)
def start(request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path) -> Start:
    server = {"command": sys.executable, "args": [str(ROOT / "server.py")], "env": environment}
    return partial(libraries.running, request.param, server, tmp_path)


def test_a_model_that_has_to_fill_in_every_argument_may_leave_texts_empty(start: Start) -> None:
    """This happens with strict schemas, where every argument is required and none may be null."""
    with start() as agent:
        tools = {tool["name"]: tool for tool in agent.tools}
        for name, least in [
            ("list_connections", {}),
            ("get_state", {"connection_id": IDLE}),
            ("state_history", {"connection_id": IDLE}),
        ]:
            properties = tools[name]["parameters"]["properties"]
            filled_in = {key: schema.get("default", "") for key, schema in properties.items()}

            assert tools[name].get("strict", True)
            answer = agent.call(name, filled_in | least)
            assert {**answer, "path": None} == {**agent.call(name, least), "path": None}


def test_an_agent_is_shown_a_plan_applies_it_and_is_told_when_it_is_out_of_date(
    start: Start, sandbox: Sandbox
) -> None:
    watch = Watch(sandbox, IDLE)
    change = {"connection_id": IDLE, "merge_patch": PATCH}
    with start() as agent:
        plan = agent.call("update_state", change)
        untouched = state_of(sandbox, IDLE)
        seen = {"expected_version": plan["version_before"]}
        update = agent.call("update_state", change | seen)
        error = agent.refused("update_state", {**change, **seen, "merge_patch": {"cursor": "2021"}})

    assert (plan["status"], untouched) == ("planned", watch.old)
    assert (update["status"], update["version_after"]) == ("updated", plan["version_after"])
    assert (error["code"], error["current_version"]) == ("conflict", update["version_after"])
    assert error["hint"]
    watch.ended_with(watch.old | PATCH)


@pytest.mark.parametrize(
    "start",
    [*LIBRARIES, *(pytest.param(library, marks=pytest.mark.slow) for library in MORE)],
    indirect=True,
)
def test_every_tool_survives_and_a_model_that_keeps_to_the_schemas_does_the_main_job(
    start: Start, sandbox: Sandbox
) -> None:
    watch = Watch(sandbox, IDLE)
    with start() as agent:
        schemas = {tool["name"]: tool["parameters"] for tool in agent.tools}
        assert schemas.keys() == TOOLS
        assert [each for each in _branches(schemas["update_state"]) if _is_closed(each)] == []
        # In strict mode, pydantic-ai closes every object, so a change has to be JSON text.
        schemas |= {tool["name"]: tool["strictest"] for tool in agent.tools if "strictest" in tool}

        def call(tool: str, **wanted: Any) -> Any:
            return agent.call(tool, _filled_in(schemas[tool], wanted))

        found = call("list_connections", limit=50)
        seen = call("get_state", connection_id=IDLE, max_bytes=20_000)
        update = call(
            "update_state",
            connection_id=IDLE,
            merge_patch=PATCH,
            expected_version=seen["version"],
            wait_seconds=50,
        )
        status = call("workflow_status", workflow_id=update["workflow_id"])
        history = call("state_history", connection_id=IDLE)
        too_late = agent.refused(
            "cancel_update",
            _filled_in(schemas["cancel_update"], {"workflow_id": update["workflow_id"]}),
        )

    assert IDLE in {each["id"] for each in found["connections"]}
    assert seen["state"] == watch.old
    assert (update["status"], status["status"]) == ("updated", "updated")
    assert [
        each["workflow_id"]
        for each in [each for each in history["entries"] if "workflow_id" in each]
    ] == [update["workflow_id"]]
    assert too_late["code"] == "too_late_to_cancel"
    watch.ended_with(watch.old | PATCH)


def _filled_in(schema: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The wanted arguments, and the shortest valid value for every other required one."""
    values = {}
    for name, described in schema["properties"].items():
        if name in wanted:
            choices = [wanted[name], json.dumps(wanted[name])]
        elif name in schema.get("required", []):
            choices = [None, "", described.get("default"), False, 0, 1]
        else:
            continue
        validator = jsonschema.Draft202012Validator(described)
        values[name] = next(choice for choice in choices if validator.is_valid(choice))
    jsonschema.validate(values, schema)
    return values


def _branches(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The types that the arguments for a change may have."""
    return [
        branch
        for name in ("new_state", "merge_patch")
        for branch in schema["properties"][name].get("anyOf", [])
    ]


def _is_closed(schema: dict[str, Any]) -> bool:
    return schema.get("additionalProperties") is False
