"""How a member of a group has ended."""

from typing_extensions import TypedDict

from fivetran_state.errors import FivetranStateError


class End(TypedDict):
    """How a member of a group has ended."""

    connection_id: str
    workflow_id: str | None
    """None if it was not started."""
    how: str
    """`updated`, `unchanged`, or the code of its error."""
    message: str | None
    """Of the error."""


def failed(connection_id: str, workflow_id: str | None, error: FivetranStateError) -> End:
    """The end of a member that failed, or was not even started."""
    return End(
        connection_id=connection_id,
        workflow_id=workflow_id,
        how=error.code,
        message=error.message,
    )


def error_of(end: End) -> FivetranStateError | None:
    """Its error, without details."""
    if end["message"] is None:
        return None
    return FivetranStateError.from_json({"code": end["how"], "message": end["message"]})
