"""The updates that this process runs."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from fivetran_state.errors import FivetranStateError
from fivetran_state.updates.records import STARTED, Progress, UpdateRequest

logger = logging.getLogger(__name__)


class Running:
    """One per process. Every key is a workflow id."""

    def __init__(self) -> None:
        self.progress: dict[str, Progress] = {}
        self.tasks: dict[str, asyncio.Task[object]] = {}
        self.changing: set[str] = set()
        """Updates with a changing call under way, which must not be broken off."""
        self.unsettled: dict[str, UpdateRequest] = {}
        """Updates that lost their row in the database while they may hold the connection paused."""
        self.asleep: set[str] = set()
        """Updates that sleep, and can be woken by a cancel."""
        self.taken_up: set[str] = set()
        """Updates that another run has begun, so they may hold their connection paused."""
        self.with_credentials: set[str] = set()
        """Guests' updates that have run here, whose credentials are erased when they have ended."""

    @contextmanager
    def here(self, workflow_id: str) -> Iterator[None]:
        """Count the workflow as running in this process."""
        self.progress[workflow_id] = STARTED
        task = asyncio.current_task()
        if task is not None:
            self.tasks[workflow_id] = task
        try:
            yield
        except SQLAlchemyError as error:
            # Not an outcome, so it must not be recorded as one (as in `vault`): without the database
            # nothing can be promised. The engine finds the workflow and runs it again.
            logger.exception("The database failed", extra={"workflow_id": workflow_id})
            raise asyncio.CancelledError from error
        except FivetranStateError as error:
            extra = {"workflow_id": workflow_id}
            logger.warning("%s ended with %s", workflow_id, error, extra=extra)
            raise
        finally:
            self.progress.pop(workflow_id, None)
            self.tasks.pop(workflow_id, None)
            self.taken_up.discard(workflow_id)

    @contextmanager
    def change(self, workflow_id: str) -> Iterator[None]:
        """Mark the update as one with a changing call under way."""
        self.changing.add(workflow_id)
        try:
            yield
        finally:
            self.changing.discard(workflow_id)
