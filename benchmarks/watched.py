"""Connections that many update at a time, and what no update may have done to them."""

import itertools
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from fivetran_state import state
from fivetran_state.ids import UpdateId
from fivetran_state.sandbox import LoggedRequest, Sandbox

Updates = list[dict[str, Any]]
"""What `workflow_status` answers about each update, once all have ended."""


class Watched:
    """New connections of a sandbox: of each three one is paused and one syncs every few seconds.

    Every update of them is a merge patch `change(marker, version)` with `marker` as its reason.
    """

    def __init__(self, sandbox: Sandbox, count: int) -> None:
        self.sandbox = sandbox
        self.names = [f"chaos_{number}" for number in range(count)]
        for number, name in enumerate(self.names):
            syncs = number % 3 == 2
            sandbox.add_connection(
                name,
                state='{"cursor":"2026-01-01T00:00:00Z","exact":1.10}',
                paused=number % 3 == 1,
                sync_seconds=1.0,
                sync_every=2.0 if syncs else None,
                drain_seconds=0.5,
                sync_on_resume=syncs,
                stopped_sync_counts=bool(number % 2),
            )
        self._paused_before = {name: sandbox.connection(name).paused for name in self.names}

    @staticmethod
    def change(marker: str, version: str) -> dict[str, str]:
        """A merge patch from which one can see whose it is and which version it was made for."""
        return {"marker": marker, "over": version}

    async def updates(self, status: Callable[[str], Awaitable[dict[str, Any] | None]]) -> Updates:
        """All of them, by what tells an update's status by its id, or None if there is none."""
        found = []
        for name in self.names:
            number = 1
            while (update := await status(f"{name}:{number}")) is not None:
                found.append(update)
                number += 1
        return found

    def violations(self, updates: Updates) -> list[str]:
        """Every broken promise, in a sentence."""
        found = [
            f"{update['workflow_id']} has not ended: {update['message']}"
            for update in updates
            if update["status"] == "running"
        ]
        for name, paused in self._paused_before.items():
            if self.sandbox.connection(name).paused != paused:
                found.append(f"{name} ended with paused={not paused}")
                self._keep(name, [u for u in updates if u["connection_id"] == name])
        for name in self.names:
            mine = [update for update in updates if update["connection_id"] == name]
            requests = [r for r in self.sandbox.log if r.connection_id == name and r.applied]
            broken = list(_broken_by(name, mine, requests))
            found += broken
            if broken:
                self._keep(name, mine)
        return found

    def _keep(self, name: str, updates: Updates) -> None:
        """Everything about a connection, for whoever looks for the cause."""
        order = {update["reason"]: number for number, update in enumerate(updates, 1)}

        def whose(document: Any) -> int | None:
            return order.get(document.get("marker")) if isinstance(document, dict) else None

        with Path(f"chaos-{name}.log").open("w") as file:
            for request in self.sandbox.log:
                if request.connection_id != name:
                    continue
                body = request.body or {}
                print(
                    request.index,
                    f"{request.time:.3f}",
                    request.method,
                    "state" if request.path.endswith("/state") else "",
                    body.get("paused", ""),
                    f"writes={whose(body.get('state'))}" if "state" in body else "",
                    f"was={whose(json.loads(request.state or '{}'))}",
                    f"status={request.status} fault={request.fault} applied={request.applied}",
                    file=file,
                )
            for update in updates:
                print(json.dumps(update), file=file)


def _broken_by(name: str, updates: Updates, requests: list[LoggedRequest]) -> Iterator[str]:
    numbers = [UpdateId.parse(update["workflow_id"]).number for update in updates]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"{name}: the numbers have gaps: {numbers}"
    # A request that is repeated after its update has failed is another update.
    numbered: dict[str, list[int]] = defaultdict(list)
    for number, update in enumerate(updates, 1):
        numbered[update["reason"]].append(number)
    written: dict[int, state.State] = {}
    rolled_back: set[int] = set()
    latest = 0
    for request in requests:
        if request.method != "PATCH" or not request.path.endswith("/state"):
            continue
        where = f"{name}, request {request.index}"
        target, before = request.body["state"], state.parse(request.state or "{}")
        if request.syncing or not request.paused:
            yield f"{where}: written while syncing={request.syncing}, paused={request.paused}"
        if state.same(before, target):
            yield f"{where}: written a second time"
        if latest in written and state.same(target, written[latest]):
            rolled_back.add(latest)
            continue
        if state.version(before) != target["over"]:
            yield f"{where}: written over version {state.version(before)}, not {target['over']}"
        mine = reversed(numbered[target["marker"]])
        number = next((n for n in mine if _began(updates[n - 1]) <= request.time), 0)
        if number <= latest:
            yield f"{where}: update {number} wrote after update {latest}"
        latest = number
        written[latest] = before
    for number, update in enumerate(updates, 1):
        code = update.get("error", {}).get("code", update["status"])
        is_written, is_undone = number in written, number in rolled_back
        if code != "rollback_failed" and (is_written and not is_undone) != (code == "updated"):
            yield f"{update['workflow_id']}: {code}, but {is_written=} and {is_undone=}"
    for earlier, later in itertools.pairwise(updates):
        if earlier.get("ended_at", "9") > later["started_at"]:
            yield f"{later['workflow_id']} began before {earlier['workflow_id']} had ended"


def _began(update: dict[str, Any]) -> float:
    return datetime.fromisoformat(update["started_at"].replace("Z", "+00:00")).timestamp()
