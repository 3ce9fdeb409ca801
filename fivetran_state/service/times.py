"""Times from callers."""

from datetime import timezone

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from fivetran_state.errors import InvalidRequest
from fivetran_state.text import shown

_parse_time = TypeAdapter(AwareDatetime).validate_python


def milliseconds(time: str, what: str) -> int:
    """A time with its zone, in milliseconds since the epoch; `what` names the argument."""
    try:
        return int(_parse_time(time).astimezone(timezone.utc).timestamp() * 1000)
    except (ValidationError, OverflowError):  # Its zone may lead out of the years 1 to 9999.
        raise InvalidRequest(
            f"{what} '{shown(time)}' is not a time with a zone, such as 2026-11-24T08:00Z."
        ) from None
