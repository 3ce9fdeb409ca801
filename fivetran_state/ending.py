"""How a process of ours ends: by which signals, and without waiting for anybody."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress


def heeds_hang_up() -> bool:
    """Whether the end of its terminal ends this process: there is such a signal, and no nohup."""
    return hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


def on_signals(end: Callable[[], object]) -> None:
    """Call `end` on the running event loop once a signal asks this process to end."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def end_once() -> None:
        if not asked.is_set():  # A second signal must not interrupt what the first one began.
            asked.set()
            end()

    with suppress(NotImplementedError):  # On Windows, the loop takes none.
        if heeds_hang_up():
            loop.add_signal_handler(signal.SIGHUP, end_once)
        for name in ("SIGINT", "SIGTERM", "SIGQUIT"):
            loop.add_signal_handler(getattr(signal, name), end_once)


def end_process() -> None:
    """Skip Python's own end, which would wait for DBOS's threads."""
    with suppress(OSError):  # Nobody may read it any more.
        sys.stderr.flush()
    os._exit(0)
