"""Our errors as the protocol's, for everything that a client asks for and that is no tool."""

from typing import Any

from mcp import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS

from fivetran_state import state
from fivetran_state.errors import (
    ConnectionNotFound,
    FivetranStateError,
    InvalidRequest,
    NoStateYet,
    NotAllowed,
    StateNotKept,
    WorkflowNotFound,
)

_ASKED_FOR_WRONGLY = (
    ConnectionNotFound,
    InvalidRequest,
    NoStateYet,
    NotAllowed,
    StateNotKept,
    WorkflowNotFound,
)


def protocol_error(error: FivetranStateError, **about: Any) -> MCPError:
    """What there is not, or may not be touched, is an invalid parameter (SEP-2164).

    Its data is our code, message, hint and details, and what it is `about`.
    """
    code = INVALID_PARAMS if isinstance(error, _ASKED_FOR_WRONGLY) else INTERNAL_ERROR
    return MCPError(code, f"{error.message} {error.hint}", state.plain(error.to_json() | about))
