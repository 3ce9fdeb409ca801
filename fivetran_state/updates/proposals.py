"""The proposals of one account: ask, find, decide, follow."""

import asyncio
import hashlib
import json
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID, WorkflowStatus

from fivetran_state import database, logs, tracing, turns
from fivetran_state.errors import (
    AlreadyDecided,
    DatabaseUnavailable,
    FivetranStateError,
    IdempotencyKeyReused,
    UnusableKey,
    WorkflowNotFound,
)
from fivetran_state.events import Event, Events, Name
from fivetran_state.pages import Pages
from fivetran_state.text import shown
from fivetran_state.updates import binding, records, statuses
from fivetran_state.updates.ends import End
from fivetran_state.updates.notices import Notices
from fivetran_state.updates.proposal import (
    DECISION,
    NAME,
    REFUSED,
    Approvers,
    Asked,
    Decided,
    Decision,
    ProposalWorkflow,
    Refusal,
    is_group,
)
from fivetran_state.updates.reader import READ_BATCH, Reader
from fivetran_state.updates.records import ABOUT, UpdateRequest
from fivetran_state.vault import Bound, Texts

About = tuple[str, str]
"""What a proposal is about: a connection's id or `records.GROUP`, and a fingerprint of the request as it
was given. A repeated request has the same."""

_ID = re.compile(f"{NAME}:[0-9a-f]{{32}}")
_REQUEST = "request"
"""The attribute by which an equal request finds the proposal that waits."""
_POLL_SECONDS = 0.2
_ENDED_OUTSIDE = Decided(
    how="withdrawn",
    by=None,
    decision=None,
    note="Somebody ended the workflow in the database.",
    workflow_id=None,
)


@dataclass(frozen=True)
class Proposal:
    """One proposal, as the database knows it."""

    workflow_id: str
    asked: Asked
    """In a list, without the changes."""
    decided: Decided | None = None
    """None while it waits."""
    refusal: Refusal | None = None
    """Why the last approval started nothing, while it waits."""
    page: str | None = None
    """The address of its page."""

    @property
    def requests(self) -> list[UpdateRequest]:
        change = self.asked["change"]
        return change["members"] if is_group(change) else [change]

    @property
    def left_out(self) -> list[End]:
        """Connections that were asked for, and whose change is not known."""
        change = self.asked["change"]
        return change["left_out"] if is_group(change) else []

    @property
    def connection_ids(self) -> list[str]:
        """All that were asked for."""
        return [each["connection_id"] for each in (*self.requests, *self.left_out)]

    @property
    def is_group(self) -> bool:
        return is_group(self.asked["change"])


class Proposals:
    """Every method may raise `DatabaseUnavailable`."""

    def __init__(
        self,
        reader: Reader,
        texts: Texts,
        digest: Callable[[str], str],
        application: str,
        workflow: ProposalWorkflow,
        approvers: Approvers,
        notices: Notices,
        pages: Pages,
        events: Events,
    ) -> None:
        self._reader = reader
        self._texts = texts
        self._digest = digest
        self._application = application
        self._workflow = workflow
        self._approvers = approvers
        self._notices = notices
        self._pages = pages
        self._events = events

    async def attach(self, about: About, key: str | None) -> str | None:
        """The proposal with this key, or without one an equal one that waits.

        Raises `IdempotencyKeyReused`.
        """
        digest = self._digest_of(about)
        if key is None:
            rows = await self._rows_waiting()
            equal = [row for row in rows if (row.attributes or {}).get(_REQUEST) == digest]
            return equal[0].workflow_id if equal else None
        workflow_id = self._of_key(about, key)
        for row in await self._reader.find(workflow_ids=[workflow_id]):
            if (row.attributes or {}).get(_REQUEST) != digest:
                raise IdempotencyKeyReused(
                    "This idempotency key was used for a different request.",
                    workflow_id=workflow_id,
                )
            return workflow_id
        return None

    async def ask(self, asked: Asked, about: About, key: str | None) -> str:
        """Propose it; return its id. Two at once with the same key make one."""
        workflow_id = f"{NAME}:{uuid.uuid4().hex}" if key is None else self._of_key(about, key)
        asked = {**asked, "token_name": self._approvers.token_name(asked["asked_by"])}
        sealed = self._texts.seal([workflow_id, _without_changes(asked)])
        place = binding.input_of(workflow_id, NAME)
        if (trace := tracing.present()) is not None:
            asked = {**asked, "trace": trace}
        with (
            database.answering(),
            SetWorkflowID(workflow_id),
            SetWorkflowAttributes({_REQUEST: self._digest_of(about), ABOUT: sealed}),
        ):
            await DBOS.start_workflow_async(self._workflow.registered, Bound(place, asked))
        change = asked["change"]
        self._events.record(
            Event(
                Name.PROPOSED,
                workflow_id=workflow_id,
                connection=None if is_group(change) else change["connection_id"],
                principal=asked["asked_by"],
                count=len(change["members"]) if is_group(change) else 1,
            )
        )
        # Somebody may decide before the announcer's next look, which also covers a failure here.
        with suppress(DatabaseUnavailable):
            await self._notices.tell_of_proposal(workflow_id, asked)
        return workflow_id

    def _of_key(self, about: About, key: str) -> str:
        whose = f"{self._application}\n{about[0]}\n{key}"
        return f"{NAME}:{hashlib.sha256(whose.encode()).hexdigest()[:32]}"

    def _digest_of(self, about: About) -> str:
        return self._digest(json.dumps(about))

    def is_asked_by(self, asked: Asked, name: str) -> bool:
        """True if this principal has asked for it, or is the same person with another token."""
        if asked["asked_by"] == name:
            return True
        theirs = asked.get("token_name") or self._approvers.token_name(asked["asked_by"])
        return theirs is not None and theirs == self._approvers.token_name(name)

    async def waiting(self) -> list[Proposal]:
        """Those that wait for a decision, oldest first, without their changes."""
        found = []
        for row in await self._rows_waiting():
            with suppress(FivetranStateError):
                page = self._pages.proposal(row.workflow_id)
                found.append(Proposal(row.workflow_id, await self._about(row), page=page))
        return sorted(found, key=lambda each: each.asked["asked_at"])

    async def waiting_ids(self) -> list[str]:
        """The ids of those that wait, in any order."""
        rows = await asyncio.to_thread(self._reader.with_status, [records.PENDING])
        return [workflow_id for workflow_id, name, *_ in rows if name == NAME]

    async def _rows_waiting(self) -> list[WorkflowStatus]:
        ids = await self.waiting_ids()
        found: list[WorkflowStatus] = []
        for at in range(0, len(ids), READ_BATCH):
            found += await self._reader.find(workflow_ids=ids[at : at + READ_BATCH])
        return [row for row in found if row.application_name == self._application]

    async def _about(self, row: WorkflowStatus) -> Asked:
        sealed = (row.attributes or {}).get(ABOUT)
        if isinstance(sealed, str):
            with suppress(UnusableKey, TypeError, ValueError):
                workflow_id, asked = cast(Any, self._texts.unseal(sealed))
                if workflow_id == row.workflow_id:
                    return cast(Asked, asked)
        return (await self.get(row.workflow_id)).asked

    async def get(self, workflow_id: str) -> Proposal:
        """One proposal with its changes; raises `WorkflowNotFound`."""
        rows = await self._reader.find(
            workflow_ids=[workflow_id], name=NAME, load_input=True, load_output=True
        )
        if not is_id(workflow_id) or not rows or rows[0].application_name != self._application:
            raise WorkflowNotFound(f"There is no proposal '{shown(workflow_id)}'.")
        (row,) = rows
        asked: Asked = statuses.input_of(row)
        page = self._pages.proposal(workflow_id)
        if row.status in records.ENDED_FROM_OUTSIDE:
            return Proposal(workflow_id, asked, _ENDED_OUTSIDE, page=page)
        if statuses.is_running(row):
            refusal = await self._refusal(workflow_id)
            return Proposal(workflow_id, asked, refusal=refusal, page=page)
        if not statuses.succeeded(row):
            error = statuses.error(row)
            assert error is not None, "it has neither succeeded nor is it running"
            raise error
        decided: Decided = binding.opened(row.output, binding.output_of(workflow_id))
        return Proposal(workflow_id, asked, decided, page=page)

    async def _refusal(self, workflow_id: str) -> Refusal | None:
        found = await self._reader.event(workflow_id, REFUSED)
        if found is None:
            return None
        refusal: Refusal = binding.opened(found, binding.event_of(workflow_id, REFUSED))
        return refusal

    async def decide(self, workflow_id: str, decision: Decision, seconds: float) -> Proposal:
        """Send a decision and wait for what becomes of it, at most `seconds`.

        Raises `AlreadyDecided` if another decision came first, and what kept an approved change from being
        started.
        """
        decision["request_id"] = logs.request_id.get()
        with database.answering():
            await binding.send(workflow_id, decision, DECISION)
        deadline = asyncio.get_running_loop().time() + seconds
        async with turns.waiting():
            while not await self._has_ended(workflow_id):
                refusal = await self._refusal(workflow_id)
                if refusal is not None and refusal["decision"] == decision["id"]:
                    raise FivetranStateError.from_json(dict(refusal))
                if asyncio.get_running_loop().time() >= deadline:
                    break
                await asyncio.sleep(_POLL_SECONDS)
        found = await self.get(workflow_id)
        if found.decided is not None:
            _insist_on_same(found.decided, decision, workflow_id)
        return found

    async def follow(self, workflow_id: str, seconds: float) -> Proposal:
        """Wait for the decision, at most `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        async with turns.waiting():
            while not await self._has_ended(workflow_id):
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    break
                await asyncio.sleep(min(_POLL_SECONDS, left))
        return await self.get(workflow_id)

    async def _has_ended(self, workflow_id: str) -> bool:
        """True also if there is no such proposal. It does not read the change, which may be large."""
        rows = await self._reader.find(workflow_ids=[workflow_id], name=NAME)
        return not any(
            statuses.is_running(row) and row.status not in records.ENDED_FROM_OUTSIDE
            for row in rows
        )


def is_id(workflow_id: str) -> bool:
    """True for the id of a proposal."""
    return _ID.fullmatch(workflow_id) is not None


def _insist_on_same(decided: Decided, decision: Decision, workflow_id: str) -> None:
    """Raise `AlreadyDecided` unless this decision counts, or an equal one by the same person."""
    is_equal = decided["how"] == decision["how"] and decided["by"] == decision["by"]
    if decided["decision"] != decision["id"] and not is_equal:
        raise already_decided(decided, workflow_id)


def already_decided(decided: Decided, workflow_id: str) -> AlreadyDecided:
    by = f" by {decided['by']}" if decided["by"] else ""
    return AlreadyDecided(
        f"The proposal has ended already: {decided['how']}{by}.",
        workflow_id=decided["workflow_id"] or workflow_id,
    )


def _without_changes(asked: Asked) -> Asked:
    change = asked["change"]
    if not is_group(change):
        return {**asked, "change": statuses.without_change(change)}
    members = [statuses.without_change(each) for each in change["members"]]
    return {**asked, "change": {**change, "members": members}}
