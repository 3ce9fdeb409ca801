"""Databases of 0.1: their values are sealed again, bound to their places; then 0.1's are refused.

0.1 sealed a value without what it belongs to. As long as servers of 0.1 may have updates in
flight, the database is open: what they leave is sealed again when it has ended, or when it is
taken over. The canary closes the database: once it is sealed the new way, nothing sealed the old
way is read. Servers of 0.1 do not start on a closed database.
"""

import hashlib
import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient, WorkflowStatusString

from fivetran_state import dbos_internals
from fivetran_state.errors import FivetranStateError, UnusableKey
from fivetran_state.updates import binding
from fivetran_state.vault import Bound, FirstSerializer, Sealer, SealingSerializer

logger = logging.getLogger(__name__)

_UNFINISHED = [
    WorkflowStatusString.PENDING.value,
    WorkflowStatusString.ENQUEUED.value,
    WorkflowStatusString.DELAYED.value,
]
_AT_ONCE = 200
"""Rows read in one query."""


class Migration:
    """Seals the values of 0.1 in one account's rows again.

    `texts` seals what requests hold sealed by themselves: a guest's credentials. `marker` is a
    file that exists once the database has been closed: a database alone cannot tell whether
    someone has put back an older copy of it.
    """

    def __init__(
        self,
        reader: DBOSClient,
        application: str,
        canary_id: str,
        old: FirstSerializer,
        new: SealingSerializer,
        texts: Sealer,
        marker: Path,
    ) -> None:
        self._engine, self._tables = dbos_internals.tables(reader)
        self._application = application
        self._canary_id = canary_id
        self._old, self._new, self._texts = old, new, texts
        self._marker = marker

    def is_open(self) -> bool:
        """True while values of 0.1 are accepted. Raises `UnusableKey` for those of another key."""
        if self._marker.exists():
            return False
        row = self._tables.workflow_status
        with self._engine.connect() as database:
            canary = database.execute(
                sa.select(row.c.serialization).where(row.c.workflow_uuid == self._canary_id)
            ).scalar()
            if canary is None:
                return self._has(database, self._old.NAME) and not self._has(
                    database, self._new.name()
                )
            if canary != self._old.NAME:
                return False
            kept = self._tables.workflow_input
            self._old.deserialize(
                database.execute(
                    sa.select(kept.c.inputs).where(kept.c.workflow_uuid == self._canary_id)
                ).scalar_one()
            )
        return True

    def take_ended(self) -> bool:
        """Seal the values of ended workflows again; true if no other values of 0.1 are left."""
        row = self._tables.workflow_status
        of_old = (
            sa.select(row.c.workflow_uuid)
            .where(row.c.application_name == self._application)
            .where(row.c.serialization == self._old.NAME)
            .where(row.c.workflow_uuid != self._canary_id)
        )
        while True:
            with self._engine.connect() as database:
                ended = database.scalars(
                    of_old.where(row.c.status.not_in(_UNFINISHED)).limit(_AT_ONCE)
                ).all()
                is_last = not ended and not database.scalars(of_old.limit(1)).all()
            if not ended:
                return is_last
            logger.warning("Sealing %s workflows of an older version again", len(ended))
            for workflow_id in ended:
                self.take(workflow_id)

    def take(self, workflow_id: str) -> None:
        """Seal all values of one workflow again that 0.1 sealed."""
        tables = self._tables
        row = tables.workflow_status
        with self._engine.begin() as database:
            # In one statement: of several processes, one goes on.
            taken = database.execute(
                sa.update(row)
                .where(row.c.workflow_uuid == workflow_id)
                .where(row.c.application_name == self._application)
                .where(row.c.serialization == self._old.NAME)
                .values(serialization=self._new.name())
            )
            if not taken.rowcount:
                return
            workflow = database.execute(
                sa.select(row.c.name, row.c.parent_workflow_id, row.c.created_at).where(
                    row.c.workflow_uuid == workflow_id
                )
            ).one()
            topics = self._topics(database, workflow_id)
            for table, columns, bound in (
                (
                    tables.workflow_input,
                    ["inputs"],
                    lambda value, _: self._input(workflow_id, workflow, value),
                ),
                (
                    tables.workflow_output,
                    ["output", "error"],
                    lambda value, _: _bound(value, binding.output_of(workflow_id)),
                ),
                (
                    tables.operation_outputs,
                    ["output", "error"],
                    lambda value, step: _step(workflow_id, step, value, topics),
                ),
                *(
                    (
                        table,
                        ["value"],
                        lambda value, event: _bound(
                            value, binding.event_of(workflow_id, event.key)
                        ),
                    )
                    for table in (tables.workflow_events, tables.workflow_events_history)
                ),
                (
                    tables.notifications,
                    ["message"],
                    lambda value, message: _bound(
                        value, binding.message_to(workflow_id, message.topic)
                    ),
                ),
            ):
                self._seal_again(database, table, workflow_id, columns, bound)

    def _seal_again(
        self,
        database: sa.Connection,
        table: sa.Table,
        workflow_id: str,
        columns: list[str],
        bound: Callable[[Any, Any], object],
    ) -> None:
        """Seal a workflow's values in these columns again; `bound` gets each value and its row."""
        whose = table.c["destination_uuid" if "destination_uuid" in table.c else "workflow_uuid"]
        rows = sa.select(table).where(whose == workflow_id)
        marks: dict[str, str] = {}
        if "serialization" in table.c:
            rows = rows.where(table.c.serialization == self._old.NAME)
            marks["serialization"] = self._new.name()
        for row in database.execute(rows).all():
            sealed = dict(marks)
            for column in columns:
                text = getattr(row, column)
                if text is None:
                    continue
                try:
                    value = self._old.deserialize(text)
                except (UnusableKey, ValueError, zlib.error):
                    # Leave it unreadable as it is: it must not hold up the others.
                    logger.error("A value of %s was sealed with another key", workflow_id)
                    continue
                sealed[column] = self._new.serialize(bound(value, row))
            key = [each == getattr(row, each.name) for each in table.primary_key.columns]
            if sealed:
                database.execute(sa.update(table).where(*key).values(sealed))

    def _input(self, workflow_id: str, workflow: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        if not inputs["args"]:  # The row of an idempotency key.
            value = workflow.parent_workflow_id
        else:
            (value,) = inputs["args"]
            for request in value if isinstance(value, list) else [value]:
                request["asked_at"] = workflow.created_at / 1000
                if "credentials" in request:
                    credentials = self._old.deserialize(request["credentials"])
                    request["credentials"] = self._texts.serialize(credentials)
        place = binding.input_of(workflow_id, workflow.name)
        return {"args": [Bound(place, value)], "kwargs": {}}

    def _topics(self, database: sa.Connection, workflow_id: str) -> dict[int, str]:
        """The topic of each recorded receipt of a message, by its step number."""
        message = self._tables.notifications
        rows = database.execute(
            sa.select(message.c.consumed_by_function_id, message.c.topic)
            .where(message.c.destination_uuid == workflow_id)
            .where(message.c.consumed_by_function_id.is_not(None))
        )
        return {row.consumed_by_function_id: row.topic for row in rows}

    def _has(self, database: sa.Connection, serialization: str) -> bool:
        row = self._tables.workflow_status
        found = database.execute(
            sa.select(row.c.workflow_uuid)
            .where(row.c.application_name == self._application)
            .where(row.c.serialization == serialization)
            .limit(1)
        )
        return found.first() is not None

    def close(self) -> None:
        """Close this database to values of 0.1, for good."""
        self._marker.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._marker.touch(mode=0o600)


def _step(workflow_id: str, step: Any, value: object, topics: dict[int, str]) -> object:
    if not step.function_name.startswith("DBOS."):
        return _bound(value, binding.step_of(workflow_id, step.function_id, step.function_name))
    topic = topics.get(step.function_id)
    return value if topic is None else _bound(value, binding.message_to(workflow_id, topic))


def _bound(value: Any, place: str) -> object:
    if isinstance(value, FivetranStateError):
        value.place = place
        return value
    return Bound(place, value)


def marker(folder: Path, database: str, application: str) -> Path:
    """The marker of this account's rows in the database with this URL."""
    name = hashlib.sha256(f"{database}\n{application}".encode()).hexdigest()[:32]
    return folder / name
