"""Thinning keeps what people go back to, and its second run finds nothing to do."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from fivetran_state.history.thinning import LATEST, removable, removal
from fivetran_state.history.versions import SeenBy, Version, check_link

HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 20_000 * DAY + 7 * HOUR


def version(ordinal: int, at: int, workflow_id: str | None = None) -> Version:
    return Version(
        owner="speak_inexpensive",
        ordinal=ordinal,
        version=f"{ordinal:032}",
        first_seen=at,
        last_seen=at,
        seen_by=SeenBy.SYNC if workflow_id is None else SeenBy.UPDATE,
        workflow_id=workflow_id,
        content_id=str(ordinal),
        mark=f"mark {ordinal}",
        previous=f"mark {ordinal - 1}" if ordinal > 1 else None,
    )


def each(start: int, end: int, step: int) -> list[Version]:
    """A version every `step` of the time from `start` ago to `end` ago."""
    return [version(n, at) for n, at in enumerate(range(NOW - start, NOW - end, step), 1)]


def left(
    versions: Sequence[Version], days: float = 365, named: frozenset[str] | set[str] = frozenset()
) -> list[int]:
    """When each version that stays was first seen."""
    removed = removable(versions, now=NOW, retention_days=days, named=named)
    return [each.first_seen for each in versions if each not in removed]


def test_all_of_two_days_stay() -> None:
    versions = each(47 * HOUR, 0, HOUR // 60)

    assert len(left(versions)) == len(versions)


def test_of_two_weeks_the_last_of_each_hour_stays() -> None:
    versions = each(13 * DAY, 3 * DAY, HOUR // 4)

    kept = left(versions)[:-LATEST]

    assert kept == [
        at for at in range(NOW - 13 * DAY, kept[-1] + 1, HOUR // 4) if at % HOUR >= HOUR * 3 // 4
    ]


@pytest.mark.slow
def test_of_the_retention_the_last_of_each_day_stays() -> None:
    versions = each(300 * DAY, 20 * DAY, 2 * HOUR)

    kept = left(versions)[:-LATEST]

    assert [at // DAY for at in kept] == list(range((NOW - 300 * DAY) // DAY, kept[-1] // DAY + 1))
    assert all(following // DAY > at // DAY for at, following in pairwise(kept))
    assert all(at % DAY > DAY - 3 * HOUR for at in kept)


def test_the_latest_ten_stay_however_old() -> None:
    versions = each(900 * DAY, 899 * DAY, HOUR)

    assert left(versions, days=30) == [each.first_seen for each in versions[-LATEST:]]


def test_a_version_stays_as_long_as_it_may_have_been_there() -> None:
    old = [version(1, NOW - 800 * DAY), *(version(n, NOW - n) for n in range(30, 1, -1))]

    assert left(old, days=30)[0] == NOW - 800 * DAY


def test_without_a_retention_one_of_each_day_stays_for_ever() -> None:
    versions = each(3000 * DAY, 2900 * DAY, DAY // 2)

    assert len(left(versions, days=0)) == 100 + LATEST - LATEST // 2


def test_what_an_update_wrote_and_found_stays_within_the_retention() -> None:
    versions = each(300 * DAY, 299 * DAY - 12 * HOUR, HOUR // 4)
    versions[30] = replace(versions[30], workflow_id="speak_inexpensive:3")

    kept = left(versions)
    gone = left(versions, days=100)

    assert {versions[29].first_seen, versions[30].first_seen} < set(kept)
    assert versions[31].first_seen not in kept
    assert versions[30].first_seen not in gone


def test_what_an_update_names_stays_however_old() -> None:
    versions = each(900 * DAY, 899 * DAY, HOUR)

    kept = left(versions, days=30, named={versions[3].version})

    assert kept[0] == versions[3].first_seen


def test_updates_of_release_0_1_name_half_a_version() -> None:
    versions = [
        replace(each, version=each.version[::-1]) for each in each(900 * DAY, 899 * DAY, HOUR)
    ]

    kept = left(versions, days=30, named={versions[3].version[:16]})

    assert kept[0] == versions[3].first_seen


def test_few_versions_are_left_as_they_are() -> None:
    for count in range(LATEST + 1):
        versions = each(900 * DAY, 800 * DAY, HOUR)[:count]
        assert len(left(versions, days=1)) == count


@pytest.mark.parametrize("seed", range(50))
def test_however_much_is_removed_at_a_time_the_links_hold(seed: int) -> None:
    chance = random.Random(seed)
    kept: Sequence[Version] = each(100 * HOUR, 0, HOUR)
    for _ in range(10):
        kept = removal(kept, chance.sample(kept, chance.randrange(len(kept) // 3 + 1))).left

        for before, following in pairwise([None, *kept]):
            assert following is not None
            check_link(following, before)


@pytest.mark.parametrize("seed", range(50))
def test_thinning_again_at_once_removes_nothing(seed: int) -> None:
    chance = random.Random(seed)
    times = sorted(NOW - int(chance.expovariate(1 / (40 * DAY))) for _ in range(400))
    versions = [version(n, at) for n, at in enumerate(times, 1)]

    kept = removal(versions, removable(versions, now=NOW, retention_days=90)).left

    assert len(kept) < len(versions)
    assert removable(kept, now=NOW, retention_days=90) == []
