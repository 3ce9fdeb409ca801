"""What an update would do to the state as it is now, for whoever decides about it."""

from dataclasses import dataclass
from typing import Protocol

from fivetran_state import state
from fivetran_state.errors import InvalidChange
from fivetran_state.fivetran import Connection
from fivetran_state.models import Change, Update, changes_between


@dataclass(frozen=True)
class Wanted:
    """A change, and where it comes from if it is not the caller's own."""

    change: state.Change
    source: str | None = None
    warning: str | None = None
    copied_from: Connection | None = None

    @property
    def what(self) -> str:
        """Tells this change from another one."""
        return self.source or f"{self.change.kind}\n{state.dump(self.change.value)}"


@dataclass(frozen=True)
class Plan:
    """One change to one version of one connection's state."""

    connection: Connection
    wanted: Wanted
    version_before: str
    version_after: str
    changes: list[Change]
    """The first of them."""
    changes_total: int
    sync_wait: float

    @classmethod
    def of(
        cls, connection: Connection, before: state.State, wanted: Wanted, sync_wait: float
    ) -> "Plan":
        """Raises `InvalidChange`."""
        try:
            after = state.apply(wanted.change, before)
        except (state.InvalidChange, state.InvalidState) as error:
            raise InvalidChange(f"{error}; nothing was written.") from error
        changes, total = changes_between(before, after)
        return cls(
            connection=connection,
            wanted=wanted,
            version_before=state.version(before),
            version_after=state.version(after),
            changes=changes,
            changes_total=total,
            sync_wait=sync_wait,
        )

    def to_update(self) -> Update:
        """As a caller sees it who cannot be asked."""
        if self.changes_total:
            message = (
                f"Nothing was written. To apply exactly this, call again with "
                f"expected_version {self.version_before!r}. {self.consequences}"
            )
        else:
            message = "The change would leave the state as it is. Nothing was written."
        return Update(
            connection_id=self.connection.id,
            status="planned",
            message=message,
            version_before=self.version_before,
            version_after=self.version_after,
            changes=self.changes,
            changes_total=self.changes_total,
            was_paused=self.connection.paused,
        )

    @property
    def consequences(self) -> str:
        """What will happen to the connection, and what to be careful about, in sentences."""
        return " ".join(filter(None, [self._pause, self.wanted.warning, self._copy]))

    @property
    def _pause(self) -> str:
        if self.connection.paused:
            return "The connection is paused and stays so."
        if self.connection.sync_state == "syncing":
            return (
                "The connection is syncing: it will be paused, its sync waited for "
                f"(at most {_duration(self.sync_wait)}), and resumed afterwards."
            )
        return "The connection will be paused for a moment and resumed."

    @property
    def _copy(self) -> str | None:
        other = self.wanted.copied_from
        if other is None:
            return None
        if other.service != self.connection.service:
            return (
                f"Careful: this is the state of a {other.service} connection, {other.id}, "
                f"and {self.connection.id} is a {self.connection.service} connection."
            )
        return f"The new state is that of {other.id}, a {other.service} connection as well."


class Confirmation(Protocol):
    """Asks whoever decides."""

    @property
    def version(self) -> str | None:
        """The version of the state for which there is an answer."""

    async def covers(self, plan: Plan, latest: int) -> bool:
        """Whether exactly this was confirmed, with `latest` the connection's newest update.

        If not it asks; the answer counts the next time. Raises `NotConfirmed`.
        """


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min" if minutes and not rest else f"{round(seconds)} s"
