"""The shell in this process, in front of the sandbox."""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from fivetran_state.logs import OURS
from tests.support.shell import Shell


@pytest.fixture
def shell(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Shell]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # A command sets up the logs of its process.
    for module, name in (
        (sys, "excepthook"),
        (sys, "unraisablehook"),
        (threading, "excepthook"),
        (warnings, "showwarning"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    loggers = [logging.getLogger(name) for name in (None, OURS, "dbos")]
    before = [(each.level, list(each.handlers), each.propagate) for each in loggers]
    yield Shell(monkeypatch, capsys)
    for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
        logger.level, logger.handlers, logger.propagate = level, handlers, propagate
