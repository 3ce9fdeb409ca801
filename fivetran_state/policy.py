"""Rules on who may change what, when, and with whose approval.

A change is judged value by value: of each value that it changes, the first rule that fits decides, and
the strictest of these answers counts. A value that no rule fits is judged as without a policy.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from fnmatch import fnmatchcase
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fivetran_state import cursors, state
from fivetran_state.access import APPROVE, SCOPES, WRITE, Principal
from fivetran_state.text import literal, quoted

MAX_NAME = 60
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MINUTES_A_DAY = 24 * 60
_WINDOW = re.compile(
    rf"(?P<first>{'|'.join(_DAYS)})(?:-(?P<last>{'|'.join(_DAYS)}))? "
    r"(?P<from>\d\d:\d\d)-(?P<to>\d\d:\d\d) (?P<zone>\S+)",
    re.ASCII,
)
_DURATION = re.compile(r"(?P<number>\d{1,6})(?P<unit>[mhd])", re.ASCII)
_UNITS = {"m": cursors.MINUTE, "h": cursors.HOUR, "d": cursors.DAY}
_PRINCIPAL = re.compile(r"(token|oauth|shell):.+|stdio|anonymous", re.DOTALL)

Tokens = tuple[str, ...]
"""The parts of a JSON Pointer."""


class Approval(str, Enum):
    """What a rule says of a change."""

    REQUIRED = "required"
    NOT_REQUIRED = "not required"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True)
class Window:
    """Times at which changes may be made, such as `Mon-Fri 08:00-18:00 Europe/Berlin`."""

    text: str
    days: frozenset[int]
    """On which it begins; 0 is Monday."""
    begin: int
    """Minutes since midnight, as is `end`, which may be on the next day."""
    end: int
    zone: ZoneInfo

    def is_open(self, now: datetime) -> bool:
        here = now.astimezone(self.zone)
        minute, today = here.hour * 60 + here.minute, here.weekday()
        if self.begin < self.end:
            return today in self.days and self.begin <= minute < self.end
        begins_today = today in self.days and minute >= self.begin
        return begins_today or ((today - 1) % 7 in self.days and minute < self.end)


def _window(text: object) -> Window:
    found = _WINDOW.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError('write days, times and zone: "Mon-Fri 08:00-18:00 Europe/Berlin"')
    begin, end = _minutes(found["from"]), _minutes(found["to"])
    if begin in (end, _MINUTES_A_DAY):
        raise ValueError('has no length; a whole day is "00:00-24:00"')
    try:
        zone = ZoneInfo(found["zone"])
    except (ValueError, OSError, KeyError):
        raise ValueError(
            f"{quoted(found['zone'])} is not a time zone; write one such as UTC or Europe/Berlin"
        ) from None
    first = _DAYS.index(found["first"])
    last = _DAYS.index(found["last"] or found["first"])
    days = frozenset((first + day) % 7 for day in range((last - first) % 7 + 1))
    return Window(found[0], days, begin, end, zone)


def _minutes(clock: str) -> int:
    hours, minutes = int(clock[:2]), int(clock[3:])
    total = hours * 60 + minutes
    if minutes > 59 or total > _MINUTES_A_DAY:
        raise ValueError(f"{clock} is not a time of day; write 00:00 to 24:00")
    return total


@dataclass(frozen=True)
class Duration:
    """A length of time, such as `2d`."""

    text: str
    milliseconds: int


def _duration(text: object) -> Duration:
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError('write minutes, hours or days: "90m", "12h" or "2d"')
    return Duration(found[0], int(found["number"]) * _UNITS[found["unit"]])


def _pointer(text: object) -> Tokens:
    if not isinstance(text, str) or not text.startswith("/") or re.search("~(?![01])", text):
        raise ValueError(
            'is not a JSON Pointer; begin it with / ("/orders"), and write ~ as ~0 and / in a key as ~1'
        )
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:])


def _glob(text: str) -> str:
    if not text.strip() or text != text.strip():
        raise ValueError('is empty, or has blanks around it; all are "*"')
    if "[" in re.sub(r"\[!?\]?[^]]+\]", "", text):
        raise ValueError("has a [ without its ]; a [ itself is [[]")
    return text


def _caller(text: str) -> str:
    if text not in (WRITE, APPROVE) and _PRINCIPAL.fullmatch(text) is None:
        raise ValueError(
            'is not a caller; write the scope "write" or "approve", "stdio", "anonymous", or a glob '
            'such as "token:ab12cd34", "oauth:alice" or "shell:*"'
        )
    return _glob(text)


Glob = Annotated[str, AfterValidator(_glob)]


class Rule(BaseModel):
    """One rule: what it fits, and what it says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=MAX_NAME)
    connections: tuple[Glob, ...] | None = None
    """Globs on ids and names."""
    groups: tuple[Glob, ...] | None = None
    """Globs on ids and names."""
    paths: tuple[Annotated[Tokens, PlainValidator(_pointer)], ...] | None = None
    who: tuple[Annotated[str, AfterValidator(_caller)], ...] | None = None
    """The highest scope of a caller, or a glob on the name of the principal."""

    approval: Approval | None = None
    max_back: Annotated[Duration, PlainValidator(_duration)] | None = None
    """How far a time may go back without approval."""
    max_back_number: int | None = Field(None, ge=0, strict=True)
    """The same for numbers that are not times."""
    windows: tuple[Annotated[Window, PlainValidator(_window)], ...] | None = None
    """When changes may be made."""

    @field_validator("connections", "groups", "paths", "who", "windows")
    @classmethod
    def _refuse_empty(cls, value: tuple[object, ...] | None) -> tuple[object, ...] | None:
        if value == ():
            raise ValueError("is empty; leave it out if it does not matter")
        return value

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> "Rule":
        limits = [key for key in ("max_back", "max_back_number") if getattr(self, key) is not None]
        if self.approval is Approval.FORBIDDEN and self.windows is not None:
            raise _wrong("windows", 'contradicts approval = "forbidden"; remove one of them')
        if limits and self.approval in (Approval.FORBIDDEN, Approval.REQUIRED):
            raise _wrong(
                limits[0], f'contradicts approval = "{self.approval.value}"; remove one of them'
            )
        if self.approval is None and self.windows is None and not limits:
            raise _wrong(
                "name",
                "this rule says nothing; add approval, max_back, max_back_number or windows",
            )
        return self

    def fits(self, connection: "Judged", caller: Principal) -> bool:
        """True if it is about this connection and this caller. Raises `NameUnknown`."""
        if self.connections is not None and not _any(
            self.connections, connection.id, connection.name
        ):
            return False
        if self.who is not None and not _is_named(self.who, caller):
            return False
        if self.groups is None or _any(self.groups, connection.group_id):
            return True
        if connection.group_name is None:
            raise NameUnknown(self.name)
        return _any(self.groups, connection.group_name)

    def covers(self, path: Tokens) -> bool:
        """True if it is about the value at this path."""
        return self.paths is None or any(path[: len(each)] == each for each in self.paths)

    def is_open(self, now: datetime) -> bool:
        """True if it lets a change be made now."""
        return self.windows is None or any(each.is_open(now) for each in self.windows)

    def objection(self, value: "_Value", caller: Principal) -> str | None:
        """Why this value needs approval by this rule: the end of a sentence."""
        if self.who is None and APPROVE in caller.scopes:
            return None  # Whoever may approve need not ask, unless a rule names them.
        if self.approval is Approval.REQUIRED:
            return f"to change {value.shown}"
        if self.max_back is None and self.max_back_number is None:
            return None
        too_far = self._too_far(value)
        return None if too_far is None else f"because {value.shown} {too_far}"

    def _too_far(self, value: "_Value") -> str | None:
        if value.before is _NOTHING or value.before is None:
            return None
        if value.after is _NOTHING or value.after is None:
            return "is removed"
        kinds = []
        if self.max_back is not None:
            kinds.append("time")
            old, new = cursors.time_of(value.before), cursors.time_of(value.after)
            if old is not None and new is not None and old.form == new.form:
                is_too_far = old.at - new.at > self.max_back.milliseconds
                return f"goes back by more than {self.max_back.text}" if is_too_far else None
        if self.max_back_number is not None:
            kinds.append("number")
            before, after = cursors.number_of(value.before), cursors.number_of(value.after)
            if before is not None and after is not None:
                is_too_far = before - after > self.max_back_number
                return f"goes back by more than {self.max_back_number}" if is_too_far else None
        return f"is not a {' or a '.join(kinds)} before and after"


def _wrong(key: str, message: str) -> PydanticCustomError:
    """An error in a rule whose line is that of the key."""
    return PydanticCustomError("contradiction", message, {"key": key})


class NameUnknown(Exception):
    """A rule needs the name of a group that is not known."""

    def __init__(self, rule: str) -> None:
        super().__init__(f'the rule "{literal(rule)}" needs the name of the group')


@dataclass(frozen=True)
class Judged:
    """A connection, as the rules see it."""

    id: str
    name: str
    group_id: str
    group_name: str | None
    """None if it is not known."""


@dataclass(frozen=True)
class Ruling:
    """What the policy says of one change by one caller. Each sentence names the rule."""

    needs_approval: bool = False
    approval: str | None = None
    """Why, if a rule asks for it."""
    forbidden: str | None = None
    closed: str | None = None
    """Why it may not be made now; it may be proposed."""

    @property
    def sentences(self) -> list[str]:
        """What the plan says of it."""
        if self.forbidden is not None:
            return [self.forbidden]
        return [each for each in (self.approval, self.closed) if each is not None]

    @property
    def refusal(self) -> str | None:
        """Why it may not be made now, even with approval."""
        return self.forbidden or self.closed

    def and_also(self, other: "Ruling") -> "Ruling":
        """The ruling where both count."""
        return Ruling(
            self.needs_approval or other.needs_approval,
            self.approval or other.approval,
            self.forbidden or other.forbidden,
            self.closed or other.closed,
        )


NO_RULING = Ruling()
"""Where no rule says anything."""


class Policy(BaseModel):
    """The rules, in their order. Without any, everything is as without a policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _refuse_equal_names(self) -> "Policy":
        for at, each in enumerate(self.rule):
            if any(each.name == other.name for other in self.rule[:at]):
                raise PydanticCustomError(
                    "equal_names",
                    "an earlier rule has this name; write another one",
                    {"key": "name", "rule": at},
                )
        return self

    @property
    def waives(self) -> bool:
        """True if a rule lets changes be made without approval that would need it otherwise."""
        return any(each.approval is Approval.NOT_REQUIRED for each in self.rule)

    def judge(
        self,
        connection: Judged,
        before: state.Document,
        after: state.Document,
        caller: Principal,
        now: datetime,
        *,
        otherwise: bool = False,
    ) -> Ruling:
        """What the rules say of changing the one state to the other.

        `otherwise`: whether this caller's changes need approval where no rule says. Raises `NameUnknown`.
        """
        rules = [each for each in self.rule if each.fits(connection, caller)]
        if not rules:
            return Ruling(needs_approval=otherwise)
        needs_approval = False
        approval = forbidden = closed = None
        for value in _changed(before, after, ()):
            rule = next((each for each in rules if each.covers(value.path)), None)
            if rule is None:
                needs_approval |= otherwise
                continue
            name = f'"{literal(rule.name)}"'
            if rule.approval is Approval.FORBIDDEN:
                forbidden = f"The rule {name} forbids to change {value.shown}."
                break
            if closed is None and not rule.is_open(now):
                windows = " or ".join(each.text for each in rule.windows or ())
                closed = f"The rule {name} lets {value.shown} be changed only at {windows}."
            why = rule.objection(value, caller)
            if why is not None:
                needs_approval = True
                approval = approval or f"The rule {name} asks for approval {why}."
            elif rule.approval is None:
                needs_approval |= otherwise
        return Ruling(needs_approval, approval, forbidden, closed)


def _any(globs: Sequence[str], *names: str) -> bool:
    return any(fnmatchcase(name.lower(), glob.lower()) for glob in globs for name in names)


def _is_named(who: Sequence[str], caller: Principal) -> bool:
    highest = max(caller.scopes, key=lambda scope: SCOPES.index(scope), default=None)
    return any(
        each == highest if each in SCOPES else fnmatchcase(caller.name, each) for each in who
    )


class _Nothing:
    """Where there is no value."""


_NOTHING = _Nothing()


@dataclass(frozen=True)
class _Value:
    """A value that is changed; an object or array only if it is empty."""

    path: Tokens
    before: Any
    after: Any

    @property
    def shown(self) -> str:
        tokens = (token.replace("~", "~0").replace("/", "~1") for token in self.path)
        pointer = "".join(f"/{token}" for token in tokens)
        return quoted(state.shown_path(pointer)) if pointer else "the whole state"


def _changed(before: Any, after: Any, path: Tokens) -> Iterator[_Value]:
    """Every value that differs, down to the innermost ones.

    So a rule about a part sees every change of it, also when the whole around it is replaced.
    """
    if isinstance(before, dict | list) and type(before) is type(after):
        old, new = _members(before), _members(after)
        for key in {**old, **new}:
            yield from _changed(old.get(key, _NOTHING), new.get(key, _NOTHING), (*path, key))
    elif _members(before) or _members(after):
        yield from _each(before, path, is_old=True)
        yield from _each(after, path, is_old=False)
    elif before is _NOTHING or after is _NOTHING or not state.same(before, after):
        yield _Value(path, before, after)


def _each(value: Any, path: Tokens, *, is_old: bool) -> Iterator[_Value]:
    """Every innermost value of what is removed, or added."""
    members = _members(value)
    for key, inner in members.items():
        yield from _each(inner, (*path, key), is_old=is_old)
    if not members and value is not _NOTHING:
        yield _Value(path, *((value, _NOTHING) if is_old else (_NOTHING, value)))


def _members(value: Any) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    return {str(at): each for at, each in enumerate(value)} if isinstance(value, list) else {}
