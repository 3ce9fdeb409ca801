"""The end of a process of ours: its signals, and an exit that waits for nobody."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from fivetran_state import tracing


def heeds_hang_up() -> bool:
    """True if a closed terminal ends this process: the system has SIGHUP, and there is no nohup."""
    return hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


def on_signals(end: Callable[[], object]) -> None:
    """Call `end` on the running event loop once a signal asks this process to end."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def end_once() -> None:
        if not asked.is_set():  # A second signal must not interrupt what the first one began.
            asked.set()
            end()

    with suppress(NotImplementedError):  # On Windows, event loops take no signals.
        if heeds_hang_up():
            loop.add_signal_handler(signal.SIGHUP, end_once)
        for name in ("SIGINT", "SIGTERM", "SIGQUIT"):
            loop.add_signal_handler(getattr(signal, name), end_once)


def end_process() -> None:
    """Skip Python's own end, which would wait for DBOS's threads."""
    tracing.end()
    with suppress(OSError):  # Its reader may be gone.
        sys.stderr.flush()
    os._exit(0)
