"""Who may approve what others have proposed."""

from fivetran_state.access import APPROVE
from fivetran_state.config import Settings
from fivetran_state.tokens import Token, TokenFile

_FROM_FILE = "token:"


class Approvers:
    """Looks into the token file. It raises `AuthenticationUnavailable` if that cannot be read."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = TokenFile(settings)

    def may_approve(self, name: str) -> bool:
        """True if this principal has the scope `approve` now; only tokens of the file can lose it.

        True also in a process without that file: the one that took the decision has looked.
        """
        if not name.startswith(_FROM_FILE) or not self._tokens.exists():
            return True
        token = self._token(name)
        return token is not None and not token.has_expired and token.scope == APPROVE

    def token_name(self, name: str) -> str | None:
        """The name that this principal's token was made with; None without a token or a name."""
        token = self._token(name)
        return None if token is None else token.name

    def _token(self, name: str) -> Token | None:
        if not name.startswith(_FROM_FILE):
            return None
        return self._tokens.tokens().get(name.removeprefix(_FROM_FILE))
