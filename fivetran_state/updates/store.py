"""A connection's updates: starting one, finding the one that a request belongs to, following it.

Identity, mutual exclusion and history are one thing, the workflow id `{connection_id}:{n}`. The
next number is started only when the latest update has ended, and the database's primary key
decides between two processes that start the same number.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, cast

from dbos import (
    DBOS,
    DBOSClient,
    SetWorkflowAttributes,
    SetWorkflowID,
    StepInfo,
    WorkflowHandleAsync,
    WorkflowStatus,
    WorkflowStatusString,
)
from dbos import error as dbos_error

from fivetran_state import database, dbos_internals, turns
from fivetran_state.errors import (
    FivetranStateError,
    IdempotencyKeyReused,
    InternalError,
    LeftPaused,
    Tampered,
    UnusableKey,
    UpdateInProgress,
    WorkflowNotFound,
)
from fivetran_state.ids import UpdateId
from fivetran_state.text import shown
from fivetran_state.updates import binding, phases, records, workflow
from fivetran_state.updates.records import Outcome, Progress, Snapshot, UpdateRequest
from fivetran_state.vault import Bound

GROUP = "together"
"""The name of the workflow that changes a group, and the prefix of its ids."""

PENDING = WorkflowStatusString.PENDING.value
ENQUEUED = WorkflowStatusString.ENQUEUED.value
RELEASED = "released"
"""The prefix of the executor id of an update that its process gave up."""
_FAILED = [WorkflowStatusString.ERROR.value]
KEPT = 10
"""Updates of each connection that are kept, whatever their age."""
_RECENT = 50
"""How many of the newest rows are looked at for the highest number.

DBOS orders by creation times that may have a resolution of a second, and hosts' clocks differ.
"""

_POLL_SECONDS = 0.1
_REQUEST = "request"
"""The attribute by which a repeated request finds its update."""
_ABOUT = "about"
"""The attribute with the sealed request, without its change, which may have megabytes."""
READ_BATCH = 50
"""Updates that one look-up in the database reads."""
ID_BATCH = 1000
"""Ids in one look-up: the Postgres driver blocks the event loop for 10 µs for each."""

Handle = WorkflowHandleAsync[Bound]

_reader: DBOSClient
_digest: Callable[[str], str]
_seal: Callable[[object], str]
_unseal: Callable[[str], object]


def bind(
    reader: DBOSClient,
    digest: Callable[[str], str],
    seal: Callable[[object], str],
    unseal: Callable[[str], object],
) -> None:
    """Give this process its reader and its key.

    The reader raises if the database cannot be reached, where DBOS itself would wait. Only a
    process with the key can make a digest, seal a value and open it.
    """
    global _reader, _digest, _seal, _unseal
    _reader, _digest, _seal, _unseal = reader, digest, seal, unseal


@dataclass(frozen=True)
class Update:
    """One update as the database knows it. Times are milliseconds since the epoch."""

    workflow_id: str
    request: UpdateRequest
    status: Literal["running", "succeeded", "failed"]
    outcome: Outcome | None
    error: FivetranStateError | None
    progress: Progress | None
    was_ended_from_outside: bool
    """Somebody ended its workflow in the database; it was taken up again."""
    created_at: int
    completed_at: int | None


@dataclass(frozen=True)
class Unfinished:
    """The row of a workflow that has not ended, so that a process has to complete it."""

    workflow_id: str
    name: str
    executor_id: str | None
    status: str
    version: str | None

    @property
    def was_ended_from_outside(self) -> bool:
        return self.status in records.ENDED_FROM_OUTSIDE

    @property
    def is_released(self) -> bool:
        """True if a process gave the update up because Fivetran refused its key."""
        return (self.executor_id or "").startswith(RELEASED)


@dataclass(frozen=True)
class Step:
    """One checkpoint of an update."""

    name: str
    started_at: int | None
    completed_at: int | None
    error: FivetranStateError | None


def canary_id() -> str:
    return f"key:{workflow.application_name}"


def check_key() -> None:
    """Raise `UnusableKey` if the database is used with a key that this process does not have."""
    with database.answering():
        rows = _reader.list_workflows(workflow_ids=[canary_id()])
    if not rows:
        return
    if not isinstance(rows[0].input, dict):
        raise UnusableKey("The updates in this database were sealed with another key.")
    _input(rows[0])


async def leave_canary(*, anew: bool) -> None:
    """Store a value that is sealed with this process's key, so that other processes can check theirs.

    `anew`: seal it again, with what may be a new key. Raises `UnusableKey` if another process
    with another key was first.
    """
    if anew:
        await DBOS.delete_workflow_async(canary_id())
    # Do not wait for the workflow: if its starter has died, only this engine can recover it.
    await workflow.remember(canary_id(), None)
    await asyncio.to_thread(check_key)


def unfinished_rows() -> list[Unfinished]:
    """This account's workflows that are running, waiting, or were ended in the database."""
    with database.answering():
        rows = _reader.list_workflows(
            status=records.UNFINISHED, load_input=False, load_output=False
        )
    return [
        Unfinished(row.workflow_id, row.name, row.executor_id, row.status, row.app_version)
        for row in rows
    ]


def erase_credentials(workflow_id: str) -> str | None:
    """Remove a guest's credentials from the input of an ended workflow; return its group."""
    with database.answering():
        rows = _reader.list_workflows(workflow_ids=[workflow_id], load_output=False)
    try:
        asked = _input(rows[0]) if rows else None
    except (Tampered, UnusableKey):
        return None
    if asked is None:
        return None
    requests: list[UpdateRequest] = asked if isinstance(asked, list) else [asked]
    for request in requests:
        request.pop("credentials", None)
    with database.answering():
        place = binding.input_of(workflow_id, rows[0].name)
        dbos_internals.replace_input(
            workflow_id, (Bound(place, asked),), drop_attribute=records.GUEST
        )
    return requests[0].get("part_of")


def with_credentials(versions: Sequence[str]) -> list[str]:
    """Ended workflows with a guest's credentials in their input.

    Older `versions` did not mark them, so all of theirs are included.
    """
    with database.answering():
        return dbos_internals.ended(
            (records.NAME, GROUP), attribute=records.GUEST, or_versions=versions
        )


def is_superseded(row: Unfinished) -> bool:
    """True if the connection has a later update: then this one needs no repair."""
    if row.name != records.NAME:
        return row.name != GROUP
    update = UpdateId.parse(row.workflow_id)
    following = str(UpdateId(update.owner, update.number + 1))
    with database.answering():
        return bool(_reader.list_workflows(workflow_ids=[following], load_input=False))


async def left_paused() -> dict[str, str]:
    """Owner → workflow id of each latest update that still holds its connection paused.

    It is still trying, has given up (`left_paused`), or was ended by something else.
    """
    with database.answering():
        rows = await _reader.list_workflows_async(
            name=records.NAME, status=[*records.UNFINISHED, *_FAILED], load_input=False
        )
    found: dict[str, str] = {}
    for row in rows:
        owner = UpdateId.parse(row.workflow_id).owner
        latest = await _latest(owner, load_input=False) if await _may_be_paused(row) else None
        if latest is not None and latest.workflow_id == row.workflow_id:
            found[owner] = row.workflow_id
    return found


async def _may_be_paused(row: WorkflowStatus) -> bool:
    """True if the update has recorded a pause of its connection and no resume."""
    if isinstance(row.error, LeftPaused):
        return True
    if isinstance(row.error, FivetranStateError) and "was_paused" in row.error.details:
        return False  # An update that ended by itself has resumed its connection.
    progress = await _progress(row.workflow_id)
    if progress is None or not progress["still_paused"]:
        return False
    recorded = await steps(row.workflow_id)
    return not any(step.name == "resume" and step.error is None for step in recorded)


async def forget(days: float) -> int:
    """Delete updates that ended more than `days` ago, but never a connection's latest ones.

    Returns how many were deleted.
    """
    before = datetime.now(timezone.utc) - timedelta(days=days)
    with database.answering():
        old = await _reader.list_workflows_async(
            name=records.NAME,
            completed_before=before.isoformat(),
            load_input=False,
            load_output=False,
        )
        parents = await _reader.list_workflows_async(
            name=GROUP,
            completed_before=before.isoformat(),
            load_input=False,
            load_output=False,
        )
    await _reader.delete_workflows_async([row.workflow_id for row in parents])
    by_owner: dict[str, list[int]] = {}
    for row in old:
        update = UpdateId.parse(row.workflow_id)
        by_owner.setdefault(update.owner, []).append(update.number)
    forgotten = []
    for owner, numbers in by_owner.items():
        latest = await _latest(owner, load_input=False)
        kept_from = 0 if latest is None else _number(latest.workflow_id) - KEPT + 1
        forgotten += [str(UpdateId(owner, number)) for number in numbers if number < kept_from]
    for start_ in range(0, len(forgotten), 500):
        await _reader.delete_workflows_async(forgotten[start_ : start_ + 500], delete_children=True)
    return len(forgotten)


async def unfinished(executor_id: str | None = None) -> list[str]:
    """The ids of running updates: all, or those of one executor and those that wait for any."""
    rows = await asyncio.to_thread(unfinished_rows)
    return [
        row.workflow_id
        for row in rows
        if row.name in (records.NAME, GROUP)
        and (executor_id in (None, row.executor_id) or _waits_for_anybody(row))
        and not (row.was_ended_from_outside and await asyncio.to_thread(is_superseded, row))
    ]


def _waits_for_anybody(row: Unfinished) -> bool:
    if row.was_ended_from_outside:
        return False  # Each living process takes its own updates up.
    return row.status != PENDING or row.is_released


async def attach(
    request: UpdateRequest, state_is_expected: Callable[[], Awaitable[bool]]
) -> tuple[int, Handle | None]:
    """The number of the connection's latest update, and the update that this request already started.

    A key that the caller gave belongs to one update while that is kept. A key derived from the request is
    only a guard against repetition: it attaches to the connection's latest update if that is
    running, or to the newest of this request if that succeeded and the state has not come back to
    the expected version since (`state_is_expected` asks Fivetran) - then somebody wants the same
    change once more. It never attaches to a part of what changes several connections together:
    that may be undone on behalf of others.

    Raises `UpdateInProgress`, or `IdempotencyKeyReused` for a given key with another request.
    """
    recent = await _recent(records.owner(request))
    latest = await _status(recent[0].workflow_id) if recent else None
    number = 0 if latest is None else _number(latest.workflow_id)
    if request["key_was_given"]:
        handle = await _with_key(request, latest)
        if handle is not None:
            return number, handle
    elif latest is not None and _is_the_same(latest, request):
        if _is_running(latest) or (_succeeded(latest) and not await state_is_expected()):
            return number, await find(latest.workflow_id)
    else:
        attribute = _request_attribute(request)
        same = next((row for row in recent if _has_attribute(row, attribute)), None)
        if same is not None and _succeeded(same) and not await state_is_expected():
            return number, await find(same.workflow_id)
    if latest is not None and _is_running(latest):
        raise _in_progress(latest)
    return number, None


async def with_key(request: UpdateRequest) -> Handle | None:
    """The update with the request's idempotency key; raises `IdempotencyKeyReused`."""
    return await _with_key(request, await _latest(records.owner(request)))


async def _with_key(request: UpdateRequest, latest: WorkflowStatus | None) -> Handle | None:
    same = await _remembered(request, latest)
    if same is None:
        return None
    if request_fingerprint(_request(same)) != request_fingerprint(request):
        raise IdempotencyKeyReused(
            "This idempotency key was used for a different request.",
            workflow_id=same.workflow_id,
        )
    return await find(same.workflow_id)


async def start(request: UpdateRequest, after: int) -> Handle | None:
    """Start the update with the number after `after`; None if another process was first."""
    number = after
    while True:
        number += 1
        workflow_id = str(UpdateId(records.owner(request), number))
        try:
            with (
                database.answering(),
                SetWorkflowID(workflow_id, workflow_id_reuse_policy="reject"),
                SetWorkflowAttributes(_attributes(request, workflow_id)),
            ):
                return await begin(workflow_id, request)
        except dbos_error.DBOSWorkflowIDInUseError:
            taken = await _status(workflow_id)
            if taken is None or _is_ours(taken):
                return None
            # Another account has a connection of this name in the same database: skip it.


async def begin(workflow_id: str, request: UpdateRequest) -> Handle:
    """Start the update under the workflow id of the surrounding `SetWorkflowID`."""
    request = {**request, "asked_at": time.time()}
    place = binding.input_of(workflow_id, records.NAME)
    return await DBOS.start_workflow_async(workflow.update_state, Bound(place, request))


async def running(owner: str) -> str | None:
    """The id of the connection's update that has not ended."""
    latest = await _latest(owner, load_input=False)
    return latest.workflow_id if latest is not None and _is_running(latest) else None


async def get(workflow_id: str) -> Update:
    """One update of this account; raises `WorkflowNotFound`."""
    status = await _status(workflow_id)
    if status is None or status.name != records.NAME or not _is_ours(status):
        raise WorkflowNotFound(f"There is no update {workflow_id!r}.")
    _request(status)  # Raises if an older version still runs it: its input cannot be opened.
    if status.status in records.ENDED_FROM_OUTSIDE:
        latest = await _latest(UpdateId.parse(workflow_id).owner, load_input=False)
        is_latest = latest is not None and latest.workflow_id == workflow_id
    else:
        is_latest = True
    progress = await _progress(workflow_id) if _is_running(status) else None
    return _update(status, progress, _request(status), is_latest=is_latest)


async def requests_of(workflow_id: str) -> list[UpdateRequest]:
    """The requests of a group, one for each connection; raises `WorkflowNotFound`."""
    status = await _status(workflow_id)
    if status is None or status.name != GROUP or not _is_ours(status):
        raise WorkflowNotFound(f"There is no update '{shown(workflow_id)}'.")
    return cast("list[UpdateRequest]", _input(status))


def asked(requests: list[UpdateRequest]) -> str:
    """A digest of a group's requests. Equal requests have equal digests (see `request_fingerprint`)."""
    # The requests of a group have only derived keys.
    whats = [f"{records.owner(request)} {request['idempotency_key']}" for request in requests]
    return _digest("\n".join([workflow.application_name, *whats]))


async def last_group(prefix: str) -> tuple[str, bool] | None:
    """The highest group id with this prefix, and whether that group is running."""
    with database.answering():
        rows = await _reader.list_workflows_async(
            name=GROUP,
            workflow_id_prefix=prefix,
            sort_desc=True,
            limit=_RECENT,
            load_input=False,
            load_output=False,
        )
    return max(((row.workflow_id, _is_running(row)) for row in rows), default=None)


def connections_of(workflow_id: str) -> list[str]:
    """The connections of a group; empty if its row was deleted."""
    with database.answering():
        rows = _reader.list_workflows(workflow_ids=[workflow_id], name=GROUP)
    with suppress(Tampered, UnusableKey):
        return [request["connection_id"] for row in rows for request in _input(row)]
    return []


async def parts_of(workflow_id: str, requests: list[UpdateRequest]) -> list[str]:
    """The ids of the group's updates that have started, in the order of its requests."""
    with database.answering():
        rows = await _reader.list_workflows_async(
            parent_workflow_id=workflow_id, load_input=False, load_output=False
        )
    by_owner = {UpdateId.parse(row.workflow_id).owner: row.workflow_id for row in rows}
    return [by_owner[owner] for owner in map(records.owner, requests) if owner in by_owner]


async def is_running(workflow_id: str) -> bool:
    """True if the workflow exists and has not ended."""
    row = await _bare_status(workflow_id)
    return row is not None and _is_running(row)


async def steps(workflow_id: str) -> list[Step]:
    """The update's checkpoints so far, in order; its own sleeps and events are left out."""
    with database.answering():
        found = await _reader.list_workflow_steps_async(workflow_id)
    return [
        Step(
            name=step["function_name"],
            started_at=step["started_at_epoch_ms"],
            completed_at=step["completed_at_epoch_ms"],
            error=_step_error(workflow_id, step),
        )
        for step in found
        if step["function_name"] in phases.STEPS
    ]


async def cancel(workflow_id: str) -> None:
    """Ask the update to end without writing; it ends as `Cancelled`, unless it is too late."""
    with database.answering():
        await DBOS.update_workflow_attributes_async(workflow_id, {records.CANCEL: True}, merge=True)
        await binding.send(
            workflow_id, True, records.CANCEL
        )  # Wake the workflow: it may be sleeping.


def note_outside_end(workflow_id: str) -> None:
    """Let the update know that its workflow was ended in the database, before it is taken up again."""
    DBOS.update_workflow_attributes(workflow_id, {records.CANCEL: records.OUTSIDE}, merge=True)
    place = binding.message_to(workflow_id, records.CANCEL)
    DBOS.send(workflow_id, Bound(place, records.OUTSIDE), topic=records.CANCEL)
    with database.answering():
        parts = _reader.list_workflows(
            name=records.NAME,
            parent_workflow_id=workflow_id,
            status=records.UNFINISHED,
            load_input=False,
        )
    for part in parts:
        note_outside_end(part.workflow_id)


def exists(workflow_id: str) -> bool:
    """True if the database has the workflow's row."""
    with database.answering():
        return bool(_reader.list_workflows(workflow_ids=[workflow_id], load_input=False))


async def is_run_by(executor_id: str, workflow_id: str) -> bool:
    """True if the row names this executor. DBOS's own look-up would be recorded as a step."""
    row = await _bare_status(workflow_id)
    return row is not None and row.executor_id == executor_id and row.status == PENDING


async def is_cancelled(workflow_id: str) -> bool | str:
    """True if a caller has cancelled the update; `OUTSIDE` if it was ended in the database."""
    with database.answering():
        (row,) = await _reader.list_workflows_async(
            workflow_ids=[workflow_id], load_input=False, load_output=False
        )
    asked: bool | str = (row.attributes or {}).get(records.CANCEL, False)
    return asked


def is_settled(workflow_id: str) -> bool:
    """True if the update is running or ended by itself.

    False if its row is gone or was ended in the database.
    """
    with database.answering():
        rows = _reader.list_workflows(workflow_ids=[workflow_id], load_input=False)
    if not rows:
        return False
    (row,) = rows
    return (
        _is_running(row)
        or isinstance(row.output, Bound)
        or isinstance(row.error, FivetranStateError)
    )


async def history(owner: str, below: int | None, limit: int) -> list[Update]:
    """The connection's updates, newest first, from the one before number `below`.

    Their requests come without the change.
    """
    latest = await _latest(owner, load_input=False)
    newest = 0 if latest is None else _number(latest.workflow_id)
    top = newest if below is None else min(newest, below - 1)
    wanted = [str(UpdateId(owner, n)) for n in range(top, max(top - limit, 0), -1)]
    if not wanted:
        return []
    with database.answering():
        rows = await _reader.list_workflows_async(
            workflow_ids=wanted, name=records.NAME, load_input=False
        )
    found = [
        _update(row, None, await _about(row), is_latest=_number(row.workflow_id) == newest)
        for row in rows
        if _is_ours(row)
    ]
    return sorted(found, key=lambda update: _number(update.workflow_id), reverse=True)


async def latest(account: str | None, after: tuple[int, str] | None, limit: int) -> list[Update]:
    """Updates of all connections, newest first; empty if there are no more.

    The page begins after `after`, the start time and id of an update. The requests come without the
    change. With a guest's account, these are the guest's updates; otherwise everybody's.
    """

    async def rows(**bounds: Any) -> list[WorkflowStatus]:
        with database.answering():
            return await _reader.list_workflows_async(
                name=records.NAME,
                workflow_id_prefix=None if account is None else f"{account}/",
                sort_desc=True,
                load_input=False,
                **bounds,
            )

    async def started_at(moment: int) -> list[WorkflowStatus]:
        # Read all of them: the database returns them in any order.
        around = await rows(start_time=_iso(moment - 1), end_time=_iso(moment + 1))
        same = [row for row in around if _created_at(row) == moment]
        return sorted(same, key=lambda row: row.workflow_id, reverse=True)

    found: list[WorkflowStatus] = []
    older: dict[str, Any] = {}
    if after is not None:
        same = await started_at(after[0])
        found = [row for row in same if row.workflow_id < after[1]]
        older = {"end_time": _iso(after[0])}
        limit += len(same)  # Which come again.
    following = await rows(limit=limit, **older)
    if after is not None:
        following = [row for row in following if _created_at(row) < after[0]]
    if following:
        last = min(map(_created_at, following))
        following = [row for row in following if _created_at(row) != last]
        following.sort(key=lambda row: (_created_at(row), row.workflow_id), reverse=True)
        found += following + await started_at(last)
    return [_update(row, None, await _about(row)) for row in found]


def _created_at(status: WorkflowStatus) -> int:
    # From Python 3.12 on, SQLite computes the default of this column with floats.
    return round(status.created_at or 0)


def _iso(milliseconds: int) -> str:
    # Half a millisecond more, because DBOS cuts what it calculates with floats.
    moment = datetime.fromtimestamp((milliseconds + 0.5) / 1000, tz=timezone.utc)
    return moment.isoformat()


async def latest_number(owner: str) -> int:
    """The number of the latest update; raises `UpdateInProgress` if it has not ended."""
    latest = await _latest(owner, load_input=False)
    if latest is None:
        return 0
    if _is_running(latest):
        raise _in_progress(latest)
    return _number(latest.workflow_id)


async def last_ended(owner: str) -> int:
    """The number of the connection's last update that has ended; 0 if none has."""
    latest = await _latest(owner, load_input=False)
    if latest is None:
        return 0
    return _number(latest.workflow_id) - _is_running(latest)


async def ended_since(last_ended: Mapping[str, int]) -> dict[str, int]:
    """The number of each connection's next update, for those where it has ended.

    Numbers are consecutive, so one look-up by primary key serves a thousand connections. A number
    that another account has used counts as ended.
    """
    following = [f"{owner}:{number + 1}" for owner, number in last_ended.items()]
    ended = []
    for at in range(0, len(following), ID_BATCH):
        with database.answering():
            rows = await _reader.list_workflows_async(
                workflow_ids=following[at : at + ID_BATCH], load_input=False, load_output=False
            )
        ended += [row.workflow_id for row in rows if not (_is_ours(row) and _is_running(row))]
    return {UpdateId.parse(id_).owner: _number(id_) for id_ in ended}


async def newest(prefix: str, limit: int) -> list[str]:
    """The ids of the newest updates with this prefix, newest first."""
    with database.answering():
        rows = await _reader.list_workflows_async(
            name=records.NAME,
            workflow_id_prefix=prefix or None,
            sort_desc=True,
            limit=limit,
            load_input=False,
            load_output=False,
        )
    return [row.workflow_id for row in rows]


async def state_before(workflow_id: str) -> str:
    """The state that the update found, as exact JSON text; raises `WorkflowNotFound`."""
    outcome = (await get(workflow_id)).outcome
    with database.answering():
        found = await _reader.list_workflow_steps_async(workflow_id)
    before: Snapshot | None = None
    for step in found:
        before = _snapshot_in(workflow_id, step) or before
        if before is not None and (
            _may_have_written(workflow_id, step)
            if outcome is None
            else before["version"] == outcome["version_before"]
        ):
            break  # A later look may see this write itself.
    if before is None:
        raise WorkflowNotFound(f"{workflow_id} ended before it had read the state.")
    return before["state"]


async def may_have_written(workflow_id: str) -> bool:
    """True if the update wrote the state, or may have."""
    with database.answering():
        found = await _reader.list_workflow_steps_async(workflow_id, load_output=False)
    return any(_may_have_written(workflow_id, step) for step in found)


def _snapshot_in(workflow_id: str, step: StepInfo) -> Snapshot | None:
    if step["function_name"] not in ("snapshot", "inspect") or step["output"] is None:
        return None
    found = binding.opened(step["output"], _place(workflow_id, step))
    if step["function_name"] == "inspect":
        found = found.get("snapshot")  # 0.1 recorded no version there.
    return cast("Snapshot | None", found)


def _step_error(workflow_id: str, step: StepInfo) -> FivetranStateError | None:
    error = step["error"]
    if not isinstance(error, FivetranStateError):
        return None
    binding.check(error, _place(workflow_id, step))
    return error


def _place(workflow_id: str, step: StepInfo) -> str:
    return binding.step_of(workflow_id, step["function_id"], step["function_name"])


def _may_have_written(workflow_id: str, step: StepInfo) -> bool:
    error = _step_error(workflow_id, step)
    is_certain = isinstance(error, FivetranStateError) and not error.details.get("maybe_applied")
    return step["function_name"] == "write" and not is_certain


async def find(workflow_id: str) -> Handle:
    """A handle to `follow`, also for an update that does not exist."""
    return await DBOS.retrieve_workflow_async(workflow_id)


async def follow(
    handle: Handle, seconds: float, on_progress: Callable[[Progress], Awaitable[None]]
) -> None:
    """Wait until the update ends, at most `seconds`, reporting each change of its progress.

    Giving up, or being cancelled, leaves the update running.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    reported: Progress | None = None
    async with turns.waiting(), _followed_by_us(handle) as followed:
        while True:
            news = followed.news
            if followed.progress not in (None, reported):
                reported = followed.progress
                await on_progress(reported)
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait(
                {news, followed.looking},
                timeout=max(left, 0) if reported else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if followed.looking.done():
                return followed.looking.result()
            if left <= 0:
                return None


class _Followed:
    """An update that callers in this process wait for. One task polls for all of them."""

    def __init__(self, handle: Handle) -> None:
        self.callers = 0
        self.news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done at the next change of the progress; then there is another."""
        self.progress: Progress | None = workflow.running.get(handle.workflow_id)
        self.looking = asyncio.create_task(self._look(handle))
        """Done when the update has ended, or when the database cannot tell."""

    async def _look(self, handle: Handle) -> None:
        workflow_id = handle.workflow_id
        while True:
            end = asyncio.ensure_future(handle.get_result(polling_interval_sec=_POLL_SECONDS))
            try:
                while not end.done():
                    # An update of this process needs no look into the database.
                    progress = workflow.running.get(workflow_id) or await _progress(workflow_id)
                    self._tell(progress or records.STARTED)
                    await asyncio.wait({end}, timeout=_POLL_SECONDS)
                if not await _goes_on(workflow_id, end):
                    return
            finally:
                end.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await end
            # This run was given up or ended in the database: wait for the next one.
            await asyncio.sleep(_POLL_SECONDS)
            handle = await find(workflow_id)

    def _tell(self, progress: Progress) -> None:
        if progress != self.progress:
            self.progress = progress
            self.news.set_result(None)
            self.news = asyncio.get_running_loop().create_future()


_followed: dict[str, _Followed] = {}


@asynccontextmanager
async def _followed_by_us(handle: Handle) -> AsyncIterator[_Followed]:
    """Share one `_Followed` among the callers; the last one ends it."""
    workflow_id = handle.workflow_id
    followed = _followed.get(workflow_id)
    if followed is None or followed.looking.done():
        followed = _followed[workflow_id] = _Followed(handle)
    followed.callers += 1
    try:
        yield followed
    finally:
        followed.callers -= 1
        if not followed.callers:
            if _followed.get(workflow_id) is followed:
                del _followed[workflow_id]
            followed.looking.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await followed.looking


async def _goes_on(workflow_id: str, end: "asyncio.Future[Bound]") -> bool:
    """True if only a run of the update has ended, and the update goes on."""
    if not end.cancelled() and isinstance(end.exception(), FivetranStateError | type(None)):
        return False
    return await is_running(workflow_id)


async def _latest(owner: str, *, load_input: bool = True) -> WorkflowStatus | None:
    recent = await _recent(owner)
    if not recent or not load_input:
        return recent[0] if recent else None
    return await _status(recent[0].workflow_id)


async def _recent(owner: str) -> list[WorkflowStatus]:
    """The owner's last updates, newest first, without input and output."""
    with database.answering():
        recent = await _reader.list_workflows_async(
            name=records.NAME,
            workflow_id_prefix=f"{owner}:",
            sort_desc=True,
            limit=_RECENT,
            load_input=False,
            load_output=False,
        )
    return sorted(recent, key=lambda row: _number(row.workflow_id), reverse=True)


def _is_the_same(latest: WorkflowStatus, request: UpdateRequest) -> bool:
    started = _readable_request(latest)
    return (
        started is not None
        and started["idempotency_key"] == request["idempotency_key"]
        and "part_of" not in started
    )


def _readable_request(status: WorkflowStatus) -> UpdateRequest | None:
    """The request, or None if the row was forged: a forged row must not block the connection."""
    with suppress(Tampered, UnusableKey):
        return _request(status)
    return None


def _request_attribute(request: UpdateRequest) -> dict[str, str]:
    return {_REQUEST: _digest(request["idempotency_key"])}


def _attributes(request: UpdateRequest, workflow_id: str) -> dict[str, Any]:
    about = _seal([workflow_id, _without_change(request)])
    return _request_attribute(request) | records.attributes(request) | {_ABOUT: about}


def _without_change(request: UpdateRequest) -> UpdateRequest:
    kept = {name: value for name, value in request.items() if name != "credentials"}
    return cast(UpdateRequest, kept | {"change": ""})


async def _about(status: WorkflowStatus) -> UpdateRequest:
    """The request, without the change.

    Earlier versions and groups store the request only with its change. Then one update is read at a
    time: a whole page of them may not fit into memory.
    """
    sealed = (status.attributes or {}).get(_ABOUT)
    if isinstance(sealed, str):
        with suppress(UnusableKey, TypeError, ValueError):
            workflow_id, request = cast(Any, _unseal(sealed))
            if workflow_id == status.workflow_id:
                return cast(UpdateRequest, request)
    whole = await _status(status.workflow_id)
    return _without_change(_request(whole or status))


def _has_attribute(row: WorkflowStatus, attribute: dict[str, str]) -> bool:
    return attribute.items() <= (row.attributes or {}).items()


def _succeeded(status: WorkflowStatus) -> bool:
    return status.status == WorkflowStatusString.SUCCESS.value


async def _remembered(
    request: UpdateRequest, latest: WorkflowStatus | None
) -> WorkflowStatus | None:
    """The update with this idempotency key. The latest update may not have stored its key yet."""
    key = request["idempotency_key"]
    started = None if latest is None else _readable_request(latest)
    if started is not None and started["idempotency_key"] == key:
        return latest
    row = await _status(workflow.key_row_id(request))
    return None if row is None else await _status(_input(row))


async def _status(workflow_id: str) -> WorkflowStatus | None:
    with database.answering():
        rows = await _reader.list_workflows_async(workflow_ids=[workflow_id])
    return rows[0] if rows else None


async def _bare_status(workflow_id: str) -> WorkflowStatus | None:
    """The workflow's status without its input and output."""
    with database.answering():
        rows = await _reader.list_workflows_async(
            workflow_ids=[workflow_id], load_input=False, load_output=False
        )
    return rows[0] if rows else None


async def _progress(workflow_id: str) -> Progress | None:
    """The update's progress: its last event, or the step that was recorded after that."""
    with database.answering():
        event = await _reader.get_event_async(workflow_id, records.PROGRESS, timeout_seconds=0)
        steps = await _reader.list_workflow_steps_async(workflow_id, load_output=False)
    place = binding.event_of(workflow_id, records.PROGRESS)
    told: Progress | None = None if event is None else binding.opened(event, place)
    last = next((s for s in reversed(steps) if s["function_name"] in phases.STEPS), None)
    if (
        last is None
        or last["error"] is not None
        or last["function_name"] not in phases.AFTER
        or _told_after(told, steps, last)
    ):
        return told
    phase, message = phases.AFTER[last["function_name"]]
    return Progress(
        phase=phase,
        message=message,
        was_paused=told["was_paused"] if told else False,
        still_paused=bool(told and told["still_paused"] and last["function_name"] != "resume"),
    )


def _told_after(told: Progress | None, steps: list[StepInfo], last: StepInfo) -> bool:
    """True if the progress event is newer than the step. DBOS records the event as a step too."""
    return told is not None and any(
        step["function_name"] == "DBOS.setEvent" and step["function_id"] > last["function_id"]
        for step in steps
    )


def _update(
    status: WorkflowStatus,
    progress: Progress | None,
    request: UpdateRequest,
    *,
    is_latest: bool = True,
) -> Update:
    """`is_latest` matters for an update that was ended in the database: only the latest is resumed."""
    is_running = _is_running(status)
    if status.status in records.ENDED_FROM_OUTSIDE:
        is_running = is_latest
        progress = Progress(
            phase="wait",
            message="Somebody ended the workflow in the database: it is taken up again, to leave the "
            "connection as it was.",
            was_paused=progress["was_paused"] if progress else False,
            still_paused=progress["still_paused"] if progress else False,
        )
    return Update(
        workflow_id=status.workflow_id,
        request=request,
        status="running" if is_running else _ended(status),
        outcome=_outcome(status),
        error=None if is_running else _error(status),
        progress=progress if is_running else None,
        was_ended_from_outside=(status.attributes or {}).get(records.CANCEL) == records.OUTSIDE,
        created_at=_created_at(status),
        completed_at=status.completed_at,
    )


def _in_progress(latest: WorkflowStatus) -> UpdateInProgress:
    return UpdateInProgress(
        f"Update {latest.workflow_id} of this connection has not ended.",
        workflow_id=latest.workflow_id,
    )


def request_fingerprint(request: UpdateRequest) -> tuple[Any, ...]:
    change = request["source"] or (request["change_kind"], request["change"])
    return (request["expected_version"], change, request.get("then_sync", False))


def _request(status: WorkflowStatus) -> UpdateRequest:
    return cast(UpdateRequest, _input(status))


def _input(status: WorkflowStatus) -> Any:
    found = status.input["args"][0] if isinstance(status.input, dict) else status.input
    return binding.opened(found, binding.input_of(status.workflow_id, status.name))


def _outcome(status: WorkflowStatus) -> Outcome | None:
    if not _succeeded(status):
        return None
    outcome: Outcome = binding.opened(status.output, binding.output_of(status.workflow_id))
    return outcome


def _number(workflow_id: str) -> int:
    return UpdateId.parse(workflow_id).number


def _is_ours(status: WorkflowStatus) -> bool:
    return status.application_name == workflow.application_name


def _is_running(status: WorkflowStatus) -> bool:
    return status.status in records.UNFINISHED


def _ended(status: WorkflowStatus) -> Literal["succeeded", "failed"]:
    return "succeeded" if status.status == WorkflowStatusString.SUCCESS.value else "failed"


def _error(status: WorkflowStatus) -> FivetranStateError | None:
    if status.status == WorkflowStatusString.SUCCESS.value:
        return None
    if isinstance(status.error, FivetranStateError):
        binding.check(status.error, binding.output_of(status.workflow_id))
        return status.error
    return InternalError(f"Something else than this program ended the workflow ({status.status}).")
