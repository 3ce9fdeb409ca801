"""Members of groups begin only while the account has calls enough, against the simulated Fivetran."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

from fivetran_state.errors import RateLimited
from fivetran_state.fivetran import Fivetran
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.world import HOUR
from fivetran_state.updates.slots import CALLS, Slots

ID = "bullion_shutdown"
LIMIT = 1000
LAST_TENTH = LIMIT // 10
SOON = 30.0


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    sandbox.api.requests_per_hour = LIMIT
    yield sandbox
    sandbox.close()


@pytest.fixture
async def fivetran(sandbox: Sandbox) -> AsyncIterator[Fivetran]:
    transport = httpx.ASGITransport(sandbox.app)
    client = Fivetran("https://api.test", "sandbox", "sandbox", transport=transport)
    yield client
    await client.aclose()


class Member:
    """A member of a group that waits for a slot, then works until it is told to end."""

    def __init__(self, slots: Slots, fivetran: Fivetran) -> None:
        self._slots, self._fivetran = slots, fivetran
        self.is_called_off = asyncio.Event()
        self.has_begun = anyio.Event()
        self.may_end = anyio.Event()

    async def run(self) -> None:
        async with self._slots.slot(self._fivetran, self.is_called_off, has_begun=False):
            self.has_begun.set()
            await self.may_end.wait()

    async def begins(self) -> None:
        with anyio.fail_after(SOON):
            await self.has_begun.wait()
        self.may_end.set()


def use_up(sandbox: Sandbox, *, left: int) -> None:
    while sandbox.world.admit(LIMIT)[0] > left:
        pass


async def waits(member: Member) -> bool:
    for _ in range(100):
        await checkpoint()
    return not member.has_begun.is_set()


async def test_a_member_begins_when_any_answer_tells_that_there_are_calls_again(
    sandbox: Sandbox, fivetran: Fivetran
) -> None:
    use_up(sandbox, left=0)
    with pytest.raises(RateLimited):
        await fivetran.get_connection(ID)
    member = Member(Slots(1), fivetran)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(member.run)
        assert await waits(member)
        sandbox.advance(HOUR + 1)
        await fivetran.get_connection(ID)
        await member.begins()

    assert [each.path for each in sandbox.log] == [f"/v1/connections/{ID}"] * 2


async def test_a_member_asks_if_nobody_else_does(sandbox: Sandbox, fivetran: Fivetran) -> None:
    use_up(sandbox, left=LAST_TENTH)
    await fivetran.get_connection(ID)
    member = Member(Slots(1), fivetran)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(member.run)
        assert await waits(member)
        sandbox.advance(HOUR + 1)
        await member.begins()

    assert {each.path for each in sandbox.log[1:]} == {"/v1/account/info"}


async def test_a_member_leaves_the_calls_of_those_at_work_to_them(
    sandbox: Sandbox, fivetran: Fivetran
) -> None:
    use_up(sandbox, left=LAST_TENTH + CALLS + 1)
    await fivetran.get_connection(ID)
    slots = Slots(2)
    first, second = Member(slots, fivetran), Member(slots, fivetran)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.run)
        with anyio.fail_after(SOON):
            await first.has_begun.wait()
        tasks.start_soon(second.run)
        assert await waits(second)
        first.may_end.set()
        await second.begins()


async def test_members_that_wait_for_calls_need_none(sandbox: Sandbox, fivetran: Fivetran) -> None:
    """Even more of them than the account has calls for in an hour."""
    use_up(sandbox, left=LAST_TENTH + CALLS + 1)
    await fivetran.get_connection(ID)
    members = LIMIT // CALLS + 1
    slots = Slots(members)
    first, *others = [Member(slots, fivetran) for _ in range(members)]
    async with anyio.create_task_group() as tasks:
        for member in (first, *others):
            tasks.start_soon(member.run)
        await first.begins()
        await others[0].begins()
        sandbox.advance(HOUR + 1)
        await fivetran.get_connection(ID)
        for member in others:
            await member.begins()


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_member_whose_group_is_called_off_waits_for_nothing(
    sandbox: Sandbox, fivetran: Fivetran, slots: int
) -> None:
    use_up(sandbox, left=LAST_TENTH)
    await fivetran.get_connection(ID)
    of = Slots(slots)
    first, second = Member(of, fivetran), Member(of, fivetran)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.run)
        tasks.start_soon(second.run)
        assert await waits(first)
        second.is_called_off.set()
        await second.begins()
        assert await waits(first)
        first.is_called_off.set()
        await first.begins()

    assert [each.path for each in sandbox.log] == [f"/v1/connections/{ID}"]


async def test_one_member_asks_for_all_that_wait(sandbox: Sandbox, fivetran: Fivetran) -> None:
    use_up(sandbox, left=LAST_TENTH)
    await fivetran.get_connection(ID)
    slots = Slots(20)
    members = [Member(slots, fivetran) for _ in range(20)]
    async with anyio.create_task_group() as tasks:
        for member in members:
            tasks.start_soon(member.run)
        assert all([await waits(member) for member in members])
        sandbox.advance(HOUR + 1)
        for member in members:
            await member.begins()

    assert len(sandbox.log) < len(members)


async def test_a_member_whose_key_is_refused_does_not_wait(
    sandbox: Sandbox, fivetran: Fivetran
) -> None:
    use_up(sandbox, left=LAST_TENTH)
    await fivetran.get_connection(ID)
    sandbox.fault("status", status=401, path="/account/info$", times=99)
    member = Member(Slots(1), fivetran)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(member.run)
        await member.begins()
