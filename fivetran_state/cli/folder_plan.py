"""What a folder of edited states would change, and the version of that plan."""

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fivetran_state import state
from fivetran_state.cli.files import StateFile
from fivetran_state.cli.making import How
from fivetran_state.cli.shell import Shell
from fivetran_state.errors import Conflict, FivetranStateError

if TYPE_CHECKING:
    from fivetran_state.plan import Plan

READ_AT_ONCE = 8


@dataclass
class FolderPlan:
    """What each file of a folder asks for."""

    files: list[StateFile] = field(default_factory=list)
    """Those that would change their connection, in the order of `plans`."""
    plans: list["Plan"] = field(default_factory=list)
    unchanged: list[StateFile] = field(default_factory=list)
    """The connection has this state already."""
    moved: list[StateFile] = field(default_factory=list)
    """Nobody edited the file, and the connection's state has moved since the export."""
    drifted: list[tuple[StateFile, Conflict]] = field(default_factory=list)
    """The file was edited, and the connection's state has moved since the export."""
    failed: list[tuple[StateFile, FivetranStateError]] = field(default_factory=list)

    @property
    def version(self) -> str:
        """Equal for plans that make the same changes to the same versions of the same states."""
        lines = (
            f"{plan.connection.id} {plan.version_before} {plan.version_after}\n"
            for plan in self.plans
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]

    def summary(self) -> dict[str, Any]:
        return {
            "expected_version": self.version if self.plans else None,
            "planned": len(self.plans),
            "unchanged": len(self.unchanged),
            "moved": len(self.moved),
            "drifted": len(self.drifted),
            "failed": len(self.failed),
        }


ONLY_LOOK = How(allow_resync=True)


async def look(shell: Shell, found: list[StateFile], how: How = ONLY_LOOK) -> FolderPlan:
    """Compare each file with its connection's state now; nothing is written.

    A change that cannot be made as `how` asks is among those that have failed.
    """
    few = asyncio.Semaphore(READ_AT_ONCE)

    async def planned(file: StateFile) -> "Plan | FivetranStateError":
        asked = how if file.is_edited else ONLY_LOOK
        async with few:
            try:
                return await shell.service.plans.plan(
                    file.connection_id,
                    file.change,
                    expected_version=file.version,
                    then_sync=asked.then_sync,
                    allow_resync=asked.allow_resync,
                )
            except FivetranStateError as error:
                return error

    result = FolderPlan()
    for file, plan in zip(found, await asyncio.gather(*map(planned, found)), strict=True):
        if isinstance(plan, Conflict):
            _sort_moved(result, file, plan)
        elif isinstance(plan, FivetranStateError):
            result.failed.append((file, plan))
        elif plan.changes_total:
            result.files.append(file)
            result.plans.append(plan)
        else:
            result.unchanged.append(file)
    return result


def _sort_moved(result: FolderPlan, file: StateFile, conflict: Conflict) -> None:
    if conflict.details.get("current_version") == state.version(file.state):
        result.unchanged.append(file)
    elif file.is_edited:
        result.drifted.append((file, conflict))
    else:
        result.moved.append(file)
