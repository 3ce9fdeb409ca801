"""proposals, approve, reject, and what they do to update, status and cancel."""

from pathlib import Path

import pytest

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import IDLE, PAUSED, Watch, api_calls, call
from tests.support.shell import Shell
from tests.support.warm import warm_terminal

REWIND = ("--merge-patch", '{"cursor":"2020"}')
PATCH = {"cursor": "2020"}
REFUSED, MAYBE_CHANGED, PROPOSED = 4, 5, 6


async def proposed_by_an_assistant(connect: Connect, *, group: bool = False) -> str:
    async with connect() as client:
        what = {"merge_patch": PATCH, "propose": True, "reason": "A bad deploy."}
        asked = await (
            call(client, "update_states", connection_ids=[IDLE, PAUSED], **what)
            if group
            else call(client, "update_state", connection_id=IDLE, **what)
        )
    return str(asked["workflow_id"])


@pytest.mark.slow
@pytest.mark.parametrize("group", [False, True], ids=["one", "group"])
async def test_a_person_at_the_terminal_approves(
    connect: Connect, environment: dict[str, str], sandbox: Sandbox, tmp_path: Path, group: bool
) -> None:
    watches = [Watch(sandbox, each) for each in (IDLE, *([PAUSED] if group else []))]
    proposal = await proposed_by_an_assistant(connect, group=group)
    with warm_terminal(("proposals",), environment, tmp_path) as listed:
        listed.wait()
    with warm_terminal(("approve", proposal), environment, tmp_path) as screen:
        screen.wait_for("Type yes to agree:")
        assert "PATCH" not in api_calls(sandbox, IDLE)
        screen.type("yes\n")
        assert screen.wait() == 0, screen.screen

    assert proposal in listed.screen
    assert 'stdio asks for this: "A bad deploy."' in screen.screen
    assert "/cursor" in screen.screen
    for watch in watches:
        watch.ended_with(watch.old | PATCH)


@pytest.mark.slow
async def test_the_exit_code_tells_how_what_was_approved_has_ended(
    connect: Connect, environment: dict[str, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    proposal = await proposed_by_an_assistant(connect)
    sandbox.fault("wrong_state", body='{"cursor":"another"}')
    with warm_terminal(("approve", proposal), environment, tmp_path) as screen:
        screen.wait_for("Type yes to agree:")
        screen.type("yes\n")
        assert screen.wait() == MAYBE_CHANGED

    assert "the state from before is back in place" in screen.screen


@pytest.mark.slow
async def test_a_person_who_says_no_leaves_the_proposal(
    connect: Connect, environment: dict[str, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    proposal = await proposed_by_an_assistant(connect)
    with warm_terminal(("approve", proposal), environment, tmp_path) as screen:
        screen.wait_for("Type yes to agree:")
        screen.type("no\n")
        assert screen.wait() == REFUSED
    with warm_terminal(("reject", proposal, "--reason", "No."), environment, tmp_path) as screen:
        assert screen.wait() == 0
    with warm_terminal(("status", proposal), environment, tmp_path) as screen:
        assert screen.wait() == 1

    assert "rejected by shell:" in screen.screen
    assert "PATCH" not in api_calls(sandbox, IDLE)


@pytest.mark.slow
def test_a_job_proposes_and_cannot_approve(shell: Shell, sandbox: Sandbox) -> None:
    asked = shell("update", IDLE, *REWIND, "--propose", "--json")
    proposal = asked.object["workflow_id"]
    approving = shell("approve", proposal, "--json")
    rejecting = shell("reject", proposal, "--json")
    waiting = shell.done("proposals", "--json").objects
    status = shell("status", proposal, "--json")
    withdrawn = shell.done("cancel", proposal, "--json").object

    assert (asked.code, asked.object["status"]) == (PROPOSED, "proposed")
    assert (approving.code, rejecting.code) == (REFUSED, REFUSED)
    assert approving.error["code"] == "not_confirmed"
    assert [each["workflow_id"] for each in waiting] == [proposal]
    assert (status.code, status.object["status"]) == (PROPOSED, "proposed")
    assert withdrawn["status"] == "withdrawn"
    assert shell.done("proposals", "--json").objects == []
    assert "PATCH" not in api_calls(sandbox, IDLE)


@pytest.mark.slow
def test_with_always_a_job_only_proposes(
    shell: Shell, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIVETRAN_STATE_CONFIRM", "always")
    version = shell.version_of(IDLE)
    one = shell("update", IDLE, *REWIND, "--expected-version", version, "--json")
    many = shell("update-many", IDLE, PAUSED, *REWIND, "--json")
    planned = shell.done("update", IDLE, *REWIND, "--dry-run", "--json").object

    assert (one.code, one.object["status"]) == (PROPOSED, "proposed")
    assert (many.code, many.object["status"]) == (PROPOSED, "proposed")
    assert planned["status"] == "planned"
    assert "PATCH" not in api_calls(sandbox, IDLE)


@pytest.mark.slow
async def test_with_always_a_person_at_the_terminal_changes(
    environment: dict[str, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    watch = Watch(sandbox, IDLE)
    always = environment | {"FIVETRAN_STATE_CONFIRM": "always"}
    with warm_terminal(("update", IDLE, *REWIND), always, tmp_path) as screen:
        screen.wait_for("Type yes to agree:")
        screen.type("yes\n")
        assert screen.wait() == 0, screen.screen
    watch.ended_with(watch.old | PATCH)
