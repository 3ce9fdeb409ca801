"""Events: what happens to updates, groups and proposals, as one log line each.

An event names who, what and when. It holds no state, no value or change of one, no reason and no
credential. The log lines are those of `logs.py`, not structlog's: these keep out what libraries
print, and a second format would need a second reader.
"""

import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Protocol

from fivetran_state import access, logs, tracing
from fivetran_state.audit import AuditFile
from fivetran_state.config import Settings
from fivetran_state.errors import FivetranStateError, UnusableSettings
from fivetran_state.text import shown

logger = logging.getLogger(__name__)

_IDS = ("workflow_id", "connection", "part_of")
_ID = re.compile("[A-Za-z0-9_:/-]{1,300}")
MAX_LENGTH = 200
"""Characters of a name that comes from outside, such as the subject of an OAuth token."""


class Name(str, Enum):
    """Every event."""

    REFUSED = "request.refused"
    STARTED = "update.started"
    INSPECTED = "update.inspected"
    PAUSED = "update.paused"
    DRAINED = "update.drained"
    READ = "update.read"
    WRITTEN = "update.written"
    VERIFIED = "update.verified"
    ROLLED_BACK = "update.rolled_back"
    UNDONE = "update.undone"
    RESUMED = "update.resumed"
    SYNC_STARTED = "update.sync_started"
    STEP_FAILED = "update.step_failed"
    CANCEL_ASKED = "update.cancel_asked"
    ENDED = "update.ended"
    GROUP_STARTED = "group.started"
    GROUP_CANCEL_ASKED = "group.cancel_asked"
    GROUP_ENDED = "group.ended"
    PROPOSED = "proposal.created"
    APPROVED = "proposal.approved"
    REJECTED = "proposal.rejected"
    WITHDRAWN = "proposal.withdrawn"
    EXPIRED = "proposal.expired"
    LOOKED = "watch.looked"
    TAKEN_OVER = "recovery.taken_over"
    GIVEN_UP = "recovery.given_up"
    HANDED_OVER = "hand_over.started"
    FINISHED = "hand_over.finished"


_GRAVE = (Name.REFUSED, Name.STEP_FAILED, Name.TAKEN_OVER, Name.GIVEN_UP, Name.HANDED_OVER)


@dataclass(frozen=True)
class Event:
    """One event. What does not apply is None."""

    name: Name
    workflow_id: str | None = None
    connection: str | None = None
    principal: str | None = None
    """The name of the `access.Principal` who asked for it."""
    agreed_by: str | None = None
    part_of: str | None = None
    """The workflow id of the update's group, or of the proposal that it was."""
    phase: str | None = None
    outcome: str | None = None
    error: str | None = None
    """A code of `errors.py`."""
    seconds: float | None = None
    paused_seconds: float | None = None
    """From the pause to the resume."""
    count: int | None = None
    """Connections."""
    replayed: bool | None = None
    """True if an earlier run, which has died, may have recorded the same event."""

    def to_json(self) -> dict[str, Any]:
        """The event for programs, with the ids of its HTTP request and its trace."""
        found: dict[str, Any] = {"event": self.name.value}
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if field.name in _IDS and value is not None:
                # A refused caller may have sent anything in place of an id.
                found[field.name] = value if _ID.fullmatch(value) else "not an id"
            elif isinstance(value, str):
                found[field.name] = shown(value, MAX_LENGTH)
            elif isinstance(value, float):
                found[field.name] = round(value, 4)
            elif value is not None and value is not False:
                found[field.name] = value
        if (id_ := logs.request_id.get()) is not None:
            found["request_id"] = id_
        return found | tracing.ids()


class Listener(Protocol):
    """Somebody who counts what happens."""

    def on_event(self, event: Event) -> None: ...

    def on_lost_entry(self) -> None:
        """An event could not be written to the audit file."""

    def on_call(self, method: str, route: str, status: int | None, seconds: float) -> None:
        """Fivetran has answered a call; `status` is None if it has not. A route names no connection."""


class Events:
    """One per process, or one for each of several servers in it."""

    def __init__(
        self, listeners: Collection[Listener] = (), audit: AuditFile | None = None
    ) -> None:
        self._listeners = listeners
        self._audit = audit

    @classmethod
    def of(cls, settings: Settings, listeners: Collection[Listener] = ()) -> "Events":
        """Those of a process with these settings."""
        path = settings.audit_file
        return cls(listeners, None if path is None else AuditFile(path))

    def prepare(self) -> None:
        """Create the audit file, if one is wanted; raises `UnusableSettings`."""
        if self._audit is not None:
            try:
                self._audit.create()
            except OSError as error:
                raise UnusableSettings(
                    f"FIVETRAN_STATE_AUDIT_FILE: {self._audit.path} cannot be used: "
                    f"{error.strerror or error}"
                ) from error

    def record(self, event: Event) -> None:
        """Log the event, write it to the audit file, and tell the listeners.

        It blocks for less than a millisecond.
        """
        told = event.to_json()
        is_grave = event.name in _GRAVE or event.error is not None
        logger.log(
            logging.WARNING if is_grave else logging.INFO, event.name.value, extra={"event": told}
        )
        for listener in self._listeners:
            listener.on_event(event)
        if self._audit is not None:
            try:
                self._audit.append(told)
            except OSError:
                # An update must go on: it may hold its connection paused.
                logger.exception("The audit file lacks an event: %s", event.name.value)
                for listener in self._listeners:
                    listener.on_lost_entry()

    @contextmanager
    def refusing(self, **facts: Any) -> Iterator[None]:
        """Record an error inside as the refusal of what the present caller asks for.

        `facts`: further fields of `Event`.
        """
        try:
            yield
        except FivetranStateError as error:
            principal = access.principal().name
            self.record(Event(Name.REFUSED, principal=principal, error=error.code, **facts))
            raise

    def called(self, method: str, route: str, status: int | None, seconds: float) -> None:
        """Tell the listeners of a call to Fivetran."""
        for listener in self._listeners:
            listener.on_call(method, route, status, seconds)
