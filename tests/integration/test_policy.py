"""The policy, by MCP."""

from pathlib import Path
from typing import Any

import pytest

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import IDLE, PAUSED, Watch, api_calls, call, refused, update, version_of
from tests.support.human import ACCEPT, Human
from tests.support.policies import policy, window

PATCH = {"cursor": "2020"}
ASKS = 'name = "rewinds"\nmax_back = "2d"'
FORBIDS = 'name = "frozen"\napproval = "forbidden"'
WAIVES = 'name = "small steps"\napproval = "not required"'
CLOSED = f'name = "office hours"\nwindows = ["{window(is_open=False)}"]'
OPEN = f'name = "office hours"\nwindows = ["{window(is_open=True)}"]'


def was_left_alone(sandbox: Sandbox, *connection_ids: str) -> bool:
    return not any("PATCH" in api_calls(sandbox, each) for each in connection_ids or (IDLE,))


async def test_a_plan_says_what_the_policy_will_ask_for(connect: Connect, tmp_path: Path) -> None:
    async with connect(**policy(tmp_path, ASKS)) as client:
        plan = await call(client, "update_state", connection_id=IDLE, merge_patch=PATCH)

    assert plan["status"] == "planned"
    assert 'The rule "rewinds" asks for approval because /cursor' in plan["message"]
    assert "To propose exactly this" in plan["message"]


async def test_what_a_rule_asks_for_is_proposed_also_with_the_version(
    connect: Connect, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with connect(**policy(tmp_path, ASKS)) as client:
        asked = await update(client, IDLE, merge_patch=PATCH)
        again = await update(client, IDLE, merge_patch=PATCH)
        other = await update(client, IDLE, merge_patch={"new_table": {"cursor": "2020"}})

    assert (asked["status"], asked["workflow_id"]) == ("proposed", again["workflow_id"])
    assert other["status"] == "updated"


async def test_a_repeated_key_finds_the_proposal_although_the_state_has_moved(
    connect: Connect, tmp_path: Path
) -> None:
    async with connect(**policy(tmp_path, ASKS)) as client:
        version = await version_of(client, IDLE)
        what = {"connection_id": IDLE, "merge_patch": PATCH, "expected_version": version}
        asked = await call(client, "update_state", **what, idempotency_key="mine")
        await update(client, IDLE, merge_patch={"new_table": 1})
        again = await call(client, "update_state", **what, idempotency_key="mine")

    assert (again["status"], again["workflow_id"]) == ("proposed", asked["workflow_id"])


async def test_a_user_is_not_asked_for_what_another_person_has_to_approve(
    connect: Connect, sandbox: Sandbox, tmp_path: Path
) -> None:
    human = Human(ACCEPT)
    async with connect(ask=human, **policy(tmp_path, ASKS)) as client:
        asked = await call(client, "update_state", connection_id=IDLE, merge_patch=PATCH)

    assert asked["status"] == "proposed"
    assert human.questions == []
    assert was_left_alone(sandbox)


async def test_what_is_forbidden_is_refused_in_the_plan_the_proposal_and_the_update(
    connect: Connect, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with connect(**policy(tmp_path, FORBIDS)) as client:
        version = await version_of(client, IDLE)
        what = {"connection_id": IDLE, "merge_patch": PATCH, "expected_version": version}
        plan = await call(client, "update_state", **what, dry_run=True)
        errors = [
            await refused(client, "update_state", **what),
            await refused(client, "update_state", **what, propose=True),
        ]

    assert plan["message"] == ('Nothing was written. The rule "frozen" forbids to change /cursor.')
    assert [error["code"] for error in errors] == ["not_allowed"] * 2
    assert all('The rule "frozen"' in error["message"] for error in errors)
    assert was_left_alone(sandbox)


async def test_outside_of_its_windows_a_change_is_only_proposed(
    connect: Connect, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with connect(**policy(tmp_path, CLOSED)) as client:
        version = await version_of(client, IDLE)
        what = {"connection_id": IDLE, "merge_patch": PATCH, "expected_version": version}
        error = await refused(client, "update_state", **what)
        asked = await call(client, "update_state", **what, propose=True)

    assert error["code"] == "not_allowed"
    assert window(is_open=False) in error["message"]
    assert asked["status"] == "proposed"
    assert was_left_alone(sandbox)


async def test_within_its_windows_a_change_is_made(
    connect: Connect, sandbox: Sandbox, tmp_path: Path
) -> None:
    watch = Watch(sandbox, IDLE)
    async with connect(**policy(tmp_path, OPEN)) as client:
        made = await update(client, IDLE, merge_patch=PATCH)

    assert made["status"] == "updated"
    watch.ended_with(watch.old | PATCH)


@pytest.mark.parametrize("waived", [True, False])
async def test_a_rule_waives_the_approval_of_always_but_not_the_version(
    connect: Connect, sandbox: Sandbox, tmp_path: Path, waived: bool
) -> None:
    rule = WAIVES if waived else f'{WAIVES}\npaths = ["/other"]'
    variables = {"FIVETRAN_STATE_CONFIRM": "always", **policy(tmp_path, rule)}
    async with connect(**variables) as client:
        planned = await call(client, "update_state", connection_id=IDLE, merge_patch=PATCH)
        assert was_left_alone(sandbox)
        made = await update(client, IDLE, merge_patch=PATCH)

    assert planned["status"] == "planned"
    assert made["status"] == ("updated" if waived else "proposed")


async def test_undo_and_copy_are_judged_by_what_they_change(
    connect: Connect, sandbox: Sandbox, tmp_path: Path
) -> None:
    forbidden = f'{FORBIDS}\npaths = ["/cursor"]\nwho = ["stdio"]'
    async with connect() as client:
        done = await update(client, IDLE, merge_patch=PATCH)
    since = len(sandbox.log)
    async with connect(**policy(tmp_path, forbidden)) as client:
        version = await version_of(client, IDLE)
        for source in ({"restore_from": done["workflow_id"]}, {"copy_from": PAUSED}):
            error = await refused(
                client, "update_state", connection_id=IDLE, expected_version=version, **source
            )
            assert 'The rule "frozen"' in error["message"]

    assert "PATCH" not in api_calls(sandbox, IDLE, since)


async def several(client: Any, **what: Any) -> dict[str, Any]:
    ids = {"connection_ids": [IDLE, PAUSED], "merge_patch": PATCH}
    plan = await call(client, "update_states", **ids, **what)
    return ids | what | {"expected_version": plan["version"], "wait_seconds": 50}


async def test_a_group_is_proposed_if_one_of_its_connections_needs_approval(
    connect: Connect, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with connect(**policy(tmp_path, f'{ASKS}\nconnections = ["{IDLE}"]')) as client:
        plan = await call(client, "update_states", connection_ids=[IDLE, PAUSED], merge_patch=PATCH)
        asked = await call(client, "update_states", **await several(client))

    assert 'The rule "rewinds" asks for approval' in plan["message"]
    assert asked["status"] == "proposed"
    assert was_left_alone(sandbox, IDLE, PAUSED)


async def test_a_group_is_refused_if_one_of_its_connections_is_forbidden(
    connect: Connect, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with connect(**policy(tmp_path, f'{FORBIDS}\nconnections = ["{PAUSED}"]')) as client:
        error = await refused(client, "update_states", **await several(client))
        assert was_left_alone(sandbox, IDLE, PAUSED)
        alone = await call(client, "update_states", **await several(client, independent=True))

    assert error["code"] == "not_allowed"
    assert 'The rule "frozen"' in error["message"]
    assert alone["counts"] == {"updated": 1, "not_allowed": 1}
    assert was_left_alone(sandbox, PAUSED)


async def test_a_group_waits_for_the_windows_of_each_of_its_connections(
    connect: Connect, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with connect(**policy(tmp_path, f'{CLOSED}\nconnections = ["{PAUSED}"]')) as client:
        error = await refused(client, "update_states", **await several(client))

    assert 'The rule "office hours"' in error["message"]
    assert was_left_alone(sandbox, IDLE, PAUSED)
