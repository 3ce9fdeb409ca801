"""A server that ends in the middle of an update, and the process that completes the update."""

import time
from pathlib import Path
from typing import Any

from fivetran_state.sandbox import Sandbox
from tests.support.calls import state_of
from tests.support.updates import (
    SLOW,
    assert_read_back_before_resumed,
    assert_written_once_while_paused,
    is_poll_of_a_sync,
)
from tests.support.wire import LEGACY, RawServer, tool_call


def start_update_that_waits_for_a_sync(server: RawServer, sandbox: Sandbox) -> None:
    server.say(*LEGACY, tool_call("get_state", connection_id=SLOW))
    version = server.answer("get_state")["result"]["structuredContent"]["version"]
    change = {"connection_id": SLOW, "merge_patch": {"cursor": "2020"}, "wait_seconds": 50}
    server.say(tool_call("update_state", expected_version=version, **change))
    sandbox.wait_for(lambda request: is_poll_of_a_sync(request) and request.status is not None)


def assert_updated_once(sandbox: Sandbox, connection_id: str, before: dict[str, Any]) -> None:
    assert state_of(sandbox, connection_id) == before | {"cursor": "2020"}
    write = assert_written_once_while_paused(sandbox, connection_id)
    assert_read_back_before_resumed(sandbox, connection_id, write)
    assert sandbox.connection(connection_id).paused is False


def wait_until_nobody_is_left(environment: dict[str, str], besides: int = 0) -> None:
    """Waits until only so many processes are left.

    Each has a lock file of its own. The process that takes its updates over removes it; if it has none,
    the file stays until the next start.
    """
    executors = Path(environment["FIVETRAN_STATE_DATA_DIR"]) / "executors"
    deadline = time.monotonic() + 60
    while len(left := list(executors.iterdir())) > besides:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
