"""The history gives back what every state was, to whoever asks, and notices every change to it."""

import asyncio
import itertools
import json
import multiprocessing
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS, DBOSClient

from fivetran_state import state, vault
from fivetran_state.errors import (
    DatabaseUnavailable,
    FivetranStateError,
    InvalidRequest,
    Tampered,
    UnusableKey,
)
from fivetran_state.history import migrations, tables, timeline
from fivetran_state.history.rows import Rows
from fivetran_state.history.store import HistoryStore
from fivetran_state.history.thinner import Thinner
from fivetran_state.history.versions import Page, Seals, SeenBy, Version
from fivetran_state.history.warnings import MAX_KNOWN, Kind, warnings_for
from tests.support.calls import until
from tests.support.history import (
    ACCOUNT,
    KEY,
    OWNER,
    create_database,
    engine_of,
    remember,
    store_of,
)
from tests.support.postgres import Postgres

HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 1_800_000_000_000


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.new_database()
    create_database(url)
    return url


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    engine = engine_of(url)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: sa.Engine) -> HistoryStore:
    return store_of(engine, clock=lambda: NOW)


def cursor(number: int) -> str:
    return json.dumps({"cursor": number})


async def all_of(store: HistoryStore, owner: str = OWNER) -> list[Version]:
    """Every version, oldest first."""
    versions: list[Version] = []
    page = Page([], None)
    while page.next_cursor is not None or not versions:
        page = await store.page(owner, before=page.next_cursor, limit=200)
        versions += [entry.version for entry in page.entries]
        if not page.entries:
            break
    return versions[::-1]


async def cursors(store: HistoryStore, owner: str = OWNER) -> list[Any]:
    """What the state's cursor was, one after the other."""
    texts = [await store.document(each) for each in await all_of(store, owner)]
    return [json.loads(text)["cursor"] for text in texts]


async def test_the_state_at_any_instant_between_twenty_syncs_comes_back_exactly(
    store: HistoryStore,
) -> None:
    texts = [
        f'{{"cursor":"2026-01-{day:02}T00:00:00Z","id":9007199254740993{day:02},"share":1.10e-30,'
        f'"name":"Zürich \\u202e","z":[1.0,-0,{day}]}}'
        for day in range(1, 21)
    ]
    for number, text in enumerate(texts):
        await remember(store, text, number * HOUR)
        await remember(store, text, number * HOUR + 20 * 60_000)

    for number, text in enumerate(texts):
        for minutes, is_certain in ((0, True), (10, True), (20, True), (40, False)):
            found = await store.at(OWNER, number * HOUR + minutes * 60_000)
            assert found is not None
            assert await store.document(found.version) == text
            assert state.dump(state.document(await store.document(found.version))) == text.replace(
                "ü", "\\u00fc"
            )
            assert found.is_certain == is_certain
            assert found.version.first_seen == number * HOUR
            assert found.version.last_seen == number * HOUR + 20 * 60_000
            assert found.next_seen == ((number + 1) * HOUR if number < 19 else None)


async def test_there_is_nothing_before_the_first_look(store: HistoryStore) -> None:
    await remember(store, cursor(1), 100)

    assert await store.at(OWNER, 99) is None
    assert await store.latest("another") is None
    assert await store.page("another") == Page([], None)


async def test_the_same_state_again_is_only_seen_once_more(store: HistoryStore) -> None:
    first = await remember(store, '{"a":1,"b":1.10}', 100)
    again = await remember(store, '{"b":1.1,"a":1}', 250)
    late = await remember(store, '{"a":1,"b":1.10}', 200)

    assert (first.first_seen, first.last_seen) == (100, 100)
    assert (again.first_seen, again.last_seen) == (100, 250)
    assert late == again
    assert await all_of(store) == [again]
    assert await store.document(again) == '{"a":1,"b":1.10}'


async def test_a_state_that_returns_is_a_version_of_its_own(store: HistoryStore) -> None:
    for at, number in enumerate([1, 2, 1, 2]):
        await remember(store, cursor(number), at)

    assert await cursors(store) == [1, 2, 1, 2]


async def test_a_call_that_is_repeated_much_later_changes_nothing(store: HistoryStore) -> None:
    calls = [(1, 100), (2, 200), (1, 300), (3, 400)]
    for number, at in calls:
        await remember(store, cursor(number), at)
    before = await all_of(store)
    for number, at in calls:
        await remember(store, cursor(number), at)

    assert await all_of(store) == before


async def test_a_sighting_that_comes_late_takes_its_place(store: HistoryStore) -> None:
    await remember(store, cursor(1), 100)
    await remember(store, cursor(3), 300)
    await remember(store, cursor(2), 200)
    await remember(store, cursor(0), 50)

    assert await cursors(store) == [0, 1, 2, 3]


async def test_what_was_seen_between_two_sightings_of_one_version_parts_them(
    store: HistoryStore,
) -> None:
    await remember(store, cursor(1), 100)
    await remember(store, cursor(1), 500)
    await remember(store, cursor(2), 300)
    await remember(store, cursor(2), 300)

    found = await all_of(store)

    assert await cursors(store) == [1, 2, 1]
    assert [(each.first_seen, each.last_seen) for each in found] == [
        (100, 300),
        (300, 300),
        (500, 500),
    ]


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_order_sightings_come_in_the_history_is_one_line(
    store: HistoryStore, seed: int
) -> None:
    chance = random.Random(seed)
    sightings = [(at, chance.randrange(4)) for at in range(60)]
    last = sightings[-1][1]
    chance.shuffle(sightings)
    for at, number in sightings:
        await remember(store, cursor(number), at)

    found = await all_of(store)

    assert found[-1].version == state.version({"cursor": last})
    for before, after in pairwise(found):
        assert before.last_seen <= after.first_seen
        assert before.version != after.version
        assert before.position < after.position


async def test_a_version_that_was_seen_before_its_update_could_say_so_is_the_updates(
    store: HistoryStore,
) -> None:
    await remember(store, cursor(1), 100)
    await remember(store, cursor(2), 210, SeenBy.OTHERS)
    written = await remember(store, cursor(2), 200, SeenBy.UPDATE, workflow_id=f"{OWNER}:1")

    assert (written.first_seen, written.last_seen) == (200, 210)
    assert (written.seen_by, written.workflow_id) == (SeenBy.UPDATE, f"{OWNER}:1")


async def test_the_first_version_of_all_is_a_first_look(store: HistoryStore) -> None:
    first = await remember(store, cursor(1), 100, SeenBy.SYNC)
    second = await remember(store, cursor(2), 200, SeenBy.SYNC)
    by_update = await remember(
        store, cursor(1), 100, SeenBy.UPDATE, owner="another", workflow_id="another:1"
    )

    assert first.seen_by is SeenBy.FIRST_LOOK
    assert second.seen_by is SeenBy.SYNC
    assert by_update.seen_by is SeenBy.UPDATE


async def test_a_version_is_found_by_its_name_and_by_the_beginning_of_it(
    store: HistoryStore,
) -> None:
    for at, number in enumerate([1, 2, 1, 3]):
        await remember(store, cursor(number), at)
    version = state.version({"cursor": 1})

    for name in (version, version[:16], version[:8]):
        found = await store.by_version(OWNER, name)
        assert found is not None
        assert (found.version, found.first_seen) == (version, 2)
    assert await store.by_version(OWNER, "0" * 32) is None
    for malformed in ("", version[:7], version + "0", version.upper(), "zzzzzzzz"):
        with pytest.raises(InvalidRequest) as raised:
            await store.by_version(OWNER, malformed)
        assert "is not a version" in raised.value.message


async def test_a_beginning_that_several_versions_have_is_refused(store: HistoryStore) -> None:
    for number, at in ((1, 1), (2, 2)):
        name = f"{'a' * 16}{number:016}"
        await store.remember(OWNER, cursor(number), name, SeenBy.SYNC, at)

    with pytest.raises(InvalidRequest) as raised:
        await store.by_version(OWNER, "a" * 16)
    assert "Several versions" in raised.value.message
    found = await store.by_version(OWNER, f"{'a' * 16}{1:016}")
    assert found is not None


async def test_what_an_update_wrote_is_found_with_what_was_there_before(
    store: HistoryStore,
) -> None:
    update = f"{OWNER}:7"
    await remember(store, cursor(1), 100)
    await remember(store, cursor(2), 200, SeenBy.UPDATE, workflow_id=update)
    await remember(store, cursor(1), 300, SeenBy.UPDATE, workflow_id=update)
    await remember(store, cursor(3), 400)

    rolled_back, written = await store.by_workflow(OWNER, update)

    assert rolled_back.before == written.version
    assert written.before is not None
    assert written.before.version == state.version({"cursor": 1})
    assert await store.by_workflow(OWNER, f"{OWNER}:8") == []


async def test_pages_show_every_version_once_while_others_come_and_go(store: HistoryStore) -> None:
    for number in range(50):
        await remember(store, cursor(number), number * DAY + number)
    seen: list[int] = []
    page = await store.page(OWNER, limit=7)
    while True:
        seen += [entry.version.first_seen // DAY for entry in page.entries]
        for entry in page.entries:
            assert (entry.before is None) == (entry.version.first_seen == 0)
        if page.next_cursor is None:
            break
        await remember(store, cursor(1000 + len(seen)), 100 * DAY + len(seen))
        page = await store.page(OWNER, before=page.next_cursor, limit=7)

    assert seen == list(range(49, -1, -1))


async def test_a_page_begins_where_it_should_though_its_cursors_version_is_gone(
    store: HistoryStore,
) -> None:
    for number in range(40):
        await remember(store, cursor(number), NOW - 300 * DAY + number)
    page = await store.page(OWNER, limit=15)
    await store.thin(OWNER, retention_days=30)

    rest = await store.page(OWNER, before=page.next_cursor)

    assert rest == Page([], None)
    assert len(await all_of(store)) == 10


async def test_pages_are_filtered_by_kind_and_time(store: HistoryStore) -> None:
    kinds = [SeenBy.SYNC, SeenBy.OTHERS, SeenBy.SYNC, SeenBy.UPDATE] * 10
    for number, kind in enumerate(kinds):
        await remember(store, cursor(number), number * 10, kind)

    others = await store.page(OWNER, kinds=[SeenBy.OTHERS, SeenBy.UPDATE], limit=3)
    more = await store.page(OWNER, kinds=[SeenBy.OTHERS], before=others.next_cursor, limit=200)
    some = await store.page(OWNER, since=100, until=130)

    assert [each.version.first_seen for each in others.entries] == [390, 370, 350]
    assert [each.version.first_seen for each in more.entries] == list(range(330, 0, -40))
    assert more.next_cursor is None
    for entry in others.entries:
        assert entry.before is not None
        assert entry.before.seen_by is SeenBy.SYNC
    assert [each.version.first_seen for each in some.entries] == [120, 110, 100]


@pytest.mark.parametrize("malformed", ["", "1", "1:", "1:2:3", "-1:2", "x:y", "1:" + "9" * 30])
async def test_a_cursor_that_no_page_gave_is_refused(store: HistoryStore, malformed: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await store.page(OWNER, before=malformed)
    assert "is not a cursor" in raised.value.message


async def test_warnings_and_the_time_line_are_made_of_what_is_kept(store: HistoryStore) -> None:
    for number in range(120):
        await remember(store, f'{{"cursor":{number}.10,"id":9007199254740993}}', number * HOUR)

    known = await store.known(OWNER)
    odd = warnings_for(known[-1].document, {"cursor": "1"}, known, 120 * HOUR)
    page = await store.page(OWNER, limit=5)
    moved = await asyncio.to_thread(timeline.moves, page.entries, store.read, "/cursor")

    assert len(known) == MAX_KNOWN
    assert [known[0].seen, known[-1].seen] == [0, 119 * HOUR]
    assert [(each.kind, each.path) for each in odd.first] == [
        (Kind.REMOVED, "/id"),
        (Kind.ANOTHER_TYPE, "/cursor"),
    ]
    assert [each.changes[0].after for each in moved] == [f"{n}.10" for n in range(119, 114, -1)]
    assert await store.known("another") == []


async def test_a_connection_is_forgotten_whole_and_alone(store: HistoryStore) -> None:
    for owner in (OWNER, "another", "guest_account/another"):
        await remember(store, cursor(1), 100, owner=owner)
        await remember(store, cursor(2), 200, owner=owner)

    await store.forget("another")

    assert await store.owners() == ["guest_account/another", OWNER]
    assert await cursors(store, "another") == []
    assert await cursors(store, "guest_account/another") == [1, 2]
    await remember(store, cursor(3), 300, owner="another")
    assert await cursors(store, "another") == [3]


async def test_accounts_do_not_see_each_other(engine: sa.Engine) -> None:
    mine, theirs = store_of(engine), store_of(engine, "fivetran-state-other")
    await remember(mine, cursor(1), 100)
    await remember(theirs, cursor(2), 100)

    assert await mine.owners() == [OWNER]
    assert await cursors(mine) == [1]
    assert await cursors(theirs) == [2]


async def test_states_of_before_a_new_key_can_be_read_and_go_on(engine: sa.Engine) -> None:
    [new] = vault.keys_from_environment("another key that is long enough")
    await remember(store_of(engine), cursor(1), 100)
    store = store_of(engine, keys=[new, KEY])
    await remember(store, cursor(1), 200)
    await remember(store, cursor(2), 300)
    await remember(store, cursor(1), 400)

    assert await cursors(store) == [1, 2, 1]
    with pytest.raises(UnusableKey):
        await cursors(store_of(engine, keys=[new]))


@pytest.mark.slow
async def test_a_thousand_versions_are_kept_in_order(store: HistoryStore) -> None:
    for number in range(1000):
        await remember(store, cursor(number), number * 1000)

    assert await cursors(store) == list(range(1000))
    for number in (0, 1, 499, 998, 999):
        found = await store.at(OWNER, number * 1000 + 500)
        assert found is not None
        assert json.loads(await store.document(found.version)) == {"cursor": number}


async def test_a_large_state_is_stored_once_and_compressed(
    store: HistoryStore, engine: sa.Engine
) -> None:
    large = json.dumps({f"table_{n}": {"cursor": "2026-01-01T00:00:00Z"} for n in range(20_000)})
    for at in range(0, 6, 2):
        await remember(store, large, at)
        await remember(store, cursor(at), at + 1)

    with engine.connect() as connection:
        stored = connection.execute(sa.select(sa.func.length(tables.contents.c.sealed))).scalars()
        sizes = sorted(stored)
    assert len(sizes) == 4
    assert sizes[-1] < len(large) / 4
    latest = await store.by_version(OWNER, state.version(state.document(large)))
    assert latest is not None
    assert await store.document(latest) == large


async def test_equal_states_cannot_be_told_by_readers_of_the_database(
    store: HistoryStore, engine: sa.Engine
) -> None:
    text = '{"cursor":"a marker to be found"}'
    await remember(store, text, 100)
    await remember(store, text, 100, owner="another")

    version = state.version(state.document(text))
    with engine.connect() as connection:
        for table in (tables.versions, tables.contents):
            rows = connection.execute(sa.select(table)).all()
            assert "marker" not in str(rows)
            assert version[:8] not in str(rows)
            values = [set(row) for row in rows]
            assert not {each for each in values[0] & values[1] if isinstance(each, str)} - {ACCOUNT}


# Several at once


def _remember_in_a_process(url: str, process: int, seed: int) -> None:
    engine = engine_of(url)
    store = store_of(engine, clock=lambda: NOW)
    chance = random.Random(f"{seed} {process}")

    async def run() -> None:
        for at in range(20):
            # All of them see the same; each also sees a connection of its own.
            await remember(store, cursor(at // 2), at * 1000)
            await remember(store, cursor(at), at * 1000 + process, owner="all_differ")
            if chance.random() < 0.2:
                await store.thin("all_differ", retention_days=0)

    asyncio.run(run())
    engine.dispose()


@pytest.mark.slow
async def test_processes_that_remember_the_same_and_different_states_leave_no_gap_and_no_duplicate(
    url: str, store: HistoryStore
) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_remember_in_a_process, args=(url, number, 1)) for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 120)
    assert [process.exitcode for process in processes] == [0, 0, 0]

    assert await cursors(store) == list(range(10))
    for number, version in enumerate(await all_of(store)):
        assert (version.first_seen, version.last_seen) == (number * 2000, number * 2000 + 1000)
    assert (await cursors(store, "all_differ"))[-5:] == [15, 16, 17, 18, 19]


def _remember_for_ever(url: str, first: int) -> None:
    engine = engine_of(url)
    store = store_of(engine, clock=lambda: NOW)

    async def run() -> None:
        for number in itertools.count(first):
            await remember(store, cursor(number), number * 1000)
            await remember(store, cursor(number), number * 1000 + 500)

    asyncio.run(run())


@pytest.mark.slow
async def test_a_process_that_is_killed_leaves_whole_versions_and_the_next_one_goes_on(
    url: str, store: HistoryStore
) -> None:
    context = multiprocessing.get_context("spawn")
    first = 0
    for _ in range(3):
        process = context.Process(target=_remember_for_ever, args=(url, first))
        process.start()

        async def has_gone_on(count: int = first + 5) -> bool:
            latest = await store.latest(OWNER)
            return latest is not None and latest.ordinal >= count

        await until(has_gone_on, 120)
        process.kill()
        await asyncio.to_thread(process.join, 60)
        first = len(await cursors(store))

    assert await cursors(store) == list(range(first))
    # Each life may have ended between the two sightings of a version.
    once = [each for each in await all_of(store) if each.last_seen == each.first_seen]
    assert len(once) <= 3


async def test_threads_that_remember_different_states_at_once_leave_one_line(
    store: HistoryStore,
) -> None:
    await asyncio.gather(*(remember(store, cursor(number), number * 10) for number in range(60)))

    assert await cursors(store) == list(range(60))
    assert sorted(each.ordinal for each in await all_of(store)) == list(range(1, 61))


async def test_the_tables_are_made_once_though_many_start_at_once(
    url: str, engine: sa.Engine
) -> None:
    engines = [engine_of(url) for _ in range(8)]
    await asyncio.gather(*(asyncio.to_thread(migrations.upgrade, each) for each in engines))
    for each in engines:
        each.dispose()

    with engine.connect() as connection:
        assert connection.execute(sa.select(tables.layout.c.number)).scalars().all() == [1]


@pytest.mark.slow
async def test_thinning_beside_others_that_remember_loses_no_content(store: HistoryStore) -> None:
    for number in range(150):
        await remember(store, cursor(number % 7), NOW - 100 * DAY + number * 3 * HOUR)

    async def more() -> None:
        for number in range(60):
            await remember(store, cursor(number % 9), NOW - DAY + number)

    await asyncio.gather(
        more(),
        *(store.thin(OWNER, retention_days=90) for _ in range(3)),
        *(remember(store, cursor(n % 8), NOW - 99 * DAY + n * 3 * HOUR + 1) for n in range(20)),
    )
    await store.thin(OWNER, retention_days=90)

    found = await all_of(store)
    for version in found:
        text = await store.document(version)
        assert state.version(state.document(text)) == version.version
    assert len(found) < 130


# Thinning


@pytest.mark.slow
async def test_thinning_removes_versions_and_the_contents_that_nothing_uses(
    store: HistoryStore, engine: sa.Engine
) -> None:
    for number in range(300):
        await remember(store, cursor(number), NOW - 400 * DAY + number * 4 * HOUR)
    returning = await remember(store, cursor(5), NOW - HOUR)

    removed = await store.thin(OWNER, retention_days=365, named=[state.version({"cursor": 7})])

    found = await all_of(store)
    assert removed == 301 - len(found)
    days = [version.first_seen // DAY for version in found[1:-10]]
    assert state.version({"cursor": 7}) == found[0].version
    assert days == list(range((NOW - 365 * DAY) // DAY, days[-1] + 1))
    assert await store.document(returning) == cursor(5)
    with engine.connect() as connection:
        count = sa.select(sa.func.count()).select_from(tables.contents)
        assert connection.execute(count).scalar() == len(found)
    assert await store.thin(OWNER, retention_days=365, named=[found[0].version]) == 0


async def test_a_version_that_was_removed_meanwhile_says_so(store: HistoryStore) -> None:
    first = await remember(store, cursor(1), NOW - 500 * DAY)
    for number in range(2, 15):
        await remember(store, cursor(number), NOW - 400 * DAY + number)
    await store.thin(OWNER, retention_days=30)

    with pytest.raises(InvalidRequest) as raised:
        await store.document(first)
    assert "not kept any more" in raised.value.message


async def test_thinning_a_connection_that_is_forgotten_meanwhile_does_nothing(
    store: HistoryStore, engine: sa.Engine
) -> None:
    for number in range(3):
        await remember(store, cursor(number), number)
    versions = await all_of(store)
    await store.forget(OWNER)

    serializer = vault.SealingSerializer([KEY], ACCOUNT)
    seals = Seals(vault.Sealer([KEY], f"history of {ACCOUNT}"), serializer.digest, ACCOUNT)
    removed = Thinner(engine, Rows(ACCOUNT, seals)).remove(versions, versions[:2])

    assert removed == 0
    assert await store.owners() == []


# The database is not trusted


async def tampered(store: HistoryStore) -> FivetranStateError:
    """The error that reading all of the connection's history raises."""
    with pytest.raises((Tampered, UnusableKey)) as raised:
        await cursors(store)
    return raised.value


def run(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


@pytest.fixture
async def three(store: HistoryStore) -> HistoryStore:
    """Three versions of one connection, numbered 1 to 3, and three of another."""
    for owner in (OWNER, "another"):
        for number in (1, 2, 3):
            await remember(store, cursor(number), number * 100, owner=owner)
    return store


VERSIONS, CONTENTS = tables.versions.name, tables.contents.name
OF = f"owner = '{OWNER}'"


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE {VERSIONS} SET sealed = (SELECT sealed FROM {VERSIONS} WHERE {OF} AND ordinal = 1) "
        f"WHERE {OF} AND ordinal = 3",
        f"UPDATE {VERSIONS} SET sealed = (SELECT sealed FROM {VERSIONS} WHERE owner = 'another' "
        f"AND ordinal = 2) WHERE {OF} AND ordinal = 2",
        f"UPDATE {VERSIONS} SET first_seen = first_seen + 1 WHERE {OF} AND ordinal = 2",
        f"UPDATE {VERSIONS} SET first_seen = 5000 WHERE {OF} AND ordinal = 2",
        f"UPDATE {VERSIONS} SET ordinal = 9 WHERE {OF} AND ordinal = 2",
        f"UPDATE {VERSIONS} SET owner = 'third' WHERE {OF} AND ordinal = 2",
        f"DELETE FROM {VERSIONS} WHERE {OF} AND ordinal = 2",
        f"DELETE FROM {VERSIONS} WHERE {OF} AND ordinal = 1",
        f"INSERT INTO {VERSIONS} SELECT account, owner, 4, 400, sealed FROM {VERSIONS} "
        f"WHERE {OF} AND ordinal = 2",
        f"UPDATE {VERSIONS} SET sealed = 'no seal' WHERE {OF} AND ordinal = 2",
        f"UPDATE {CONTENTS} SET sealed = 'AAAA' WHERE {OF}",
        f"DELETE FROM {CONTENTS} WHERE {OF}",
        f"UPDATE {CONTENTS} SET sealed = (SELECT sealed FROM {VERSIONS} WHERE {OF} AND ordinal = 1) "
        f"WHERE {OF}",
        f"UPDATE {CONTENTS} SET sealed = (SELECT MIN(sealed) FROM {CONTENTS} WHERE {OF}) WHERE {OF}",
        f"UPDATE {CONTENTS} SET sealed = (SELECT MIN(sealed) FROM {CONTENTS} "
        f"WHERE owner = 'another') WHERE {OF}",
    ],
)
async def test_a_history_that_somebody_has_changed_is_not_believed(
    three: HistoryStore, engine: sa.Engine, statement: str
) -> None:
    run(engine, statement)

    error = await tampered(three)

    assert "cursor" not in str(error.to_json())
    assert await cursors(three, "another") == [1, 2, 3]


async def test_a_whole_history_copied_to_another_connection_is_not_believed(
    three: HistoryStore, engine: sa.Engine
) -> None:
    run(
        engine,
        f"DELETE FROM {VERSIONS} WHERE {OF}",
        f"DELETE FROM {CONTENTS} WHERE {OF}",
        f"UPDATE {VERSIONS} SET owner = '{OWNER}'",
        f"UPDATE {CONTENTS} SET owner = '{OWNER}'",
    )

    assert isinstance(await tampered(three), Tampered)


async def test_another_accounts_history_is_not_believed(
    three: HistoryStore, engine: sa.Engine
) -> None:
    other = store_of(engine, "fivetran-state-other")
    run(
        engine,
        *(f"UPDATE {table} SET account = 'fivetran-state-other'" for table in (VERSIONS, CONTENTS)),
    )

    await tampered(other)


async def test_a_version_of_before_the_newest_ones_were_deleted_cannot_be_put_back(
    three: HistoryStore, engine: sa.Engine
) -> None:
    row = f"WHERE {OF} AND ordinal = 3"
    run(
        engine,
        f"CREATE TABLE copy AS SELECT * FROM {VERSIONS} {row}",
        f"DELETE FROM {VERSIONS} {row}",
    )
    await remember(three, cursor(30), 300)
    await remember(three, cursor(40), 400)
    run(engine, f"DELETE FROM {VERSIONS} {row}", f"INSERT INTO {VERSIONS} SELECT * FROM copy")

    assert isinstance(await tampered(three), Tampered)


@pytest.mark.parametrize("moment", [150, 250])
async def test_the_state_at_a_moment_is_not_told_where_a_version_was_taken_out(
    three: HistoryStore, engine: sa.Engine, moment: int
) -> None:
    run(
        engine,
        f"DELETE FROM {VERSIONS} WHERE {OF} AND first_seen IN (100, 200) AND first_seen < {moment}",
    )

    with pytest.raises(Tampered):
        await three.at(OWNER, moment)


async def test_a_history_that_cannot_be_opened_can_be_forgotten(
    three: HistoryStore, engine: sa.Engine
) -> None:
    run(engine, f"UPDATE {VERSIONS} SET sealed = 'no seal' WHERE {OF}")

    await three.forget(OWNER)
    await remember(three, cursor(4), 400)

    assert await cursors(three) == [4]


# The tables


async def test_the_tables_are_as_the_program_describes_them(
    store: HistoryStore, engine: sa.Engine
) -> None:
    found = sa.inspect(engine)
    for table in tables.metadata.sorted_tables:
        columns = {each["name"]: each["nullable"] for each in found.get_columns(table.name)}
        assert columns == {each.name: each.nullable for each in table.columns}
        key = found.get_pk_constraint(table.name)["constrained_columns"]
        assert key == [each.name for each in table.primary_key.columns]
        assert {each["name"]: each["column_names"] for each in found.get_indexes(table.name)} == {
            each.name: [column.name for column in each.columns] for each in table.indexes
        }


async def test_tables_of_a_newer_version_are_refused(engine: sa.Engine) -> None:
    migrations.upgrade(engine)
    run(engine, f"UPDATE {tables.layout.name} SET number = 99")

    with pytest.raises(DatabaseUnavailable) as raised:
        migrations.upgrade(engine)
    assert "newer version" in raised.value.message


async def test_a_later_step_is_taken_once_and_nothing_is_lost(
    three: HistoryStore, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = (f"ALTER TABLE {{schema}}{VERSIONS} ADD COLUMN later TEXT",)
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, step))
    await asyncio.gather(*(three.prepare() for _ in range(5)))

    columns = [each["name"] for each in sa.inspect(engine).get_columns(VERSIONS)]
    assert columns.count("later") == 1
    assert await cursors(three) == [1, 2, 3]
    await remember(three, cursor(4), 400)


async def test_it_stands_beside_dbos_in_its_database(url: str) -> None:
    DBOS.migrate(url)
    client = DBOSClient(system_database_url=url, application_name=ACCOUNT)
    schema = None if url.startswith("sqlite") else "dbos"
    sealer = vault.SealingSerializer([KEY], ACCOUNT)
    store = HistoryStore(
        client._sys_db.engine, sealer, sealer.digest, ACCOUNT, clock=lambda: NOW, schema=schema
    )
    await store.prepare()
    await remember(store, cursor(1), 100)
    await remember(store, cursor(2), 200)
    DBOS.migrate(url)

    assert await cursors(store) == [1, 2]
    client.destroy()


async def test_a_database_that_is_away_is_told_without_its_url(
    tmp_path: Path, postgres: Postgres
) -> None:
    engine = engine_of(postgres.new_database())
    sealer = vault.SealingSerializer([KEY], ACCOUNT)
    store = HistoryStore(engine, sealer, sealer.digest, ACCOUNT, clock=lambda: NOW)

    with pytest.raises(DatabaseUnavailable) as raised:
        await store.prepare()
    assert "password" not in str(raised.value)
    engine.dispose()
