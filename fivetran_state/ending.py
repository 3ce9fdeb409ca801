"""How a process of ours ends: by which signals, and without waiting for anybody."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

SIGNALS = [
    getattr(signal, name)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM")
    if hasattr(signal, name)  # Windows has only some of them.
]


def is_ignored(number: signal.Signals) -> bool:
    """Whether the parent wants it ignored, as nohup does."""
    return signal.getsignal(number) is signal.SIG_IGN


def on_signals(end: Callable[[], object]) -> None:
    """Call `end` on the running event loop once a signal asks this process to end."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def end_once() -> None:
        if not asked.is_set():  # A second signal must not interrupt what the first one began.
            asked.set()
            end()

    for number in SIGNALS:
        if not is_ignored(number):
            with suppress(NotImplementedError):  # On Windows, the loop takes none.
                loop.add_signal_handler(number, end_once)


def end_process() -> None:
    """Skip Python's own end, which would wait for DBOS's threads."""
    with suppress(OSError):  # Nobody may read it any more.
        sys.stderr.flush()
    os._exit(0)
