"""A simulated connection: an immutable value, and how time and Fivetran's calls change it."""

import re
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from fivetran_state import state

STATEFUL_SERVICES = frozenset(
    {"aws_lambda", "azure_function", "google_cloud_function", "connector_sdk"}
)

_TIME_KEYS = frozenset({"cursor", "last_sync", "updated_at"})
_COUNT_KEYS = frozenset({"cursor", "offset", "page"})
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d[\d:.]*(Z|[+-]\d\d:?\d\d)?)?")
_INTEGER = re.compile(r"-?\d{1,1000}")


@dataclass(frozen=True)
class Connection:
    """One connection at one moment. Times are seconds since the epoch, durations seconds.

    A sync starts by itself only if the connection is not paused, its setup is `connected` and its
    schedule is `auto`.
    """

    id: str
    service: str = "connector_sdk"
    schema: str = "api"
    group_id: str = "warehouse"
    paused: bool = False
    state: str | None = None
    """The state document as JSON text, exactly as it was written."""
    setup_state: str = "connected"
    """`connected`, `incomplete` or `broken`."""
    sync_frequency: int = 360
    """Minutes; only shown. `sync_every` is the real interval."""
    created_at: float = 0.0
    succeeded_at: float | None = None
    failed_at: float | None = None
    sync_seconds: float = 60.0
    sync_every: float | None = None
    """Seconds from the end of a sync to the start of the next; None: no sync is due."""
    drain_seconds: float = 0.0
    """Seconds until a running sync stops after a stop request."""
    stopped_sync_counts: bool = True
    """True if a stopped sync moves the cursors as it stops; ignored if `checkpoint_every` is set.
    """
    sync_on_resume: bool = False
    rescheduled: bool = False
    """The source's rate limit postponed the sync: none runs, and a pause is not visible."""
    forbidden: bool = False
    """The API key's role may not touch this connection."""
    sync_started_at: float | None = None
    sync_ends_at: float | None = None
    next_sync_at: float | None = None
    schedule_type: str = "auto"
    """`auto`, or `manual`: no sync starts by itself, on a resume or after `rescheduled_for`."""
    rescheduled_for: float | None = None
    """Time when a rescheduled sync starts; None: it starts only when somebody starts it."""
    shows_scheduled_when_paused: bool = False
    """`sync_state` is `scheduled` while paused, as on some broken connections."""
    is_historical_sync: bool = False
    """A historical re-sync is pending or running: each sync begins with an empty state."""
    checkpoint_every: float | None = None
    """Seconds between two moves of the cursors in a running sync; None: they move only when it
    ends."""
    checkpointed_at: float | None = None
    stopping: bool = False
    """The running sync was told to stop; it ends at `sync_ends_at`, unfinished."""
    restarts: bool = False
    """A sync starts as soon as the running one has stopped."""
    unstoppable_sync: bool = False
    """A re-sync or a forced sync is refused (409) while a sync runs."""
    setup_tests_run: int = 0
    """The number of times that the setup tests have run."""
    setup_test_seconds: float = 0.0
    """Seconds that the setup tests take, by the real clock: the answer waits for them."""
    setup_tests_fail: bool = False
    """True if the setup tests set `setup_state` to broken."""

    def __post_init__(self) -> None:
        for period in (self.sync_every, self.checkpoint_every):
            if period is not None and period <= 0:
                raise ValueError("sync_every and checkpoint_every must be positive")

    @property
    def keeps_state(self) -> bool:
        return self.service in STATEFUL_SERVICES

    @property
    def syncing(self) -> bool:
        return self.sync_ends_at is not None

    @property
    def sync_state(self) -> str:
        """`status.sync_state` as Fivetran shows it."""
        if self.syncing:
            return "syncing"
        if self.rescheduled:
            return "rescheduled"
        return "paused" if self.paused and not self.shows_scheduled_when_paused else "scheduled"

    @property
    def starts_by_itself(self) -> bool:
        return not self.paused and self.schedule_type == "auto" and self.setup_state == "connected"

    def advanced(self, now: float) -> "Connection":
        """The connection after every checkpoint, end and start of a sync that was due by `now`."""
        if self.sync_ends_at is not None:
            if self.sync_ends_at > now:
                return self._checkpointed(now)
            ends_at = self.sync_ends_at
            return self._checkpointed(ends_at).finished(ends_at).advanced(now)
        due = self.rescheduled_for if self.rescheduled else self.next_sync_at
        if due is None or due > now or not self.starts_by_itself:
            return self
        if self.rescheduled:
            return self.started(due).advanced(now)
        if self.sync_every is None:
            return self
        # Skip the syncs that nobody saw: only the last one leaves a trace.
        period = self.sync_seconds + self.sync_every
        return self.started(due + (now - due) // period * period).advanced(now)

    def started(self, at: float) -> "Connection":
        """A sync starts, whatever prevented it; a running sync goes on."""
        if self.syncing:
            return self
        empties = self.is_historical_sync and self.keeps_state
        return replace(
            self,
            state="{}" if empties else self.state,
            rescheduled=False,
            rescheduled_for=None,
            sync_started_at=at,
            sync_ends_at=at + self.sync_seconds,
        )

    def finished(self, at: float) -> "Connection":
        """The running sync ends, or stops if it was told to. If none is running, one starts and
        ends."""
        if not self.syncing:
            return self.started(at).finished(at)
        checkpoints = not self.stopping or (
            self.stopped_sync_counts and self.checkpoint_every is None
        )
        ended = replace(
            self._moved_on(at) if checkpoints else self,
            succeeded_at=self.succeeded_at if self.stopping else at,
            is_historical_sync=self.is_historical_sync and self.stopping,
            sync_started_at=None,
            sync_ends_at=None,
            next_sync_at=None if self.sync_every is None else at + self.sync_every,
            checkpointed_at=None,
            stopping=False,
            restarts=False,
        )
        return ended.started(at) if self.restarts else ended

    def stopped(self, now: float, *, then_restart: bool = False) -> "Connection":
        """The running sync, if any, is told to stop."""
        if self.sync_ends_at is None:
            return self.started(now) if then_restart else self
        stops_at = min(self.sync_ends_at, now + self.drain_seconds)
        stopping = replace(self, sync_ends_at=stops_at, stopping=True, restarts=then_restart)
        return stopping.advanced(now)

    def with_paused(self, paused: bool, now: float) -> "Connection":
        """Paused, which stops the running sync, or resumed; no change if it is already so."""
        if paused == self.paused:
            return self
        changed = replace(self, paused=paused)
        return changed.stopped(now) if paused else changed._resumed(now)

    def _resumed(self, now: float) -> "Connection":
        is_due = self.sync_on_resume or self.is_historical_sync
        if self.rescheduled:
            is_due = self.rescheduled_for is not None and self.rescheduled_for <= now
        if is_due and self.starts_by_itself:
            return replace(self, restarts=True) if self.stopping else self.started(now)
        return self._due_after(now)

    def _due_after(self, now: float) -> "Connection":
        # Otherwise a sync would have started at a moment that has passed.
        return (
            self if self.sync_every is None else replace(self, next_sync_at=now + self.sync_every)
        )

    def with_schedule(self, schedule_type: str, now: float) -> "Connection":
        """Scheduled from `now` on."""
        if schedule_type == self.schedule_type:
            return self
        return replace(self, schedule_type=schedule_type)._due_after(now)

    def resynced(self, now: float) -> "Connection":
        """A historical re-sync starts: now, when the running sync has stopped, or on the resume."""
        pending = replace(self, is_historical_sync=True)
        return pending if self.paused else pending.stopped(now, then_restart=True)

    def with_setup_tests(self) -> "Connection":
        """The setup tests run."""
        return replace(
            self,
            setup_tests_run=self.setup_tests_run + 1,
            setup_state="broken" if self.setup_tests_fail else self.setup_state,
        )

    def _checkpointed(self, now: float) -> "Connection":
        if self.checkpoint_every is None or self.sync_started_at is None:
            return self
        # Skip the checkpoints that nobody saw: only the last one leaves a trace.
        number = (now - self.sync_started_at) // self.checkpoint_every
        at = self.sync_started_at + number * self.checkpoint_every
        if at <= (self.checkpointed_at or self.sync_started_at):
            return self
        return replace(self._moved_on(at), checkpointed_at=at)

    def _moved_on(self, at: float) -> "Connection":
        if not self.keeps_state:
            return self
        return replace(self, state=_moved_on(self.state or "{}", at))


def iso(seconds: float) -> str:
    """A moment as Fivetran writes it: UTC with microseconds."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _moved_on(document: str, at: float) -> str:
    try:
        # A connector that finds an empty state starts over, and writes a state of its own.
        return state.dump(_moved(state.parse(document) or {"cursor": iso(at)}, at))
    except state.InvalidState:
        return document


def _moved(value: Any, at: float, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _moved(member, at, name) for name, member in value.items()}
    if isinstance(value, list):
        return [_moved(member, at) for member in value]
    if key in _TIME_KEYS and isinstance(value, str) and _TIME.fullmatch(value):
        return iso(at)
    if key in _COUNT_KEYS and _INTEGER.fullmatch(spelling := state.dump(value)):
        return state.parse_value(str(int(spelling) + 1))
    return value
