"""Starts a process that finishes the updates of one that ends."""

import logging
import os
import subprocess
import sys
from pathlib import Path

from fivetran_state import network
from fivetran_state.config import Settings

logger = logging.getLogger(__name__)


def hand_over(executor_id: str, settings: Settings) -> None:
    """Start `fivetran-state finish`, which outlives this process and its terminal."""
    command = [sys.executable, "-m", "fivetran_state", "finish", "--after", executor_id]
    if settings.sandbox:
        command.append("--sandbox")
    if settings.takes_guests:
        command.append("--guests")
    subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Python imports from the working directory first, so it must not be one that others may write to.
        cwd=Path(sys.executable).parent,
        env=os.environ
        | network.absolute_certificates()
        | {"FIVETRAN_STATE_DATA_DIR": str(settings.data_dir)},
        start_new_session=True,
        creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),
    )
    logger.warning("Handed the updates in flight over to a process of their own")
