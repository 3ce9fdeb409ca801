"""Pauses, syncs and setup tests in the sandbox, by us and by other people."""

import httpx
import pytest

from fivetran_state import state
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.connection import iso
from tests.support.sandbox import CONNECTION, JSON, PAUSE, STATE, details, refusal

RESUME = {"paused": False, "run_setup_tests": False}


def sync_state(client: httpx.Client) -> str:
    return str(details(client)["status"]["sync_state"])


# Pausing and syncing


def test_an_idle_connection_is_paused_at_once(client: httpx.Client) -> None:
    answer = client.patch(CONNECTION, json=PAUSE).json()["data"]

    assert answer["paused"] is True
    assert answer["status"]["sync_state"] == "paused"


@pytest.mark.parametrize("wanted", [PAUSE, RESUME])
def test_pausing_and_resuming_twice_is_harmless(
    client: httpx.Client, wanted: dict[str, bool]
) -> None:
    client.patch(CONNECTION, json=wanted)
    once = details(client)

    assert client.patch(CONNECTION, json=wanted).json()["data"] == once


def test_a_pause_stops_the_running_sync(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection(
        "bold_heron", state='{"cursor":"2024-01-01","page":7}', sync_seconds=600, drain_seconds=60
    )
    sandbox.start_sync("bold_heron")

    answer = client.patch(CONNECTION, json=PAUSE).json()["data"]

    assert (answer["paused"], answer["status"]["sync_state"]) == (True, "syncing")
    assert client.patch(STATE, json={"state": {}}).status_code == 409
    sandbox.advance(61)
    assert sync_state(client) == "paused"
    moved = client.get(STATE).json()["data"]["state"]
    assert moved["cursor"] > "2026"
    assert moved["page"] == 8
    assert details(client)["succeeded_at"] is None


def test_a_stopped_sync_may_leave_no_trace(sandbox: Sandbox) -> None:
    before = '{"cursor":"2024-01-01"}'
    sandbox.add_connection("bold_heron", state=before, stopped_sync_counts=False)
    sandbox.start_sync("bold_heron")

    assert sandbox.set_paused("bold_heron", True).state == before


def test_a_stopped_sync_leaves_its_last_checkpoint(sandbox: Sandbox) -> None:
    sandbox.add_connection("bold_heron", state='{"cursor":"2024-01-01"}', checkpoint_every=25)
    started_at = sandbox.start_sync("bold_heron").sync_started_at
    assert started_at is not None
    sandbox.advance(30)

    running = sandbox.connection("bold_heron")
    stopped = sandbox.set_paused("bold_heron", True)

    assert running.syncing
    assert running.state == stopped.state == f'{{"cursor":"{iso(started_at + 25)}"}}'
    assert (stopped.sync_state, stopped.succeeded_at) == ("paused", None)


def test_a_sync_checkpoints_until_it_has_stopped(sandbox: Sandbox) -> None:
    sandbox.add_connection("bold_heron", state='{"page":1}', checkpoint_every=25, drain_seconds=30)
    sandbox.start_sync("bold_heron")
    sandbox.set_paused("bold_heron", True)

    sandbox.advance(31)

    assert sandbox.connection("bold_heron").state == '{"page":2}'


def test_a_sync_stays_stopped_after_a_resume(sandbox: Sandbox) -> None:
    sandbox.add_connection("bold_heron", state="{}", sync_seconds=600, drain_seconds=60)
    sandbox.start_sync("bold_heron")
    sandbox.set_paused("bold_heron", True)
    sandbox.set_paused("bold_heron", False)

    sandbox.advance(61)

    found = sandbox.connection("bold_heron")
    assert (found.sync_state, found.succeeded_at) == ("scheduled", None)


def test_a_sync_that_ends_before_the_drain_is_not_held_up(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.add_connection("bold_heron", sync_seconds=60, drain_seconds=600)
    sandbox.start_sync("bold_heron")
    client.patch(CONNECTION, json=PAUSE)

    sandbox.advance(61)

    assert sync_state(client) == "paused"


def test_a_sync_that_stops_at_once_shows_in_the_answer_to_the_pause(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.start_sync("bold_heron")

    answer = client.patch(CONNECTION, json=PAUSE).json()["data"]

    assert answer["status"]["sync_state"] == "paused"


def test_a_sync_moves_cursors_and_leaves_everything_else(sandbox: Sandbox) -> None:
    before = (
        '{"orders":{"cursor":"2024-01-01T00:00:00Z","offset":9007199254740993,"rate":1.10},'
        '"seen":[{"last_sync":"2024-01-01 00:00:00+01:00"}],"updated_at":"never",'
        '"page":2,"cursor":1.50,"since":"2024-01-01"}'
    )
    sandbox.set_state("bold_heron", before)

    after = sandbox.finish_sync("bold_heron")

    assert after.state is not None
    assert after.succeeded_at is not None
    moved = state.parse(after.state)
    cursor = moved["orders"]["cursor"]
    assert cursor == moved["seen"][0]["last_sync"] > "2026"
    assert after.state == (
        f'{{"orders":{{"cursor":"{cursor}","offset":9007199254740994,"rate":1.10}},'
        f'"seen":[{{"last_sync":"{cursor}"}}],"updated_at":"never",'
        '"page":3,"cursor":1.50,"since":"2024-01-01"}'
    )


def test_syncs_start_and_end_by_themselves(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", state='{"page":1}', sync_seconds=100, sync_every=1000)
    seen = []
    for seconds in (500, 550, 100, 950, 110_050):
        sandbox.advance(seconds)
        seen.append((sync_state(client), client.get(STATE).json()["data"]["state"]["page"]))

    assert seen == [
        ("scheduled", 1),
        ("syncing", 1),
        ("scheduled", 2),
        ("syncing", 2),
        ("syncing", 3),
    ]


def test_a_paused_connection_does_not_sync(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", sync_every=1000, paused=True)
    sandbox.advance(1001)

    assert sync_state(client) == "paused"


def test_a_sync_may_start_at_once_after_a_resume_and_move_the_cursor(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.add_connection("bold_heron", state='{"page":1}', paused=True, sync_on_resume=True)

    answer = client.patch(CONNECTION, json=RESUME).json()["data"]

    assert (answer["paused"], answer["status"]["sync_state"]) == (False, "syncing")
    sandbox.advance(61)
    assert client.get(STATE).json()["data"]["state"] == {"page": 2}


def test_rescheduled_stays_so_while_paused_and_can_be_written(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.add_connection(
        "bold_heron", state="{}", rescheduled=True, sync_every=60, sync_on_resume=True
    )
    sandbox.advance(7200)
    assert sync_state(client) == "rescheduled"

    answer = client.patch(CONNECTION, json=PAUSE).json()["data"]

    assert (answer["paused"], answer["status"]["sync_state"]) == (True, "rescheduled")
    assert client.patch(STATE, json={"state": {}}).status_code == 200
    assert client.patch(CONNECTION, json=RESUME).json()["data"]["status"] == {
        **answer["status"],
        "sync_state": "rescheduled",
    }


def test_a_rescheduled_connection_is_scheduled_again_after_its_sync(sandbox: Sandbox) -> None:
    sandbox.add_connection("late_ferry", rescheduled=True)

    assert sandbox.start_sync("late_ferry").sync_state == "syncing"
    assert sandbox.finish_sync("late_ferry").sync_state == "scheduled"


def test_rescheduled_tells_until_when_and_goes_on_then(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    until = sandbox.world.now() + 600
    sandbox.add_connection("bold_heron", rescheduled=True, rescheduled_for=until)
    assert details(client)["status"]["rescheduled_for"] == iso(until)

    sandbox.advance(601)

    assert sync_state(client) == "syncing"
    assert "rescheduled_for" not in details(client)["status"]


def test_a_rescheduled_sync_starts_on_a_late_resume(sandbox: Sandbox) -> None:
    until = sandbox.world.now() + 600
    sandbox.add_connection("late_ferry", paused=True, rescheduled=True, rescheduled_for=until)
    sandbox.advance(7200)
    assert sandbox.connection("late_ferry").sync_state == "rescheduled"

    assert sandbox.set_paused("late_ferry", False).sync_state == "syncing"


def test_manual_never_starts_by_itself(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection(
        "bold_heron",
        schedule_type="manual",
        paused=True,
        rescheduled=True,
        rescheduled_for=sandbox.world.now() + 600,
        sync_every=60,
        sync_on_resume=True,
        is_historical_sync=True,
    )
    client.patch(CONNECTION, json=RESUME)
    sandbox.advance(7200)
    assert details(client)["schedule_type"] == "manual"
    assert sync_state(client) == "rescheduled"

    assert client.post(f"{CONNECTION}/sync", json={"force": False}).status_code == 200

    assert sync_state(client) == "syncing"
    sandbox.advance(7200)
    assert sync_state(client) == "scheduled"


def test_a_schedule_begins_when_it_is_set(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", schedule_type="manual", sync_every=1000)
    sandbox.advance(5000)

    answer = client.patch(
        CONNECTION, json={"schedule_type": "auto", "sync_frequency": 15, "run_setup_tests": False}
    ).json()["data"]

    assert (answer["schedule_type"], answer["sync_frequency"]) == ("auto", 15)
    assert sync_state(client) == "scheduled"
    sandbox.advance(1001)
    assert sync_state(client) == "syncing"


def test_a_broken_connection_may_show_scheduled(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection(
        "bold_heron",
        state="{}",
        paused=True,
        setup_state="broken",
        shows_scheduled_when_paused=True,
        sync_on_resume=True,
    )

    assert (details(client)["paused"], sync_state(client)) == (True, "scheduled")
    assert client.patch(STATE, json={"state": {"page": 1}}).status_code == 200
    client.patch(CONNECTION, json=RESUME)
    assert (details(client)["paused"], sync_state(client)) == (False, "scheduled")


# Setup tests


@pytest.mark.parametrize("body", [{"paused": True}, {"paused": True, "run_setup_tests": True}])
def test_setup_tests_run_unless_refused(
    sandbox: Sandbox, client: httpx.Client, body: dict[str, bool]
) -> None:
    answer = client.patch(CONNECTION, json=body).json()["data"]

    assert [test["status"] for test in answer["setup_tests"]] == ["PASSED"]
    assert sandbox.connection("bold_heron").setup_tests_run == 1


def test_no_setup_tests_run_if_refused(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", setup_tests_fail=True, setup_test_seconds=60)

    answer = client.patch(CONNECTION, json=PAUSE).json()["data"]

    assert (answer["setup_tests"], answer["status"]["setup_state"]) == ([], "connected")
    assert sandbox.connection("bold_heron").setup_tests_run == 0
    assert sandbox.log[-1].body == {"paused": True, "run_setup_tests": False}


def test_failing_setup_tests_break_the_connection(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", paused=True, setup_tests_fail=True, sync_on_resume=True)

    answer = client.patch(CONNECTION, json={"paused": False}).json()["data"]

    assert [test["status"] for test in answer["setup_tests"]] == ["FAILED"]
    assert answer["status"]["setup_state"] == "broken"
    assert answer["status"]["sync_state"] == "scheduled"


def test_the_answer_waits_for_the_setup_tests(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", setup_test_seconds=3600)

    with pytest.raises(httpx.ReadTimeout):
        client.patch(CONNECTION, json={"paused": True}, timeout=0.1)

    assert sandbox.connection("bold_heron").paused
    assert sandbox.log[-1].status is None


# Syncs by request


def test_a_sync_is_started_if_none_runs(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", rescheduled=True)

    assert client.post(f"{CONNECTION}/sync", json={"force": False}).status_code == 200

    running = sandbox.connection("bold_heron")
    assert running.sync_state == "syncing"
    assert client.post(f"{CONNECTION}/sync", headers=JSON).status_code == 200
    assert sandbox.connection("bold_heron") == running


def test_a_forced_sync_stops_the_running_one(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", state='{"page":1}', drain_seconds=10)
    first = sandbox.start_sync("bold_heron")

    client.post(f"{CONNECTION}/sync", json={"force": True})
    sandbox.advance(11)

    second = sandbox.connection("bold_heron")
    assert (second.sync_state, second.state, second.succeeded_at) == ("syncing", '{"page":2}', None)
    assert second.sync_started_at != first.sync_started_at


def test_a_paused_connection_is_not_synced(sandbox: Sandbox, client: httpx.Client) -> None:
    before = sandbox.set_paused("bold_heron", True)

    response = client.post(f"{CONNECTION}/sync", json={"force": True})

    assert refusal(response) == (400, "InvalidInput")
    assert sandbox.connection("bold_heron") == before


def test_a_resync_of_a_paused_one_is_pending(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.set_paused("bold_heron", True)

    assert client.post(f"{CONNECTION}/resync", json={}).status_code == 200

    status = details(client)["status"]
    assert (status["sync_state"], status["is_historical_sync"]) == ("paused", True)
    assert client.patch(STATE, json={"state": {"cursor": "2020-01-01"}}).status_code == 200
    client.patch(CONNECTION, json=RESUME)
    assert sync_state(client) == "syncing"
    assert client.get(STATE).json()["data"]["state"] == {}
    sandbox.advance(61)
    assert client.get(STATE).json()["data"]["state"]["cursor"] > "2026"
    assert details(client)["status"]["is_historical_sync"] is False


def test_a_resync_stops_the_running_sync(sandbox: Sandbox) -> None:
    sandbox.add_connection("bold_heron", state='{"page":1}', drain_seconds=10)
    sandbox.start_sync("bold_heron")

    sandbox.resync("bold_heron")
    stopping = sandbox.connection("bold_heron")
    sandbox.advance(11)
    running = sandbox.connection("bold_heron")

    assert (stopping.sync_state, stopping.state) == ("syncing", '{"page":1}')
    assert (running.sync_state, running.state) == ("syncing", "{}")
    assert running.is_historical_sync


def test_a_paused_resync_is_pending_again(sandbox: Sandbox) -> None:
    sandbox.resync("bold_heron")

    stopped = sandbox.set_paused("bold_heron", True)

    assert (stopped.sync_state, stopped.is_historical_sync) == ("paused", True)
    assert sandbox.set_paused("bold_heron", False).state == "{}"


@pytest.mark.parametrize(("path", "body"), [("resync", {}), ("sync", {"force": True})])
def test_a_sync_that_cannot_be_stopped_goes_on(
    sandbox: Sandbox, client: httpx.Client, path: str, body: dict[str, bool]
) -> None:
    sandbox.add_connection("bold_heron", state="{}", unstoppable_sync=True)
    running = sandbox.start_sync("bold_heron")

    assert refusal(client.post(f"{CONNECTION}/{path}", json=body)) == (409, "Conflict")
    assert sandbox.connection("bold_heron") == running


# Other people


def test_somebody_else_may_pause_resume_or_delete(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.set_paused("bold_heron", True)
    assert details(client)["paused"] is True
    sandbox.set_paused("bold_heron", False)
    assert details(client)["paused"] is False
    sandbox.delete_connection("bold_heron")
    assert refusal(client.get(CONNECTION)) == (404, "NotFound_Connection")


def test_older_paths_say_connectors(client: httpx.Client) -> None:
    assert client.get("/v1/connectors/bold_heron").json() == client.get(CONNECTION).json()
    assert client.get("/v1/connectors/bold_heron/state").json() == client.get(STATE).json()
