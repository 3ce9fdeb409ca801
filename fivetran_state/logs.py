"""Logs: one JSON object a line, on stderr, because stdout belongs to the protocol.

No line holds a value of a state. Our own messages never quote one. A library's message or an
exception's text may. In place of the first, a line has the source code that logged it; in place of
the second, types and places.
"""

import ast
import json
import logging
import select
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from fivetran_state import private, tracing
from fivetran_state.errors import FivetranStateError

logger = logging.getLogger(__name__)

OURS = "fivetran_state"
"""The prefix of this program's loggers."""

ACCESS_FIELDS = ("method", "path", "status", "duration_ms", "principal")
"""Further fields of a request's line."""

MAX_FRAMES = 30
"""Frames of one exception, the innermost ones."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the HTTP request that is being served, which is on every line meanwhile."""


def time_text(seconds: float) -> str:
    """A time in seconds since the epoch, as ISO 8601 in UTC."""
    begun = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{begun}.{int(seconds % 1 * 1000):03}Z"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time_text(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage() if _is_ours(record) else _source(record),
        }
        line |= {
            name: value
            for name in ("workflow_id", *ACCESS_FIELDS)
            if (value := getattr(record, name, None)) is not None
        }
        line |= getattr(record, "event", {})
        if (id_ := request_id.get()) is not None:
            line["request_id"] = id_
        line |= tracing.ids()
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = "\n".join(_described(record.exc_info[1], set()))
        return json.dumps(line)


PIECE = 512
"""Bytes that a pipe with room takes at once, on every system."""
PATIENCE = 0.1
"""Seconds that a line waits for its reader, unless the line before it has waited in vain."""


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    # Python 3.10 has it without the type of the stream.
    _StreamHandler = logging.StreamHandler


class _WhileRead(_StreamHandler):
    """Drops lines that do not fit into a pipe without a reader: waiting would stop the updates."""

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


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name == OURS or record.name.startswith(f"{OURS}.")


def _source(record: logging.LogRecord) -> str:
    """The source of the statement that logged this, which has no values."""
    found = _statement_at(record.pathname, record.lineno)
    return found or f"A message at {record.pathname}:{record.lineno}"


@lru_cache(maxsize=1000)
def _statement_at(path: str, line: int) -> str | None:
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    return ast.unparse(around[-1]) if around else None  # The innermost one comes last.


def _described(error: BaseException, seen: set[int]) -> Iterator[str]:
    """The types and places of the exception and its causes, without their texts."""
    seen.add(id(error))
    origin = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if origin is not None and id(origin) not in seen:
        yield from _described(origin, seen)
    yield str(error) if isinstance(error, FivetranStateError) else type(error).__qualname__
    yield from _places(error.__traceback__)
    for part in getattr(error, "exceptions", ()):  # Of a group.
        if isinstance(part, BaseException) and id(part) not in seen:
            yield from _described(part, seen)


def _places(traceback: TracebackType | None) -> list[str]:
    found = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        found.append(f"  {code.co_filename}:{traceback.tb_lineno} in {code.co_name}")
        traceback = traceback.tb_next
    return found[-MAX_FRAMES:]


def _is_wanted(record: logging.LogRecord) -> bool:
    """True for our messages, and a library's from WARNING on. Below that, libraries log their data.

    DBOS logs each error of a workflow; ours are answers, which the workflow logs itself.
    """
    error = record.exc_info[1] if record.exc_info else None
    is_answer = record.name == "dbos" and isinstance(error, FivetranStateError)
    return _is_ours(record) or (record.levelno >= logging.WARNING and not is_answer)


MAX_FILE_BYTES = 1_000_000
"""Bytes of a log file, and of the one before it, which is kept beside it."""


class _Bounded(RotatingFileHandler):
    """Appends to a private file. Processes that share it may lose old lines, and never block."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=MAX_FILE_BYTES, backupCount=1, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        private.create(Path(self.baseFilename))
        return super()._open()


def configure(level: str, file: Path | None = None) -> None:
    """Send this process's logs from this level on to stderr, or to a file; call it before DBOS or MCP
    set up theirs.

    Raises `OSError` if the file cannot be used.
    """
    handler = _WhileRead(sys.stderr) if file is None else _Bounded(file)
    handler.setLevel(level)  # For the lines of libraries, too.
    handler.setFormatter(_JsonLines())
    handler.addFilter(_is_wanted)
    logging.basicConfig(level="WARNING", handlers=[handler], force=True)
    logging.getLogger(OURS).setLevel(level)
    # DBOS adds a handler of its own unless its logger has one.
    dbos = logging.getLogger("dbos")
    dbos.handlers = [handler]
    dbos.propagate = False
    _log_what_python_prints()


def _log_what_python_prints() -> None:
    """Log warnings and unhandled exceptions: Python's own output would quote values."""

    def on_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        logger.warning("%s at %s:%d", category.__name__, filename, lineno)

    def on_exception(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, traceback)
        else:
            logger.critical("The process ends with an error", exc_info=error)

    def in_thread(arguments: threading.ExceptHookArgs) -> None:
        logger.error("A thread ended with an error", exc_info=arguments.exc_value)

    def unraisable(arguments: "sys.UnraisableHookArgs") -> None:
        logger.error("An error could not be raised", exc_info=arguments.exc_value)

    warnings.showwarning = on_warning
    sys.excepthook, threading.excepthook = on_exception, in_thread
    sys.unraisablehook = unraisable
