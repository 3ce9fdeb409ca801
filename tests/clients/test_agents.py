"""Agent libraries that know nothing of us take the tools as they are, and can work with them."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from fivetran_state.sandbox import Sandbox
from tests.calls import IDLE, ROOT, Watch, state_of
from tests.clients import libraries
from tests.clients.libraries import Agent

PATCH = {"cursor": "2020"}

Start = Callable[[], AbstractContextManager[Agent]]


@pytest.fixture(params=["langchain", "openai"])
def start(request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path) -> Start:
    server = {"command": sys.executable, "args": [str(ROOT / "server.py")], "env": environment}
    return partial(libraries.running, request.param, server, tmp_path)


def test_a_model_that_has_to_fill_in_every_argument_may_leave_texts_empty(start: Start) -> None:
    """As with strict schemas, where every argument is required and none may be null."""
    with start() as agent:
        tools = {tool["name"]: tool for tool in agent.tools}
        for name, least in [
            ("list_connections", {}),
            ("get_state", {"connection_id": IDLE}),
            ("list_workflows", {"connection_id": IDLE}),
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
