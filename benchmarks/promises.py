"""Checks the promises about one connection against the sandbox's log and people's actions.

Fivetran has no conditional write, so no client can avoid two kinds of races:

- Somebody acts between an update's last look and its next change. A look is a GET that was answered
  to the update, or the answer to its own PATCH of the connection.
- Somebody pauses a connection while an update holds it paused, or before the update's own pause
  takes effect. Nothing in the API distinguishes the two pauses.

Both are counted as `unavoidable`. If somebody acted before the last look, it is a violation.

**The paused flag.** People's actions and our PATCHes are replayed in the order in which they took
effect. Two rules say how a connection may end:

1. It may end paused only if a person, or its initial state, was the last to change it from running
   to paused. If an update was the last, it was left paused.
2. An update may change it from paused to running only if the last action of a person was a resume,
   or if that person's pause was invisible to it. A pause is visible if the update looked after it,
   and had sent no pause of its own since it had last seen the connection running.

So after a person's resume the connection always ends running. After a person's pause it ends
paused, unless the pause was invisible.

**Groups.** All or nothing: either each member ends as updated or unchanged, and no update resumed
one of them before all had been written and read back; or no member ends so. Then each has its state
back, unless somebody else changed it or resumed the connection meanwhile. In both modes, the group's
counts are those of its members' ends.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

from fivetran_state import state
from fivetran_state.ids import UpdateId
from fivetran_state.sandbox import LoggedRequest

Updates = list[dict[str, Any]]
"""The `workflow_status` of each update, after all have ended."""

ActKind = Literal["pause", "resume", "write", "sync"]

LATE_ARRIVAL = 0.05
"""The longest time, in seconds, that a request may take."""

HELD_AFTER_A_NEW_KEY = 30.0
"""Seconds that a connection may stay paused after a server with a valid key is up."""


@dataclass(frozen=True)
class Act:
    """A person's action on a connection, directly before the request with index `position`."""

    position: int
    time: float
    kind: ActKind
    was_paused: bool
    marker: str | None = None


@dataclass(frozen=True)
class Hold:
    """A period, in seconds since the epoch, in which an update kept a connection paused."""

    connection_id: str
    start: float
    end: float


@dataclass(frozen=True)
class Effects:
    """The log's indexes of what an update did to its connection; None: it did not."""

    read_back: int | None
    """The first read that shows what it has written."""
    resumed: int | None
    """Its resume of the paused connection."""


@dataclass
class Findings:
    """The findings about one connection, or about several."""

    violations: list[str] = field(default_factory=list)
    unavoidable: Counter[str] = field(default_factory=Counter)
    holds: list[Hold] = field(default_factory=list)
    effects: dict[str, Effects] = field(default_factory=dict)
    """By the id of the update, of those that are part of a group."""

    def add(self, other: "Findings") -> None:
        self.violations += other.violations
        self.unavoidable += other.unavoidable
        self.holds += other.holds
        self.effects |= other.effects


@dataclass
class Record:
    """All known facts about one connection.

    `other_reads` are ranges of the log in which another reader asked for the connection: a GET
    there does not count as an update's look. `told_markers` mark the states that Fivetran stored in
    place of a write, and named in its answer.
    """

    connection_id: str
    updates: Updates
    requests: Sequence[LoggedRequest]
    acts: Sequence[Act]
    was_paused: bool
    is_paused: bool
    other_reads: Sequence[range] = ()
    told_markers: frozenset[str] = frozenset()

    def check(self) -> Findings:
        return _Check(self).findings


@dataclass(frozen=True)
class _Write:
    index: int
    target: dict[str, Any]


@dataclass(frozen=True)
class Group:
    """A group that has ended: its `workflow_status`, and those of the updates that it started."""

    status: dict[str, Any]
    updates: Updates

    def violations(self, effects: Mapping[str, Effects]) -> list[str]:
        """Every broken promise; `effects` has those of its updates."""
        return [f"{self.status['workflow_id']}: {what}" for what in self._broken(effects)]

    def _broken(self, effects: Mapping[str, Effects]) -> Iterator[str]:
        counts = Counter(self.status["counts"])
        ends = Counter(map(outcome, self.updates))
        not_started = counts - ends
        if not ends <= counts or counts.total() != self.status["total"] or not_started["updated"]:
            yield f"it counts {dict(counts)}, but its updates ended as {dict(ends)}"
        shown = {each["workflow_id"]: each["status"] for each in self.status["updates"]}
        if shown != {each["workflow_id"]: each["status"] for each in self.updates}:
            yield f"it shows its updates as {shown}"
        if self.status["mode"] == "independent" or not ends["updated"]:
            return
        if not counts.keys() <= {"updated", "unchanged"}:
            yield f"only a part was changed: {dict(counts)}"
        mine = [effects[each["workflow_id"]] for each in self.updates]
        decided = max(each.read_back or 0 for each in mine)
        if any(each.resumed is not None and each.resumed < decided for each in mine):
            yield f"a member was resumed before request {decided}, which verified the last one"


class _Check:
    def __init__(self, record: Record) -> None:
        self.record = record
        self.name = record.connection_id
        self.findings = Findings()
        self.indexes = [request.index for request in record.requests]
        self.times = [request.time for request in record.requests]
        self.began = [_seconds(update["started_at"]) for update in record.updates]
        self.other_reads = {index for reads in record.other_reads for index in reads}
        self.written: dict[int, _Write] = {}
        self.uncertain: set[int] = set()
        """The updates with a write that did not take effect, and was not answered as failed either.
        """
        self.undone: set[int] = set()
        # A request that is repeated after its update has failed is another update.
        self.numbers: dict[str, list[int]] = defaultdict(list)
        for number, update in enumerate(record.updates, 1):
            self.numbers[update["reason"]].append(number)
        self._check_numbers()
        self._check_flag()
        for request in record.requests:
            if request.applied and is_write(request):
                self._check_write(request)
            elif request.fault is not None and is_write(request):
                self.uncertain.add(self._number_of(request.body["state"], request.time))
        for number, update in enumerate(record.updates, 1):
            self._check_outcome(number, update)
            if "part_of" in update:
                self.findings.effects[update["workflow_id"]] = self._effects(number)

    def _broken(self, what: str, request: LoggedRequest | None = None) -> None:
        where = "" if request is None else f", request {request.index}"
        self.findings.violations.append(f"{self.name}{where}: {what}")

    def _check_numbers(self) -> None:
        updates = self.record.updates
        numbers = [UpdateId.parse(update["workflow_id"]).number for update in updates]
        if numbers != list(range(1, len(numbers) + 1)):
            self._broken(f"the numbers have gaps: {numbers}")
        for earlier, later in pairwise(updates):
            if earlier.get("ended_at", "9") > later["started_at"]:
                self._broken(f"{later['workflow_id']} began before the one before it had ended")
        for marker, mine in self.numbers.items():
            if sum(updates[number - 1]["status"] == "updated" for number in mine) > 1:
                self._broken(f"the request {marker} was carried out twice: {mine}")

    def _check_flag(self) -> None:
        wish: Act | None = None
        wants_pause = self.record.was_paused
        held_since: LoggedRequest | None = None
        for event in self._timeline():
            if isinstance(event, Act):
                if event.kind in ("pause", "resume"):
                    wish, wants_pause = event, event.kind == "pause"
                if event.kind == "resume":
                    self._end_hold(held_since, event.time)
                    held_since = None
                continue
            paused = event.body["paused"]
            self._check_owner(event)
            if paused == event.paused:
                continue
            if paused:
                held_since = event
                continue
            self._end_hold(held_since, event.time)
            held_since = None
            if wants_pause:
                self._check_resume(event, -1 if wish is None else wish.position)
                wants_pause = False
        if held_since is not None:
            self._broken("an update left it paused", held_since)
        elif self.record.is_paused != wants_pause and not wants_pause:
            self._broken("it ended paused although a person resumed it")

    def _timeline(self) -> Iterator[Act | LoggedRequest]:
        acts = list(self.record.acts)
        for request in self.record.requests:
            while acts and acts[0].position <= request.index:
                yield acts.pop(0)
            if request.applied and sets_paused(request) is not None:
                yield request
        yield from acts

    def _end_hold(self, since: LoggedRequest | None, until: float) -> None:
        if since is not None:
            self.findings.holds.append(Hold(self.name, since.time, until))

    def _check_owner(self, request: LoggedRequest) -> None:
        number = self._number_at(request.time)
        if number == 0 or request.time > self._end_of(number) + LATE_ARRIVAL:
            self._broken("changed by no update that was running", request)

    def _check_resume(self, resume: LoggedRequest, paused_at: int) -> None:
        number = self._number_at(resume.time)
        if number and not self._could_see(number, paused_at, resume.index):
            self.findings.unavoidable["people's pauses that left no trace"] += 1
            return
        self._broken("resumed over a person's pause that could be seen", resume)

    def _could_see(self, number: int, paused_at: int, before: int) -> bool:
        looks = [
            look
            for look in self._looks(number, before)
            if look.method == "GET" and not is_state(look)
        ]
        seen = min((look.index for look in looks if look.index >= paused_at), default=None)
        if seen is None:
            return False
        last_seen_running = max(
            (look.index for look in looks if look.index < paused_at and not look.paused),
            default=-1,
        )
        return not any(
            last_seen_running < request.index < seen
            for request in self.record.requests
            if sets_paused(request) and request.time >= self.began[number - 1]
        )

    def _check_write(self, request: LoggedRequest) -> None:
        target, before = request.body["state"], state.parse(request.state or "{}")
        latest = max(self.written, default=0)
        is_undo = latest > 0 and state.version(target) == self._over(self.written[latest].target)
        number = latest if is_undo else self._number_of(target, request.time)
        if number == 0:
            self._broken(f"written by no update: {state.dump(target)}", request)
            return
        looks = list(self._looks(number, request.index))
        # Its first looks may have been counted as somebody else's.
        start = self.indexes[bisect_left(self.times, self.began[number - 1])] - 1
        state_look = max((each.index for each in looks if is_state(each)), default=start)
        look = max((each.index for each in looks if not is_state(each)), default=start)
        syncs = self._acts_between(look, request.index, "resume", "sync")
        if (request.syncing or not request.paused) and not self._excused(
            syncs, "writes just after a person's resume"
        ):
            self._broken(
                f"written while syncing={request.syncing}, paused={request.paused}", request
            )
        if state.same(before, target):
            self._broken("written a second time", request)
        if (
            not self._is_ours(before, latest)
            if is_undo
            else (state.version(before) != self._over(target))
        ):
            races = [*self._acts_between(state_look, request.index, "write"), *syncs]
            if not self._excused(races, "writes over a person's that no client could see"):
                self._broken(
                    f"{'put back' if is_undo else 'written'} over version {state.version(before)}",
                    request,
                )
        if is_undo:
            self.undone.add(latest)
            return
        if number <= latest:
            self._broken(f"update {number} wrote after update {latest}", request)
        self.written[number] = _Write(request.index, target)

    def _over(self, target: state.State) -> str:
        """The version that this change was made for."""
        version: str = target["over"][self.name]
        return version

    def _number_of(self, target: dict[str, Any], time: float) -> int:
        mine = reversed(self.numbers.get(target.get("marker", ""), []))
        return next((number for number in mine if self.began[number - 1] <= time), 0)

    def _is_ours(self, before: state.State, latest: int) -> bool:
        return (
            state.same(before, self.written[latest].target)
            or before.get("marker") in self.record.told_markers
        )

    def _excused(self, acts: Iterable[Act], as_what: str) -> bool:
        is_excused = any(True for _ in acts)
        self.findings.unavoidable[as_what] += is_excused
        return is_excused

    def _acts_between(self, look: int, change: int, *kinds: ActKind) -> list[Act]:
        return [
            act for act in self.record.acts if look < act.position <= change and act.kind in kinds
        ]

    def _check_outcome(self, number: int, update: dict[str, Any]) -> None:
        code = outcome(update)
        write, is_undone = self.written.get(number), number in self.undone
        if write is None:
            match code:
                case "updated":
                    is_told = False
                case "rollback_failed":
                    is_told = number in self.uncertain
                case "verification_failed":
                    # If somebody wrote meanwhile, the update cannot be sure that it wrote.
                    is_told = self._was_interfered_with(number)
                case _:
                    is_told = True
        elif is_undone:
            is_told = code in ("verification_failed", "rollback_failed", "undone")
        else:
            reads = [self._shows(read, write.target) for read in self._reads_after(write, number)]
            match code:
                case "updated":
                    is_told = True in reads
                case "verification_failed" | "conflict":
                    # The update saw another state, and left it as it was.
                    is_told = False in reads
                case "rollback_failed":
                    # A group undoes all that nobody else has touched.
                    is_told = "part_of" not in update or (
                        False in reads or self._was_interfered_with(number)
                    )
                case _:
                    is_told = False
        if not is_told:
            written = "written" if write else "not written"
            self._broken(f"{update['workflow_id']} was told {code}, but is {written}, {is_undone=}")

    def _effects(self, number: int) -> Effects:
        write = self.written.get(number)
        read_back = resumed = None
        if write is not None:
            reads = self._reads_after(write, number)
            read_back = next((r.index for r in reads if self._shows(r, write.target)), None)
        for request in self.record.requests:
            is_resume = sets_paused(request) is False and request.applied and request.paused
            if is_resume and self._number_at(request.time) == number:
                resumed = request.index
                break
        return Effects(read_back, resumed)

    def _was_interfered_with(self, number: int) -> bool:
        return any(
            self.began[number - 1] <= act.time <= self._end_of(number) and act.kind != "pause"
            for act in self.record.acts
        )

    def _reads_after(self, write: _Write, number: int) -> Iterator[LoggedRequest]:
        """The state as it was read between the write and the resume, or the update's end."""
        for request in self.record.requests[bisect_right(self.indexes, write.index) :]:
            if request.time > self._end_of(number):
                return
            if sets_paused(request) is False and request.applied:
                return
            if is_answered(request) and request.method == "GET" and is_state(request):
                yield request

    @staticmethod
    def _shows(read: LoggedRequest, target: state.State) -> bool:
        return state.same(state.parse_value(read.state or "null"), target)

    def _looks(self, number: int, before: int) -> Iterator[LoggedRequest]:
        """The update's looks before the request with this index, the last one first."""
        for request in reversed(self.record.requests[: bisect_left(self.indexes, before)]):
            if request.time < self.began[number - 1]:
                return
            is_its_own = request.method == "GET" and request.index not in self.other_reads
            if is_answered(request) and (is_its_own or sets_paused(request) is not None):
                yield request

    def _number_at(self, time: float) -> int:
        """The number of the latest update that had begun by then; 0 if none had."""
        return bisect_right(self.began, time)

    def _end_of(self, number: int) -> float:
        ended_at = self.record.updates[number - 1].get("ended_at")
        return float("inf") if ended_at is None else _seconds(ended_at)


def outcome(update: Mapping[str, Any]) -> str:
    """How an update ended: its status, or the code of its error."""
    ended: str = update.get("error", {}).get("code") or update["status"]
    return ended


def is_state(request: LoggedRequest) -> bool:
    return request.path.endswith("/state")


def is_write(request: LoggedRequest) -> bool:
    return request.method == "PATCH" and is_state(request)


def is_answered(request: LoggedRequest) -> bool:
    return request.status == 200 and request.fault is None


def sets_paused(request: LoggedRequest) -> bool | None:
    """The paused flag that a PATCH of a connection sets; None for any other request."""
    if request.method != "PATCH" or is_state(request):
        return None
    paused: bool = request.body["paused"]
    return paused


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
