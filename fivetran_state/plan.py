"""The plan of an update on the current state, for the person or the agent that decides."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from fivetran_state import large, state
from fivetran_state.errors import InvalidChange
from fivetran_state.fivetran_answers import Connection
from fivetran_state.models import Change, Update, changes_between
from fivetran_state.policy import NO_RULING, Ruling
from fivetran_state.text import quoted

NAMED_PATHS = 5
"""Paths that a warning names."""


@dataclass(frozen=True)
class Wanted:
    """A change, with its source if the caller did not give the change itself."""

    change: state.Change
    source: str | None = None
    copied_from: Connection | None = None
    undoes: str | None = None
    """The workflow id of the update that this change undoes."""
    undone_paths: frozenset[str] = frozenset()
    """The paths that this update changed."""


@dataclass(frozen=True)
class Plan:
    """One change to one version of one connection's state."""

    connection: Connection
    group_name: str | None
    wanted: Wanted
    then_sync: bool
    sync_wait: float
    before: state.Document
    applied: state.Applied
    version_before: str
    version_after: str
    changes: list[Change]
    """The first changes; `changes_total` counts all of them."""
    changes_total: int
    ruling: Ruling = NO_RULING
    """What the operator's policy says of it."""
    warnings: tuple[str, ...] = ()
    """Sentences on what is unusual about the change, by what the state history knows."""

    @classmethod
    def of(
        cls,
        connection: Connection,
        before: state.Document,
        wanted: Wanted,
        *,
        group_name: str | None = None,
        then_sync: bool = False,
        sync_wait: float = 0,
    ) -> "Plan":
        """Apply the change to the earlier state; raises `InvalidChange`."""
        try:
            applied = state.applied(wanted.change, before)
        except (state.InvalidChange, state.InvalidState) as error:
            raise InvalidChange(f"{error}; nothing was written.") from error
        changes, total = changes_between(before, applied.after)
        return cls(
            connection=connection,
            group_name=group_name,
            wanted=wanted,
            then_sync=then_sync,
            sync_wait=sync_wait,
            before=before,
            applied=applied,
            version_before=state.version(before),
            version_after=state.version(applied.after),
            changes=changes,
            changes_total=total,
        )

    @property
    def is_large(self) -> bool:
        """True if describing it takes so long that it belongs in `large.run_if`."""
        return large.is_any(self.before, self.applied.after)

    @property
    def described_connection(self) -> str:
        """The connection's name, with enough to distinguish it from others of the same name."""
        connection = self.connection
        group = quoted(connection.group_id)
        if self.group_name is not None and self.group_name != connection.group_id:
            group = f"{quoted(self.group_name)} ({group})"
        return (
            f"{quoted(connection.id)}, the {quoted(connection.service)} connection "
            f"{quoted(connection.schema)} in the group {group}"
        )

    def to_update(self, *, is_proposed: bool = False) -> Update:
        """The answer to a caller who wants only the plan, or whose user cannot be asked; or, if the
        change `is_proposed`, to whoever may approve it."""
        if self.ruling.refusal is not None:
            message = " ".join(["Nothing was written.", *self.ruling.sentences])
        elif self.changes_total:
            verb = "propose" if self.ruling.needs_approval and not is_proposed else "apply"
            how = "approve version" if is_proposed else "call again with expected_version"
            message = (
                f"Nothing was written. To {verb} exactly this to {self.described_connection}, {how} "
                f"{self.version_before!r}. {' '.join(self.consequences)}"
            )
        else:
            no_sync = " No sync was started." if self.then_sync else ""
            notes = "".join(f" {each}" for each in (*self._kept_numbers(), *self._absent_part()))
            message = (
                f"The change would leave the state as it is. Nothing was written.{no_sync}{notes}"
            )
        return Update(
            connection_id=self.connection.id,
            status="planned",
            message=message,
            version_before=self.version_before,
            version_after=self.version_after,
            changes=self.changes,
            changes_total=self.changes_total,
            was_paused=self.connection.paused,
            kept_numbers=list(self.applied.kept) or None,
        )

    @property
    def consequences(self) -> list[str]:
        """Sentences on what happens to the connection, and warnings."""
        return [*self._pause(), *self.cautions]

    @property
    def cautions(self) -> list[str]:
        """The consequences that are unusual."""
        return [
            *self.ruling.sentences,
            *self._oddities(),
            *self.warnings,
            *self._losses(),
            *self._kept_numbers(),
            *self._source(),
        ]

    def _pause(self) -> Iterator[str]:
        connection = self.connection
        if connection.paused and connection.sync_state == "syncing":
            yield "The connection is paused and stays paused; its last sync is still stopping."
        elif connection.paused:
            yield "The connection is paused and stays paused."
        elif connection.sync_state == "syncing":
            yield (
                "A sync is running: Fivetran is asked to stop it, which may take up "
                f"to {_duration(self.sync_wait)}. The data that it has saved stays, "
                "and the connection is resumed afterwards. If the sync moves the "
                "state before it stops, the update ends in a conflict and writes "
                "nothing."
            )
        else:
            yield "The connection is paused for a moment and resumed."
        if self.then_sync and not connection.paused:
            yield "Then a sync is started."

    def _oddities(self) -> Iterator[str]:
        connection = self.connection
        if connection.is_historical_sync:
            yield (
                "Careful: a historical re-sync is pending or running. It begins with an empty state "
                "and overwrites this change. To make the change anyway, set allow_resync."
            )
        if connection.setup_state not in ("connected", "unknown"):
            yield (
                f"Its set-up is {quoted(connection.setup_state)}: it does not sync until that is "
                "repaired in Fivetran."
            )
        if connection.never_syncs_by_itself and not self.then_sync:
            yield "Its schedule is manual: no sync starts by itself."

    def _losses(self) -> Iterator[str]:
        if not self.applied.after and self.changes_total:
            yield "Careful: with an empty state the connector starts over from the beginning."
        if isinstance(self.before, state.RawDocument):
            yield "The current state is not usable."

    def _kept_numbers(self) -> Iterator[str]:
        total = self.applied.kept_total
        if total:
            yield (
                f"The numbers stay exactly as they are at {_listed(self.applied.kept, total)}, "
                "because the given ones look rounded. To change them, give "
                "the change as JSON text."
            )

    def _absent_part(self) -> Iterator[str]:
        change = self.wanted.change
        if change.kind == "part" and isinstance(change.value, dict) and "value" not in change.value:
            yield f"There is nothing at {quoted(change.value['path'])} in either state."

    def _source(self) -> Iterator[str]:
        if self.wanted.undoes is not None:
            yield from self._moved_since(self.wanted.undoes)
        other = self.wanted.copied_from
        if other is None:
            return
        if other.service != self.connection.service:
            yield (
                f"Careful: this state comes from {other.id}, a connection of the "
                f"service {quoted(other.service)}. The service of {self.connection.id} "
                f"is {quoted(self.connection.service)}."
            )
        else:
            yield f"This state comes from {other.id}, a connection of the same service."

    def _moved_since(self, workflow_id: str) -> Iterator[str]:
        moved = [
            state.shown_path(difference.path)
            for difference in state.differences(self.before, self.applied.after)
            if difference.path not in self.wanted.undone_paths
        ]
        if moved:
            paths = _listed(tuple(islice(moved, NAMED_PATHS)), len(moved))
            yield (
                f"Careful: {workflow_id} did not change all of this. {_counted(len(moved), 'value')} "
                f"moved since then, by syncs or by other updates, and would move back too: {paths}. "
                "To put back only a part, name its path in `only`."
            )


class Confirmation(Protocol):
    """Asks the person who decides."""

    @property
    def version(self) -> str | None:
        """The version of the state that the person has confirmed, if any."""

    async def covers(self, plan: Plan, latest: int) -> bool:
        """True if exactly this was confirmed, while `latest` was the connection's newest update.

        If not, it asks; the answer counts the next time. Raises `NotConfirmed`, or
        `TooLargeToConfirm` if the question could not show every change in full.
        """


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _listed(paths: tuple[str, ...], total: int) -> str:
    named = ", ".join(quoted(path) if path else "(everything)" for path in paths[:NAMED_PATHS])
    more = total - min(len(paths), NAMED_PATHS)
    return f"{named} and {more:,} more" if more > 0 else named


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min" if minutes and not rest else f"{round(seconds)} s"
