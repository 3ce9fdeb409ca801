"""Requests with credentials of another account."""

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import sqlalchemy as sa
from mcp import MCPError
from mcp_types import ResourceTemplateReference

from fivetran_state import vault
from fivetran_state.config import Settings
from fivetran_state.runtime import accounts
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from fivetran_state.updates import binding
from tests.conftest import Serve
from tests.support.accounts import Accounts
from tests.support.calls import (
    API_KEY,
    API_SECRET,
    IDLE,
    PAUSED,
    SYNCING,
    Watch,
    arrival,
    call,
    is_pause,
    is_resume,
    refused,
    state_of,
    sync_runs_on,
    sync_until_paused,
    until,
    updates_in,
)
from tests.support.files import files_under, where
from tests.support.http_server import http_forked, run_cli
from tests.support.outside import dbos_client
from tests.support.policies import policy
from tests.support.postgres import SECRET_KEY, Postgres
from tests.support.rest import ANY, get, post
from tests.support.tasks import FollowsTasks, ask
from tests.support.updates import AFTER, refuse_resumes

CURSOR = {"cursor": "2020"}
OTHER_KEY = "another-key-of-our-own-account"


@dataclass(frozen=True)
class Guest:
    """A Fivetran account, and the credentials for it in a request."""

    account: Sandbox
    key: str
    secret: str

    @property
    def body(self) -> dict[str, str]:
        return {"api_key": self.key, "api_secret": self.secret}

    @property
    def headers(self) -> dict[str, str]:
        return {"Fivetran-Api-Key": self.key, "Fivetran-Api-Secret": self.secret}

    def owner(self, connection_id: str) -> str:
        """The beginning of the ids of its updates."""
        return f"{self.account.api.account_id}/{connection_id}"


@pytest.fixture
def sandbox() -> Iterator[Accounts]:
    """The server's own account, and other accounts beside it."""
    sandbox = Accounts(api_key=API_KEY, api_secret=API_SECRET)
    sync_until_paused(sandbox)
    yield sandbox
    sandbox.close()


def _guest(sandbox: Accounts, name: str) -> Iterator[Guest]:
    account = Sandbox(api_key=f"key-of-{name}", api_secret=f's3cret/of+{name}&"quoted"')
    account.api.account_id = name
    sync_until_paused(account)
    guest = Guest(account, account.api.api_key, account.api.api_secret)
    sandbox.add(guest.key, guest.secret, account)
    yield guest
    account.close()


@pytest.fixture
def ann(sandbox: Accounts) -> Iterator[Guest]:
    yield from _guest(sandbox, "ann_account")


@pytest.fixture
def bob(sandbox: Accounts) -> Iterator[Guest]:
    yield from _guest(sandbox, "bob_account")


@pytest.fixture
def without_own(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a server without credentials of its own."""
    del environment["FIVETRAN_API_KEY"], environment["FIVETRAN_API_SECRET"]
    return environment


@pytest.mark.slow
async def test_each_guest_meets_its_own_account_and_the_server_keeps_its_own(
    http: Serve, sandbox: Accounts, ann: Guest, bob: Guest
) -> None:
    ann.account.set_state(IDLE, '{"whose":"ann"}')
    own, bobs = state_of(sandbox, IDLE), state_of(bob.account, IDLE)
    path, body = "/state/update", {"connection_id": IDLE, "new_state": CURSOR}
    async with http() as server:
        read = await post(server.client, "/state/get", ann.body | {"connection_id": IDLE})
        by_body = await post(server.client, path, ann.body | body)
        assert (state_of(ann.account, IDLE), state_of(bob.account, IDLE)) == (CURSOR, bobs)
        answer = await server.client.post(path, json=ANY | body, headers=bob.headers)
        by_headers = answer.json()
        assert (state_of(bob.account, IDLE), state_of(sandbox, IDLE)) == (CURSOR, own)
        together = await post(
            server.client,
            "/state/update-multiple",
            ann.body | {"connection_ids": [IDLE, PAUSED], "merge_patch": {"a": 1}},
        )
        mine = await post(server.client, path, ANY | body)
        listed = await server.client.get("/connections", headers=bob.headers)
        history = await server.client.get(
            "/workflows", params={"connection_id": IDLE}, headers=ann.headers
        )
        all_of = {
            name: [
                each["workflow_id"]
                for each in (await server.client.get("/workflows", headers=headers)).json()[
                    "workflows"
                ]
            ]
            for name, headers in (("ann", ann.headers), ("bob", bob.headers), ("own", {}))
        }

    assert read["state"] == {"whose": "ann"}
    assert by_body["workflow_id"] == f"{ann.owner(IDLE)}:1"
    assert by_headers["workflow_id"] == f"{bob.owner(IDLE)}:1"
    assert mine["workflow_id"] == f"{IDLE}:1"
    assert [each["status"] for each in together.values()] == ["updated", "updated"]
    assert state_of(ann.account, IDLE) == CURSOR | {"a": 1}
    assert listed.status_code == 200
    assert [each["workflow_id"] for each in history.json()["workflows"]] == [
        f"{ann.owner(IDLE)}:2",
        f"{ann.owner(IDLE)}:1",
    ]
    ids = [f"{ann.owner(IDLE)}:1", f"{ann.owner(IDLE)}:2", f"{ann.owner(PAUSED)}:1"]
    assert (sorted(all_of["ann"]), all_of["bob"]) == (ids, [f"{bob.owner(IDLE)}:1"])
    assert all_of["own"] == [f"{IDLE}:1"]
    assert [r for r in ann.account.log if is_resume(r)]


async def test_the_update_of_a_guest_does_not_exist_for_anybody_else(
    http: Serve, sandbox: Accounts, ann: Guest, bob: Guest
) -> None:
    body = ann.body | {"connection_id": SYNCING, "new_state": CURSOR}
    several = ann.body | {"connection_ids": [PAUSED, SYNCING], "new_state": CURSOR}
    sync_runs_on(ann.account)
    async with http() as server:
        first = await post(server.client, "/state/update", ANY | body, status=202, Prefer="wait=0")
        workflow_id = first["workflow_id"]
        together = await post(
            server.client, "/state/update-multiple", several, status=409, Prefer="wait=9"
        )
        for headers in ({}, bob.headers):
            for id_ in (workflow_id, together["workflow_id"]):
                answers = [
                    await server.client.get(f"/workflows/{id_}", headers=headers),
                    await server.client.post(f"/workflows/{id_}/cancel", json={}, headers=headers),
                ]
                for answer in answers:
                    found = (answer.status_code, answer.json()["code"])
                    assert found == (404, "workflow_not_found")
            restore = {"connection_id": SYNCING, "restore_from": workflow_id}
            answer = await server.client.post("/state/update", json=ANY | restore, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        async with server.mcp(extensions=[FollowsTasks()]) as client:
            for tool in ("workflow_status", "cancel_update"):
                error = await refused(client, tool, workflow_id=workflow_id)
                assert error["code"] == "workflow_not_found"
            assert updates_in(await call(client, "state_history", connection_id=SYNCING)) == []
            for method in ("tasks/get", "tasks/cancel"):
                with pytest.raises(MCPError, match="no such task"):
                    await ask(client, method, workflow_id)
            with pytest.raises(MCPError):
                await client.read_resource(f"fivetran://workflows/{workflow_id}")
            offered = await client.complete(
                ResourceTemplateReference(
                    type="ref/resource", uri="fivetran://workflows/{workflow_id}"
                ),
                {"name": "workflow_id", "value": ""},
            )
            assert offered.completion.values == []
        seen = await server.client.get(f"/workflows/{workflow_id}", headers=ann.headers)
        cancelled = await server.client.post(
            f"/workflows/{workflow_id}/cancel", json={}, headers=ann.headers
        )

    assert seen.json()["status"] == "running"
    assert cancelled.json()["status"] == "cancelled"
    assert together["code"] == "update_in_progress"


async def test_a_guest_cancels_its_own_update_by_the_credentials_in_the_body_or_the_headers(
    http: Serve, sandbox: Accounts, ann: Guest
) -> None:
    body = {"connection_id": SYNCING, "new_state": CURSOR}
    sync_runs_on(sandbox)
    sync_runs_on(ann.account)
    async with http() as server:
        own = f"/workflows/{SYNCING}:1"
        anns = f"/workflows/{ann.owner(SYNCING)}"
        await post(server.client, "/state/update", ANY | body, status=202, Prefer="wait=0")
        await post(server.client, "/state/update", ann.body | body, status=202, Prefer="wait=0")
        not_anns = await post(server.client, f"{own}/cancel", ann.body, status=404)
        by_body = await post(server.client, f"{anns}:1/cancel", ann.body)
        await post(server.client, "/state/update", ann.body | body, status=202, Prefer="wait=0")
        by_headers = await server.client.post(f"{anns}:2/cancel", json={}, headers=ann.headers)
        unharmed = await get(server.client, own)
        cancelled = await post(server.client, f"{own}/cancel", {})

    assert not_anns["code"] == "workflow_not_found"
    assert (by_body["status"], by_headers.json()["status"]) == ("cancelled", "cancelled")
    assert (unharmed["status"], cancelled["status"]) == ("running", "cancelled")


@pytest.mark.slow
async def test_a_page_of_the_servers_own_updates_tells_nothing_of_a_guests(
    http: Serve, sandbox: Accounts, ann: Guest
) -> None:
    body = {"connection_id": IDLE, "new_state": CURSOR}
    more_than_are_searched = 1100
    async with http() as server:
        await post(server.client, "/state/update", ANY | body)
        await post(server.client, "/state/update", ann.body | body)
        multiply(server.settings, ann.owner(IDLE), times=more_than_are_searched)
        pages = [await get(server.client, "/workflows")]
        while cursor := pages[-1].get("next_cursor"):
            pages.append(await get(server.client, "/workflows", cursor=cursor))

    assert [each["workflow_id"] for page in pages for each in page["workflows"]] == [f"{IDLE}:1"]
    assert len(pages) > 1
    for page in pages[:-1]:
        told = base64.urlsafe_b64decode(page["next_cursor"]) + page["next_cursor"].encode()
        assert all(text not in told for text in (b"ann", IDLE.encode()))


def multiply(settings: Settings, owner: str, times: int) -> None:
    """Adds this many updates of this owner, each a copy of the first one, a millisecond later."""
    first = f"{owner}:1"
    with closing(sqlite3.connect(settings.home / "state.db")) as database, database:
        application, text, result = database.execute(
            "SELECT application_name, workflow_input.inputs, workflow_output.output FROM workflow_status JOIN workflow_input "
            "USING (workflow_uuid) JOIN workflow_output USING (workflow_uuid) "
            "WHERE workflow_uuid = ?",
            [first],
        ).fetchone()
        sealer = vault.SealingSerializer(vault.keys(settings), application)
        request = sealer.deserialize(text)["args"][0].value
        outcome = sealer.deserialize(result).value
        for number in range(2, times + 1):
            copy = f"{owner}:{number}"
            asked = vault.Bound(binding.input_of(copy, "update_state"), request)
            done = vault.Bound(binding.output_of(copy), outcome)
            inputs = sealer.serialize({"args": [asked], "kwargs": {}})
            insert_copy(database, "workflow_status", first, copy, created_at=number)
            insert_copy(database, "workflow_input", first, copy, inputs=inputs)
            insert_copy(database, "workflow_output", first, copy, output=sealer.serialize(done))


def insert_copy(
    database: sqlite3.Connection, table: str, first: str, copy: str, **values: str | int
) -> None:
    """Copies a workflow's row with other values; times are milliseconds later."""
    values["workflow_uuid"] = copy
    new = {name: f":{name}" for name in values} | {"created_at": "created_at + :created_at"}
    names = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
    database.execute(
        f"INSERT INTO {table} ({', '.join(names)}) "
        f"SELECT {', '.join(new.get(name, name) for name in names)} FROM {table} "
        "WHERE workflow_uuid = :first",
        values | {"first": first},
    )


async def test_another_key_of_the_servers_own_account_shares_its_updates(
    http: Serve, sandbox: Accounts
) -> None:
    sandbox.add(OTHER_KEY, "its-secret", sandbox)
    whose = {"api_key": OTHER_KEY, "api_secret": "its-secret"}
    body = {"connection_id": IDLE, "new_state": CURSOR}
    async with http() as server:
        made = await post(server.client, "/state/update", whose | body)
        used = list(sandbox.used)
        seen = await get(server.client, f"/workflows/{IDLE}:1")
        undone = await post(
            server.client,
            "/state/update",
            {"connection_id": IDLE, "restore_from": f"{IDLE}:1", "expected_version": "*"},
        )

    assert made["workflow_id"] == f"{IDLE}:1"
    assert used == [OTHER_KEY] * len(used)
    assert len(used) > 7  # One call for the account of the key, and the seven calls of the update.
    assert len(sandbox.used) == len(used), "its own calls are made with its own key"
    assert seen["status"] == "updated"
    assert undone["workflow_id"] == f"{IDLE}:2"


async def test_an_update_is_made_with_the_key_of_its_request(
    http: Serve, sandbox: Accounts, ann: Guest
) -> None:
    sandbox.add(OTHER_KEY, "its-secret", ann.account)
    other = {"api_key": OTHER_KEY, "api_secret": "its-secret"}
    async with http() as server:
        await post(server.client, "/state/get", ann.body | {"connection_id": IDLE})
        await post(server.client, "/state/get", other | {"connection_id": IDLE})
        before = len(sandbox.used)
        body = ann.body | {"connection_id": IDLE, "new_state": CURSOR}
        await post(server.client, "/state/update", ANY | body)

    assert set(sandbox.used[before:]) == {ann.key}


async def test_a_key_that_may_not_ask_whose_it_is_stands_for_an_account_of_its_own(
    http: Serve, ann: Guest
) -> None:
    ann.account.fault("status", status=403, path="/account/info", times=9)
    body = {"connection_id": IDLE, "new_state": CURSOR}
    async with http() as server:
        made = await post(server.client, "/state/update", ann.body | body)
        seen = await server.client.get(f"/workflows/{made['workflow_id']}", headers=ann.headers)
        await get(server.client, f"/workflows/{made['workflow_id']}", status=404)

    assert made["workflow_id"].startswith("key-")
    assert seen.json()["status"] == "updated"
    assert state_of(ann.account, IDLE) == CURSOR


async def test_an_account_whose_name_is_odd_has_updates_as_any(http: Serve, ann: Guest) -> None:
    body = {"connection_id": IDLE, "new_state": CURSOR}
    async with http() as server:
        for name in ("_Ünlüe/..:1", "x" * 150, "-"):
            ann.account.api.account_id = name
            ann.account.api.api_key = f"key-{len(name)}"
            headers = {"Fivetran-Api-Key": ann.key, "Fivetran-Api-Secret": ann.secret}
            made = await post(server.client, "/state/update", ann.body | body)
            seen = await server.client.get(f"/workflows/{made['workflow_id']}", headers=headers)
            assert seen.json()["workflow_id"] == made["workflow_id"]


async def test_credentials_that_do_not_hold_or_are_half_are_refused(
    http: Serve, ann: Guest
) -> None:
    for_ann = {"connection_id": IDLE}
    async with http() as server:
        wrong = await post(
            server.client, "/state/get", ann.body | for_ann | {"api_secret": "wrong"}, status=403
        )
        for half in (
            {"api_key": ann.key},
            {"api_secret": ann.secret},
            {"api_key": "", "api_secret": ""},
            {"api_key": ann.key, "api_secret": ""},
        ):
            answer = await post(server.client, "/state/get", for_ann | half, status=422)
            assert answer["code"] == "invalid_request"
            assert ann.secret not in json.dumps(answer)
        only_key = {"Fivetran-Api-Key": ann.key}
        answer_ = await server.client.get("/connections", headers=only_key)
        # The order of checks reveals nothing: the server's own callers see their own connections.
        own = await post(server.client, "/state/get", for_ann)

    assert wrong["code"] == "unauthorized"
    assert answer_.status_code == 422
    assert own["connection_id"] == IDLE


async def test_credentials_that_headers_and_body_do_not_agree_on_are_refused(
    http: Serve, ann: Guest, bob: Guest
) -> None:
    body = ann.body | {"connection_id": IDLE, "new_state": CURSOR}
    half = {"Fivetran-Api-Key": ann.key}
    async with http() as server:
        for headers in (bob.headers, half, ann.headers | {"Fivetran-Api-Secret": "wrong"}):
            cancel = f"/workflows/{ann.owner(IDLE)}:1/cancel"
            for path, content in (("/state/update", body), (cancel, ann.body)):
                answer = await server.client.post(path, json=content, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert state_of(ann.account, IDLE) != CURSOR
        twice = await server.client.post("/state/update", json=ANY | body, headers=ann.headers)

    assert twice.json()["workflow_id"] == f"{ann.owner(IDLE)}:1"
    assert state_of(ann.account, IDLE) == CURSOR


async def test_a_server_without_an_account_of_its_own_serves_guests_only(
    http: Serve, without_own: dict[str, str], ann: Guest
) -> None:
    body = {"connection_id": IDLE}
    async with http(takes_guests=True) as server:
        ready = await server.client.get("/readyz")
        nobody = await post(server.client, "/state/get", body, status=422)
        listed = await get(server.client, "/workflows", status=422)
        made = await post(server.client, "/state/update", ann.body | body | {"new_state": CURSOR})
        async with server.mcp() as client:
            unusable = await refused(client, "get_state", connection_id=IDLE)

    assert ready.status_code == 200
    assert (nobody["code"], listed["code"]) == ("missing_credentials", "missing_credentials")
    assert "api_key" in nobody["hint"]
    assert made["status"] == "updated"
    assert unusable["code"] == "missing_credentials"


@pytest.mark.slow
async def test_only_so_many_guests_are_remembered_and_none_loses_its_calls_or_its_update(
    http: Serve, sandbox: Accounts, fivetran: SandboxServer, ann: Guest, bob: Guest
) -> None:
    sync_runs_on(ann.account)
    others = accounts.REMEMBERED_GUESTS + 30
    for number in range(others):
        sandbox.add(f"key-{number}", bob.secret, bob.account)
    answers: list[dict[str, Any]] = []

    async def read() -> None:
        answers.append(await post(server.client, "/state/get", ann.body | {"connection_id": IDLE}))

    async with http() as server, anyio.create_task_group() as group:
        body = ann.body | {"connection_id": SYNCING, "new_state": CURSOR}
        started = await post(
            server.client, "/state/update", ANY | body, status=202, Prefer="wait=0"
        )
        await arrival(ann.account, is_pause)
        hangs = ann.account.fault("hang", path=f"/{IDLE}/state$")
        group.start_soon(read)
        await arrival(ann.account, lambda request: request.fault == "hang")
        before = fivetran.open_connections
        for number in range(others):
            whose = {"api_key": f"key-{number}", "api_secret": bob.secret}
            await post(server.client, "/state/get", whose | {"connection_id": IDLE})

        async def most_are_closed() -> bool:
            return fivetran.open_connections - before <= accounts.REMEMBERED_GUESTS

        await until(most_are_closed)
        hangs.release()
        ann.account.finish_sync(SYNCING)
        path = f"/workflows/{started['workflow_id']}"
        ended = await server.client.get(path, params={"wait": 50}, headers=ann.headers)

    assert [answer["connection_id"] for answer in answers] == [IDLE]
    assert ended.json()["status"] == "updated"
    assert state_of(ann.account, SYNCING) == CURSOR


# Killed, and looked for


async def begin_and_kill(environment: dict[str, str], folder: Path, guest: Guest) -> str:
    """The id of a guest's update. Its server died between the write and its checkpoint."""
    body = guest.body | {"connection_id": IDLE, "new_state": CURSOR, "reason": "why"}
    guest.account.fault(AFTER, method="PATCH", path="/state$")
    async with http_forked(environment, folder) as server:
        started = await post(
            server.client, "/state/update", ANY | body, status=202, Prefer="respond-async"
        )
        await arrival(guest.account, lambda request: request.fault == AFTER)
        await server.kill()
    assert guest.account.connection(IDLE).paused is True
    return str(started["workflow_id"])


@pytest.mark.slow
async def test_the_update_of_a_guest_is_completed_by_any_process_that_has_the_key(
    on_both: dict[str, str], tmp_path: Path, ann: Guest
) -> None:
    workflow_id = await begin_and_kill(on_both, tmp_path, ann)
    async with http_forked(on_both, tmp_path) as server:
        answer = await server.client.get(
            f"/workflows/{workflow_id}", params={"wait": 50}, headers=ann.headers
        )

    assert answer.json()["status"] == "updated"
    assert state_of(ann.account, IDLE) == CURSOR
    assert ann.account.connection(IDLE).paused is False


@pytest.mark.slow
async def test_finish_and_doctor_know_of_guests_of_a_server_without_an_account(
    without_own: dict[str, str], tmp_path: Path, ann: Guest
) -> None:
    await begin_and_kill(without_own, tmp_path, ann)
    wrong_code, _, stderr = await run_cli(without_own, "doctor")
    still, _, _ = await run_cli(without_own, "finish")
    assert ann.account.connection(IDLE).paused is True

    code, stdout, _ = await run_cli(without_own, "finish", "--guests")

    assert (code, stdout) == (0, "")
    assert state_of(ann.account, IDLE) == CURSOR
    assert ann.account.connection(IDLE).paused is False
    assert (wrong_code, still) == (1, 1)
    well, report, _ = await run_cli(without_own, "doctor", "--guests")
    assert well == 0, (report, stderr)
    assert "BAD" not in report


@pytest.mark.slow
async def test_a_server_without_an_account_hands_its_guests_over_when_it_is_stopped(
    without_own: dict[str, str], tmp_path: Path, ann: Guest
) -> None:
    hasty = without_own | {"FIVETRAN_STATE_SHUTDOWN_WAIT": "0"}
    body = ann.body | {"connection_id": SYNCING, "new_state": CURSOR}
    sync_runs_on(ann.account)
    async with http_forked(hasty, tmp_path) as server:
        started = await post(
            server.client, "/state/update", ANY | body, status=202, Prefer="respond-async"
        )
        await arrival(ann.account, is_pause)
    ann.account.finish_sync(SYNCING)

    await arrival(ann.account, lambda request: request.applied and is_resume(request))
    async with http_forked(without_own, tmp_path) as server:
        path = f"/workflows/{started['workflow_id']}?wait=50"
        ended = (await server.client.get(path, headers=ann.headers)).json()
    assert ended["status"] == "updated"
    assert state_of(ann.account, SYNCING) == CURSOR


@pytest.mark.slow
async def test_finish_names_the_connection_of_a_guest_that_is_left_paused_until_it_comes_again(
    http: Serve, environment: dict[str, str], ann: Guest
) -> None:
    refuse_resumes(ann.account, IDLE, first=403)
    async with http() as server:
        body = ann.body | {"connection_id": IDLE, "new_state": CURSOR}
        left = await post(server.client, "/state/update", ANY | body, status=502)
    assert left["code"] == "left_paused"

    paused = await run_cli(environment, "finish")
    ann.account.set_paused(IDLE, False)
    # The update's credentials are erased, so nobody can see if it is still paused until they come
    # again.
    unknown = await run_cli(environment, "finish")
    async with http() as server:
        await post(
            server.client,
            "/state/update",
            ann.body | {"connection_id": IDLE, "new_state": {}},
        )
    well = await run_cli(environment, "finish")

    assert (paused[0], unknown[0], well[0]) == (3, 3, 0)
    assert f"{ann.owner(IDLE)} is still paused by {left['workflow_id']}" in paused[2]


def kept_credentials(environment: dict[str, str], account: Sandbox) -> dict[str, bool]:
    """For each workflow id, True if the input of the workflow contains credentials."""
    keys = vault.keys_from_environment(SECRET_KEY)
    with dbos_client(environment, account) as client, client._sys_db.engine.begin() as database:
        status = client._sys_db.tables.workflow_status
        inputs = client._sys_db.tables.workflow_input
        rows = database.execute(
            sa.select(status.c.workflow_uuid, sa.func.coalesce(inputs.c.inputs, status.c.inputs))
            .outerjoin(inputs, inputs.c.workflow_uuid == status.c.workflow_uuid)
            .where(status.c.name.in_(["update_state", "together"]))
        ).all()
    serializer = vault.SealingSerializer(keys, f"fivetran-state-{account.api.account_id}")
    return {id_: "credentials" in str(serializer.deserialize(sealed)) for id_, sealed in rows}


@pytest.mark.slow
async def test_the_credentials_of_a_guest_are_erased_when_its_update_has_ended(
    on_both: dict[str, str], sandbox: Accounts, tmp_path: Path, ann: Guest
) -> None:
    environment = on_both | {"FIVETRAN_STATE_SECRET_KEY": SECRET_KEY}
    sync_runs_on(ann.account)
    async with http_forked(environment, tmp_path) as server:
        for path, body in (
            ("/state/update", {"connection_id": IDLE, "new_state": CURSOR}),
            ("/state/update-multiple", {"connection_ids": [IDLE, PAUSED], "new_state": {}}),
        ):
            await post(server.client, path, ann.body | body)
        failing = ann.body | {"connection_id": IDLE, "new_state": {}, "expected_version": "0" * 32}
        await post(server.client, "/state/update", failing, status=409)
        waiting = ann.body | {"connection_id": SYNCING, "new_state": CURSOR}
        await post(server.client, "/state/update", waiting, status=202, Prefer="respond-async")
        await arrival(ann.account, is_pause)
        cancel = f"/workflows/{ann.owner(SYNCING)}:1/cancel"
        cancelled = await post(server.client, cancel, ann.body)
        await post(server.client, "/state/update", waiting, status=202, Prefer="respond-async")
        running = f"{ann.owner(SYNCING)}:2"

        async def only_running() -> bool:
            kept = await anyio.to_thread.run_sync(kept_credentials, environment, sandbox)
            return len(kept) == 7 and [id_ for id_ in kept if kept[id_]] == [running]

        async def is_paused() -> bool:
            return ann.account.connection(SYNCING).paused

        await until(only_running)
        await until(is_paused)  # Otherwise another sync would run on.
        await server.kill()
    ann.account.finish_sync(SYNCING)

    async with http_forked(environment, tmp_path) as server:
        path = f"/workflows/{running}?wait=50"
        ended = (await server.client.get(path, headers=ann.headers)).json()
    assert (cancelled["status"], ended["status"]) == ("cancelled", "updated")
    kept = await anyio.to_thread.run_sync(kept_credentials, environment, sandbox)
    assert [id_ for id_ in kept if kept[id_]] == []


@pytest.mark.slow
async def test_a_guest_plans_changes_and_undoes_a_group_that_nobody_else_sees(
    http: Serve, sandbox: Accounts, ann: Guest, bob: Guest
) -> None:
    path, own = "/states/update", state_of(sandbox, IDLE)
    before = [state_of(ann.account, each) for each in (IDLE, PAUSED)]
    body = ann.body | {"connection_ids": [IDLE, PAUSED], "new_state": CURSOR}
    async with http() as server:
        plan = await post(server.client, path, body | {"dry_run": True})
        made = await post(server.client, path, body | {"expected_version": plan["version"]})
        changed = [state_of(ann.account, each) for each in (IDLE, PAUSED)]
        undo = {"undo": made["workflow_id"]}
        foreign = await post(server.client, path, ANY | bob.body | undo, status=404)
        await post(server.client, path, ANY | ann.body | undo)

    assert made["workflow_id"].startswith(f"{ann.account.api.account_id}/together:")
    assert changed == [CURSOR, CURSOR]
    assert foreign["code"] == "workflow_not_found"
    assert [state_of(ann.account, each) for each in (IDLE, PAUSED)] == before
    assert state_of(sandbox, IDLE) == own


@pytest.mark.slow
async def test_the_credentials_of_a_request_are_in_no_file_no_dump_no_log_and_no_answer(
    on_postgres: dict[str, str], postgres: Postgres, tmp_path: Path, ann: Guest, bob: Guest
) -> None:
    environment = on_postgres | {"FIVETRAN_STATE_LOG_LEVEL": "DEBUG"}
    answers: list[str] = []
    async with http_forked(environment, tmp_path) as server:
        for path, body, status in (
            ("/state/get", {"connection_id": IDLE}, 200),
            ("/state/get", {"connection_id": "not_there"}, 404),
            ("/state/get", {"connection_id": 5}, 422),
            ("/state/update", {"connection_id": IDLE, "new_state": CURSOR}, 200),
            ("/state/update", {"connection_id": IDLE, "wrong": 1}, 422),
            ("/state/update-multiple", {"connection_ids": [PAUSED], "new_state": CURSOR}, 200),
            ("/states/update", ANY | {"filter": {"name": PAUSED}, "new_state": {}}, 200),
        ):
            answer = await post(server.client, path, ann.body | body, status=status)
            answers.append(json.dumps(answer, default=str))
        bad = ann.body | {"api_secret": {"nested": ann.secret}}
        answers.append(json.dumps(await post(server.client, "/state/get", bad, status=422)))
        cut = json.dumps(ann.body)[:-1]
        answers.append(json.dumps(await post(server.client, "/state/get", cut, status=422)))
        listed = await server.client.get("/workflows", headers=bob.headers)
        answers.append(listed.text)
        wrong = bob.body | {"api_secret": f"{bob.secret}, mistyped", "connection_id": IDLE}
        answers.append(json.dumps(await post(server.client, "/state/get", wrong, status=403)))
    await begin_and_kill(environment, tmp_path, bob)
    (tmp_path / "dump.sql").write_bytes(
        await anyio.to_thread.run_sync(postgres.dump, environment["DBOS_SYSTEM_DATABASE_URL"])
    )
    (tmp_path / "answers.txt").write_text("\n".join(answers))

    assert f"{bob.owner(IDLE)}:1" in (tmp_path / "dump.sql").read_text()
    logs = [path for path in files_under(tmp_path) if path.name.endswith("stderr.txt")]
    assert len(logs) == 2
    assert all('"level": "debug"' in log.read_text() for log in logs)
    kept = [ann.secret, bob.secret, ann.key, bob.key]
    assert where(kept, files_under(tmp_path)) == []


async def test_the_operators_policy_binds_guests_too(
    http: Serve, ann: Guest, tmp_path: Path
) -> None:
    """What needs approval is refused: nobody here could judge it."""
    watch = Watch(ann.account, IDLE)
    rules = policy(
        tmp_path,
        'name = "frozen"\npaths = ["/frozen"]\napproval = "forbidden"',
        'name = "rewinds"\npaths = ["/cursor"]\napproval = "required"',
    )
    body = ann.body | {"connection_id": IDLE}
    async with http(**rules) as server:
        forbidden = body | {"merge_patch": {"frozen": 1}}
        refused = await post(server.client, "/state/update", forbidden, status=403)
        needs_approval = body | {"merge_patch": CURSOR}
        unjudged = await post(server.client, "/state/update", needs_approval, status=403)
        assert watch.requests("PATCH", state=True) == []
        made = await post(server.client, "/state/update", body | {"merge_patch": {"a": 1}})

    assert 'The rule "frozen"' in refused["detail"]
    assert "cannot be proposed" in unjudged["detail"]
    assert made["status"] == "updated"
