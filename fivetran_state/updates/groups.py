"""Groups of connections that are changed together: start, attach, follow, cancel."""

import asyncio
import hashlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID, WorkflowHandleAsync
from dbos import error as dbos_error

from fivetran_state import database, tracing, turns
from fivetran_state.errors import (
    Cancelled,
    FivetranStateError,
    IdempotencyKeyReused,
    InternalError,
    LeftPaused,
    RollbackFailed,
    Undone,
    WorkflowNotFound,
)
from fivetran_state.ids import UpdateId
from fivetran_state.models import Mode
from fivetran_state.text import shown
from fivetran_state.updates import binding
from fivetran_state.updates.ends import End
from fivetran_state.updates.group import GroupWorkflow, Result
from fivetran_state.updates.listings import Listings
from fivetran_state.updates.reader import READ_BATCH
from fivetran_state.updates.records import (
    GROUP,
    GroupRequest,
    Step,
    Update,
    UpdateRequest,
    attributes,
    members_of,
    owner,
    request_fingerprint,
)
from fivetran_state.updates.runtime import Runtime
from fivetran_state.updates.signals import NEWS
from fivetran_state.updates.start import Starter
from fivetran_state.vault import Bound

_ID = re.compile(f"{GROUP}:[0-9a-f]{{32}}")
_DIGITS = re.compile("[0-9a-f]{,32}")
_COUNTER = 8
"""Hex digits, of the 32, that count equal requests without a key."""
_POLL_SECONDS = 0.1
_MOMENT = 1.0
_REMEMBERED = 100
"""Groups of which it is remembered what was asked."""
_FOLLOWED = 20
"""Running groups of which it is remembered what has ended."""
_NOT_PUT_RIGHT = (LeftPaused.code, RollbackFailed.code)


@dataclass(frozen=True)
class Status:
    """The progress of a group."""

    mode: Mode
    members: tuple[str, ...]
    """Every connection, in the order of the request; those that were left out come last."""
    started: dict[str, str]
    """Connection → the workflow id of its update."""
    ends: dict[str, End]
    """By connection: the updates that have ended, and those that are not started."""
    has_ended: bool
    error: FivetranStateError | None
    """What went wrong, once the group has ended."""


@dataclass(frozen=True)
class Member:
    """The update of one connection of a group."""

    update: Update
    steps: Sequence[Step]
    """Empty while it runs."""


@dataclass
class _Seen:
    """What the looks at a running group have read that does not change any more."""

    started: dict[str, str] = field(default_factory=dict)
    """Connection → the workflow id of its update."""
    ends: dict[str, End] = field(default_factory=dict)
    """By connection."""
    shown: dict[str, Member] = field(default_factory=dict)
    """By workflow id: the updates that have ended, of those that were shown last."""


@dataclass(frozen=True)
class _Known:
    """What never changes about a group."""

    mode: Mode
    owners: dict[str, str]
    """Connection → the prefix of its updates' ids, in the order of the request."""
    left_out: dict[str, End]
    """Connection → why it is not a member, although it was asked for."""

    @property
    def connections(self) -> tuple[str, ...]:
        return (*self.owners, *self.left_out)


class Groups:
    """The groups of one account and of its guests: an account's id stands in front of theirs."""

    def __init__(
        self,
        runtime: Runtime,
        starter: Starter,
        listings: Listings,
        digest: Callable[[str], str],
    ) -> None:
        self._application = runtime.application
        self._store = runtime.store
        self._starter = starter
        self._listings = listings
        self._digest = digest
        self._workflow = GroupWorkflow(runtime, starter)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    async def start(self, asked: GroupRequest, account: str | None, key: str | None) -> str:
        """Start a group, or attach to the one with this key; return its id.

        Without a key it attaches to a running group with an equal request. Raises `IdempotencyKeyReused`.
        """
        workflow_id = (
            await self._running_or_next(asked, account)
            if key is None
            else self._of_key(account, key)
        )
        place = binding.input_of(workflow_id, GROUP)
        asked = {**asked, "asked_at": time.time()}
        if (trace := tracing.present()) is not None:
            asked["trace"] = trace
        await self._store.series.mark(
            {owner(each): each["number"] for each in asked["members"] if "number" in each}
        )
        with (
            database.answering(),
            SetWorkflowID(workflow_id),
            SetWorkflowAttributes(attributes(asked["members"][0])),
        ):
            await DBOS.start_workflow_async(self._workflow.registered, Bound(place, asked))
        if key is not None:
            await self.with_key(asked, account, key)
        return workflow_id

    async def attach(self, asked: GroupRequest, account: str | None, key: str | None) -> str | None:
        """The id of the group that `start` would attach to, if there is one."""
        if key is not None:
            return await self.with_key(asked, account, key)
        return await self._store.running_group(self._prefix_of(asked, account))

    async def last(self, asked: GroupRequest, account: str | None) -> str | None:
        """The id of the last group that an equal request without a key has started."""
        prefix = self._prefix_of(asked, account)
        free = int((await self._free(prefix)).removeprefix(prefix), 16)
        return None if free == 1 else f"{prefix}{free - 1:0{_COUNTER}x}"

    async def with_key(self, asked: GroupRequest, account: str | None, key: str) -> str | None:
        """The id of the group with this key; raises `IdempotencyKeyReused`."""
        workflow_id = self._of_key(account, key)
        try:
            started = await self._store.group_request(workflow_id)
        except WorkflowNotFound:
            return None
        if _fingerprint(started) != asked["fingerprint"]:
            raise IdempotencyKeyReused(
                "This idempotency key was used for a different request.", workflow_id=workflow_id
            )
        return workflow_id

    async def _running_or_next(self, asked: GroupRequest, account: str | None) -> str:
        """The id of a running group with an equal request, or a free id.

        The ids count up, as those of updates do. If several processes start the same id, the database's
        primary key lets one win.
        """
        prefix = self._prefix_of(asked, account)
        # In this order, a group that is started in between is seen, not started beside.
        free = await self._free(prefix)
        return await self._store.running_group(prefix) or free

    async def _free(self, prefix: str) -> str:
        """A free id whose number follows a used one, or number 1."""
        free = 1 << 4 * _COUNTER
        used = 0
        candidates = [1 << exponent for exponent in range(4 * _COUNTER)]
        while candidates:
            by_id = {f"{prefix}{number:0{_COUNTER}x}": number for number in candidates}
            taken = await self._store.which_exist(list(by_id))
            free = min((by_id[id_] for id_ in by_id.keys() - taken), default=free)
            used = max((number for number in candidates if number < free), default=used)
            step = max((free - used) // READ_BATCH, 1)
            candidates = list(range(used + step, free, step))
        return f"{prefix}{free:0{_COUNTER}x}"

    def _prefix_of(self, asked: GroupRequest, account: str | None) -> str:
        digest = self._digest(json.dumps([self._application, account, asked["fingerprint"]]))
        return f"{_prefix(account)}{digest[:-_COUNTER]}"

    def _of_key(self, account: str | None, key: str) -> str:
        # Ids are stored as they are, so a caller's key is hashed.
        whose = f"{self._application}\n{account}\n{key}"
        return f"{_prefix(account)}{hashlib.sha256(whose.encode()).hexdigest()[:32]}"

    async def cancel(self, workflow_id: str, account: str | None) -> None:
        """Ask the group to go no further: no member begins, and none writes.

        `all_or_nothing`: what was written is put back, unless all are written. Raises `WorkflowNotFound`.
        """
        await self._what_is_known(workflow_id, account)
        await self._starter.cancel(workflow_id)
        with database.answering():
            await binding.send(workflow_id, [None, Cancelled.code], NEWS)

    async def follow(self, workflow_id: str, account: str | None, seconds: float) -> Status:
        """Wait for the end, at most `seconds`; raises `WorkflowNotFound`."""
        known = await self._what_is_known(workflow_id, account)
        end = asyncio.ensure_future(self._end(workflow_id))
        try:
            async with turns.waiting():
                await asyncio.wait({end}, timeout=seconds)
            has_result = end.done() and end.exception() is None
            if not has_result and await self._store.is_running(workflow_id):
                if end.done():
                    # Somebody has ended it in the database; recovery takes it up in a moment.
                    async with turns.waiting():
                        await asyncio.sleep(min(seconds, _MOMENT))
                return await self._progress(workflow_id, known)
            result = await end
        finally:
            end.cancel()
        self._seen.pop(workflow_id, None)
        started = {UpdateId.parse(each).connection_id: each for each in result["workflow_ids"]}
        ends = {each["connection_id"]: each for each in await self._ends(result)} | known.left_out
        error = await self._error(_worst(ends.values()), result)
        return Status(known.mode, known.connections, started, ends, True, error)

    async def _end(self, workflow_id: str) -> Result:
        handle: WorkflowHandleAsync[Bound] = await DBOS.retrieve_workflow_async(workflow_id)
        try:
            found = await handle.get_result(polling_interval_sec=_POLL_SECONDS)
            result: Result = binding.opened(found, binding.output_of(workflow_id))
            return result
        except dbos_error.DBOSException as error:
            raise InternalError(f"{workflow_id} ended by {type(error).__name__}.") from error

    async def _progress(self, workflow_id: str, known: _Known) -> Status:
        seen = self._seen.setdefault(workflow_id, _Seen())
        self._seen.move_to_end(workflow_id)
        if len(self._seen) > _FOLLOWED:
            self._seen.popitem(last=False)
        if len(seen.started) < len(known.owners):
            seen.started = await self._store.parts_of(workflow_id, known.owners)
        left = [
            id_ for connection_id, id_ in seen.started.items() if connection_id not in seen.ends
        ]
        running = set(await self._store.unfinished(left))
        ended = await self._store.ends_of([id_ for id_ in left if id_ not in running])
        seen.ends |= {end["connection_id"]: end for end in ended}
        ends = seen.ends | known.left_out
        return Status(known.mode, known.connections, dict(seen.started), ends, False, None)

    async def members(self, workflow_id: str, update_ids: Sequence[str]) -> dict[str, Member]:
        """These updates of the group by their ids, as far as they are kept.

        While the group is followed, only those that had not ended at the last look are read.
        """
        seen = self._seen.get(workflow_id)
        known = {} if seen is None else seen.shown
        found = {id_: known[id_] for id_ in update_ids if id_ in known}
        for update in await self._listings.by_ids([id_ for id_ in update_ids if id_ not in found]):
            found[update.workflow_id] = await self._member(update)
        if seen is not None:
            seen.shown = {id_: each for id_, each in found.items() if not _is_running(each)}
        return found

    async def _member(self, update: Update) -> Member:
        if update.status == "running":
            progress = await self._store.progress(update.workflow_id)
            return Member(replace(update, progress=progress), ())
        return Member(update, await self._store.steps(update.workflow_id))

    async def connections_of(self, workflow_id: str, account: str | None) -> list[str]:
        """The connections of the group, started or not; raises `WorkflowNotFound`."""
        return list((await self._what_is_known(workflow_id, account)).connections)

    async def _what_is_known(self, workflow_id: str, account: str | None) -> _Known:
        """What was asked of the group; raises `WorkflowNotFound`."""
        if not is_of(workflow_id, account):
            raise WorkflowNotFound(f"There is no update '{shown(workflow_id)}'.")
        if workflow_id not in self._known:
            # It has all the changes, so it may be large, and it is asked for again and again.
            asked = await self._store.group_request(workflow_id)
            owners = {each["connection_id"]: owner(each) for each in members_of(asked)}
            mode: Mode = "all_or_nothing" if isinstance(asked, list) else asked["mode"]
            left_out = [] if isinstance(asked, list) else asked["left_out"]
            by_connection = {each["connection_id"]: each for each in left_out}
            self._known[workflow_id] = _Known(mode, owners, by_connection)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return self._known[workflow_id]

    async def _error(self, end: End | None, result: Result) -> FivetranStateError | None:
        """What went wrong, with its details; `end` is the worst one."""
        if end is None or end["how"] == Undone.code:
            if end is None or result["error"] is not None:
                return _error_of(result)
            # No update has failed, so all were undone because a caller cancelled the group.
            return Cancelled("The group was cancelled, and every state is as before.")
        update_id = end["workflow_id"]
        found = None if update_id is None else await self._store.error_of(update_id)
        return found or FivetranStateError.from_json(
            {"code": end["how"], "message": end["message"]}
        )

    async def _ends(self, result: Result) -> list[End]:
        if "ends" in result:
            return result["ends"]
        return await self._store.ends_of(result["workflow_ids"])


def is_id(workflow_id: str) -> bool:
    """True for the id of a group, false for the id of an update."""
    return _ID.fullmatch(workflow_id.rpartition("/")[2]) is not None


def _is_running(member: Member) -> bool:
    return member.update.status == "running"


def id_beginning(typed: str, account: str | None) -> str | None:
    """How the stored ids of the groups begin that these characters may become; None for no group."""
    word, colon, digits = typed.partition(":")
    if not colon:
        return _prefix(account) if GROUP.startswith(word) else None
    is_one = word == GROUP and _DIGITS.fullmatch(digits)
    return f"{_prefix(account)}{digits}" if is_one else None


def is_of(workflow_id: str, account: str | None) -> bool:
    """True for the id of a group of this account; None is the server's own."""
    return is_id(workflow_id) and workflow_id.startswith(_prefix(account))


def _prefix(account: str | None) -> str:
    return f"{GROUP}:" if account is None else f"{account}/{GROUP}:"


def fingerprint(mode: Mode, version: str | None, members: Iterable[UpdateRequest]) -> str:
    """What makes two requests the same. The versions of single members come from the plan."""
    changes = [[each["connection_id"], *request_fingerprint(each)[1:]] for each in members]
    return hashlib.sha256(json.dumps([mode, version, changes]).encode()).hexdigest()


def _fingerprint(asked: list[UpdateRequest] | GroupRequest) -> str:
    if isinstance(asked, list):
        return fingerprint("all_or_nothing", None, asked)
    return asked["fingerprint"]


def _worst(ends: Iterable[End]) -> End | None:
    """The worst end: first a connection that could not be put right, then the cause of the undo."""
    failed = [end for end in ends if end["message"] is not None]
    failed.sort(key=lambda end: (end["how"] == Undone.code) - (end["how"] in _NOT_PUT_RIGHT))
    return failed[0] if failed else None


def _error_of(result: Result) -> FivetranStateError | None:
    return None if result["error"] is None else FivetranStateError.from_json(result["error"])
