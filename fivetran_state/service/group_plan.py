"""What a group of updates would do, connection by connection, pinned by one version."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fivetran_state.errors import Conflict, FivetranStateError, TooLargeToConfirm
from fivetran_state.models import Change, GroupPlanView, Kind, MemberPlan, Mode
from fivetran_state.policy import NO_RULING, Ruling
from fivetran_state.question import (
    MAX_CHANGES,
    MAX_QUESTION,
    message,
    numbered,
)
from fivetran_state.service import views
from fivetran_state.service.group_status import SHOWN_UPDATES
from fivetran_state.text import quoted
from fivetran_state.updates.ends import End, error_of, failed
from fivetran_state.updates.records import UpdateRequest

SHOWN_KINDS = 10
SHOWN_MEMBERS = 20
SHOWN_FAILURES = 50
SHOWN_CHANGES = 3
NAMED_CONNECTIONS = 5
"""Connections that a sentence of the question names."""


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

    @classmethod
    def left_out(cls, end: End) -> "Looked":
        """A connection that was left out with this end."""
        return cls(end["connection_id"], error=error_of(end))

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

    @property
    def refusal(self) -> FivetranStateError:
        """The error for a group with connections that cannot be changed: that of the first one."""
        error = self.failures[0].error
        assert error is not None, "it is a failure"
        if len(self.failures) > 1:
            named = self.failures[:SHOWN_UPDATES]
            error.details["failures"] = [each.view().to_json() for each in named]
        return error

    def insist_on(self, version: str | None) -> None:
        """Raises `Conflict` if the plan is another version; None is any."""
        if version not in (None, self.version):
            raise Conflict(
                f"The plan is version {self.version}, not {version}: the state of a connection has "
                "changed since, or other connections are chosen, or another mode. Nothing was written.",
                current_version=self.version,
            )

    def split(self) -> tuple[list[UpdateRequest], list[End]]:
        """The requests of the connections that the group would change, and the ends of the others.

        Raises the error of the first one that cannot be changed, unless the mode is `independent`.
        """
        chosen = self.members
        if self.mode == "independent":
            chosen = self.changed or [each for each in self.members if each.error is None]
        elif self.failures:
            raise self.refusal
        if not chosen:
            raise self.refusal
        requests = [each.request for each in chosen if each.request is not None]
        ids = {each["connection_id"] for each in requests}
        return requests, [each.end for each in self.members if each.connection_id not in ids]

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


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED_CONNECTIONS
    named = ", ".join(names[:NAMED_CONNECTIONS])
    return f"{named} and {more:,} more" if more > 0 else named
