"""Logs: one JSON object a line, on stderr, because stdout belongs to the protocol."""

import json
import logging
import sys
import time
from contextvars import ContextVar

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
    handler = logging.StreamHandler(sys.stderr)
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
