"""What a group of updates would do: looked at connection by connection, and pinned by one version."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fivetran_state.errors import FivetranStateError
from fivetran_state.models import Change, GroupPlanView, Kind, MemberPlan, Mode
from fivetran_state.service import views
from fivetran_state.updates.records import UpdateRequest

MAX_CONNECTIONS = 1000
SHOWN_KINDS = 10
SHOWN_MEMBERS = 20
SHOWN_CHANGES = 3
_CALLS = 7
_CALLS_IF_PAUSED = 4


@dataclass(frozen=True)
class Looked:
    """One connection of the group, as it was found."""

    connection_id: str
    request: UpdateRequest | None = None
    """None if it cannot be changed."""
    version_before: str | None = None
    version_after: str | None = None
    changes: tuple[Change, ...] = ()
    """The first ones; `changes_total` counts all."""
    changes_total: int = 0
    warnings: tuple[str, ...] = ()
    calls: int = 0
    error: FivetranStateError | None = None
    """Why it cannot be changed."""

    @property
    def is_changed(self) -> bool:
        return self.error is None and self.changes_total > 0

    def view(self, *, in_full: bool = False) -> MemberPlan:
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
    def calls(self) -> int:
        return sum(each.calls for each in self.changed)

    def view(self, *, in_full: bool = False) -> GroupPlanView:
        changed, failures = self.changed, self.failures
        shown = changed if in_full else changed[:SHOWN_MEMBERS]
        return GroupPlanView(
            message=self._message(len(changed), len(failures)),
            version=self.version,
            mode=self.mode,
            total=len(self.members),
            changed=len(changed),
            unchanged=len(self.members) - len(changed) - len(failures),
            failed=len(failures),
            calls=self.calls,
            seconds=round(self.seconds, 1),
            kinds=self._kinds(),
            failures=[each.view() for each in failures],
            connections=[each.view(in_full=in_full) for each in shown],
            more=len(changed) - len(shown) or None,
        )

    def _kinds(self) -> list[Kind]:
        counts = Counter(
            tuple(sorted(f"{each.op} {each.path}" for each in member.changes))
            for member in self.changed
        )
        return [
            Kind(connections=count, changes=list(changes))
            for changes, count in counts.most_common(SHOWN_KINDS)
        ]

    def _message(self, changed: int, failed: int) -> str:
        total = len(self.members)
        if not changed and failed:
            others = " The others would stay as they are." if failed < total else ""
            return (
                f"Nothing was written. {failed} of {total} connections cannot be changed.{others}"
            )
        if not changed:
            return "The change would leave every connection as it is. Nothing was written."
        if failed and self.mode == "all_or_nothing":
            return (
                f"Nothing was written. {failed} of {total} connections cannot be "
                "changed, so all_or_nothing would be refused."
            )
        left_out = f" {failed} cannot be changed and would be left out." if failed else ""
        return (
            f"Nothing was written. To change exactly these {changed} connections, call again with "
            f"expected_version {self.version!r}.{left_out} Each is paused while its state is "
            "written, "
            + (
                "and until all are written and verified."
                if self.mode == "all_or_nothing"
                else "and resumed by itself."
            )
            + (" Then a sync of each is started." if self.then_sync else "")
        )


def calls_of(*, is_paused: bool, then_sync: bool) -> int:
    """The calls to Fivetran that one update takes."""
    return (_CALLS_IF_PAUSED if is_paused else _CALLS) + then_sync
