"""Updates over MCP, and the calls of one."""

from typing import Any

from mcp import Client

from fivetran_state.sandbox import Sandbox
from tests.support.calls import call, refused

LOOK = ["GET", "GET state"]
"""The first two calls, before anything is touched. They are made at the same time unless the
connection is known to be paused."""
SEVEN_CALLS = [*LOOK, "PATCH", "GET state", "PATCH state", "GET state", "PATCH"]
STEADY = "steady_river"
"""A connection that tests add: its state has no cursor, so a sync does not move it."""
FOREVER = 100_000.0
PATCH = {"rewound": True}


async def update(client: Client, connection_id: str, version: str, **how: Any) -> dict[str, Any]:
    """Makes an update and waits for its end; by PATCH unless another change is given."""
    return await call(client, "update_state", **arguments(connection_id, version, how))


async def failing(client: Client, connection_id: str, version: str, **how: Any) -> dict[str, Any]:
    return await refused(client, "update_state", **arguments(connection_id, version, how))


def arguments(connection_id: str, version: str, how: dict[str, Any]) -> dict[str, Any]:
    """Those of `update_state`, which waits for the end unless `how` says otherwise."""
    change = {} if {"new_state", "json_patch"} & how.keys() else {"merge_patch": PATCH}
    return {
        "connection_id": connection_id,
        "expected_version": version,
        "wait_seconds": 50,
        **change,
        **how,
    }


def steady_connection(sandbox: Sandbox, text: str = '{"table":"orders"}', **more: Any) -> None:
    sandbox.add_connection(STEADY, state=text, sync_seconds=FOREVER, drain_seconds=FOREVER, **more)
