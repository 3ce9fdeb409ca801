"""Logs: one JSON object a line, on stderr, because stdout belongs to the protocol."""

import json
import logging
import select
import sys
import time
from contextvars import ContextVar
from typing import TextIO

from fivetran_state.errors import FivetranStateError

ACCESS_FIELDS = ("method", "path", "status", "duration_ms", "principal")
"""What the line about an HTTP request has besides its message."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the HTTP request that is being served; it is on every line that is logged meanwhile."""


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {
            name: value
            for name in ("workflow_id", *ACCESS_FIELDS)
            if (value := getattr(record, name, None)) is not None
        }
        if (id_ := request_id.get()) is not None:
            line["request_id"] = id_
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


PIECE = 512
"""Bytes that a pipe with room takes at once, on every system."""
PATIENCE = 0.1
"""Seconds that a line waits for its reader, unless the line before it has waited in vain."""


class _WhileRead(logging.StreamHandler[TextIO]):
    """Drops what does not fit into a pipe that nobody reads; to wait would stop the updates."""

    _is_full = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + self.terminator
            for start in range(0, len(line), PIECE):
                if not self._has_room():
                    break
                self.stream.write(line[start : start + PIECE])
                self.flush()
        except Exception:
            self.handleError(record)

    def _has_room(self) -> bool:
        try:
            ready = select.select([], [self.stream], [], 0 if self._is_full else PATIENCE)[1]
        except (OSError, ValueError):  # Windows can only tell of sockets.
            return True
        self._is_full = not ready
        return not self._is_full


def _without_stack_for_refusals(record: logging.LogRecord) -> bool:
    """DBOS logs every exception of a workflow with its stack; ours are answers, not accidents."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, FivetranStateError):
        record.exc_info = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args = "The update ended with %s: %s", (error.code, error.message)
    return True


def configure(level: str) -> None:
    """Send every logger of this process to stderr; call it before DBOS or MCP set up their own."""
    handler = _WhileRead(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # DBOS adds a handler of its own unless its logger has one.
    dbos = logging.getLogger("dbos")
    dbos.handlers = [handler]
    dbos.propagate = False
    dbos.setLevel("DEBUG" if level == "DEBUG" else "WARNING")  # INFO lists every migration.
    dbos.addFilter(_without_stack_for_refusals)
    # The HTTP stack's debug lines show requests and their headers.
    for name in ("httpx", "httpcore", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
