"""Starts a process that finishes the updates of one that ends."""

import logging
import os
import subprocess
import sys

from fivetran_state.config import Settings

logger = logging.getLogger(__name__)

# The new process works in this one's directory, for which paths in settings may be meant. `-m` would import
# from there first, and others may be able to write to it.
_START = (
    "import sys; sys.path = [*filter(None, sys.path)]; from fivetran_state.main import main; main()"
)


def hand_over(executor_id: str, settings: Settings) -> None:
    """Start `fivetran-state finish`, which outlives this process and its terminal."""
    command = [sys.executable, "-c", _START, "finish", "--after", executor_id]
    if settings.sandbox:
        command.append("--sandbox")
    if settings.takes_guests:
        command.append("--guests")
    subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A policy is for what is asked for. Its file may be half-written by now, which stops a start.
        env=os.environ | {"FIVETRAN_STATE_POLICY": ""},
        start_new_session=True,
        creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),
    )
    logger.warning("Handed the updates in flight over to a process of their own")
