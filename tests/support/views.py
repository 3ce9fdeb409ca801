"""An account in which each page has something to show, and the addresses of these pages."""

from typing import Any
from urllib.parse import quote

import httpx

from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, LARGE, PAUSED, SYNCING, arrival, is_pause, sync_runs_on, until
from tests.support.rest import ANY, get, parsed, post

LATER = {"Prefer": "respond-async"}


async def change(client: httpx.AsyncClient, connection_id: str, **body: Any) -> dict[str, Any]:
    """An update that has ended."""
    return await post(client, "/state/update", ANY | {"connection_id": connection_id, **body})


async def remembered(
    client: httpx.AsyncClient, connection_id: str, versions: int
) -> list[dict[str, Any]]:
    """The time line, once it has this number of versions."""

    async def entries() -> list[dict[str, Any]] | None:
        found = await get(client, f"/connections/{connection_id}/history", limit=100)
        seen = [each for each in found["entries"] if "seen_until" in each]
        return seen if len(seen) >= versions else None

    return await until(entries)


async def running_update(
    client: httpx.AsyncClient, sandbox: Sandbox, connection_id: str = SYNCING
) -> str:
    """The id of an update that waits for a sync, with its connection paused."""
    sync_runs_on(sandbox, connection_id)
    answer = await client.post(
        "/state/update",
        json={
            "connection_id": connection_id,
            "merge_patch": {"a": 1},
            "reason": "a rewind",
            "expected_version": "*",
        },
        headers=LATER,
    )
    await arrival(sandbox, is_pause)
    workflow_id: str = parsed(answer, 202)["workflow_id"]

    async def waits() -> bool:
        found = await get(client, f"/workflows/{workflow_id}")
        return found.get("phase") == "drain"

    await until(waits)
    return workflow_id


async def furnished(client: httpx.AsyncClient, sandbox: Sandbox) -> dict[str, str]:
    """Makes updates, a group and a proposal; returns the address of every view, by its name.

    One of the updates still runs: it waits for the sync of SYNCING.
    """
    for day in (1, 2, 3):
        moved = {"cursor": f"2026-01-0{day}T00:00:00Z", "batch": day}
        await change(client, IDLE, merge_patch=moved, reason="The source has sent bad rows.")
    stale = {"connection_id": PAUSED, "merge_patch": {"a": 1}, "expected_version": "0" * 32}
    await post(client, "/state/update", ANY | stale, status=409)
    both = {"connection_ids": [IDLE, PAUSED], "merge_patch": {"a": 1}}
    group = (await post(client, "/states/update", ANY | both))["workflow_id"]
    asked = {"connection_id": PAUSED, "merge_patch": {"offset": 0}, "propose": True}
    proposal = (await post(client, "/state/update", ANY | asked, status=202))["workflow_id"]
    await remembered(client, IDLE, 5)
    running = await running_update(client, sandbox)
    connection = f"/page/connections/{IDLE}"
    return {
        "now": "/",
        "connections": "/page/connections?every=true",
        "connection": connection,
        "state": f"{connection}/state",
        "past state": f"{connection}/state?at={IDLE}:2",
        "outline": f"/page/connections/{LARGE}/state",
        "compare": f"{connection}/compare?from={IDLE}:2",
        "change": f"{connection}/change",
        "plan": f"{connection}/plan?restore_from={IDLE}:2",
        "updates": "/page/updates",
        "update": f"/page/updates/{IDLE}:3",
        "failed update": f"/page/updates/{PAUSED}:1",
        "running update": f"/page/updates/{running}",
        "group": f"/page/updates/{quote(group, safe='')}",
        "proposals": "/page/proposals",
        "routes": "/docs",
        "proposal": f"/page/proposals/{quote(proposal, safe='')}",
        "problem": f"{connection}/state?at=yesterday",
        "sign in": "/sign-in",
    }
