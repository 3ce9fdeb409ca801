"""Our errors as the protocol's errors, for every request except tool calls."""

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
    """The protocol's error. A missing or forbidden object is an invalid parameter (SEP-2164).

    Its data has our code, message, hint and details, and the `about` fields.
    """
    code = INVALID_PARAMS if isinstance(error, _ASKED_FOR_WRONGLY) else INTERNAL_ERROR
    return MCPError(code, f"{error.message} {error.hint}", state.plain(error.to_json() | about))
