"""From the environment to a service that comes up behind the protocol's handshake.

Importing DBOS takes longer than a client likes to wait for its first answer, so that it is
imported in a thread, and tools wait for it here.
"""

import asyncio
import gc
import importlib
import logging
import sys
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import anyio
from pydantic import ValidationError

from fivetran_state import logs, tracing
from fivetran_state.config import Settings
from fivetran_state.ending import end_process, on_signals
from fivetran_state.errors import UnusableSettings
from fivetran_state.events import Events, Listener
from fivetran_state.text import visible

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from fivetran_state.service import Service


logger = logging.getLogger(__name__)

HEAD_START = 0.3
"""Seconds that the handshake gets before the import competes with it for the interpreter."""
USAGE = 64
"""The exit code of a process that a wrong argument or a wrong environment keeps from starting."""
LAST_WORDS = 0.5
"""Seconds that the last answers get to leave the process, once its updates are handed over."""


def refuse_to_start(why: str) -> NoReturn:
    """Say why on stderr, and exit with 64, as for a wrong command line."""
    sys.stderr.write(f"Cannot start: {visible(why)}\n")
    raise SystemExit(USAGE)


def _in_words(problem: "ErrorDetails") -> str:
    """The problem in words, without the value, which may be a secret."""
    said = problem["msg"].removeprefix("Value error, ")
    return f"{problem['loc'][0]}: {said}" if problem["loc"] else said


def read_settings(sandbox: bool, takes_guests: bool = False) -> Settings:
    """The settings; raises `UnusableSettings`, which names the variable."""
    try:
        settings = Settings(takes_guests=takes_guests)
    except ValidationError as error:
        raise UnusableSettings(
            "; ".join(_in_words(problem) for problem in error.errors())
        ) from None
    return settings.model_copy(update={"sandbox": True}) if sandbox else settings


def settings_for(sandbox: bool, takes_guests: bool = False) -> Settings:
    """Read the settings and begin the logs; exit with 64 if the environment is wrong."""
    try:
        settings = read_settings(sandbox, takes_guests)
    except UnusableSettings as error:
        refuse_to_start(error.message)
    begin_logs(settings, settings.log_level)
    return settings


def begin_logs(settings: Settings, level: str, file: Path | None = None) -> None:
    """Log from this level on, to stderr or a file, and first that a setting is ignored. Begin traces.

    Without stderr, it is no use to say that the file cannot be used: then nothing is logged there.
    """
    try:
        logs.configure(level, file)
    except OSError:
        logs.configure(level)
    if settings.dbos_application_database_url is not None:
        logger.warning(
            "DBOS_DATABASE_URL is ignored: DBOS has no application database any more; "
            "DBOS_SYSTEM_DATABASE_URL is what counts"
        )
    if tracing.is_on():
        _begin_traces()


def _begin_traces() -> None:
    if why := tracing.unusable():
        logger.warning("No traces are exported: %s", why)
        return
    try:
        from fivetran_state import otlp
    except ImportError:
        logger.warning(
            "No traces are exported, although OpenTelemetry's variables ask for it: install the "
            "extra, as in pip install 'fivetran-state[otel]'"
        )
        return
    otlp.begin()


class Backend:
    """Use `running()` around the server's life, and `service()` within a call.

    With `ends_process`, the process ends with `running()`, and a signal ends both: updates in
    flight are handed over first, and nothing else is waited for. Otherwise they get `patience`
    seconds to end before they are handed over. It watches every `watch_interval` seconds (0: never)
    unless the settings say otherwise. The `listeners` are told of every event.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        ends_process: bool = False,
        patience: float = 0,
        watch_interval: float = 0,
        listeners: Collection[Listener] = (),
    ) -> None:
        self._settings = settings
        self.events = Events.of(settings, listeners)
        self._watch_interval = (
            watch_interval if settings.watch_interval is None else settings.watch_interval
        )
        self._ends_process = ends_process
        self._patience = patience
        self._is_needed = asyncio.Event()
        self._starting: asyncio.Task[Service] | None = None
        self._ending: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._starting = asyncio.create_task(self._start())
        if self._ends_process:
            on_signals(self._end)
        try:
            yield
        finally:
            # If the client is gone, the SDK fails to write to it and cancels this task.
            with anyio.CancelScope(shield=True):
                await self._end()

    async def service(self) -> "Service":
        assert self._starting is not None, "outside of running()"
        self._is_needed.set()
        return await asyncio.shield(self._starting)

    async def _start(self) -> "Service":
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._is_needed.wait(), HEAD_START)
        try:
            module = await asyncio.to_thread(importlib.import_module, "fivetran_state.service")
        finally:
            # All that is loaded stays: after this one, no collection need look through it.
            gc.collect()
            gc.freeze()
            gc.enable()
        service: Service = module.Service(self._settings, self.events)
        service.start(self._watch_interval)
        return service

    def _end(self) -> "asyncio.Task[None]":
        """Begin to end, once, for whatever reason."""
        if self._ending is None:
            ending = self._hand_over_and_exit if self._ends_process else self._close
            self._ending = asyncio.create_task(ending())
        return self._ending

    async def _hand_over_and_exit(self) -> None:
        assert self._starting is not None, "outside of running()"
        try:
            # Until the service has started, no update is in flight.
            service = await self._came_up() if self._starting.done() else None
            if service is not None:
                await service.leave()
        finally:
            # The SDK may wait for ever, for a line on stdin or for room in stdout.
            exit_ = threading.Timer(LAST_WORDS, end_process)
            exit_.daemon = True
            exit_.start()

    async def _close(self) -> None:
        service = await self._came_up()
        if service is not None:
            await service.close(self._patience)

    async def _came_up(self) -> "Service | None":
        """The service, or None if it could not even be imported."""
        try:
            return await self.service()
        except Exception:
            logger.exception("The service did not start")
            return None
