"""The types of a state: exact JSON values, and the errors of documents and changes."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any, TypeAlias


class InvalidState(ValueError):
    """A document is refused: it is not JSON, not an object, or beyond the limits.

    `problem` says what is wrong; the message also says how to fix it.
    """

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(f"{problem}; {advice}" if advice else problem)
        self.problem = problem


class InvalidChange(ValueError):
    """A change is malformed, does not fit the state, or would leave an invalid one."""


JsonValue: TypeAlias = dict[str, Any] | list[Any] | str | int | Decimal | bool | None
State: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class RawDocument:
    """The exact JSON text that Fivetran keeps as the state, if it is not a usable state.

    `problem` is a sentence fragment: "it is an array, not an object".
    """

    text: str
    problem: str


Document: TypeAlias = State | RawDocument
"""A value that Fivetran keeps as the state of a connection."""

KeyPath: TypeAlias = tuple[str | int, ...]
"""The keys and indexes on the way to a value. It becomes a pointer only when it is shown: below a key
of megabytes, pointers would take gigabytes."""


def members_of(value: JsonValue) -> Iterable[tuple[str | int, Any]]:
    """The keys or indexes and the values of an object or array; nothing of any other value."""
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def count_values(value: JsonValue, limit: int) -> int:
    """The number of values, nested ones included; counting stops at `limit` + 1."""
    found, level = 0, [value]
    while level:
        found += len(level)
        members = (member for parent in level for _, member in members_of(parent))
        level = list(islice(members, limit + 1 - found))
    return found


def has_more_values(value: JsonValue, limit: int) -> bool:
    """True if these are more values than `limit`, nested ones included; stops counting there."""
    return count_values(value, limit) > limit


def copied(value: JsonValue) -> Any:
    """A deep copy. `copy.deepcopy` also looks for values that occur twice, which JSON does not know."""
    if isinstance(value, dict):
        return {key: copied(member) for key, member in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def type_of(value: JsonValue) -> str:
    """JSON's name of the type: "object", "null"."""
    if value is None:
        return "null"
    names = {dict: "object", list: "array", str: "string", bool: "boolean"}
    return names.get(type(value), "number")


def with_article(value: JsonValue) -> str:
    """The type for a sentence: "an object", "null"."""
    name = type_of(value)
    return name if name == "null" else f"{'an' if name in ('object', 'array') else 'a'} {name}"
