"""Several connections are changed as a group: all of them or none, in spite of failures and deaths."""

import asyncio
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from fivetran_state.sandbox import LoggedRequest, Sandbox
from fivetran_state.sandbox.faults import FaultKind
from tests.conftest import Serve
from tests.support.calls import (
    EMPTY,
    IDLE,
    PAUSED,
    RESCHEDULED,
    STATELESS,
    SYNCING,
    Watch,
    arrival,
    is_pause,
    is_resume,
    state_of,
    sync_runs_on,
    until,
)
from tests.support.commands import finish
from tests.support.http_server import ForkedServer, http_forked
from tests.support.rest import ANY, get, post
from tests.support.updates import AFTER, BEFORE

ALL = [IDLE, PAUSED, RESCHEDULED]
BODY = ANY | {"connection_ids": ALL, "merge_patch": {"cursor": "2020"}}
MISSING = "not_there"


class Watched:
    """The connections of a group, watched from now on."""

    def __init__(self, sandbox: Sandbox, names: list[str] = ALL) -> None:
        self._sandbox = sandbox
        self._since = len(sandbox.log)
        self._watches = {name: Watch(sandbox, name) for name in names}

    def were_all_changed(self) -> None:
        """All have the new state, and none was resumed before the last one was written."""
        for watch in self._watches.values():
            watch.ended_with(watch.old | {"cursor": "2020"})
        log = self._sandbox.log[self._since :]
        last = max(r.index for r in log if is_write_of(r, r.connection_id))
        assert all(r.index > last for r in log if is_resume(r))

    def are_all_as_before(self, *, but: str | None = None) -> None:
        """All have their earlier state, and none was resumed before its state was put back."""
        for name, watch in self._watches.items():
            if name == but:
                continue
            watch.ended_with(watch.old)
            log = [r for r in self._sandbox.log[self._since :] if r.connection_id == name]
            last = max((r.index for r in log if is_write_of(r, name) and r.applied), default=0)
            assert all(r.index > last for r in log if is_resume(r))


def is_write_of(request: LoggedRequest, connection_id: str | None) -> bool:
    return (
        request.method == "PATCH"
        and request.connection_id == connection_id
        and request.path.endswith("/state")
    )


async def test_all_are_changed_and_resumed_together(http: Serve, sandbox: Sandbox) -> None:
    watched = Watched(sandbox)
    async with http() as server:
        answer = await post(server.client, "/state/update-multiple", BODY)
        listed = [
            (await get(server.client, "/workflows", connection_id=name))["workflows"]
            for name in ALL
        ]

    assert list(answer) == ALL
    assert {update["status"] for update in answer.values()} == {"updated"}
    assert [each[0]["workflow_id"] for each in listed] == [f"{name}:1" for name in ALL]
    watched.were_all_changed()
    writes = [r.connection_id for r in sandbox.log if is_write_of(r, r.connection_id)]
    assert sorted(map(str, writes)) == sorted(ALL)


async def test_what_is_as_wanted_stays_and_is_held_so(http: Serve, sandbox: Sandbox) -> None:
    sandbox.set_state(IDLE, '{"cursor":"2020"}')
    async with http() as server:
        workflow_id = await held(server, sandbox, ALL)
        was_held = sandbox.connection(IDLE).paused
        sandbox.finish_sync(SYNCING)
        ended = await get(server.client, f"/workflows/{workflow_id}", wait=50)

    assert was_held
    assert [each["status"] for each in ended["updates"]] == ["unchanged", *["updated"] * 3]
    assert not sandbox.connection(IDLE).paused
    assert not [each for each in sandbox.log if is_write_of(each, IDLE)]


async def test_one_state_is_copied_to_several(http: Serve, sandbox: Sandbox) -> None:
    body = {"connection_ids": [IDLE, RESCHEDULED], "copy_from": PAUSED}
    async with http() as server:
        await post(server.client, "/state/update-multiple", ANY | body)

    assert state_of(sandbox, IDLE) == state_of(sandbox, RESCHEDULED) == state_of(sandbox, PAUSED)


@pytest.mark.parametrize(
    ("third", "code", "status"),
    [
        (MISSING, "connection_not_found", 404),
        (STATELESS, "state_not_kept", 422),
        (EMPTY, "no_state_yet", 404),
    ],
)
async def test_what_cannot_work_touches_none(
    http: Serve, sandbox: Sandbox, third: str, code: str, status: int
) -> None:
    watched = Watched(sandbox)
    body = BODY | {"connection_ids": [IDLE, PAUSED, third]}
    async with http() as server:
        failed = await post(server.client, "/state/update-multiple", ANY | body, status=status)
        listed = await get(server.client, "/workflows")

    assert failed["code"] == code
    assert "workflow_id" not in failed
    assert listed["workflows"] == []
    assert {each.method for each in sandbox.log} == {"GET"}
    watched.are_all_as_before()


@pytest.mark.slow
async def test_a_failure_puts_the_others_back(http: Serve, sandbox: Sandbox) -> None:
    watched = Watched(sandbox, [*ALL, SYNCING])
    async with http() as server:
        workflow_id = await held(server, sandbox, ALL)
        refuse_the_last(sandbox)
        ended = await get(server.client, f"/workflows/{workflow_id}", wait=50)
        first = await get(server.client, f"/workflows/{IDLE}:1")

    assert (ended["status"], ended["error"]["code"]) == ("failed", "forbidden")
    assert [update["status"] for update in ended["updates"]] == ["failed"] * 4
    assert first["error"]["code"] == "undone"
    assert "undo" in [step["name"] for step in first["steps"]]
    watched.are_all_as_before()


async def test_a_failure_is_the_answer_of_who_waits_for_it(http: Serve, sandbox: Sandbox) -> None:
    watched = Watched(sandbox)
    sandbox.fault("status", method="PATCH", path=f"/{RESCHEDULED}/state$", status=403)
    async with http() as server:
        failed = await post(server.client, "/state/update-multiple", BODY, status=403)

    assert failed["code"] == "forbidden"
    assert [update["status"] for update in failed["updates"]] == ["failed"] * 3
    watched.are_all_as_before()


async def test_a_failed_verification_puts_all_back(http: Serve, sandbox: Sandbox) -> None:
    watched = Watched(sandbox)
    mangled = '{"cursor":"mangled"}'
    sandbox.fault("wrong_state", method="PATCH", path=f"/{RESCHEDULED}/state$", body=mangled)
    async with http() as server:
        failed = await post(server.client, "/state/update-multiple", BODY, status=502)

    assert failed["code"] == "verification_failed"
    watched.are_all_as_before()


async def test_a_sync_that_does_not_end_puts_all_back(http: Serve, sandbox: Sandbox) -> None:
    sandbox.add_connection("slow", state='{"a":1}', sync_seconds=7200, drain_seconds=3600)
    sandbox.start_sync("slow")
    watched = Watched(sandbox)
    body = BODY | {"connection_ids": [*ALL, "slow"]}
    async with http(FIVETRAN_STATE_SYNC_WAIT="0.1") as server:
        failed = await post(server.client, "/state/update-multiple", ANY | body, status=409)

    assert failed["code"] == "sync_still_running"
    watched.are_all_as_before()
    assert state_of(sandbox, "slow") == {"a": 1}
    assert sandbox.connection("slow").paused is False


async def test_with_an_update_of_somebody_else_in_the_way_none_is_touched(
    http: Serve, sandbox: Sandbox
) -> None:
    sync_runs_on(sandbox)
    watched = Watched(sandbox)
    async with http() as server:
        await post(
            server.client,
            "/state/update",
            {"connection_id": SYNCING, "new_state": {}, "expected_version": "*"},
            status=202,
            Prefer="respond-async",
        )
        body = BODY | {"connection_ids": [*ALL, SYNCING]}
        failed = await post(server.client, "/state/update-multiple", ANY | body, status=409)
        await post(server.client, f"/workflows/{SYNCING}:1/cancel", "")

    assert failed["code"] == "update_in_progress"
    watched.are_all_as_before()
    assert not [each for each in sandbox.log if each.connection_id in ALL and is_pause(each)]


async def held(server: Any, sandbox: Sandbox, names: list[str]) -> str:
    """Starts a change of these and of a connection with a running sync; its id, when the others are
    held."""
    sync_runs_on(sandbox)
    body = BODY | {"connection_ids": [*names, SYNCING]}
    started = await post(
        server.client, "/state/update-multiple", ANY | body, status=202, Prefer="respond-async"
    )
    await arrival(sandbox, lambda r: r.connection_id == SYNCING and is_pause(r))
    workflow_id = str(started["workflow_id"])

    async def others_are_held() -> bool:
        group = await get(server.client, f"/workflows/{workflow_id}")
        phases = {each["connection_id"]: each.get("phase") for each in group["updates"]}
        return all(phases.get(name) == "hold" for name in names)

    await until(others_are_held)
    return workflow_id


def refuse_the_last(sandbox: Sandbox) -> None:
    """Ends the sync that the group of `held` waits for; that connection cannot be written then."""
    sandbox.fault("status", method="PATCH", path=f"/{SYNCING}/state$", status=403)
    sandbox.finish_sync(SYNCING)


@pytest.mark.slow
async def test_while_one_is_waited_for_the_others_are_held_and_say_so(
    http: Serve, sandbox: Sandbox
) -> None:
    async with http() as server:
        workflow_id = await held(server, sandbox, ALL)
        running = await get(server.client, f"/workflows/{workflow_id}")
        one = await get(server.client, f"/workflows/{IDLE}:1")
        sandbox.finish_sync(SYNCING)
        ended = await get(server.client, f"/workflows/{workflow_id}", wait=50)

    assert running["status"] == "running"
    assert [each["connection_id"] for each in running["updates"]] == [*ALL, SYNCING]
    assert (one["phase"], one["paused_by_update"]) == ("hold", True)
    assert ended["status"] == "updated"
    assert state_of(sandbox, SYNCING)["cursor"] == "2020"
    assert [sandbox.connection(name).paused for name in [*ALL, SYNCING]] == [
        False,
        True,
        False,
        False,
    ]


@pytest.mark.slow
async def test_what_somebody_else_has_written_meanwhile_is_left_and_reported(
    http: Serve, sandbox: Sandbox
) -> None:
    watched = Watched(sandbox)
    foreign = {"cursor": "by somebody else"}
    async with http() as server:
        workflow_id = await held(server, sandbox, ALL)
        sandbox.set_state(PAUSED, json.dumps(foreign))
        cancelled = await server.client.post(
            f"/workflows/{workflow_id}/cancel", headers={"Content-Type": "application/json"}
        )
        ended = await get(server.client, f"/workflows/{workflow_id}", wait=50)

    assert cancelled.json()["code"] == "too_late_to_cancel"
    assert ended["error"]["code"] == "rollback_failed"
    assert "somebody" in ended["error"]["message"].lower()
    assert state_of(sandbox, PAUSED) == foreign
    assert sandbox.connection(PAUSED).paused is True
    watched.are_all_as_before(but=PAUSED)


@pytest.mark.slow
async def test_an_undo_that_meets_a_sync_waits_for_it(http: Serve, sandbox: Sandbox) -> None:
    watched = Watched(sandbox, [*ALL, SYNCING])
    async with http() as server:
        workflow_id = await held(server, sandbox, ALL)
        sandbox.fault("status", method="PATCH", path=f"/{IDLE}/state$", status=409)
        cancelled = await post(server.client, f"/workflows/{workflow_id}/cancel", "")
        one = await get(server.client, f"/workflows/{IDLE}:1")

    assert cancelled["status"] == "cancelled"
    assert one["error"]["code"] == "undone"
    watched.are_all_as_before()


@pytest.mark.slow
async def test_an_undo_pauses_a_connection_again_that_somebody_has_resumed(
    http: Serve, sandbox: Sandbox
) -> None:
    watched = Watched(sandbox, [*ALL, SYNCING])
    async with http() as server:
        workflow_id = await held(server, sandbox, ALL)
        sandbox.set_paused(IDLE, False)
        cancelled = await post(server.client, f"/workflows/{workflow_id}/cancel", "")

    assert cancelled["status"] == "cancelled"
    watched.are_all_as_before(but=IDLE)
    assert_put_back_while_paused(sandbox, IDLE)


@pytest.mark.slow
async def test_an_undo_leaves_what_a_sync_has_written_meanwhile(
    http: Serve, sandbox: Sandbox
) -> None:
    watched = Watched(sandbox, [*ALL, SYNCING])
    theirs = {"cursor": "by the sync"}
    async with http() as server:
        workflow_id = await held(server, sandbox, ALL)
        with sandbox.world.transaction():
            sandbox.set_paused(IDLE, False)
            sandbox.start_sync(IDLE)
            sandbox.set_state(IDLE, json.dumps(theirs))
            sync_runs_on(sandbox, IDLE)
            sandbox.world.change(IDLE, lambda found, now: replace(found, stopped_sync_counts=False))
        refuse_the_last(sandbox)
        await arrival(
            sandbox, lambda r: r.connection_id == IDLE and is_pause(r) and bool(r.syncing)
        )
        sandbox.finish_sync(IDLE)
        await get(server.client, f"/workflows/{workflow_id}", wait=50)
        one = await get(server.client, f"/workflows/{IDLE}:1", wait=50)

    assert one["error"]["code"] == "rollback_failed"
    assert "somebody" in one["error"]["message"].lower()
    assert state_of(sandbox, IDLE) == theirs
    assert sandbox.connection(IDLE).paused is False
    watched.are_all_as_before(but=IDLE)


async def test_an_undo_whose_sync_does_not_end_says_what_is_left(
    http: Serve, sandbox: Sandbox
) -> None:
    watched = Watched(sandbox, [*ALL, SYNCING])
    async with http(FIVETRAN_STATE_SYNC_WAIT="1") as server:
        workflow_id = await held(server, sandbox, ALL)
        sandbox.fault("status", method="PATCH", path=f"/{IDLE}/state$", status=409, times=9)
        refuse_the_last(sandbox)
        ended = await get(server.client, f"/workflows/{workflow_id}", wait=50)
        one = await get(server.client, f"/workflows/{IDLE}:1", wait=50)

    assert ended["error"]["code"] == "rollback_failed"
    assert one["error"]["code"] == "rollback_failed"
    assert "did not stop the running sync" in one["error"]["message"]
    assert "Nothing was written" not in one["error"]["message"]
    assert state_of(sandbox, IDLE)["cursor"] == "2020"
    assert sandbox.connection(IDLE).paused is False
    watched.are_all_as_before(but=IDLE)


def assert_put_back_while_paused(sandbox: Sandbox, connection_id: str) -> None:
    """The state is the one from before the first write, and every write met a paused connection."""
    writes = [r for r in sandbox.log if is_write_of(r, connection_id) and r.applied]
    assert [(each.paused, each.syncing) for each in writes] == [(True, False)] * 2
    assert sandbox.connection(connection_id).state == writes[0].state
    assert sandbox.connection(connection_id).paused is False


@pytest.mark.slow
async def test_all_are_cancelled_as_long_as_one_is_not_written(
    http: Serve, sandbox: Sandbox
) -> None:
    watched = Watched(sandbox, [*ALL, SYNCING])
    async with http() as server:
        workflow_id = await held(server, sandbox, ALL)
        cancelled = await post(server.client, f"/workflows/{workflow_id}/cancel", "")
        again = await post(server.client, f"/workflows/{workflow_id}/cancel", "")
        watched.are_all_as_before()
        done = await post(server.client, "/state/update-multiple", BODY, Idempotency_Key="k")
        id_ = (await get(server.client, f"/workflows/{IDLE}:2"))["workflow_id"]

    assert cancelled["status"] == again["status"] == "cancelled"
    assert list(done) == ALL
    assert id_ == f"{IDLE}:2"


async def test_all_are_cancelled_although_none_is_left_to_begin(
    http: Serve, sandbox: Sandbox
) -> None:
    watched = Watched(sandbox)
    last = sandbox.fault("apply_then_hang", method="PATCH", path=f"/{RESCHEDULED}/state$")
    async with http() as server:
        started = await post(
            server.client, "/state/update-multiple", BODY, status=202, Prefer="respond-async"
        )
        for name in ALL:
            await arrival(sandbox, partial(is_write_of, connection_id=name))
        path = f"/workflows/{started['workflow_id']}"
        await post(server.client, f"{path}/cancel", "", status=202, Prefer="respond-async")
        last.release()
        ended = await get(server.client, path, wait=50)
        cancelled = await post(server.client, f"{path}/cancel", "")

    assert ended["counts"] == {"undone": len(ALL)}
    assert (ended["status"], ended["error"]["code"]) == ("cancelled", "cancelled")
    assert cancelled["status"] == "cancelled"
    watched.are_all_as_before()


async def test_a_key_changes_them_once_and_serves_for_nothing_else(
    http: Serve, sandbox: Sandbox
) -> None:
    path = "/state/update-multiple"
    async with http() as server:
        first = await post(server.client, path, BODY, Idempotency_Key="k")
        sandbox.set_state(IDLE, '{"cursor":"a sync was here"}')
        again = await post(server.client, path, BODY, Idempotency_Key="k")
        others: list[dict[str, Any]] = [
            {"merge_patch": {"cursor": "2021"}},
            {"connection_ids": ALL[:2]},
        ]
        for other in others:
            reused = await post(server.client, path, BODY | other, status=422, Idempotency_Key="k")
            assert reused["code"] == "idempotency_key_reused"
        twice = BODY | {"connection_ids": [IDLE, IDLE]}
        assert (await post(server.client, path, twice, status=422))["code"] == "invalid_request"

    assert again == first
    assert state_of(sandbox, IDLE) == {"cursor": "a sync was here"}


@pytest.mark.slow
async def test_repeated_without_a_key_while_it_runs_it_is_the_same(
    http: Serve, sandbox: Sandbox
) -> None:
    path, repeated = "/state/update-multiple", BODY | {"connection_ids": [*ALL, SYNCING]}
    async with http() as server:
        workflow_id = await held(server, sandbox, ALL)
        again = await post(server.client, path, repeated, status=202, Prefer="respond-async")
        other = await post(server.client, path, BODY, status=409)
        sandbox.finish_sync(SYNCING)
        ended = await get(server.client, f"/workflows/{workflow_id}", wait=50)
        anew = await post(server.client, path, repeated, status=202, Prefer="respond-async")
        await post(server.client, f"/workflows/{anew['workflow_id']}/cancel", "")

    assert again["workflow_id"] == workflow_id
    assert other["code"] == "update_in_progress"
    assert ended["status"] == "updated"
    assert anew["workflow_id"] != workflow_id


@pytest.mark.slow
async def test_repeated_at_the_same_time_without_a_key_it_is_the_same(
    http: Serve, sandbox: Sandbox
) -> None:
    path = "/state/update-multiple"
    async with http() as server:

        async def ask() -> dict[str, Any]:
            return await post(server.client, path, BODY)

        for number in (1, 2, 3):
            answers = await asyncio.gather(ask(), ask(), ask(), ask())
            assert answers == answers[:1] * 4
            ids = [each["workflow_id"] for each in answers[0].values()]
            assert ids == [f"{name}:{number}" for name in ALL]


async def test_the_same_change_of_one_connection_does_not_attach_to_a_part(
    http: Serve, sandbox: Sandbox
) -> None:
    one = {"connection_id": IDLE, "merge_patch": BODY["merge_patch"]}
    async with http() as server:
        workflow_id = await held(server, sandbox, [IDLE])
        refused = await post(server.client, "/state/update", ANY | one, status=409)
        await post(server.client, f"/workflows/{workflow_id}/cancel", "")
        made = await post(server.client, "/state/update", ANY | one)

    assert (refused["code"], refused["workflow_id"]) == ("update_in_progress", f"{IDLE}:1")
    assert (made["status"], made["workflow_id"]) == ("updated", f"{IDLE}:2")
    assert state_of(sandbox, IDLE)["cursor"] == "2020"


# Killed

STAGES: dict[str, tuple[str, FaultKind, dict[str, Any]]] = {
    "before the first write": (IDLE, BEFORE, {"method": "PATCH", "path": f"/{IDLE}/state$"}),
    "after the first write": (IDLE, AFTER, {"method": "PATCH", "path": f"/{IDLE}/state$"}),
    "while the first is held": (
        PAUSED,
        BEFORE,
        # All connections are looked at before the first is touched.
        {"method": "GET", "path": f"/{PAUSED}$", "skip": 1},
    ),
    "before the second write": (PAUSED, BEFORE, {"method": "PATCH", "path": f"/{PAUSED}/state$"}),
    "after the second write": (PAUSED, AFTER, {"method": "PATCH", "path": f"/{PAUSED}/state$"}),
    "after the last write": (
        RESCHEDULED,
        AFTER,
        {"method": "PATCH", "path": f"/{RESCHEDULED}/state$"},
    ),
    "before a resume": (IDLE, BEFORE, {"method": "PATCH", "path": f"/{IDLE}$", "skip": 1}),
    "after a resume": (IDLE, AFTER, {"method": "PATCH", "path": f"/{IDLE}$", "skip": 1}),
}
FAILING: dict[str, tuple[str, FaultKind, dict[str, Any]]] = {
    "before the last write": (
        SYNCING,
        BEFORE,
        {"method": "PATCH", "path": f"/{SYNCING}/state$"},
    ),
    "before a state is put back": (
        IDLE,
        BEFORE,
        {"method": "PATCH", "path": f"/{IDLE}/state$", "skip": 1},
    ),
    "after a state was put back": (
        PAUSED,
        AFTER,
        {"method": "PATCH", "path": f"/{PAUSED}/state$", "skip": 1},
    ),
    "before a resume": (IDLE, BEFORE, {"method": "PATCH", "path": f"/{IDLE}$", "skip": 1}),
}


def stages(all_: dict[str, Any], always: str) -> list[Any]:
    """All stages; all but `always` are marked as slow."""
    return [pytest.param(name, marks=() if name == always else pytest.mark.slow) for name in all_]


async def started_and_killed(
    server: ForkedServer,
    sandbox: Sandbox,
    names: list[str],
    stage: tuple[str, FaultKind, dict[str, Any]],
    *,
    last_fails: bool = False,
) -> str:
    """The workflow's id, after the server was killed at that call."""
    connection_id, kind, call_ = stage
    sandbox.fault(kind, **call_)
    if last_fails:
        workflow_id = await held(server, sandbox, names)
        refuse_the_last(sandbox)
    else:
        started = await post(
            server.client,
            "/state/update-multiple",
            BODY | {"connection_ids": names},
            status=202,
            Prefer="respond-async",
        )
        workflow_id = str(started["workflow_id"])
    await arrival(sandbox, lambda r: r.fault == kind and r.connection_id == connection_id)
    await server.kill()
    return workflow_id


@pytest.mark.slow
@pytest.mark.parametrize("stage", stages(STAGES, "after the last write"))
async def test_killed_at_any_point_all_are_changed_after_a_restart(
    http: Serve, sandbox: Sandbox, on_both: dict[str, str], tmp_path: Path, stage: str
) -> None:
    watched = Watched(sandbox)
    async with http_forked(on_both, tmp_path) as server:
        workflow_id = await started_and_killed(server, sandbox, ALL, STAGES[stage])

    async with http(**on_both) as server:
        ended = await get(server.client, f"/workflows/{workflow_id}", wait=50)
        assert ended["status"] == "updated", ended
        assert [update["workflow_id"] for update in ended["updates"]] == [f"{n}:1" for n in ALL]
        await get(server.client, f"/workflows/{IDLE}:2", status=404)

    watched.were_all_changed()


@pytest.mark.slow
async def test_killed_while_an_undo_waits_for_a_sync_all_are_as_before_after_a_restart(
    http: Serve, sandbox: Sandbox, on_both: dict[str, str], tmp_path: Path
) -> None:
    watched = Watched(sandbox, [*ALL, SYNCING])
    sandbox.fault("status", method="PATCH", path=f"/{IDLE}/state$", status=409, skip=1)
    # After the plan, inspect and the undo.
    poll = (IDLE, BEFORE, {"method": "GET", "path": f"/{IDLE}$", "skip": 3})
    async with http_forked(on_both, tmp_path) as server:
        workflow_id = await started_and_killed(server, sandbox, ALL, poll, last_fails=True)

    sandbox.set_paused(IDLE, False)
    async with http(**on_both) as server:
        ended = await get(server.client, f"/workflows/{workflow_id}", wait=50)

    assert (ended["status"], ended["error"]["code"]) == ("failed", "forbidden")
    watched.are_all_as_before(but=IDLE)
    assert_put_back_while_paused(sandbox, IDLE)


@pytest.mark.slow
@pytest.mark.parametrize("stage", stages(FAILING, "before a state is put back"))
async def test_killed_at_any_point_of_the_undoing_all_are_as_before_after_a_restart(
    http: Serve, sandbox: Sandbox, on_both: dict[str, str], tmp_path: Path, stage: str
) -> None:
    watched = Watched(sandbox, [*ALL, SYNCING])
    async with http_forked(on_both, tmp_path) as server:
        workflow_id = await started_and_killed(
            server, sandbox, ALL, FAILING[stage], last_fails=True
        )

    async with http(**on_both) as server:
        ended = await get(server.client, f"/workflows/{workflow_id}", wait=50)
        assert (ended["status"], ended["error"]["code"]) == ("failed", "forbidden")

    watched.are_all_as_before()


@pytest.mark.slow
@pytest.mark.parametrize("stage", stages(STAGES, "while the first is held"))
async def test_a_server_that_lives_goes_on_with_what_the_dead_one_has_begun(
    sandbox: Sandbox, on_both: dict[str, str], tmp_path: Path, stage: str
) -> None:
    watched = Watched(sandbox)
    async with http_forked(on_both, tmp_path) as living, http_forked(on_both, tmp_path) as dying:
        await get(living.client, "/readyz")
        workflow_id = await started_and_killed(dying, sandbox, ALL, STAGES[stage])
        ended = await get(living.client, f"/workflows/{workflow_id}", wait=50)

    assert ended["status"] == "updated", ended
    watched.were_all_changed()


@pytest.mark.slow
async def test_finish_completes_connections_that_a_killed_server_was_changing_together(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    watched = Watched(sandbox)
    async with http_forked(environment, tmp_path) as server:
        stage = STAGES["while the first is held"]
        await started_and_killed(server, sandbox, ALL, stage)

    finished = await anyio.to_thread.run_sync(finish, environment, tmp_path)

    assert (finished.returncode, finished.stdout) == (0, ""), finished.stderr
    watched.were_all_changed()


@pytest.mark.slow
async def test_a_server_that_is_stopped_hands_over_what_it_is_changing_together(
    http: Serve, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    hasty = environment | {"FIVETRAN_STATE_SHUTDOWN_WAIT": "0"}
    async with http_forked(hasty, tmp_path) as server:
        workflow_id = await held(server, sandbox, ALL)
    assert sandbox.connection(IDLE).paused is True

    sandbox.finish_sync(SYNCING)

    await arrival(sandbox, lambda r: r.connection_id == IDLE and is_resume(r))
    async with http() as server:
        ended = await get(server.client, f"/workflows/{workflow_id}", wait=50)
    assert ended["status"] == "updated"
    for name in (*ALL, SYNCING):
        assert state_of(sandbox, name)["cursor"] == "2020"
