"""Look-ups find their rows through an index, and never those of a neighbour, however many there are."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from fivetran_state import state
from fivetran_state.changes import Inline
from fivetran_state.errors import UpdateInProgress
from fivetran_state.runtime.launch import Launched
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from fivetran_state.service import Service
from fivetran_state.updates import marks
from fivetran_state.updates.records import GroupRequest, UpdateRequest
from tests.support.accounts import Accounts
from tests.support.calls import API_KEY, API_SECRET
from tests.support.outside import delete_in_database, opened
from tests.support.plans import queries, searches
from tests.support.watching import service_in

NEIGHBOURS = ("a", "A", "ab", "a_", "a-", "a1")
"""Connections whose ids are alike to LIKE, to a collation or as prefixes."""
GUEST_KEY, GUEST_SECRET = "key-of-a-guest", "secret-of-a-guest"


@pytest.fixture(params=["environment", "on_postgres"])
def on_each(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a server, once with each kind of database."""
    environment: dict[str, str] = request.getfixturevalue(request.param)
    return environment


@asynccontextmanager
async def launched_in(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Service, Launched]]:
    async with service_in(environment, monkeypatch) as service:
        yield service, await service._engine.up()


def add(sandbox: Sandbox, *ids: str) -> None:
    for each in ids:
        sandbox.add_connection(each, state='{"cursor":"2019"}', paused=True)


async def update(service: Service, connection_id: str, key: str | None = None) -> str:
    seen = await service.states.get_state(connection_id)
    change = Inline(state.Change("merge_patch", {"cursor": uuid.uuid4().hex}))
    made = await service.changes.update_state(
        connection_id,
        change,
        expected_version=seen.version,
        idempotency_key=key,
        wait_seconds=60,
    )
    assert made.status == "updated"
    return str(made.workflow_id)


def group_of(request: UpdateRequest) -> GroupRequest:
    return GroupRequest(
        mode="independent",
        waits=False,
        members=[request],
        expected_version=None,
        left_out=[],
        fingerprint="the same",
    )


async def listed(service: Service, connection_id: str) -> list[str]:
    page = await service.workflows.list_workflows(connection_id, limit=100)
    return [each.workflow_id for each in page.workflows]


def copy(
    environment: dict[str, str], workflow_id: str, copies: Sequence[str], **changed: str
) -> None:
    """Rows like this one, under other ids."""
    with opened(environment) as database:
        table = reflected(database, "workflow_status")
        found = database.execute(sa.select(table).where(table.c.workflow_uuid == workflow_id))
        row = dict(found.mappings().one())
        database.execute(
            sa.insert(table),
            [row | {"workflow_uuid": each, "creator_xid": None} | changed for each in copies],
        )


def set_mark(environment: dict[str, str], name: str, number: int | None) -> None:
    with opened(environment) as database:
        table = reflected(database, marks.table.name)
        assert database.execute(sa.delete(table).where(table.c.name == name)).rowcount == 1
        if number is not None:
            account = database.scalar(sa.select(sa.func.max(table.c.account)))
            row: dict[str, Any] = {"account": account, "name": name, "number": number}
            database.execute(sa.insert(table).values(**row))


def reflected(database: sa.Connection, name: str) -> sa.Table:
    schema = None if database.dialect.name == "sqlite" else "dbos"
    return sa.Table(name, sa.MetaData(), autoload_with=database, schema=schema)


@pytest.mark.slow
async def test_no_call_reads_every_workflow(
    sandbox: Sandbox, on_each: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sandbox, "a", "b")
    async with launched_in(on_each, monkeypatch) as (service, _):
        await update(service, "a", "a key")
    with queries() as made:
        async with launched_in(on_each, monkeypatch) as (service, launched):
            await update(service, "a", "another key")
            await update(service, "b")
            await service.workflows.workflow_status("a:1")
            await service.history.time_line("a")
            await service.workflows.list_workflows("a")
            page = await service.workflows.list_all_workflows(limit=1)
            await service.workflows.list_all_workflows(cursor=page.next_cursor)
            await service.workflows.last_ended("a")
            await service.workflows.ended_since({"a": 1})
            for prefix in ("", "a", "a:", "together:"):
                await service.workflows.newest_workflow_ids(prefix, 10)
            updates = launched.updates
            await updates.listings.page("a_guest", None, 10)
            request = (await updates.store.get("a:1")).request
            group = await updates.groups.start(group_of(request), None, None)
            await updates.store.parts_of(group, {})
            assert (await updates.groups.follow(group, None, 60)).has_ended
            await updates.unfinished.left_paused()
            await asyncio.to_thread(launched.recovery.once)
            await asyncio.to_thread(launched.recovery.find_credentials)
            await updates.retention.forget(30)
            await updates.retention.thin(30)
            await service.operations.look()
    async with launched_in(on_each, monkeypatch) as (_, launched):
        assert len(made) > 20
        assert searches(launched.storage.reader.client._sys_db.engine, made) == []


async def test_a_search_through_everybodys_workflows_would_be_noticed(
    on_each: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with launched_in(on_each, monkeypatch) as (_, launched):
        reader = launched.storage.reader
        with queries() as made:
            reader.find_now(workflow_id_prefix="a:")
            reader.find_now(name="update_state")
            reader.find_now(workflow_id_prefix="a:", sort_desc=True, limit=1)
        assert len(searches(reader.client._sys_db.engine, made)) == 3


@pytest.mark.slow
async def test_neighbours_never_see_each_others_updates(
    sandbox: Sandbox, on_each: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sandbox, *NEIGHBOURS)
    async with launched_in(on_each, monkeypatch) as (service, launched):
        for count, name in enumerate(NEIGHBOURS):
            for _ in range(count):
                await update(service, name)
        # Ids that this program does not give, but that somebody may have stored.
        copy(on_each, "A:1", ["a::1", "a%:7", "a:b:9", "a/a:8"])
        for count, name in enumerate(NEIGHBOURS):
            expected = [f"{name}:{number}" for number in range(count, 0, -1)]
            assert await listed(service, name) == expected
            assert await service.workflows.last_ended(name) == count
            assert await service.workflows.newest_workflow_ids(f"{name}:", 10) == expected
            latest = await launched.updates.store.latest(name)
            assert (None if latest is None else latest.workflow_id) == next(iter(expected), None)
        begun = await service.workflows.newest_workflow_ids("a", 100)
        assert {each.partition(":")[0] for each in begun} == {"ab", "a_", "a-", "a1"}


@pytest.mark.slow
async def test_numbers_go_on_from_the_rows_wherever_the_mark_is(
    sandbox: Sandbox, on_each: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sandbox, "a")
    async with launched_in(on_each, monkeypatch) as (service, _):
        await update(service, "a")
        # As by an older program, which writes no marks.
        copy(on_each, "a:1", [f"a:{number}" for number in range(2, 301)])
        assert await update(service, "a") == "a:301"
        for following, mark in enumerate((290, 1, None, 10**9, 2**40), 302):
            set_mark(on_each, "a", mark)
            assert await service.workflows.last_ended("a") == following - 1
            assert await update(service, "a") == f"a:{following}"


@pytest.mark.slow
async def test_numbers_go_on_where_old_updates_are_gone_and_the_mark_is_put_back(
    sandbox: Sandbox, on_each: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sandbox, "a")
    async with launched_in(on_each, monkeypatch) as (service, _):
        await update(service, "a")
        copy(on_each, "a:1", [f"a:{number}" for number in range(2, 301)])
        delete_in_database(on_each, sandbox, *(f"a:{number}" for number in range(1, 291)))
        for following, mark in enumerate((300, 280, 100, 10**9), 301):
            set_mark(on_each, "a", mark)
            assert await update(service, "a") == f"a:{following}"


@pytest.mark.slow
async def test_beside_a_running_update_none_is_started_though_its_mark_is_gone(
    sandbox: Sandbox, on_each: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sandbox, "a")
    async with launched_in(on_each, monkeypatch) as (service, _):
        await update(service, "a")
        # Of a later program, so that this one does not take it over.
        copy(on_each, "a:1", ["a:300"], status="PENDING", application_version="later")
        delete_in_database(on_each, sandbox, "a:1")
        set_mark(on_each, "a", None)

        with pytest.raises(UpdateInProgress):
            await update(service, "a")

        delete_in_database(on_each, sandbox, "a:300")  # Otherwise a process would wait for its end.


@pytest.mark.slow
async def test_the_numbers_of_another_account_are_skipped_at_once(
    sandbox: Sandbox, on_each: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sandbox, "a", "b")
    async with launched_in(on_each, monkeypatch) as (service, _):
        await update(service, "b")
        theirs = {"application_name": "somebody-else"}
        copy(on_each, "b:1", [f"a:{number}" for number in range(1, 301)], **theirs)
        assert await update(service, "a") == "a:301"
        copy(on_each, "b:1", [f"a:{number}" for number in range(302, 601)], **theirs)
        assert await listed(service, "a") == ["a:301"]
        assert await update(service, "a") == "a:601"
        assert await service.workflows.last_ended("a") == 601


@pytest.mark.slow
async def test_a_repeated_group_gets_the_next_free_id(
    sandbox: Sandbox, on_each: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sandbox, "a")
    async with launched_in(on_each, monkeypatch) as (service, launched):
        groups, store = launched.updates.groups, launched.updates.store
        request = (await store.get(await update(service, "a"))).request
        first = await groups.start(group_of(request), None, None)
        assert (await groups.follow(first, None, 60)).has_ended
        beginning = first.removesuffix(f"{1:08x}")
        copy(on_each, first, [f"{beginning}{number:08x}" for number in range(2, 301)])
        following = await groups.start(group_of(request), None, None)
        assert (await groups.follow(following, None, 60)).has_ended
        assert following == f"{beginning}{301:08x}"


async def test_a_connection_whose_updates_were_all_deleted_begins_again(
    sandbox: Sandbox, on_each: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sandbox, "a")
    async with launched_in(on_each, monkeypatch) as (service, _):
        await update(service, "a")
        delete_in_database(on_each, sandbox, "a:1")
        assert await listed(service, "a") == []
        assert await update(service, "a") == "a:1"
        assert await update(service, "a") == "a:2"


@pytest.mark.slow
async def test_the_marks_of_older_updates_are_made_at_the_start(
    sandbox: Sandbox, on_each: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sandbox, "a")
    async with launched_in(on_each, monkeypatch) as (service, _):
        await update(service, "a")
        await service.operations.look()
    copy(on_each, "a:1", [f"a:{number}" for number in range(2, 301)])
    copy(on_each, "a:1", ["a:", "a", ":1", f"a:{10**18}", "a:x"])
    delete_in_database(on_each, sandbox, *(f"a:{number}" for number in range(1, 291)))
    with opened(on_each) as database:
        reflected(database, marks.table.name).drop(database)

    async with launched_in(on_each, monkeypatch) as (service, launched):
        assert await launched.updates.store.series.owners("", 10) == {"a": 300}
        assert await update(service, "a") == "a:301"
        await service.operations.look()


@pytest.mark.slow
async def test_a_guests_updates_come_newest_first_page_by_page(
    on_each: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, account = Accounts(api_key=API_KEY, api_secret=API_SECRET), Sandbox()
    account.api.account_id = "guest_account"
    sandbox.add(GUEST_KEY, GUEST_SECRET, account)
    add(sandbox, "a")
    add(account, "a", "b")
    with SandboxServer(sandbox) as fivetran:
        at = {"FIVETRAN_API_URL": fivetran.url}
        async with launched_in(on_each | at, monkeypatch) as (service, launched):
            guest = await service.of(GUEST_KEY, GUEST_SECRET)
            made = [await update(guest, name) for name in ("a", "b", "a", "a", "b")]
            await update(service, "a")
            found = await all_listed(guest)
            moments = launched.storage.reader.created_at(made)
    assert found == sorted(made, key=lambda each: (moments[each], each), reverse=True)


async def all_listed(service: Service) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = await service.workflows.list_all_workflows(cursor=cursor, limit=2)
        found += [each.workflow_id for each in page.workflows]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_the_history_is_looked_through_once_a_day(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sandbox, "a")
    async with launched_in(environment, monkeypatch) as (service, launched):
        await update(service, "a")
        await launched.updates.retention.once_a_day(30)
        with queries() as made:
            await launched.updates.retention.once_a_day(30)
        assert made == []
        with queries() as made:
            await launched.updates.retention.once_a_day(31)
        assert made
