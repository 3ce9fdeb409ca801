"""A group: several connections that are changed together, each by an update of its own.

The group's workflow starts them as its children. `independent`: it waits for their ends.
`all_or_nothing`: each member waits, written, verified and still paused, until all are. Then all are
resumed, or else every state is put back first. So no sync can run between a connection's write and the
decision whether it stays.
"""

from typing import Any

from dbos import DBOS
from typing_extensions import NotRequired, TypedDict

from fivetran_state import tracing
from fivetran_state.errors import FivetranStateError, Undone, UpdateInProgress
from fivetran_state.events import Event, Name
from fivetran_state.ids import UpdateId
from fivetran_state.updates import binding, in_order
from fivetran_state.updates.ends import End, failed
from fivetran_state.updates.members import Members
from fivetran_state.updates.records import GROUP, GroupRequest, UpdateRequest, members_of, owner
from fivetran_state.updates.refusals import called_off
from fivetran_state.updates.run import MAX_RETRY_PAUSE
from fivetran_state.updates.runtime import Runtime
from fivetran_state.updates.signals import NEWS, VERDICT, Signal
from fivetran_state.updates.start import Handle, Starter
from fivetran_state.vault import Bound

_BATCH = 20
"""Members that are started between two looks at the news."""


class Result(TypedDict):
    """The ends of a group's updates."""

    workflow_ids: list[str]
    """In the order of the request, as far as they were started."""
    error: dict[str, Any] | None
    """Why the next one could not be started, if that is what failed. Only for groups of 0.1."""
    ends: NotRequired[list[End]]
    """One for each connection, in the order of the request. 0.1 did not record them."""


class GroupWorkflow:
    """The DBOS workflow that changes several connections."""

    def __init__(self, runtime: Runtime, starter: Starter) -> None:
        """Register the workflow with DBOS, which must not have been launched."""
        self._running = runtime.running
        self._events = runtime.events
        self._members = Members(starter, runtime.store)

        @DBOS.workflow(name=GROUP, max_recovery_attempts=None)
        async def update_states(requests: Bound) -> Bound:
            workflow_id = DBOS.workflow_id or ""
            place = binding.output_of(workflow_id)
            with binding.bound_errors(place):
                asked = binding.opened(requests, binding.input_of(workflow_id, GROUP))
                return Bound(place, await self._run_here(workflow_id, asked))

        self.registered = update_states
        """Takes a `GroupRequest` and returns a `Result`."""

    async def _run_here(
        self, workflow_id: str, asked: list[UpdateRequest] | GroupRequest
    ) -> Result:
        requests = members_of(asked)
        if "credentials" in requests[0]:
            self._running.with_credentials.add(workflow_id)
        for request in requests:
            request["part_of"] = workflow_id
        stored = began = None
        if not isinstance(asked, list):
            stored, began = asked.get("trace"), asked.get("asked_at")
        with (
            tracing.workflow("group", workflow_id, stored, began, {}) as facts,
            self._running.here(workflow_id),
        ):
            self._tell(Name.GROUP_STARTED, workflow_id, requests)
            if isinstance(asked, list):
                started, failure = await in_order.complete(self._members, requests)
                error = None if failure is None else failure.to_json()
                return Result(workflow_ids=started, error=error)
            result = await _Group(workflow_id, asked, self._members).run()
            facts[tracing.OUTCOME] = _outcome(result["ends"])
            self._tell(Name.GROUP_ENDED, workflow_id, requests, _outcome(result["ends"]))
            return result

    def _tell(
        self,
        name: Name,
        workflow_id: str,
        requests: list[UpdateRequest],
        outcome: str | None = None,
    ) -> None:
        self._events.record(
            Event(
                name,
                workflow_id=workflow_id,
                principal=requests[0].get("asked_by"),
                agreed_by=requests[0].get("agreed_by"),
                outcome=outcome,
                count=len(requests),
                replayed=workflow_id in self._running.taken_up,
            )
        )


def _outcome(ends: list[End]) -> str:
    has_changed = any(end["how"] == "updated" for end in ends)
    if any(end["message"] is not None for end in ends):
        return "partly_updated" if has_changed else "failed"
    return "updated" if has_changed else "unchanged"


class _Group:
    """One run of a group's workflow. Its fields are rebuilt from the checkpoints when it is recovered."""

    def __init__(self, workflow_id: str, asked: GroupRequest, members: Members) -> None:
        self._workflow_id = workflow_id
        self._asked = asked
        self._members = members
        self._started: list[Handle] = []
        self._refused: dict[str, End] = {}
        """By connection: those that could not be started."""
        self._done: set[str] = set()
        """Owners whose member is written and verified, and held."""
        self._is_called_off = False
        self._was_cancelled = False

    async def run(self) -> Result:
        requests = self._asked["members"]
        if self._asked["mode"] == "all_or_nothing" and self._asked["waits"]:
            await self._start_when_free(requests)
        else:
            await self._start_all(requests)
        ids = [update.workflow_id for update in self._started]
        if self._asked["mode"] == "all_or_nothing":
            await self._decide(ids)
        ended = {end["connection_id"]: end for end in await self._members.ends(ids)}
        by_connection = self._refused | ended
        return Result(
            workflow_ids=ids,
            error=None,
            ends=[by_connection[request["connection_id"]] for request in requests],
        )

    async def _start_all(self, requests: list[UpdateRequest]) -> None:
        busy: list[UpdateRequest] = []
        for at, request in enumerate(requests):
            if at % _BATCH == 0:
                await self._hear_all()
            await self._start(request, busy)
        await self._start_busy(busy)

    async def _start_when_free(self, requests: list[UpdateRequest]) -> None:
        """Start the members when all of their connections are free, so that none is held meanwhile.

        If one is taken in between, the members before it are held. So every such group starts them in the
        same order: otherwise two groups could wait for each other for ever.
        """
        await self._members.until_free(requests)
        for at, request in enumerate(sorted(requests, key=owner)):
            if at % _BATCH == 0:
                await self._hear_all()
            busy: list[UpdateRequest] = []
            await self._start(request, busy)
            await self._start_busy(busy)

    async def _start_busy(self, busy: list[UpdateRequest]) -> None:
        for request in busy:
            while not self._is_called_off:
                ended = await self._members.until_free([request], self._unreported())
                if not ended:
                    break
                await self._hear_all()
                # It has said so before it ended, or somebody else has ended it.
                self._is_called_off |= not set(ended).isdisjoint(self._unreported())
            await self._start(request, None)

    def _unreported(self) -> list[str]:
        """The members that have not said that they are done, if all wait for each other."""
        if self._asked["mode"] != "all_or_nothing":
            return []
        ids = [update.workflow_id for update in self._started]
        return [each for each in ids if UpdateId.parse(each).owner not in self._done]

    async def _start(self, request: UpdateRequest, busy: list[UpdateRequest] | None) -> None:
        """Start a member, unless the group is called off. One that must wait is added to `busy`."""
        try:
            if self._is_called_off:
                raise called_off(GROUP if self._was_cancelled else Undone.code)
            self._started.append(await self._members.start(request))
        except FivetranStateError as error:
            if busy is not None and self._asked["waits"] and isinstance(error, UpdateInProgress):
                busy.append(request)
                return
            connection_id = request["connection_id"]
            self._refused[connection_id] = failed(connection_id, None, error)
            self._is_called_off |= self._asked["mode"] == "all_or_nothing"

    async def _decide(self, ids: list[str]) -> None:
        """Wait until all members are done, or one has failed, and tell them whether the changes stay."""
        while not self._is_called_off and len(self._done) < len(ids):
            if not await self._hear(MAX_RETRY_PAUSE) and await self._members.any_ended(ids):
                # It has said so before it ended, or somebody else has ended it.
                await self._hear_all()
                self._is_called_off |= len(self._done) < len(ids)
        verdict = Signal.UNDO if self._is_called_off else Signal.KEEP
        place = binding.event_of(self._workflow_id, VERDICT)
        await DBOS.set_event_async(VERDICT, Bound(place, verdict.value))

    async def _hear_all(self) -> None:
        while await self._hear(0):
            pass

    async def _hear(self, seconds: float) -> bool:
        """Take in one message from a member, or the cancel of a caller; False if there was none."""
        news = await binding.receive(NEWS, seconds)
        if news is None:
            return False
        whose, how = news
        if how == Signal.DONE:
            self._done.add(whose)
        else:
            self._is_called_off = True
            self._was_cancelled |= whose is None
        return True
