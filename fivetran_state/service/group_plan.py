"""What a group of updates would do: looked at connection by connection, and pinned by one version."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from fivetran_state import changes, large
from fivetran_state.errors import (
    DatabaseUnavailable,
    EngineNotReady,
    FivetranStateError,
    MissingCredentials,
    RateLimited,
    TooLargeToConfirm,
    Unauthorized,
    UnusableKey,
    UnusableSettings,
)
from fivetran_state.fivetran import Fivetran
from fivetran_state.models import Change, GroupPlanView, Kind, MemberPlan, Mode
from fivetran_state.plan import Plan, Wanted
from fivetran_state.policy import NO_RULING, Ruling
from fivetran_state.question import (
    MAX_CHANGES,
    MAX_QUESTION,
    TooLarge,
    message,
    numbered,
    unnumbered,
)
from fivetran_state.service import views
from fivetran_state.service.caller import Caller
from fivetran_state.service.changes import Changes
from fivetran_state.service.refusals import by_policy
from fivetran_state.service.requests import Options
from fivetran_state.service.sources import Sources
from fivetran_state.text import quoted
from fivetran_state.updates import calls, statuses
from fivetran_state.updates.ends import End, failed
from fivetran_state.updates.records import UpdateRequest
from fivetran_state.updates.refusals import refuse_pending_resync
from fivetran_state.updates.store import in_progress

SHOWN_KINDS = 10
SHOWN_MEMBERS = 20
SHOWN_FAILURES = 50
SHOWN_CHANGES = 3
NAMED_CONNECTIONS = 5
"""Connections that a sentence of the question names."""
MAX_WAIT = 60.0
"""Seconds for which a plan waits while the account has too few calls left: somebody waits for the plan."""
_OF_THE_ACCOUNT = (
    RateLimited,
    MissingCredentials,
    Unauthorized,
    EngineNotReady,
    DatabaseUnavailable,
    UnusableKey,
    UnusableSettings,
)
"""Errors that are not about one connection."""
_CALLS_OF_A_LOOK = 2
_CALLS = 7
_CALLS_IF_PAUSED = 4


@dataclass(frozen=True)
class Looked:
    """One connection of the group, as it was found."""

    connection_id: str
    request: UpdateRequest | None = None
    """None if it cannot be changed."""
    latest_number: int = 0
    """Of its latest update."""
    version_before: str | None = None
    version_after: str | None = None
    changes: tuple[Change, ...] = ()
    """The first ones; `changes_total` counts all."""
    changes_total: int = 0
    warnings: tuple[str, ...] = ()
    calls: int = 0
    error: FivetranStateError | None = None
    """Why it cannot be changed."""
    ruling: Ruling = NO_RULING
    described: str = ""
    """The connection, for the person who is asked."""
    consequences: tuple[str, ...] = ()
    in_full: tuple[str, ...] | None = None
    """Every change as a line of the question; None if they are too many or too long."""

    @property
    def is_changed(self) -> bool:
        return self.error is None and self.changes_total > 0

    @property
    def end(self) -> End:
        """How a connection ends that is not a member of the group."""
        if self.error is not None:
            return failed(self.connection_id, None, self.error)
        return End(
            connection_id=self.connection_id, workflow_id=None, how="unchanged", message=None
        )

    def view(self, *, in_full: bool = False) -> MemberPlan:
        """With the first changes, or `in_full` with all that a plan keeps."""
        shown = self.changes if in_full else self.changes[:SHOWN_CHANGES]
        return MemberPlan(
            connection_id=self.connection_id,
            version_before=self.version_before,
            version_after=self.version_after,
            changes=list(shown) or None,
            changes_total=None if self.error else self.changes_total,
            warnings=list(self.warnings) or None,
            error=None if self.error is None else views.failure(self.error),
        )


@dataclass(frozen=True)
class GroupPlan:
    """All connections of a group, in the order of the request."""

    mode: Mode
    members: Sequence[Looked]
    seconds: float
    """About how long it will take."""
    then_sync: bool

    @property
    def version(self) -> str:
        """Of all the members' versions, before and after. It also pins which ones cannot be changed."""
        lines = (
            f"{each.connection_id} {each.version_before} {each.version_after} "
            f"{each.error.code if each.error else ''}"
            for each in sorted(self.members, key=lambda each: each.connection_id)
        )
        return hashlib.sha256("\n".join([self.mode, *lines]).encode()).hexdigest()[:32]

    @property
    def failures(self) -> list[Looked]:
        return [each for each in self.members if each.error is not None]

    @property
    def changed(self) -> list[Looked]:
        return [each for each in self.members if each.is_changed]

    @property
    def ruling(self) -> Ruling:
        """What the policy says of the connections that would be changed."""
        ruling = NO_RULING
        for each in self.changed:
            ruling = ruling.and_also(each.ruling)
        return ruling

    @property
    def calls(self) -> int:
        return sum(each.calls for each in self.changed)

    @property
    def numbers(self) -> int:
        """The sum of the members' update numbers: it grows with every update of one of them."""
        return sum(each.latest_number for each in self.members)

    def view(self, *, in_full: bool = False, is_proposed: bool = False) -> GroupPlanView:
        """With the first connections, or `in_full` with all of them; for whoever may approve the change if
        it `is_proposed`."""
        changed, failures = self.changed, self.failures
        shown = changed if in_full else changed[:SHOWN_MEMBERS]
        return GroupPlanView(
            message=self._message(len(changed), len(failures), is_proposed),
            version=self.version,
            mode=self.mode,
            total=len(self.members),
            changed=len(changed),
            unchanged=len(self.members) - len(changed) - len(failures),
            failed=len(failures),
            calls=self.calls,
            seconds=round(self.seconds, 1),
            kinds=self._kinds(),
            failures=[each.view() for each in (failures if in_full else failures[:SHOWN_FAILURES])],
            connections=[each.view(in_full=in_full) for each in shown],
            more=len(changed) - len(shown) or None,
            next_cursor=None if in_full else self._next_cursor(),
        )

    def _next_cursor(self) -> str | None:
        """The connection after which not all are shown."""
        last_shown = [
            shown[limit - 1].connection_id
            for shown, limit in ((self.changed, SHOWN_MEMBERS), (self.failures, SHOWN_FAILURES))
            if len(shown) > limit
        ]
        return next((m.connection_id for m in self.members if m.connection_id in last_shown), None)

    def page(self, total: int, first: int) -> GroupPlanView:
        """A part of a plan of `total` connections, which begins with the `first` one, from 1."""
        last = first + len(self.members) - 1
        return self.view().model_copy(
            update={
                "message": (
                    f"Nothing was written. Only connections {first} to {last} of {total} were "
                    "looked at, so this has no version."
                ),
                "version": None,
                "connections": [each.view() for each in self.members if each.error is None],
                "more": None,
                "next_cursor": self.members[-1].connection_id if last < total else None,
            }
        )

    def question(self) -> str:
        """The text that a person reads before agreeing to this version.

        Raises `TooLargeToConfirm` if it cannot show every change in full.
        """
        changed, failures = self.changed, self.failures
        total = sum(each.changes_total for each in changed)
        lines = [
            f"{quoted(each.connection_id)} {line}"
            for each in (changed if total <= MAX_CHANGES else [])
            for line in each.in_full or ()
        ]
        unchanged = len(self.members) - len(changed) - len(failures)
        closing = [f"Version {self.version} of the plan.", *self._consequences()]
        if unchanged:
            closing.append(f"Already as they should be: {unchanged}.")
        if failures:
            left_out = (f"{quoted(each.connection_id)} {each.end['how']}" for each in failures)
            closing.append(f"Left out, because they cannot be changed: {', '.join(left_out)}.")
        heading = [
            f"Change the states of {len(changed)} connections, {self._in_words}?",
            *(f"Connection {each.described}." for each in changed[:MAX_CHANGES]),
        ]
        text = message(heading, numbered(lines), closing)
        if len(lines) < total or len(text) > MAX_QUESTION:
            raise TooLargeToConfirm(
                f"One question cannot show {total:,} changes of {len(changed):,} connections in "
                "full. The user was not asked, and nothing was written. Change fewer connections "
                "at a time, or in the shell (fivetran-state update-many), where a person sees the plan."
            )
        return text

    @property
    def _in_words(self) -> str:
        return "all of them or none" if self.mode == "all_or_nothing" else "each by itself"

    def _consequences(self) -> list[str]:
        """Each sentence once, with the connections that it is about."""
        about: dict[str, list[str]] = {}
        for each in self.changed:
            for sentence in each.consequences:
                about.setdefault(sentence, []).append(quoted(each.connection_id))
        return [f"At {_listed(ids)}: {sentence}" for sentence, ids in about.items()]

    def _kinds(self) -> list[Kind]:
        counts = Counter(
            tuple(sorted(f"{each.op} {each.path}" for each in member.changes))
            for member in self.changed
        )
        return [
            Kind(connections=count, changes=list(changes))
            for changes, count in counts.most_common(SHOWN_KINDS)
        ]

    def _message(self, changed: int, failed: int, is_proposed: bool) -> str:
        if failed and self.mode == "all_or_nothing":
            return (
                f"Nothing was written. {failed} of {len(self.members)} connections cannot be "
                "changed, so all_or_nothing would be refused."
            )
        if failed and not changed:
            return (
                f"Nothing was written. {failed} of {len(self.members)} connections cannot be "
                "changed, and any others would stay as they are."
            )
        if not changed:
            return "The change would leave every connection as it is. Nothing was written."
        left_out = f" {failed} cannot be changed and would be left out." if failed else ""
        how = "approve version" if is_proposed else "call again with expected_version"
        return (
            f"Nothing was written. To change exactly these {changed} connections, {how} "
            f"{self.version!r}.{left_out} Each is paused while its state is "
            "written, "
            + (
                "and until all are written and verified."
                if self.mode == "all_or_nothing"
                else "and resumed by itself."
            )
            + (" Then a sync of each is started." if self.then_sync else "")
            + "".join(f" {each}" for each in self.ruling.sentences)
        )


class _Pace:
    """Leaves the last tenth of the account's calls to single updates while a plan is made."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + MAX_WAIT
        self._looks = 0
        self._one = asyncio.Lock()

    @asynccontextmanager
    async def look(self, fivetran: Fivetran) -> AsyncIterator[None]:
        """Wait until there are calls for a look. A look that Fivetran refuses ends without an error, to be
        repeated.

        Raises `RateLimited` after `MAX_WAIT`.
        """
        async with self._one:
            left = self._deadline - time.monotonic()
            if not await calls.are_enough(fivetran, lambda: self._looks * _CALLS_OF_A_LOOK, left):
                limit = fivetran.limit
                raise RateLimited(
                    "The account has less than a tenth of its calls left, which groups leave to "
                    "updates of single connections. Nothing was written.",
                    retry_after=max(MAX_WAIT, limit.renewed_in if limit else 0),
                )
        self._looks += 1
        try:
            yield
        except RateLimited:
            if time.monotonic() >= self._deadline:
                raise
        finally:
            self._looks -= 1


class Planner:
    """Looks at the connections of a group. Nothing is written."""

    def __init__(self, caller: Caller, sources: Sources, changes: Changes) -> None:
        self._caller = caller
        self._sources = sources
        self._changes = changes

    async def plan(
        self,
        wanted: Mapping[str, changes.Change],
        options: changes.GroupOptions,
        *,
        is_shown: bool = False,
        asked_by: str | None = None,
    ) -> GroupPlan:
        """Look at every connection. What keeps one from being changed is in the plan; what keeps
        the account from it is raised.

        `is_shown`: a person or an agent will read it, so it has what is unusual, and the question.
        `asked_by`: who proposed it.
        """
        at_once = self._caller.settings.concurrency
        few = asyncio.Semaphore(at_once)
        beside_singles = (await self._caller.updates()).runtime.slots.steps
        sources: dict[int, asyncio.Task[Wanted]] = {}
        pace = _Pace()

        async def look(connection_id: str, change: changes.Change) -> Looked:
            if isinstance(change, changes.RestoreFrom):
                source = await self._sources.read(connection_id, change)
            else:  # The same for all that share it.
                if id(change) not in sources:
                    reading = self._sources.read(connection_id, change)
                    sources[id(change)] = asyncio.create_task(reading)
                try:
                    source = await sources[id(change)]
                except RateLimited:
                    sources.pop(id(change), None)
                    raise
            return await self._look(connection_id, source, options, is_shown, asked_by)

        async def looked(connection_id: str, change: changes.Change) -> Looked:
            async with few:
                try:
                    fivetran = await self._caller.fivetran_for(connection_id)
                    while True:
                        async with pace.look(fivetran), beside_singles:
                            return await look(connection_id, change)
                except FivetranStateError as error:
                    return Looked(connection_id, error=error)

        begin = time.monotonic()
        members = await asyncio.gather(*(looked(*each) for each in wanted.items()))
        for each in members:
            if isinstance(each.error, _OF_THE_ACCOUNT):
                raise each.error
        a_call = (time.monotonic() - begin) * min(at_once, len(wanted)) / (2 * len(wanted))
        planned = sum(each.calls for each in members if each.is_changed)
        return GroupPlan(options.mode, members, planned * a_call / at_once, options.then_sync)

    async def _look(
        self,
        connection_id: str,
        source: Wanted,
        options: changes.GroupOptions,
        is_shown: bool,
        asked_by: str | None,
    ) -> Looked:
        updates = await self._caller.updates()
        plan = await self._changes.plan_of(
            connection_id, source, None, then_sync=options.then_sync, asked_by=asked_by
        )
        if plan.ruling.forbidden is not None:
            raise by_policy(plan.ruling.forbidden)
        if not options.allow_resync:
            refuse_pending_resync(plan.connection)
        latest = await updates.store.latest(
            await self._caller.owner(connection_id), load_input=False
        )
        if latest is not None and statuses.is_running(latest) and not options.waits:
            raise in_progress(latest)
        # The policy has judged only this version.
        is_pinned = options.expected_version is not None or self._caller.has_policy
        of_member = options_of_members(options).with_version(
            plan.version_before if is_pinned else None
        )
        request = await self._changes.request(connection_id, source, of_member)
        request["mode"] = options.mode
        latest_number = 0 if latest is None else statuses.number(latest.workflow_id)
        if latest is None or not statuses.is_running(latest):
            # The next update may begin only when this one has ended, which the group looks for.
            request["number"] = latest_number + 1
        looked = Looked(
            connection_id,
            request=request,
            latest_number=latest_number,
            version_before=plan.version_before,
            version_after=plan.version_after,
            changes=tuple(plan.changes),
            changes_total=plan.changes_total,
            calls=calls_of(is_paused=plan.connection.paused, then_sync=options.then_sync),
            ruling=plan.ruling,
        )
        if not (is_shown and looked.is_changed):
            return looked
        plan = await self._changes.with_warnings(plan)
        return await large.run_if(plan.is_large, _described, looked, plan)


def options_of_members(options: changes.GroupOptions) -> Options:
    return Options(None, options.reason, None, options.then_sync, options.allow_resync)


def calls_of(*, is_paused: bool, then_sync: bool) -> int:
    """The calls to Fivetran that one update takes."""
    return (_CALLS_IF_PAUSED if is_paused else _CALLS) + then_sync


def _described(looked: Looked, plan: Plan) -> Looked:
    """With what a person or an agent is told about it."""
    in_full = None
    with suppress(TooLarge):
        in_full = tuple(unnumbered(plan.before, plan.applied.after))
    return replace(
        looked,
        warnings=tuple(plan.cautions),
        described=plan.described_connection,
        consequences=tuple(plan.consequences),
        in_full=in_full,
    )


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED_CONNECTIONS
    named = ", ".join(names[:NAMED_CONNECTIONS])
    return f"{named} and {more:,} more" if more > 0 else named
