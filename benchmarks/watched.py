"""Connections with many updates while people act on them, and a check of the result."""

import json
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.promises import (
    HELD_AFTER_A_NEW_KEY,
    Act,
    ActKind,
    Findings,
    Group,
    Record,
    Updates,
)
from fivetran_state.sandbox import Sandbox

ACTS: tuple[ActKind, ...] = ("pause", "resume", "write", "sync")


class Watched:
    """New connections of a sandbox: of every three, one is paused and one syncs every few seconds.

    Every update of them is a merge patch `change(marker, versions)` with `marker` as its reason.
    `act` is a person's action. The sandbox must answer without latency: only then does its log have
    the order in which requests took effect.
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
        self._acts: dict[str, list[Act]] = defaultdict(list)
        self._other_reads: dict[str, list[range]] = defaultdict(list)
        self._told_markers: set[str] = set()
        self._waits_for_a_key = False
        self._keys_replaced_at: list[float] = []
        self.findings = Findings()

    @staticmethod
    def change(marker: str, versions: Mapping[str, str]) -> dict[str, Any]:
        """A merge patch that shows its owner and, by connection, the version that it was made for."""
        return {"marker": marker, "over": dict(versions)}

    def act(self, chance: random.Random) -> ActKind:
        """A person acts on a connection, more often on one that is being updated."""
        name = self.sandbox.log[-1].connection_id if self.sandbox.log else None
        if name not in self.names or chance.random() < 0.4:
            name = chance.choice(self.names)
        kind = chance.choices(ACTS, (3, 4, 3, 2))[0]
        marker = f"person {uuid.uuid4().hex}" if kind == "write" else None
        with self.sandbox.world.transaction():  # No request takes effect meanwhile.
            position = self._position()
            paused = self.sandbox.connection(name).paused
            if kind == "write":
                document = {"cursor": "2026-02-02T00:00:00Z", "marker": marker}
                self.sandbox.set_state(name, json.dumps(document))
            elif kind == "sync":
                self.sandbox.start_sync(name)
            else:
                self.sandbox.set_paused(name, kind == "pause")
            self._acts[name].append(Act(position, time.time(), kind, paused, marker))
        return kind

    def _position(self) -> int:
        """The index of the first request that has not taken effect, within a transaction."""
        if not self.sandbox.log:
            return 0
        last = self.sandbox.log[-1]
        is_under_way = last.connection_id is not None and last.paused is None
        return last.index + (not is_under_way)

    @contextmanager
    def read(self, *names: str) -> Iterator[None]:
        """Marks a call that reads these connections, but does not belong to an update."""
        start = len(self.sandbox.log)
        try:
            yield
        finally:
            for name in names:
                self._other_reads[name].append(range(start, len(self.sandbox.log)))

    def replaced_state(self, *, told: bool) -> str:
        """A state to store in place of a write; `told`: Fivetran's answer shows it."""
        marker = f"replaced {uuid.uuid4().hex}"
        if told:
            self._told_markers.add(marker)
        return json.dumps({"cursor": "2026-03-03T00:00:00Z", "marker": marker})

    def key_was_revoked(self) -> None:
        self._waits_for_a_key = True

    def server_is_up(self) -> None:
        """A server with a valid key has started."""
        if self._waits_for_a_key:
            self._waits_for_a_key = False
            self._keys_replaced_at.append(time.time())

    async def updates(self, status: Callable[[str], Awaitable[dict[str, Any] | None]]) -> Updates:
        """All updates. `status` returns the status of an update by its id, or None if there is
        none."""
        found = []
        for name in self.names:
            number = 1
            while True:
                with self.read(name):
                    update = await status(f"{name}:{number}")
                if update is None:
                    break
                found.append(update)
                number += 1
        return found

    def violations(self, updates: Updates, groups: Updates) -> list[str]:
        """Every broken promise, as a sentence; `findings` has more.

        `groups` has the `workflow_status` of each group.
        """
        self.findings = Findings(
            [
                f"{each['workflow_id']} has not ended: {each['message']}"
                for each in [*updates, *groups]
                if each["status"] == "running"
            ]
        )
        for name in self.names:
            mine = [update for update in updates if update["connection_id"] == name]
            found = self._record(name, mine).check()
            self.findings.add(found)
            if found.violations:
                self._keep(name, updates)
        for group in groups:
            mine = [each for each in updates if each.get("part_of") == group["workflow_id"]]
            broken = Group(group, mine).violations(self.findings.effects)
            self.findings.violations += broken
            if broken:
                for update in mine:
                    self._keep(update["connection_id"], updates)
        for name, seconds in self._held_after_a_new_key():
            if seconds > HELD_AFTER_A_NEW_KEY:
                self.findings.violations.append(
                    f"{name} was paused for {seconds:.1f} s after a server with a new key was up"
                )
                self._keep(name, updates)
        return self.findings.violations

    @property
    def longest_pause(self) -> float:
        """Seconds for which an update kept a connection paused."""
        return max((hold.end - hold.start for hold in self.findings.holds), default=0.0)

    @property
    def longest_pause_after_a_new_key(self) -> float:
        """Seconds that a connection stayed paused after a server with a valid key was up."""
        return max((seconds for _, seconds in self._held_after_a_new_key()), default=0.0)

    def _held_after_a_new_key(self) -> list[tuple[str, float]]:
        return [
            (hold.connection_id, hold.end - replaced_at)
            for hold in self.findings.holds
            for replaced_at in self._keys_replaced_at
            if hold.start <= replaced_at < hold.end
        ]

    def _record(self, name: str, updates: Updates) -> Record:
        return Record(
            name,
            updates,
            [request for request in self.sandbox.log if request.connection_id == name],
            self._acts[name],
            self._paused_before[name],
            self.sandbox.connection(name).paused,
            self._other_reads[name],
            frozenset(self._told_markers),
        )

    def _keep(self, name: str, updates: Updates) -> None:
        """Saves everything about a connection, to find the cause."""
        mine = [update for update in updates if update["connection_id"] == name]
        order = {update["reason"]: number for number, update in enumerate(mine, 1)}

        def whose(document: Any) -> Any:
            marker = document.get("marker") if isinstance(document, dict) else None
            return order.get(marker, marker)

        acts = list(self._acts[name])
        with Path(f"chaos-{name}.log").open("w") as file:
            for request in self.sandbox.log:
                if request.connection_id != name:
                    continue
                while acts and acts[0].position <= request.index:
                    print(acts.pop(0), file=file)
                body = request.body or {}
                print(
                    request.index,
                    f"{request.time:.3f}",
                    request.method,
                    "state" if request.path.endswith("/state") else "",
                    body.get("paused", ""),
                    f"writes={whose(body.get('state'))}" if "state" in body else "",
                    f"was={whose(json.loads(request.state or '{}'))}",
                    f"paused={request.paused} syncing={request.syncing}",
                    f"status={request.status} fault={request.fault} applied={request.applied}",
                    "other"
                    if any(request.index in each for each in self._other_reads[name])
                    else "",
                    file=file,
                )
            for act in acts:
                print(act, file=file)
            for update in mine:
                print(json.dumps(update), file=file)
