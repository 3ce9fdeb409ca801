"""Turns: the server works on a few requests of one caller at a time, and waiting requests take no
place."""

import asyncio

import anyio
import pytest

from fivetran_state import turns


class Requests:
    """Requests of one caller; each runs until the test ends it."""

    def __init__(self) -> None:
        self.worked_on: list[int] = []
        self.end = asyncio.Event()
        self._places = asyncio.Semaphore(turns.AT_ONCE)

    async def serve(self, number: int) -> None:
        async with turns.turn(self._places):
            self.worked_on.append(number)
            await self.end.wait()

    async def serve_waiting(self, for_what: asyncio.Event) -> None:
        async with turns.turn(self._places):
            async with turns.waiting():
                await for_what.wait()
            self.worked_on.append(-1)

    async def serve_stream(self) -> None:
        async with turns.turn(self._places) as turn:
            turn.leave()
            await self.end.wait()


async def settled() -> None:
    """Everything that can run has run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_only_a_few_are_worked_on_at_a_time() -> None:
    requests = Requests()
    async with anyio.create_task_group() as group:
        for number in range(turns.AT_ONCE + 2):
            group.start_soon(requests.serve, number)
        await settled()
        assert requests.worked_on == list(range(turns.AT_ONCE))
        requests.end.set()

    assert requests.worked_on == list(range(turns.AT_ONCE + 2))


async def test_who_waits_or_streams_lets_others_go_on_and_then_waits_its_turn() -> None:
    requests, update_ends = Requests(), asyncio.Event()
    async with anyio.create_task_group() as group:
        for _ in range(turns.AT_ONCE):
            group.start_soon(requests.serve_waiting, update_ends)
            group.start_soon(requests.serve_stream)
        await settled()
        for number in range(turns.AT_ONCE):
            group.start_soon(requests.serve, number)
        await settled()
        assert requests.worked_on == list(range(turns.AT_ONCE))

        update_ends.set()
        await settled()
        assert -1 not in requests.worked_on
        requests.end.set()

    assert requests.worked_on.count(-1) == turns.AT_ONCE


async def test_who_takes_long_lets_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST", 0.0)
    requests = Requests()
    async with anyio.create_task_group() as group:
        for number in range(turns.AT_ONCE * 3):
            group.start_soon(requests.serve, number)
        await settled()
        assert len(requests.worked_on) == turns.AT_ONCE * 3
        requests.end.set()


async def test_what_still_runs_in_the_name_of_a_request_that_is_over_takes_no_place() -> None:
    places, goes_on = asyncio.Semaphore(1), asyncio.Event()

    async def afterwards() -> None:
        async with turns.waiting():
            await goes_on.wait()

    async with turns.turn(places):
        left = asyncio.create_task(afterwards())
        await settled()
    goes_on.set()
    await left

    assert not places.locked()
