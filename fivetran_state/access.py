"""Who calls, with which scopes, and the one place that checks them.

A tool without `read_only_hint` writes, as does a REST route with `requires(WRITE)`; a plan
(`dry_run`) reads.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from fivetran_state.errors import InsufficientScope

Scope = Literal["read", "write", "approve"]

READ: Scope = "read"
WRITE: Scope = "write"
APPROVE: Scope = "approve"
SCOPES: tuple[Scope, ...] = (READ, WRITE, APPROVE)
"""Each includes those before it."""
WITHOUT_TOKEN: tuple[Scope, ...] = (READ, WRITE)
"""What a caller may do who needs no token: nobody can tell who that is, so not approve."""


def scopes_of(granted: Collection[str]) -> list[str]:
    """A token's scopes as ours, with those that they include."""
    highest = max((SCOPES.index(each) for each in SCOPES if each in granted), default=-1)
    return list(SCOPES[: highest + 1])


def demand(wanted: Scope, held: Collection[str], what: str) -> None:
    """Raises `InsufficientScope` unless `wanted` is among the caller's scopes."""
    if wanted not in held:
        raise InsufficientScope(
            f"{what} needs a token with the scope {wanted}.", required_scope=wanted
        )


@dataclass(frozen=True)
class Principal:
    """Who calls, as it is recorded with what they ask for."""

    name: str
    """`token:<id>`, `oauth:<subject>`, `shell:<user>`, `stdio`, or `anonymous`."""
    scopes: Collection[str]


_ON_STDIO = Principal("stdio", WITHOUT_TOKEN)
_principal: ContextVar[Principal] = ContextVar("principal", default=_ON_STDIO)


def principal() -> Principal:
    """The caller that this task works for."""
    return _principal.get()


@contextmanager
def working_for(caller: Principal) -> Iterator[None]:
    """Work for this caller inside; whoever lets a caller in says so."""
    before = _principal.set(caller)
    try:
        yield
    finally:
        _principal.reset(before)
