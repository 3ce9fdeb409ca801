"""Several servers that change one connection at the same time."""

import json
from typing import Any

import anyio

from fivetran_state.sandbox import LoggedRequest
from tests.support.calls import IDLE, call, is_pause, version_of
from tests.support.processes import Server


class Barrier:
    """Lets everybody go on when all have arrived."""

    def __init__(self, parties: int) -> None:
        self._missing = parties
        self._complete = anyio.Event()

    async def wait(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._complete.set()
        await self._complete.wait()


async def insist(server: Server, patch: dict[str, Any], started: list[str]) -> None:
    """Tries until the update has been made; notes every update that this server started."""
    while True:
        result = await server.client.call_tool(
            "update_state",
            {
                "connection_id": IDLE,
                "merge_patch": patch,
                "expected_version": await version_of(server.client, IDLE),
                "wait_seconds": 50,
            },
        )
        answer = json.loads(result.content[0].text)  # type: ignore[union-attr]
        if result.is_error and answer["code"] == "update_in_progress":
            await call(
                server.client,
                "workflow_status",
                workflow_id=answer["workflow_id"],
                wait_seconds=50,
            )
            continue
        started.append(answer["workflow_id"])
        if not result.is_error:
            assert answer["status"] == "updated", answer
            return
        assert answer["code"] == "conflict", answer


def letter(request: LoggedRequest) -> str:
    """One change of the connection: p(ause), w(rite), r(esume)."""
    if request.path.endswith("/state"):
        return "w"
    return "p" if is_pause(request) else "r"
