"""The ids that callers send, checked and taken apart before use."""

import re
from dataclasses import dataclass

from fivetran_state.errors import InvalidRequest
from fivetran_state.text import shown

_CONNECTION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_NUMBER = re.compile("[1-9][0-9]{0,17}")


def is_connection_id(text: str) -> bool:
    """True if the text can be a connection's id, so that URLs and workflow ids may contain it."""
    return _CONNECTION_ID.fullmatch(text) is not None


def is_update_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


@dataclass(frozen=True)
class UpdateId:
    """The workflow id of an update: its number, and its owner.

    The owner is the connection's id; for a guest, the account's id comes first.
    """

    owner: str
    number: int

    def __str__(self) -> str:
        return f"{self.owner}:{self.number}"

    @property
    def connection_id(self) -> str:
        return self.owner.rpartition("/")[2]

    @property
    def account(self) -> str | None:
        return self.owner.rpartition("/")[0] or None

    @classmethod
    def parse(cls, workflow_id: str) -> "UpdateId":
        """Raises `InvalidRequest`."""
        owner, _, number = workflow_id.rpartition(":")
        account, slash, connection_id = owner.rpartition("/")
        if (
            not is_connection_id(connection_id)
            or not is_update_number(number)
            or (slash and not is_connection_id(account))
        ):
            raise InvalidRequest(
                f"'{shown(workflow_id)}' is not a workflow_id: a connection id, a "
                "colon and a number, such as speak_inexpensive:1."
            )
        return cls(owner, int(number))
