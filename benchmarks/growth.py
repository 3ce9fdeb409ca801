"""How much longer each call takes after many past updates than after 100.

`scripts/bench growth` fills databases with 100, 10,000 and 100,000 past updates (with `--million`,
1,000,000 too), and divides the time of each call by the time with 100. The target is 1.5. Each time is
the fastest of several, because other work on the machine only adds to it, and one process for each
size calls in turn with the others. The day's retention is over by then.

Half of the updates are of one connection, the others of up to 1,000 connections, over the last 60 days.
They are copies of an update that the program makes first: every value is opened, made to say what
it would say of the copy, and sealed again for its place.

100,000 take some minutes and about 1 GB of disk for each database; 1,000,000 take an hour or so and 10 GB.
"""

import asyncio
import json
import multiprocessing
import os
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any, cast

import sqlalchemy as sa

from benchmarks.account import DATABASES, ERRORS_ONLY, new_database, postgres_for, variables
from benchmarks.figures import Figure, Line, Table
from fivetran_state import dbos_internals, state, vault
from fivetran_state.changes import Inline
from fivetran_state.config import Settings
from fivetran_state.errors import EngineNotReady
from fivetran_state.history.rows import Rows
from fivetran_state.history.versions import Seals, SeenBy, Version
from fivetran_state.ids import UpdateId
from fivetran_state.runtime.launch import Launched
from fivetran_state.runtime.storage import Storage, open_storage
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from fivetran_state.service import Service
from fivetran_state.updates import marks
from fivetran_state.updates.keys import Keys
from fivetran_state.updates.records import UpdateRequest
from fivetran_state.vault import Bound
from tests.support.postgres import Postgres

SIZES = (100, 10_000, 100_000)
MILLION = 1_000_000
TARGET = 1.5
SPAN = 60 * 86_400_000
"""Milliseconds over which the updates are spread."""
MAX_OTHERS = 1000
"""Connections beside the busy one: an account has only so many, whatever its history."""
EACH = 10
"""Updates that each of these has, at least."""
AT_ONCE = 2_000
STARTS = 5
RETENTION = 90.0
TEMPLATE = "template"
TEMPLATE_ID = f"{TEMPLATE}:1"
TEMPLATE_KEY = "a key of the template"
BUSY, FEW, QUIET, NEW = "busy_river", "other_0", "quiet_lake", "new_meadow"
"""Half of all updates; one of the others; one, the oldest; none."""
GUEST = "guest_without_updates"
GET_STATE = {
    "`get_state`, half of the updates": BUSY,
    "`get_state`, few updates": FEW,
    "`get_state`, one update": QUIET,
    "`get_state`, no updates": NEW,
}
UPDATE = {"update, half of the updates": BUSY, "update, one update before": QUIET}
ONCE_A_DAY = "retention"
"""It looks at every version, so it takes longer the more there are."""
CALLS = (
    "start and end",
    *GET_STATE,
    "`workflow_status`",
    "`state_history`",
    "`state_history`, page 2",
    "updates of one",
    "updates of all",
    "updates of all, page 2",
    "a guest's updates",
    "completion of an id",
    "attach by key",
    *UPDATE,
    "recovery",
    "a look",
    ONCE_A_DAY,
)

Times = dict[str, float]
Row = dict[str, Any]


class Copies:
    """Copies one update, with all its rows, to other connections, numbers and times."""

    def __init__(self, storage: Storage, application: str, template: dict[str, list[Row]]) -> None:
        self._serializer = storage.serializer
        self._texts = storage.texts
        self._application = application
        self._template = template
        self._key_row = self._key_row_of(TEMPLATE_ID)
        self._began = template["workflow_status"][0]["created_at"]

    def of(self, workflow_id: str, began: int) -> Iterator[tuple[str, Row]]:
        """The table and the values of each row."""
        ids = {TEMPLATE_ID: workflow_id, self._key_row: self._key_row_of(workflow_id)}
        for table, rows in self._template.items():
            for row in rows:
                yield (
                    table,
                    {
                        name: self._column(name, value, workflow_id, ids, began - self._began)
                        for name, value in row.items()
                    },
                )

    def _key_row_of(self, workflow_id: str) -> str:
        request = {
            "connection_id": UpdateId.parse(workflow_id).owner,
            "idempotency_key": _key_of(workflow_id),
        }
        return Keys.row_id(
            cast(Keys, _Application(self._application)), cast(UpdateRequest, request)
        )

    def _column(
        self, name: str, value: Any, workflow_id: str, ids: dict[str, str], later: int
    ) -> Any:
        if isinstance(value, int) and ("_at" in name or "timestamp" in name):
            return value + later
        if name == "attributes" and value:
            return self._attributes(value, workflow_id)
        if name in ("inputs", "output", "error", "value", "message") and value is not None:
            return self._sealed(value, workflow_id, ids)
        if name in ("creator_xid", "owner_xid") and value is not None:
            return str(uuid.uuid4())
        return ids.get(value, value) if isinstance(value, str) else value

    def _attributes(self, value: Row, workflow_id: str) -> Row:
        _, about = cast(Any, self._texts.unseal(value["about"]))
        return value | {
            "request": self._serializer.digest(_key_of(workflow_id)),
            "about": self._texts.seal([workflow_id, _renamed(about, workflow_id)]),
        }

    def _sealed(self, text: str, workflow_id: str, ids: dict[str, str]) -> str:
        found = self._serializer.deserialize(text)
        if found is None:  # The end of a workflow that only keeps a key.
            return self._serializer.serialize(None)
        is_input = not isinstance(found, Bound)
        bound: Bound = found["args"][0] if is_input else found
        whose, _, rest = bound.place.partition(" ")
        copy = Bound(f"{ids[whose]} {rest}", _renamed(bound.value, workflow_id))
        return self._serializer.serialize(found | {"args": [copy]} if is_input else copy)


class _Application:
    def __init__(self, application: str) -> None:
        self._application = application


def _key_of(workflow_id: str) -> str:
    return TEMPLATE_KEY if workflow_id == TEMPLATE_ID else f"the key of {workflow_id}"


def _renamed(value: Any, workflow_id: str) -> Any:
    text = json.dumps(value).replace(TEMPLATE_KEY, _key_of(workflow_id))
    text = text.replace(TEMPLATE_ID, workflow_id)
    return json.loads(text.replace(f'"{TEMPLATE}"', f'"{UpdateId.parse(workflow_id).owner}"'))


def past_ids(count: int) -> Iterator[str]:
    """The ids of the updates, oldest first."""
    yield f"{QUIET}:1"
    others = others_of(count)
    for number in range(count // 2):
        yield f"other_{number % others}:{number // others + 1}"
        yield f"{BUSY}:{number + 1}"


def others_of(count: int) -> int:
    return min(count // 2 // EACH, MAX_OTHERS)


def fill(storage: Storage, application: str, key: bytes, count: int, began: int) -> None:
    engine, tables = dbos_internals.tables(storage.reader.client)
    names = ["workflow_status", "workflow_input", "workflow_output", "operation_outputs"]
    template: dict[str, list[Row]] = {}
    with engine.connect() as connection:
        for name in names:
            table = getattr(tables, name)
            is_its = sa.or_(
                table.c.workflow_uuid == TEMPLATE_ID,
                table.c.workflow_uuid.startswith(f"key:{TEMPLATE}:"),
            )
            found = connection.execute(sa.select(table).where(is_its)).mappings()
            template[name] = [dict(row) for row in found]
    copies = Copies(storage, application, template)
    step = SPAN // count
    first = began - SPAN - 3_600_000
    placed = ((each, first + index * step) for index, each in enumerate(past_ids(count)))
    while some := list(islice(placed, AT_ONCE)):
        rows: dict[str, list[Row]] = {name: [] for name in names}
        for workflow_id, at in some:
            for name, row in copies.of(workflow_id, at):
                rows[name].append(row)
        with engine.begin() as connection:
            for name in names:
                connection.execute(sa.insert(getattr(tables, name)), rows[name])
    with engine.begin() as connection:
        # The next start fills them as after an upgrade.
        connection.execute(sa.text(f"DELETE FROM {_schema(engine)}{marks.table.name}"))
    _fill_history(storage, application, key, count, first, step)


def _schema(engine: sa.Engine) -> str:
    return "" if engine.dialect.name == "sqlite" else "dbos."


def _fill_history(
    storage: Storage, application: str, key: bytes, count: int, first: int, step: int
) -> None:
    """A version for each update, as `history.writer` writes it."""
    seals = Seals(
        vault.Sealer([key], f"history of {application}"), storage.serializer.digest, application
    )
    rows = Rows(application, seals)
    last: dict[str, Version] = {}
    placed = ((each, first + index * step) for index, each in enumerate(past_ids(count)))
    while some := list(islice(placed, AT_ONCE)):
        with storage.history._engine.begin() as connection:
            for workflow_id, at in some:
                owner = UpdateId.parse(workflow_id).owner
                text = json.dumps({"cursor": at})
                content_id = seals.content_id(owner, text)
                before = last.get(owner)
                version = Version(
                    owner=owner,
                    ordinal=1 if before is None else before.ordinal + 1,
                    version=state.version(state.document(text)),
                    first_seen=at + 50,
                    last_seen=at + 50,
                    seen_by=SeenBy.UPDATE,
                    workflow_id=workflow_id,
                    content_id=content_id,
                    mark=uuid.uuid4().hex[:16],
                    previous=None if before is None else before.mark,
                )
                if before is None:
                    rows.lock(connection, owner)
                rows.add_content(
                    connection, owner, content_id, seals.sealed_content(owner, content_id, text)
                )
                rows.add(connection, version)
                last[owner] = version


@asynccontextmanager
async def running(settings: Settings) -> Any:
    service = Service(settings)
    service.start()
    try:
        yield service, await _up(service)
    finally:
        await service.close()


async def _up(service: Service) -> Launched:
    """The first start after `fill` takes longer than a caller waits."""
    while True:
        with suppress(EngineNotReady):
            return await service._engine.up()


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
    assert made.workflow_id is not None
    return made.workflow_id


class Turns:
    """This process's turns to call, which the parent gives."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    async def fastest(self, call: Callable[[], Awaitable[object]], rounds: int) -> float:
        """The seconds of the fastest of so many calls."""
        times = []
        for _ in range(rounds + 1):  # The first warms up.
            await asyncio.to_thread(self._pipe.recv)
            start = time.perf_counter()
            await call()
            times.append(time.perf_counter() - start)
            self._pipe.send(None)
        return min(times[1:])


class Bench:
    """The calls whose time must not grow."""

    def __init__(
        self, service: Service, launched: Launched, count: int, rounds: int, turns: Turns
    ) -> None:
        self._service = service
        self._launched = launched
        self._count = count
        self._rounds = rounds
        self._turns = turns
        self.times: Times = {}

    async def run(self) -> None:
        service, launched = self._service, self._launched
        updates = launched.updates
        for what, name in GET_STATE.items():
            await self._time(
                what,
                lambda: service.states.get_state(name),  # noqa: B023
            )
        last = f"{BUSY}:{self._count // 2}"
        await self._time("`workflow_status`", lambda: service.workflows.workflow_status(last))
        await self._time("`state_history`", lambda: service.history.time_line(BUSY))
        page = await service.history.time_line(BUSY)
        await self._time(
            "`state_history`, page 2",
            lambda: service.history.time_line(BUSY, cursor=page.next_cursor),
        )
        await self._time("updates of one", lambda: service.workflows.list_workflows(BUSY))
        await self._time("updates of all", lambda: service.workflows.list_all_workflows())
        every = await service.workflows.list_all_workflows()
        await self._time(
            "updates of all, page 2",
            lambda: service.workflows.list_all_workflows(cursor=every.next_cursor),
        )
        await self._time("a guest's updates", lambda: updates.listings.page(GUEST, None, 50))
        await self._time(
            "completion of an id", lambda: service.workflows.newest_workflow_ids(QUIET, 101)
        )
        first = await update(service, QUIET, "a key for this")
        await self._time("attach by key", lambda: self._attach(first))
        for what, name in UPDATE.items():
            await self._time(what, lambda: update(service, name))  # noqa: B023
        await self._time("recovery", lambda: asyncio.to_thread(launched.recovery.once))
        await self._time("a look", lambda: service.operations.look(), few=True)
        await self._time(ONCE_A_DAY, self._retain, few=True)

    async def _retain(self) -> None:
        await self._launched.updates.retention.forget(RETENTION)
        await self._launched.updates.retention.thin(RETENTION)

    async def _attach(self, workflow_id: str) -> None:
        request = (await self._launched.updates.store.get(workflow_id)).request
        found = await self._launched.updates.starter.with_key(request)
        assert found is not None
        assert found.workflow_id == workflow_id

    async def _time(
        self, what: str, call: Callable[[], Awaitable[object]], *, few: bool = False
    ) -> None:
        self.times[what] = await self._turns.fastest(call, 3 if few else self._rounds)


async def make_past(settings: Settings, count: int) -> None:
    """Fills the environment's database with so many past updates."""
    async with running(settings) as (service, launched):
        await update(service, TEMPLATE, TEMPLATE_KEY)
        application = launched.updates.runtime.application
    storage = open_storage(settings, application)
    fill(storage, application, vault.keys(settings)[0], count, time.time_ns() // 1_000_000)
    if settings.database_url is not None:
        engine = dbos_internals.tables(storage.reader.client)[0]
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # As autovacuum does in time.
            connection.execute(sa.text("VACUUM ANALYZE"))
    storage.close()
    async with running(settings) as (_, launched):
        # Otherwise it goes on beside the first calls that are timed.
        await launched.updates.retention.once_a_day(settings.retention_days)


async def times_of(count: int, rounds: int, turns: Turns) -> Times:
    """The times with so many past updates, in the environment's database."""
    settings = Settings()
    await make_past(settings, count)

    async def start() -> None:
        async with running(settings):
            pass

    starts = await turns.fastest(start, STARTS)
    async with running(settings) as (service, launched):
        bench = Bench(service, launched, count, rounds, turns)
        await bench.run()
    return {"start and end": starts} | bench.times


def work(count: int, rounds: int, database: dict[str, str], pipe: Connection) -> None:
    """What the process of one size does."""
    with SandboxServer(sandbox()) as fivetran, environment(fivetran.url, database):
        times = asyncio.run(times_of(count, rounds, Turns(pipe)))
    pipe.recv()
    pipe.send(times)


def measured(sizes: Sequence[int], rounds: int, server: Postgres | None) -> list[Times]:
    """The times with each size. The processes call in turn, so that each meets the same other load."""
    context = multiprocessing.get_context("spawn")
    pipes = []
    for size in sizes:
        pipe, theirs = context.Pipe()
        database = new_database(server)
        context.Process(target=work, args=(size, rounds, database, theirs), daemon=True).start()
        theirs.close()
        pipes.append(pipe)
    while True:
        answers = []
        for pipe in pipes:
            pipe.send(None)
            answers.append(pipe.recv())
        if None not in answers:
            return answers


@contextmanager
def environment(url: str, database: dict[str, str]) -> Iterator[None]:
    """Sets this process's environment."""
    with tempfile.TemporaryDirectory() as home:
        settings = variables(url, home) | ERRORS_ONLY | database
        os.environ.update(settings)
        try:
            yield
        finally:
            for name in settings:
                del os.environ[name]


def sandbox() -> Sandbox:
    """The same account for each size, because a look takes longer the more connections there are."""
    made = Sandbox()
    others = (f"other_{number}" for number in range(MAX_OTHERS))
    for each in (TEMPLATE, BUSY, QUIET, NEW, *others):
        made.add_connection(each, state='{"cursor":"2026"}', paused=True)
    return made


def line_of(call: str, database: str, size: int) -> Line:
    target = None if call == ONCE_A_DAY else TARGET
    return Line(call, "ratio", f"the same with {SIZES[0]}", target, f"{database}, {size:,}")


def measure(sizes: Sequence[int], rounds: int) -> Iterator[Figure]:
    for database in DATABASES:
        with postgres_for(database) as postgres:
            few, *more = measured(sizes, rounds, postgres)
        for size, times in zip(sizes[1:], more, strict=True):
            assert times.keys() == set(CALLS)
            for call in CALLS:
                yield Figure(line_of(call, database, size), (times[call] / few[call],))


def table(*, million: bool = False) -> Table:
    """With `million`, up to 1,000,000 past updates."""
    sizes = (*SIZES, MILLION) if million else SIZES
    return Table(
        "growth",
        "After many updates",
        "call",
        tuple(
            line_of(call, database, size)
            for call in CALLS
            for database in DATABASES
            for size in sizes[1:]
        ),
        partial(measure, sizes),
        rounds=25,
    )
