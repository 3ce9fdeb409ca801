"""The two scopes of a caller, and the one place that checks them.

A tool without `read_only_hint` writes, as does a REST route with `requires(WRITE)`; a plan
(`dry_run`) reads.
"""

from collections.abc import Collection
from typing import Literal

from fivetran_state.errors import InsufficientScope

Scope = Literal["read", "write"]

READ: Scope = "read"
WRITE: Scope = "write"
EVERYTHING: tuple[Scope, ...] = (READ, WRITE)


def scopes_of(granted: Collection[str]) -> list[str]:
    """A token's scopes as ours; write includes read."""
    return list(EVERYTHING) if WRITE in granted else [READ] if READ in granted else []


def demand(wanted: Scope, held: Collection[str], what: str) -> None:
    """Raises `InsufficientScope` unless `wanted` is among the caller's scopes."""
    if wanted not in held:
        raise InsufficientScope(
            f"{what} needs a token with the scope {wanted}.", required_scope=wanted
        )
