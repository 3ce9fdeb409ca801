"""A stdio server without a client library."""

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.wire import RawServer, Start, raw_server


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Start:
    def started(*arguments: str, **variables: str) -> AbstractContextManager[RawServer]:
        verbose = {"FIVETRAN_STATE_LOG_LEVEL": "DEBUG"}
        return raw_server(environment | verbose | variables, tmp_path, *arguments)

    return started
