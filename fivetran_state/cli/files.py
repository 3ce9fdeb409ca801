"""Exported states: one JSON file for each connection, with its version."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fivetran_state import changes, private, state
from fivetran_state.errors import InvalidRequest
from fivetran_state.ids import is_connection_id
from fivetran_state.text import shown

_MEMBERS = ("connection_id", "version", "state")


@dataclass(frozen=True)
class StateFile:
    """What one file holds."""

    connection_id: str
    version: str
    """Of the state that was exported, before anybody edited the file."""
    state: state.State

    @property
    def is_edited(self) -> bool:
        return state.version(self.state) != self.version

    @property
    def change(self) -> changes.Change:
        return changes.Inline(state.Change("new_state", self.state))


def path_of(folder: Path, connection_id: str) -> Path:
    return folder / f"{connection_id}.json"


def write(folder: Path, exported: StateFile) -> None:
    """Write the file, whole or not at all; nobody else may read it."""
    members = {name: getattr(exported, name) for name in _MEMBERS}
    path = path_of(folder, exported.connection_id)
    private.write(path, state.indented(members) + "\n")


def mark_applied(folder: Path, applied: StateFile) -> None:
    """Give the file the version of the state in it, unless it was edited once more meanwhile."""
    with suppress(InvalidRequest, OSError):
        now = read(path_of(folder, applied.connection_id))
        if now.version == applied.version and state.same(now.state, applied.state):
            write(folder, replace(applied, version=state.version(applied.state)))


def read(path: Path) -> StateFile:
    """Read a file; raises `InvalidRequest`, which names it."""
    try:
        members = state.parse_envelope(path.read_bytes())
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error
    except state.InvalidState as error:
        raise InvalidRequest(f"{path}: {error}") from error
    if tuple(sorted(members)) != tuple(sorted(_MEMBERS)):
        raise InvalidRequest(f"{path}: its members have to be exactly {', '.join(_MEMBERS)}.")
    connection_id, version, found = (members[name] for name in _MEMBERS)
    if not isinstance(connection_id, str) or not is_connection_id(connection_id):
        raise InvalidRequest(f"{path}: connection_id is not a connection's id.")
    if path.name != f"{connection_id}.json":
        raise InvalidRequest(
            f"{path}: its connection_id is {shown(connection_id)}, so its name has to be "
            f"{shown(connection_id)}.json."
        )
    if not isinstance(version, str) or not state.is_version(version):
        raise InvalidRequest(f"{path}: version is not a version, which has 32 hexadecimal digits.")
    if isinstance(found, state.RawDocument):
        raise InvalidRequest(f"{path}: the state cannot be used: {found.problem}.")
    if not isinstance(found, dict):
        raise InvalidRequest(f"{path}: a state is a JSON object.")
    return StateFile(connection_id, version, found)


def read_all(folder: Path) -> list[StateFile]:
    """Every *.json file of the folder, by name; raises `InvalidRequest`, also if there is none."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".json")
    except OSError as error:
        raise InvalidRequest(f"{folder} cannot be read: {error.strerror}.") from error
    if not paths:
        raise InvalidRequest(f"{folder} has no exported state (*.json).")
    return [read(path) for path in paths]
