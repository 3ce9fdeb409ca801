"""The file of the sandbox, and the connections that it begins with."""

import asyncio
import json
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from fivetran_state import state
from fivetran_state.sandbox import Connection, Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.support.sandbox import CONNECTION, EXACT, HEADERS, PAUSE, a_client

# The file


def test_a_reopened_file_shows_the_same_world(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    with closing(Sandbox(path, seed=False)) as sandbox:
        sandbox.add_connection("bold_heron", state=EXACT, sync_seconds=600, drain_seconds=300)
        sandbox.start_sync("bold_heron")
        sandbox.set_paused("bold_heron", True)
        sandbox.advance(200)
        before = sandbox.connection("bold_heron")

    with closing(Sandbox(path, seed=False)) as sandbox:
        assert sandbox.connection("bold_heron") == before
        assert before.sync_state == "syncing"
        sandbox.advance(101)
        assert sandbox.connection("bold_heron").sync_state == "paused"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_sandboxes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    with (
        closing(Sandbox(path)) as one,
        closing(Sandbox(path)) as other,
        SandboxServer(one) as server,
        a_client(server) as client,
    ):
        client.patch("/v1/connections/bullion_shutdown", json=PAUSE)
        other.set_state("bullion_shutdown", EXACT)
        other.advance(3600)

        assert other.connection("bullion_shutdown").sync_state == "paused"
        assert EXACT in client.get("/v1/connections/bullion_shutdown/state").text
        assert one.world.now() > time.time() + 3500


def test_two_sandboxes_share_the_groups(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    with closing(Sandbox(path, seed=False)) as one, closing(Sandbox(path, seed=False)) as other:
        one.add_group("lake", "Puddle")
        one.add_group("lake", "Sea")

        assert [group.name for group in other.world.groups()] == ["Sea"]


def test_the_file_of_an_older_sandbox_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    columns = (
        "id, service, schema, group_id, paused, state, setup_state, sync_frequency, created_at, "
        "succeeded_at, failed_at, sync_seconds, sync_every, drain_seconds, stopped_sync_counts, "
        "sync_on_resume, rescheduled, forbidden, sync_started_at, sync_ends_at, next_sync_at"
    )
    with closing(sqlite3.connect(path)) as old:
        old.execute(f"CREATE TABLE connections ({columns}, PRIMARY KEY (id))")
        old.execute(
            f"INSERT INTO connections ({columns}) VALUES ('bold_heron', 'aws_lambda', 'api', 'lake',"
            " 1, '{}', 'connected', 360, 0, NULL, NULL, 60, NULL, 0, 1, 0, 0, 0, NULL, NULL, NULL)"
        )
        old.commit()

    for _ in range(2):
        with closing(Sandbox(path)) as sandbox:
            found = sandbox.connection("bold_heron")
            sandbox.world.put(found)
            assert found == Connection(
                "bold_heron", service="aws_lambda", group_id="lake", paused=True, state="{}"
            )


def test_writers_in_two_sandboxes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    with closing(Sandbox(path, seed=False)) as one, closing(Sandbox(path, seed=False)) as other:
        one.add_connection("bold_heron", state='{"page":0}')
        with ThreadPoolExecutor(4) as threads:
            for sandbox in [one, other] * 50:
                threads.submit(sandbox.finish_sync, "bold_heron")

        assert one.connection("bold_heron").state == '{"page":100}'


def test_a_killed_process_finds_its_world_again(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    program = """
import asyncio, os, pathlib, signal, sys
import httpx
from fivetran_state.sandbox import Connection, Sandbox
from fivetran_state.sandbox.connection import iso

async def main():
    sandbox = Sandbox(pathlib.Path(sys.argv[1]))
    transport = httpx.ASGITransport(app=sandbox.app)
    headers = {"Accept": "application/json"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://sandbox", auth=("sandbox", "sandbox"), headers=headers
    ) as client:
        url = "/v1/connections/bullion_shutdown"
        assert (await client.patch(url, json={"paused": True})).status_code == 200
        assert (await client.patch(f"{url}/state", json={"state": {"page": 7}})).status_code == 200
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)

    assert killed.returncode == -signal.SIGKILL
    with closing(Sandbox(path)) as sandbox:
        found = sandbox.connection("bullion_shutdown")
        assert (found.paused, found.state) == (True, '{"page":7}')


# The seed


def test_a_new_sandbox_has_one_connection_of_each_kind() -> None:
    with closing(Sandbox()) as sandbox:
        found = {connection.id: connection for connection in sandbox.world.connections()}

    assert {name: (each.service, each.sync_state) for name, each in found.items()} == {
        "speak_inexpensive": ("connector_sdk", "syncing"),
        "bullion_shutdown": ("aws_lambda", "scheduled"),
        "gentle_harbour": ("azure_function", "paused"),
        "quiet_meadow": ("google_cloud_function", "scheduled"),
        "vast_library": ("connector_sdk", "scheduled"),
        "exact_ledger": ("connector_sdk", "scheduled"),
        "late_ferry": ("connector_sdk", "rescheduled"),
        "postgres_mirror": ("postgres", "scheduled"),
        "idle_turbine": ("connector_sdk", "rescheduled"),
        "patient_archive": ("connector_sdk", "paused"),
        "severed_cable": ("aws_lambda", "scheduled"),
        "twin_harvest": ("connector_sdk", "scheduled"),
    }
    assert {name for name, each in found.items() if each.state is None} == {
        "quiet_meadow",
        "postgres_mirror",
    }
    orders = json.loads(found["speak_inexpensive"].state or "")
    assert orders.keys() == {"orders", "customers", "schema_version"}
    assert 1_800_000 < len(found["vast_library"].state or "") < 2_200_000


def test_two_seeded_connections_are_named_alike() -> None:
    with closing(Sandbox()) as sandbox:
        names = {group.id: group.name for group in sandbox.world.groups()}
        alike = [each for each in sandbox.world.connections() if each.schema == "orders_api"]

    assert {each.id: names[each.group_id] for each in alike} == {
        "speak_inexpensive": "Production warehouse",
        "twin_harvest": "Staging warehouse",
    }


def test_the_seed_has_what_an_update_must_tell() -> None:
    with closing(Sandbox()) as sandbox:
        broken = sandbox.connection("severed_cable")
        historical = sandbox.connection("patient_archive")
        manual = sandbox.connection("idle_turbine")

    assert (broken.setup_state, broken.paused) == ("broken", True)
    assert (historical.is_historical_sync, historical.paused) == (True, True)
    assert (manual.schedule_type, manual.paused) == ("manual", False)


def test_the_seeded_states_are_exact_and_compact() -> None:
    with closing(Sandbox()) as sandbox:
        texts = [each.state for each in sandbox.world.connections() if each.state is not None]
        ledger = sandbox.connection("exact_ledger").state or ""

    assert [state.dump(state.parse(text)) for text in texts] == texts
    for spelling in ("9007199254740993", ":1.10,", ":1e400,", ":-0}"):
        assert spelling in ledger


def test_a_world_with_connections_is_not_seeded_again(tmp_path: Path) -> None:
    with closing(Sandbox(tmp_path / "sandbox.db")) as sandbox:
        sandbox.delete_connection("late_ferry")
        sandbox.set_state("exact_ledger", "{}")
    with closing(Sandbox(tmp_path / "sandbox.db")) as sandbox:
        assert sandbox.connection("exact_ledger").state == "{}"
        with pytest.raises(KeyError):
            sandbox.connection("late_ferry")


def test_the_sandbox_answers_in_process(sandbox: Sandbox) -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=sandbox.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://sandbox", auth=("sandbox", "sandbox")
        ) as client:
            sandbox.fault("status", status=503, times=1)
            assert (await client.get(CONNECTION, headers=HEADERS)).status_code == 503
            return await client.get(CONNECTION, headers=HEADERS)

    assert asyncio.run(ask()).json()["data"]["id"] == "bold_heron"
