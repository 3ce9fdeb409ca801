"""An update by a server process: start it, hold it at one of its calls, check its end."""

from collections.abc import Callable
from typing import Any

from mcp import Client

from fivetran_state.sandbox import LoggedRequest, Sandbox
from fivetran_state.sandbox.faults import FaultKind
from tests.support import matrix
from tests.support.calls import (
    IDLE,
    arrival,
    call,
    is_pause,
    is_read,
    is_resume,
    refused,
    state_of,
    version_of,
)
from tests.support.processes import Server, ended

CALLS = dict(enumerate(matrix.RUNNING, 1))
"""The names of an update's calls, by number."""
WRITE = matrix.CALLS["write"].position + 1
CALLS_TO_READ = 2
"""The calls of get_state to Fivetran about the connection."""
RUNNING_CALLS = matrix.kinds(matrix.RUNNING)
BEFORE: FaultKind = "hang"
AFTER: FaultKind = "apply_then_hang"
SLOW = "slow_tortoise"


def refuse_resumes(sandbox: Sandbox, connection_id: str, *, first: int = 400) -> None:
    """Makes the next update leave its connection paused, after one call that pauses it.

    The `first` refusal is waited for, in case another key works; the second asks for more patience than
    is left.
    """
    resume: dict[str, Any] = {"method": "PATCH", "path": f"/{connection_id}$", "skip": 1}
    sandbox.fault("status", status=first, **resume)
    sandbox.fault("status", status=429, headers={"Retry-After": "86400"}, **resume)


async def start_update(client: Client, connection_id: str = IDLE, **more: Any) -> str:
    """Reads the state, starts an update and does not wait for it; its workflow id."""
    started = await call(
        client,
        "update_state",
        connection_id=connection_id,
        merge_patch={"cursor": "2020"},
        expected_version=await version_of(client, connection_id),
        wait_seconds=0,
        **more,
    )
    assert started["status"] == "running"
    workflow_id: str = started["workflow_id"]
    return workflow_id


async def start_update_that_hangs(
    client: Client,
    sandbox: Sandbox,
    kind: FaultKind,
    *,
    at_call: int,
    connection_id: str = IDLE,
    **more: Any,
) -> str:
    """Starts an update; returns its id when the call with this number (from 1) has arrived. That
    call is never answered."""
    is_paused = sandbox.connection(connection_id).paused
    at = list((matrix.PAUSED if is_paused else matrix.CALLS).values())[at_call - 1]
    # The state is read once before.
    skip = at.skip + (at.method == "GET")
    sandbox.fault(kind, method=at.method, path=at.path(connection_id), skip=skip)
    workflow_id = await start_update(client, connection_id, **more)
    await arrival(
        sandbox, lambda request: request.fault == kind and request.connection_id == connection_id
    )
    return workflow_id


def is_write(request: LoggedRequest) -> bool:
    return request.method == "PATCH" and request.path.endswith("/state")


def is_look(request: LoggedRequest) -> bool:
    """True for a read of the state whose answer has arrived."""
    return is_read(request) and request.status is not None


def resumed(connection_id: str) -> Callable[[LoggedRequest], bool]:
    """True for a request that has resumed this connection."""

    def has(request: LoggedRequest) -> bool:
        return request.connection_id == connection_id and request.applied and is_resume(request)

    return has


def took_effect(sandbox: Sandbox, connection_id: str) -> list[LoggedRequest]:
    return [
        request
        for request in sandbox.log
        if request.connection_id == connection_id and request.applied
    ]


def changes(sandbox: Sandbox, connection_id: str) -> str:
    """Every request that would change the connection: p(ause), w(rite), r(esume)."""
    return "".join(
        "w" if is_write(request) else "p" if is_pause(request) else "r"
        for request in sandbox.log
        if request.connection_id == connection_id and request.method == "PATCH"
    )


def assert_written_once_while_paused(sandbox: Sandbox, connection_id: str) -> LoggedRequest:
    """Exactly one write took effect, on a paused connection without a sync; that write."""
    writes = [request for request in took_effect(sandbox, connection_id) if is_write(request)]
    assert [(write.paused, write.syncing) for write in writes] == [(True, False)]
    return writes[0]


def assert_read_back_before_resumed(
    sandbox: Sandbox, connection_id: str, write: LoggedRequest
) -> None:
    effects = took_effect(sandbox, connection_id)
    resumed = min(request.index for request in effects if is_resume(request))
    assert any(is_look(request) and write.index < request.index < resumed for request in effects)


async def assert_updated_once(
    client: Client, sandbox: Sandbox, workflow_id: str, before: dict[str, Any]
) -> None:
    """The only update of a running connection succeeded, as without any fault."""
    connection_id = workflow_id.partition(":")[0]
    status = await ended(client, workflow_id)
    assert status["status"] == "updated", status
    assert status["was_paused"] is False
    assert status["paused_by_update"] is False
    assert state_of(sandbox, connection_id) == before | {"cursor": "2020"}
    assert status["version_after"] == await version_of(client, connection_id)
    write = assert_written_once_while_paused(sandbox, connection_id)
    assert_read_back_before_resumed(sandbox, connection_id, write)
    assert sandbox.connection(connection_id).paused is False
    assert workflow_id == f"{connection_id}:1"
    missing = await refused(client, "workflow_status", workflow_id=f"{connection_id}:2")
    assert missing["code"] == "workflow_not_found"


def assert_failed_with(status: dict[str, Any], code: str) -> None:
    assert status["status"] == "failed", status
    assert status["error"]["code"] == code
    assert status["paused_by_update"] is False


async def kill_while_draining(server: Server, sandbox: Sandbox) -> str:
    """Kills the server after it has seen once that the sync still runs; the workflow's id."""
    workflow_id = await start_update(server.client, SLOW)
    await arrival(
        sandbox, lambda request: is_poll_of_a_sync(request) and request.status is not None
    )
    await server.kill()
    return workflow_id


def is_poll_of_a_sync(request: LoggedRequest) -> bool:
    return (
        request.method == "GET"
        and request.path.endswith(f"/{SLOW}")
        and request.paused is True
        and request.syncing is True
    )
