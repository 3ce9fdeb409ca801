"""Groups that are cancelled at any of their calls: no connection is left between."""

import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import pytest
from anyio import to_thread

from fivetran_state import state
from fivetran_state.changes import GroupOptions, Inline, for_each
from fivetran_state.errors import TooLateToCancel
from fivetran_state.models import Mode, UpdatesView
from fivetran_state.sandbox import LoggedRequest, Sandbox
from fivetran_state.service import Service
from tests.support.calls import is_pause, is_resume
from tests.support.grouped import group_of
from tests.support.watching import service_in

SEED = 1
ROUNDS = int(os.environ.get("CANCELLED_GROUPS", "100"))
COUNT = 8
STRIDE = 37
LOOKS = 2 * COUNT
"""Calls before a group begins."""
PATIENCE = 60.0
BEFORE = '{"cursor":"2026","exact":1.10}'
AFTER = '{"cursor":"2020","exact":1.10}'


@dataclass
class Round:
    """One group of new connections, of which every third is paused and the last may sync."""

    sandbox: Sandbox
    number: int
    mode: Mode
    syncs: bool

    def __post_init__(self) -> None:
        self.sandbox.log.clear()
        self.was_paused = {
            f"round_{self.number:03}_{member}": member % 3 == 1 for member in range(COUNT)
        }
        for name, paused in self.was_paused.items():
            self.sandbox.add_connection(
                name,
                state=BEFORE,
                paused=paused,
                sync_seconds=3600,
                drain_seconds=0.2,
                stopped_sync_counts=False,
            )
        if self.syncs:
            self.sandbox.start_sync(name)

    async def start(self, service: Service) -> str:
        change = Inline(state.Change("merge_patch", {"cursor": "2020"}))
        wanted = for_each(list(self.was_paused), change)
        started = await group_of(service, wanted, GroupOptions(self.mode))
        return started.workflow_id

    def states(self) -> dict[str, str | None]:
        return {name: self.sandbox.connection(name).state for name in self.was_paused}

    def paused(self) -> dict[str, bool]:
        return {name: self.sandbox.connection(name).paused for name in self.was_paused}


def phase(request: LoggedRequest) -> str:
    """What the update does by this call."""
    if request.method == "GET":
        return "verify" if request.state == AFTER else "look"
    if is_pause(request):
        return "pause"
    return "resume" if is_resume(request) else "undo" if request.state == AFTER else "write"


async def calls_of_a_group(service: Service, round_: Round) -> int:
    """The number of calls about its connections, if nobody cancels it."""
    workflow_id = await round_.start(service)
    ended = await service.groups.updates_status(workflow_id, wait_seconds=PATIENCE)
    assert ended.counts == {"updated": COUNT}
    return len([each for each in round_.sandbox.log if each.connection_id])


async def ends_of(service: Service, group: UpdatesView) -> dict[str, str]:
    """How each connection ended: the status of its update, or the code of its error."""
    ends = {each.connection_id: each.error.code for each in group.not_started or [] if each.error}
    for each in group.updates:
        assert each.workflow_id is not None
        update = await service.workflows.workflow_status(each.workflow_id)
        ends[each.connection_id] = update.status if update.error is None else update.error.code
    return ends


def wrong(round_: Round, ends: dict[str, str], group: UpdatesView, is_late: bool) -> Iterator[str]:
    """Every broken promise, as a sentence."""
    updated = {name for name, end in ends.items() if end == "updated"}
    if round_.paused() != round_.was_paused:
        yield f"not paused as before: {round_.paused()}"
    expected = {name: AFTER if name in updated else BEFORE for name in round_.was_paused}
    if round_.states() != expected:
        yield f"a state is not as its end says: {round_.states()}"
    if round_.mode == "all_or_nothing" and len(updated) not in (0, COUNT):
        yield "only a part was changed"
    if ends.keys() != round_.was_paused.keys() or group.counts != Counter(ends.values()):
        yield f"the counts are wrong: {group.counts}"
    reached = "updated" if len(updated) == COUNT else "partly_updated" if updated else "cancelled"
    if group.status != reached:
        yield f"the group says {group.status}, not {reached}: {group.message}"
    if is_late != (len(updated) == COUNT):
        yield f"the cancel was {'' if is_late else 'not '}refused as too late"


@pytest.mark.slow
async def test_wherever_it_is_cancelled_each_connection_is_as_its_end_says(
    sandbox: Sandbox, on_either: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(SEED)
    modes = get_args(Mode)
    hit: Counter[tuple[Mode, str]] = Counter()
    failures = []
    async with service_in(on_either, monkeypatch) as service:
        calls = await calls_of_a_group(service, Round(sandbox, 0, modes[0], syncs=False))
        for number, mode in zip(range(1, ROUNDS + 1), itertools.cycle(modes), strict=False):
            round_ = Round(sandbox, number, mode, syncs=chance.random() < 0.1)
            at = LOOKS + number * STRIDE % (calls - LOOKS)  # Spread evenly.
            workflow_id = await round_.start(service)
            first = sandbox.log[0].index
            call = await to_thread.run_sync(
                sandbox.wait_for, lambda each, last=first + at: each.index == last, PATIENCE
            )
            try:
                await service.groups.cancel_updates(workflow_id, wait_seconds=PATIENCE)
                is_late = False
            except TooLateToCancel:
                is_late = True
            group = await service.groups.updates_status(workflow_id, wait_seconds=PATIENCE)
            ends = await ends_of(service, group)
            hit[mode, phase(call)] += 1
            failures += [
                f"round {number} of seed {SEED}, {mode}, cancelled at call {at} of {calls} "
                f"({phase(call)} of {call.connection_id}): {what}. Ends: {ends}"
                for what in wrong(round_, ends, group, is_late)
            ]
    assert not failures, "\n".join(failures)
    phases = ("look", "pause", "write", "verify", "resume")
    assert hit.keys() >= set(itertools.product(modes, phases)), hit
