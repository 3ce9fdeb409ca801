"""Records the data that a killed server leaves behind, so that tests can run later versions on it.

    .venv/bin/python -m tests.recorded.record

Run it at each release, before the version is raised, and commit the new folders:
`tests/recorded/<version>/<situation>/`. It records only situations that have no folder yet.
`tests/integration/test_upgrade.py` finds the folders by itself. Never change or remove a recording:
it stands for databases that people have.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from dbos import DBOSClient

from fivetran_state import __version__, state
from fivetran_state.sandbox import LoggedRequest, Sandbox
from fivetran_state.sandbox.faults import Fault, FaultKind
from fivetran_state.sandbox.server import SandboxServer
from tests.recorded.recording import (
    POSTGRES,
    RECORDED,
    SQLITE,
    Connection,
    Guest,
    Scenario,
    Status,
    dump,
    save,
    sqlite_file,
)
from tests.support.accounts import Accounts
from tests.support.calls import API_KEY, API_SECRET, arrival, call, status_once, version_of
from tests.support.http_server import HttpProcess, http_running
from tests.support.postgres import SECRET_KEY, Postgres
from tests.support.processes import Server, running
from tests.support.rest import ANY, post

BEFORE: FaultKind = "hang"
AFTER: FaultKind = "apply_then_hang"

CONNECTION = "slow_tortoise"
IDEMPOTENCY_KEY = "recorded"
OTHER = "quick_hare"
OLD = '{"cursor": "2026-01-01T00:00:00Z", "lsn": 1234567890123456789, "rate": 0.10}'
NEW = '{"cursor": "2020", "lsn": 1234567890123456789, "rate": 0.10}'
WHOLE = '{"cursor": "2019", "lsn": 9007199254740993}'
OF_OTHER = '{"cursor": "2025", "lsn": 9007199254740995, "rate": 1.50}'
NEW_OF_OTHER = '{"cursor": "2020", "lsn": 9007199254740995, "rate": 1.50}'
PATCH: dict[str, Any] = {"merge_patch": {"cursor": "2020"}}
ALL_IN_GROUP = [CONNECTION, OTHER]


@dataclass
class Stage:
    """A server, its account, and the recording so far."""

    environment: dict[str, str]
    folder: Path
    account: Accounts
    """The server's own account."""
    sandbox: Sandbox
    """The account of the connections: the server's own, or a guest's."""
    wanted: dict[str, str] = field(default_factory=dict)
    """The final states, if they differ from those that the server left."""
    was_paused: set[str] = field(default_factory=set)
    scenario: Scenario = field(default_factory=lambda: Scenario(account_id="", connections={}))

    @asynccontextmanager
    async def server(self) -> AsyncIterator[Server]:
        async with running(self.environment, self.folder) as server:
            yield server

    @asynccontextmanager
    async def http(self) -> AsyncIterator[HttpProcess]:
        async with http_running(self.environment, self.folder) as server:
            yield server

    async def start(
        self, server: Server, *, ends: Status = "updated", wanted: str = NEW, **change: Any
    ) -> str:
        """Starts an update of the current state and does not wait for it; its workflow id."""
        request = {
            "connection_id": CONNECTION,
            "expected_version": await version_of(server.client, CONNECTION),
            "reason": "recorded",
        } | (change or PATCH)
        started = await call(server.client, "update_state", **request, wait_seconds=0)
        workflow_id: str = started["workflow_id"]
        self.scenario.updates[workflow_id] = ends
        if ends == "updated":
            self.scenario.requests[workflow_id] = request
        self.wanted[CONNECTION] = wanted
        return workflow_id

    def described(self) -> Scenario:
        """The scenario, with the connections as the server left them."""
        self.scenario.account_id = self.account.api.account_id
        for connection in self.sandbox.world.connections():
            name, left = connection.id, connection.state or ""
            self.scenario.connections[name] = Connection(
                paused=connection.paused,
                state=left,
                was_paused=name in self.was_paused,
                wanted=self.wanted.get(name, left),
            )
        return self.scenario

    async def arrives(self, fault: Fault) -> None:
        """Waits until a request has met the fault, and has taken effect if it does so first."""
        await arrival(
            self.sandbox, lambda request: fault.times == 0 and request.fault == fault.kind
        )

    def pause(self, kind: FaultKind) -> Fault:
        return self.sandbox.fault(kind, method="PATCH", path=f"/{CONNECTION}$")

    def write(self, kind: FaultKind) -> Fault:
        return self.sandbox.fault(kind, method="PATCH", path=f"/{CONNECTION}/state$")

    def resume(self, kind: FaultKind) -> Fault:
        return self.sandbox.fault(kind, method="PATCH", path=f"/{CONNECTION}$", skip=1)

    def read(self) -> Fault:
        return self.sandbox.fault(BEFORE, method="GET", path=f"/{CONNECTION}/state$")

    def poll(self) -> Fault:
        return self.sandbox.fault(BEFORE, method="GET", path=f"/{CONNECTION}$")


Play = Callable[[Stage], Awaitable[None]]


# An update killed at each of its calls


async def at_the_pause(kind: FaultKind, stage: Stage) -> None:
    fault = stage.pause(kind)
    async with stage.server() as server:
        await stage.start(server)
        await stage.arrives(fault)
        await server.kill()


async def at_the_snapshot(stage: Stage, **change: Any) -> None:
    async with stage.server() as server:
        await start_and_kill_at_the_snapshot(stage, server, **change)


async def start_and_kill_at_the_snapshot(stage: Stage, server: Server, **change: Any) -> None:
    """Other reads of the state come before the pause, so wait for that first."""
    pause = stage.pause(BEFORE)
    await stage.start(server, **change)
    await stage.arrives(pause)
    read = stage.read()
    pause.release()
    await stage.arrives(read)
    await server.kill()


async def at_the_write(kind: FaultKind, stage: Stage, **change: Any) -> None:
    fault = stage.write(kind)
    async with stage.server() as server:
        await stage.start(server, **change)
        await stage.arrives(fault)
        await server.kill()


async def at_the_verification(stage: Stage) -> None:
    write = stage.write(BEFORE)
    async with stage.server() as server:
        await stage.start(server)
        await stage.arrives(write)
        read = stage.read()
        write.release()
        await stage.arrives(read)
        await server.kill()


async def at_the_resume(kind: FaultKind, stage: Stage) -> None:
    fault = stage.resume(kind)
    async with stage.server() as server:
        await stage.start(server)
        await stage.arrives(fault)
        await server.kill()


async def of_a_paused_connection(kind: FaultKind, stage: Stage) -> None:
    stage.sandbox.set_paused(CONNECTION, True)
    stage.was_paused.add(CONNECTION)
    await at_the_write(kind, stage)


# An update that waits


def is_poll_of_a_sync(request: LoggedRequest) -> bool:
    return (
        request.method == "GET"
        and request.path.endswith(f"/{CONNECTION}")
        and request.paused is True
        and request.syncing is True
        and request.status is not None
    )


async def draining(stage: Stage) -> None:
    """The connection is paused and its sync still runs; nothing is written."""
    stage.sandbox.start_sync(CONNECTION)
    async with stage.server() as server:
        await stage.start(server)
        await arrival(stage.sandbox, is_poll_of_a_sync)
        await server.kill()
    stage.sandbox.finish_sync(CONNECTION)


async def in_backoff(stage: Stage) -> None:
    """Fivetran cannot be reached since the pause."""
    pause = stage.pause(BEFORE)
    async with stage.server() as server:
        workflow_id = await stage.start(server)
        await stage.arrives(pause)
        stage.sandbox.fault("status", status=503, path=f"/{CONNECTION}", times=1000)
        pause.release()
        await status_once(server.client, workflow_id, lambda status: status.get("phase") == "wait")
        await server.kill()
    stage.sandbox.clear_faults()


async def cancel_while_draining(stage: Stage, server: Server) -> None:
    """Requests a cancel while a poll of the running sync has no answer; the poll stays unanswered."""
    stage.sandbox.start_sync(CONNECTION)
    workflow_id = await stage.start(server, ends="cancelled", wanted=OLD)
    await arrival(stage.sandbox, is_poll_of_a_sync)
    poll = stage.poll()
    await stage.arrives(poll)
    await call(server.client, "cancel_update", workflow_id=workflow_id, wait_seconds=0)


async def cancelling(stage: Stage) -> None:
    """Somebody has cancelled the update, but the update has not noticed it yet."""
    async with stage.server() as server:
        await cancel_while_draining(stage, server)
        await server.kill()
    stage.sandbox.finish_sync(CONNECTION)


async def cancelled_at_the_resume(stage: Stage) -> None:
    """The update has noticed the cancel; its connection is still paused."""
    stage.sandbox.start_sync(CONNECTION)
    resume = stage.resume(BEFORE)
    async with stage.server() as server:
        workflow_id = await stage.start(server, ends="cancelled", wanted=OLD)
        await arrival(stage.sandbox, is_poll_of_a_sync)
        await call(server.client, "cancel_update", workflow_id=workflow_id, wait_seconds=0)
        await stage.arrives(resume)
        await server.kill()
    stage.sandbox.finish_sync(CONNECTION)


async def cancelled_from_outside(stage: Stage) -> None:
    """An operator ran `dbos workflow cancel`, which resumes nothing."""
    stage.sandbox.start_sync(CONNECTION)
    async with stage.server() as server:
        workflow_id = await stage.start(server)
        await arrival(stage.sandbox, is_poll_of_a_sync)
        await stage.arrives(stage.poll())
        database = Path(stage.environment["FIVETRAN_STATE_DATA_DIR"]) / "state.db"
        await anyio.to_thread.run_sync(_cancel_by_dbos, f"sqlite:///{database}", workflow_id)
        await server.kill()
    stage.sandbox.finish_sync(CONNECTION)
    stage.scenario.updates.clear()
    stage.scenario.requests.clear()
    stage.scenario.from_outside = workflow_id
    stage.wanted[CONNECTION] = OLD


def _cancel_by_dbos(url: str, workflow_id: str) -> None:
    client = DBOSClient(system_database_url=url)
    client.cancel_workflow(workflow_id)
    client.destroy()


# Changes of each kind, and a key


async def restoring(stage: Stage) -> None:
    """The second update undoes the first."""
    async with stage.server() as server:
        first = await call(
            server.client,
            "update_state",
            connection_id=CONNECTION,
            new_state=WHOLE,
            expected_version=await version_of(server.client, CONNECTION),
            wait_seconds=50,
        )
        assert first["status"] == "updated"
        change = {"restore_from": first["workflow_id"]}
        await start_and_kill_at_the_snapshot(stage, server, wanted=OLD, **change)


async def copying(stage: Stage) -> None:
    stage.sandbox.add_connection(OTHER, state=OF_OTHER)
    await at_the_snapshot(stage, wanted=OF_OTHER, copy_from=OTHER)


# By REST


async def group(stage: Stage) -> None:
    """The first connection is written and stays paused; the second is not paused yet."""
    stage.sandbox.add_connection(OTHER, state=OF_OTHER)
    fault = stage.sandbox.fault(BEFORE, method="PATCH", path=f"/{OTHER}$")
    body = {"connection_ids": ALL_IN_GROUP} | PATCH
    async with stage.http() as server:
        started = await post(
            server.client,
            "/state/update-multiple",
            ANY | body,
            status=202,
            Prefer="respond-async",
            Idempotency_Key=IDEMPOTENCY_KEY,
        )
        await stage.arrives(fault)
        await server.kill()
    stage.scenario.group = started["workflow_id"]
    stage.scenario.requests[started["workflow_id"]] = body
    stage.scenario.updates = {f"{name}:1": "updated" for name in ALL_IN_GROUP}
    stage.wanted = {CONNECTION: NEW, OTHER: NEW_OF_OTHER}


async def of_a_guest(stage: Stage) -> None:
    """The credentials came in the body of the request."""
    guest = Guest(
        account_id="account_of_a_guest",
        api_key="key-of-a-guest",
        api_secret="secret-of-a-guest",
    )
    stage.sandbox = new_account(guest.api_key, guest.api_secret)
    stage.sandbox.api.account_id = guest.account_id
    stage.account.add(guest.api_key, guest.api_secret, stage.sandbox)
    stage.sandbox.start_sync(CONNECTION)
    about = {
        "api_key": guest.api_key,
        "api_secret": guest.api_secret,
        "connection_id": CONNECTION,
    }
    async with stage.http() as server:
        seen = await post(server.client, "/state/get", about)
        body = about | PATCH | {"expected_version": seen["version"]}
        started = await post(
            server.client, "/state/update", ANY | body, status=202, Prefer="respond-async"
        )
        await arrival(stage.sandbox, is_poll_of_a_sync)
        await server.kill()
    stage.sandbox.finish_sync(CONNECTION)
    stage.scenario.guest = guest
    stage.scenario.requests[started["workflow_id"]] = body
    stage.scenario.updates[started["workflow_id"]] = "updated"
    stage.wanted[CONNECTION] = NEW


# What has ended


async def history(stage: Stage) -> None:
    """Updates that ended in every way, an undo, and a last update whose request may be repeated."""
    async with stage.http() as server:

        async def version() -> str:
            seen = await post(server.client, "/state/get", {"connection_id": CONNECTION})
            return str(seen["version"])

        async def update(status: int = 200, key: str | None = None, **body: Any) -> dict[str, Any]:
            body = {
                "connection_id": CONNECTION,
                "expected_version": await version(),
                "reason": "recorded",
            } | body
            headers = {} if key is None else {"Idempotency_Key": key}
            await post(server.client, "/state/update", ANY | body, status=status, **headers)
            return body

        seen_first = await version()
        keyed = await update(**PATCH, key=IDEMPOTENCY_KEY)
        await update(new_state=state.parse(NEW))
        await update(409, new_state=state.parse(WHOLE), expected_version=seen_first)
        stage.sandbox.fault("wrong_state", method="PATCH", path="/state$", body='{"a": "b"}')
        await update(502, new_state=state.parse(WHOLE))
        await update(restore_from=f"{CONNECTION}:1")
        last = await update(json_patch=[{"op": "add", "path": "/page", "value": 7}])
        stage.scenario.requests = {
            f"{CONNECTION}:1": keyed | {"idempotency_key": IDEMPOTENCY_KEY},
            f"{CONNECTION}:6": last,
        }
        stage.scenario.before = {
            f"{CONNECTION}:1": OLD,
            f"{CONNECTION}:5": NEW,
            f"{CONNECTION}:6": OLD,
        }
        listed = await server.client.get("/workflows", params={"connection_id": CONNECTION})
        stage.scenario.listed = listed.json()["workflows"]
        for each in stage.scenario.listed:
            told = await server.client.get(f"/workflows/{each['workflow_id']}")
            stage.scenario.told[each["workflow_id"]] = told.json()
        await server.kill()


SITUATIONS: dict[str, Play] = {
    "before-pause": partial(at_the_pause, BEFORE),
    "after-pause": partial(at_the_pause, AFTER),
    "draining": draining,
    "before-snapshot": at_the_snapshot,
    "before-write": partial(at_the_write, BEFORE),
    "written": partial(at_the_write, AFTER),
    "before-verify": at_the_verification,
    "before-resume": partial(at_the_resume, BEFORE),
    "after-resume": partial(at_the_resume, AFTER),
    "paused-before-write": partial(of_a_paused_connection, BEFORE),
    "paused-written": partial(of_a_paused_connection, AFTER),
    "backoff": in_backoff,
    "cancelling": cancelling,
    "cancelled": cancelled_at_the_resume,
    "cancelled-from-outside": cancelled_from_outside,
    "with-key": partial(at_the_write, BEFORE, **PATCH, idempotency_key=IDEMPOTENCY_KEY),
    "new-state": partial(at_the_snapshot, wanted=WHOLE, new_state=WHOLE),
    "json-patch": partial(
        at_the_snapshot,
        json_patch=[{"op": "replace", "path": "/cursor", "value": "2020"}],
    ),
    "restore-from": restoring,
    "copy-from": copying,
    "group": group,
    "guest": of_a_guest,
    "history": history,
}
ON_POSTGRES: dict[str, Play] = {"postgres-draining": draining, "postgres-history": history}


def new_account(key: str, secret: str) -> Accounts:
    account = Accounts(api_key=key, api_secret=secret, seed=False)
    account.add_connection(
        CONNECTION, state=OLD, drain_seconds=3600, sync_seconds=7200, stopped_sync_counts=False
    )
    return account


async def record(situation: str, play: Play, postgres: Postgres | None) -> None:
    """Plays one situation and saves the result; a situation that has a folder is skipped."""
    target = RECORDED / __version__ / situation
    if target.exists():
        return
    folder = Path(tempfile.mkdtemp(prefix="recording-"))
    data = folder / "data"
    account = new_account(API_KEY, API_SECRET)
    with SandboxServer(account) as fivetran:
        environment = {
            "FIVETRAN_API_KEY": API_KEY,
            "FIVETRAN_API_SECRET": API_SECRET,
            "FIVETRAN_API_URL": fivetran.url,
            "FIVETRAN_STATE_DATA_DIR": str(data),
        }
        if postgres is not None:
            environment["DBOS_SYSTEM_DATABASE_URL"] = postgres.new_database()
            environment["FIVETRAN_STATE_SECRET_KEY"] = SECRET_KEY
        stage = Stage(environment, folder, account, account)
        await play(stage)
    scenario = stage.described()
    if postgres is None:
        key = (data / "key").read_text()
        save(target, scenario, key, SQLITE, sqlite_file(data / "state.db"))
    else:
        url = environment["DBOS_SYSTEM_DATABASE_URL"]
        save(target, scenario, SECRET_KEY, POSTGRES, dump(postgres, url))
    account.close()
    shutil.rmtree(folder)


async def main(postgres: Postgres) -> None:
    for situation, play in SITUATIONS.items():
        await record(situation, play, None)
    for situation, play in ON_POSTGRES.items():
        await record(situation, play, postgres)


if __name__ == "__main__":
    with closing(Postgres()) as postgres:
        anyio.run(main, postgres)
