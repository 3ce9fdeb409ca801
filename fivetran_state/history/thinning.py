"""Which versions stay: more of those that were there lately."""

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, replace

from fivetran_state.history.versions import Version

LATEST = 10
"""Versions that always stay."""
ALL_DAYS = 2
"""Days of which every version stays."""
HOURLY_DAYS = 14
"""Days of which one version an hour stays."""

_HOUR = 3_600_000
_DAY = 24 * _HOUR


def removable(
    versions: Sequence[Version],
    *,
    now: int,
    retention_days: float,
    named: Set[str] = frozenset(),
) -> list[Version]:
    """The versions of a connection, in order of time, that need not stay.

    These stay: every version that was there in the last two days, one an hour of two weeks, one a
    day of the retention (0: for ever), the latest ten, every version within the retention that an
    update wrote or found before it wrote, and versions that are `named` by an update, however old
    (release 0.1 kept the first 16 digits).

    Of an hour or a day, the last version stays: it was there when the next one began. A version
    may have been there until the next one was seen, and ages from then.
    """
    removed = []
    for index, version in enumerate(versions[:-LATEST]):
        following = versions[index + 1]
        age = now - following.first_seen
        is_kept = (
            not named.isdisjoint((version.version, version.version[:16]))
            or age < ALL_DAYS * _DAY
            or (age < HOURLY_DAYS * _DAY and _is_last_of(_HOUR, version, following))
            or (
                (retention_days == 0 or age < retention_days * _DAY)
                and (
                    _is_last_of(_DAY, version, following)
                    or version.workflow_id is not None
                    or following.workflow_id is not None
                )
            )
        )
        if not is_kept:
            removed.append(version)
    return removed


def _is_last_of(period: int, version: Version, following: Version) -> bool:
    """True if the next version was first seen in another period."""
    return version.first_seen // period != following.first_seen // period


@dataclass(frozen=True)
class Removal:
    """What the removal of some versions of a connection comes to."""

    removed: list[Version]
    relinked: list[Version]
    """Those that follow on removed ones, as they were."""
    left: list[Version]
    """The rest, `relinked` ones linked to what is before them then."""


def removal(versions: Sequence[Version], removed: Collection[Version]) -> Removal:
    """The removal of some of these versions, all of which are given in order of time."""
    gone = {each.ordinal for each in removed}
    relinked: list[Version] = []
    left: list[Version] = []
    follows_removed = False
    for version in versions:
        if version.ordinal in gone:
            follows_removed = True
            continue
        if follows_removed:
            relinked.append(version)
            version = replace(version, previous=left[-1].mark if left else None)
        follows_removed = False
        left.append(version)
    return Removal([each for each in versions if each.ordinal in gone], relinked, left)
