"""Workflows that nobody waits for: they are broken off with their process, and another one goes on."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

logger = logging.getLogger(__name__)


class Background:
    """Those of one kind that run in this process."""

    def __init__(self) -> None:
        self._is_over = False
        self.running: dict[str, asyncio.Task[Any] | None] = {}
        """By workflow id."""

    def end(self) -> None:
        """Break off those that run, and let no other begin."""
        self._is_over = True
        for task in self.running.values():
            if task is not None:
                task.cancel()

    @contextmanager
    def here(self, workflow_id: str) -> Iterator[None]:
        """Count the workflow as running in this process."""
        if self._is_over:
            raise asyncio.CancelledError
        self.running[workflow_id] = asyncio.current_task()
        try:
            yield
        except SQLAlchemyError as error:
            # Not an outcome, so it must not be recorded as one: recovery runs the workflow again.
            logger.exception("The database failed", extra={"workflow_id": workflow_id})
            raise asyncio.CancelledError from error
        finally:
            del self.running[workflow_id]
