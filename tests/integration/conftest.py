"""A stdio server without a client library."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.calls import ROOT
from tests.support.wire import RawServer, Start, ends_in_time


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Start:
    @contextmanager
    def started(*arguments: str, **variables: str) -> Iterator[RawServer]:
        stderr = tmp_path / "stderr.txt"
        with (
            stderr.open("wb") as stderr_file,
            subprocess.Popen(
                [sys.executable, str(ROOT / "server.py"), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr_file,
                env=environment | {"FIVETRAN_STATE_LOG_LEVEL": "DEBUG"} | variables,
                cwd=tmp_path,
            ) as process,
            ends_in_time(process),
        ):
            yield RawServer(process, stderr)

    return started
