"""A proposal: a change that waits until a person decides.

Its workflow holds nothing meanwhile. An approved change is started as the workflow's child, so it
starts exactly once, whatever dies when. If it cannot be started, the proposal waits for another decision.
"""

import time
from typing import Literal, Protocol

from dbos import DBOS
from typing_extensions import NotRequired, TypedDict, TypeIs

from fivetran_state import dbos_internals, logs, tracing
from fivetran_state.errors import DatabaseUnavailable, FivetranStateError, NotAllowed
from fivetran_state.events import Event, Events, Name
from fivetran_state.updates import binding
from fivetran_state.updates.ends import End
from fivetran_state.updates.groups import Groups
from fivetran_state.updates.members import Members
from fivetran_state.updates.reader import Reader
from fivetran_state.updates.records import PROPOSAL, GroupRequest, UpdateRequest
from fivetran_state.vault import Bound

NAME = PROPOSAL
DECISION = "decision"
"""The topic of the messages that decide."""
REFUSED = "refused"
"""The event that tells why the last approval started nothing."""
_EVENTS = {
    "approved": Name.APPROVED,
    "rejected": Name.REJECTED,
    "withdrawn": Name.WITHDRAWN,
    "expired": Name.EXPIRED,
}


class Asked(TypedDict):
    """What is proposed, and by whom."""

    change: UpdateRequest | GroupRequest
    """As it would be started, with the versions that whoever asked for it has seen. A group has all
    that were asked for; `left_out` are those whose change is not known."""
    asked_by: str
    """The name of an `access.Principal`."""
    token_name: NotRequired[str | None]
    """The name of their token, which may be revoked when somebody decides."""
    asked_at: float
    """Seconds since the epoch, as is `expires_at`."""
    expires_at: float
    reason: str | None
    trace: NotRequired[str]
    """The span that has proposed it, as a W3C `traceparent`."""


class Decision(TypedDict):
    """What a person has decided."""

    id: str
    """Of this decision, to tell it from an equal one."""
    how: Literal["approved", "rejected", "withdrawn"]
    by: str
    note: NotRequired[str | None]
    """Why it was rejected."""
    version: NotRequired[str]
    """The version of the plan that was approved."""
    versions: NotRequired[dict[str, str]]
    """Of a group: the version of each connection that is changed."""
    left_out: NotRequired[list[End]]
    """Of a group: the other connections."""
    request_id: NotRequired[str | None]
    """Of the HTTP request that sent it."""


class Decided(TypedDict):
    """The end of a proposal."""

    how: Literal["approved", "rejected", "withdrawn", "expired"]
    by: str | None
    decision: str | None
    """The id of the decision."""
    note: str | None
    workflow_id: str | None
    """The update or the group that the approval has started."""


class Refusal(TypedDict):
    """Why an approval started nothing."""

    decision: str
    """The id of the decision that approved it."""
    by: str
    code: str
    message: str


class Approvers(Protocol):
    """Knows who may approve."""

    def may_approve(self, name: str) -> bool:
        """True if this principal has the scope `approve` now, as far as this process can tell."""

    def token_name(self, name: str) -> str | None:
        """The name of this principal's token, if it has one: all tokens of a name are one person's."""


def is_group(change: UpdateRequest | GroupRequest) -> TypeIs[GroupRequest]:
    return "members" in change


class ProposalWorkflow:
    """The DBOS workflow that waits for a decision."""

    def __init__(
        self,
        reader: Reader,
        members: Members,
        groups: Groups,
        approvers: Approvers,
        events: Events,
    ) -> None:
        """Register the workflow with DBOS, which must not have been launched."""
        self._reader = reader
        self._members = members
        self._groups = groups
        self._approvers = approvers
        self._events = events

        @DBOS.workflow(name=NAME, max_recovery_attempts=None)
        async def proposal(asked: Bound) -> Bound:
            workflow_id = DBOS.workflow_id or ""
            place = binding.output_of(workflow_id)
            with binding.bound_errors(place):
                opened: Asked = binding.opened(asked, binding.input_of(workflow_id, NAME))
                with tracing.continued(opened.get("trace")):
                    return Bound(place, await self._run(workflow_id, opened))

        self.registered = proposal
        """Takes an `Asked` and returns a `Decided`."""

    async def _run(self, workflow_id: str, asked: Asked) -> Decided:
        recorded = {
            step["function_id"] for step in await self._reader.steps(workflow_id, load_output=False)
        }
        tries = 0
        while True:
            left = max(asked["expires_at"] - time.time(), 0)
            is_replayed = dbos_internals.next_step_number() in recorded
            decision: Decision | None = await binding.receive(DECISION, left)
            logs.request_id.set(None if decision is None else decision.get("request_id"))
            if decision is None:
                decided = Decided(
                    how="expired", by=None, decision=None, note=None, workflow_id=None
                )
                self._tell(workflow_id, asked, decided, is_replayed)
                return decided
            started = None
            if decision["how"] == "approved":
                tries += 1
                try:
                    await self._insist_on_approver(decision["by"])
                    started = await self._start(asked, decision, f"{workflow_id} {tries}")
                except DatabaseUnavailable:
                    # Not an outcome: recovery runs it again, and what was started is found again.
                    raise
                except FivetranStateError as error:
                    refusal = Refusal(
                        decision=decision["id"],
                        by=decision["by"],
                        code=error.code,
                        message=error.message,
                    )
                    place = binding.event_of(workflow_id, REFUSED)
                    await DBOS.set_event_async(REFUSED, Bound(place, refusal))
                    continue
            decided = Decided(
                how=decision["how"],
                by=decision["by"],
                decision=decision["id"],
                note=decision.get("note"),
                workflow_id=started,
            )
            self._tell(workflow_id, asked, decided, is_replayed)
            return decided

    def _tell(self, workflow_id: str, asked: Asked, decided: Decided, is_replayed: bool) -> None:
        started = decided["workflow_id"]
        self._events.record(
            Event(
                _EVENTS[decided["how"]],
                workflow_id=started or workflow_id,
                part_of=workflow_id if started else None,
                principal=decided["by"] or asked["asked_by"],
                replayed=is_replayed,
            )
        )

    @binding.step("insist_on_approver")
    async def _insist_on_approver(self, name: str) -> None:
        # The process that took the decision may have died long ago.
        if not self._approvers.may_approve(name):
            raise NotAllowed(
                f"{name} was not allowed to approve any more when the update was to be started. "
                "Nothing was written."
            )

    async def _start(self, asked: Asked, decision: Decision, key: str) -> str:
        """Start what was approved; raises `UpdateInProgress` and the like."""
        change = asked["change"]
        if not is_group(change):
            request = _agreed(change, decision, decision["version"])
            return (await self._members.start(request)).workflow_id
        versions = decision["versions"]
        members = [
            _agreed(each, decision, versions[each["connection_id"]])
            for each in change["members"]
            if each["connection_id"] in versions
        ]
        group: GroupRequest = {**change, "members": members, "left_out": decision["left_out"]}
        return await self._groups.start(group, None, key)


def _agreed(request: UpdateRequest, decision: Decision, version: str) -> UpdateRequest:
    return {**request, "expected_version": version, "agreed_by": decision["by"]}
