"""Fivetran accounts: this process's own, and those of guests, whose requests bring credentials."""

import asyncio
import hashlib
import logging
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from fivetran_state import network, private
from fivetran_state.config import Settings
from fivetran_state.errors import (
    FivetranError,
    FivetranStateError,
    Forbidden,
    MissingCredentials,
)
from fivetran_state.events import Events
from fivetran_state.fivetran import MAX_IDLE, Fivetran
from fivetran_state.updates.records import UpdateRequest
from fivetran_state.vault import Texts

if TYPE_CHECKING:
    from fivetran_state.sandbox import Sandbox

logger = logging.getLogger(__name__)

GUESTS = "guests"
"""Stands for the account of a server without its own credentials."""
REMEMBERED_GUESTS = 100
GUEST_MAX_IDLE = 1
"""Idle connections of one guest's client: many guests together must leave descriptors to others."""
GUEST_INTERVAL = 300.0
"""Seconds after which Fivetran is asked again for the account of a guest's credentials."""
ASK_AGAIN = 5.0


@dataclass(frozen=True)
class Account:
    """A Fivetran account: this server's own, or a guest's."""

    fivetran: Fivetran
    id: str | None = None
    """The guest's, if it is not this server's own account."""
    credentials: str | None = None
    """The guest's, sealed."""

    def in_request(self) -> dict[str, str]:
        """The request fields that name the account; empty for our own."""
        fields = {"account": self.id, "credentials": self.credentials}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class Own:
    """This process's own access to Fivetran."""

    fivetran: Fivetran | None
    """None for a server that serves guests alone."""
    sandbox: "Sandbox | None" = None

    async def aclose(self) -> None:
        if self.fivetran is not None:
            await self.fivetran.aclose()
        if self.sandbox is not None:
            self.sandbox.close()


def client(
    settings: Settings, events: Events, key: str, secret: str, *, max_idle: int = MAX_IDLE
) -> Fivetran:
    return Fivetran(
        settings.api_url,
        key,
        secret,
        timeout=settings.http_timeout,
        max_idle=max_idle,
        on_answer=events.called,
    )


def connect(settings: Settings, events: Events) -> Own:
    """Make the client of this process's own account; raises `MissingCredentials`."""
    if settings.sandbox:
        from fivetran_state.sandbox import Sandbox  # Only the sandbox needs this import.

        private.make_directories(settings.data_dir, settings.home)
        sandbox = Sandbox(settings.home / "world.db")
        transport = httpx.ASGITransport(sandbox.app)
        fivetran = Fivetran(
            "http://sandbox",
            "sandbox",
            "sandbox",
            transport=transport,
            on_answer=events.called,
        )
        return Own(fivetran, sandbox)
    if settings.api_key is not None and settings.api_secret is not None:
        return Own(
            client(settings, events, settings.api_key, settings.api_secret.get_secret_value())
        )
    if settings.takes_guests:
        network.check(settings.api_url)  # Now, rather than within a guest's update.
        return Own(None)
    raise no_credentials()


async def own_id(
    settings: Settings, fivetran: Fivetran | None, tell: Callable[[FivetranStateError], None]
) -> str:
    """Fivetran's own account id, remembered so that a start without Fivetran works.

    A key that may not ask stands for an account of its own. Until Fivetran has told either, `tell` is
    called with the reason.
    """
    if fivetran is None:
        return GUESTS
    if settings.sandbox:
        return "sandbox"
    fingerprint = settings.key_fingerprint
    remembered = settings.home / "accounts" / fingerprint
    with suppress(FileNotFoundError):
        return private.read(remembered).decode()
    while True:
        try:
            account = await fivetran.get_account_id()
            break
        except FivetranError as error:
            if _may_not_ask(error):
                logger.warning("Fivetran does not tell the account: %s", error)
                return _stand_in(fingerprint)
            why = "Fivetran has to be asked once which account the API key belongs to: "
            tell(type(error)(why + error.message, **error.details))
            await asyncio.sleep(ASK_AGAIN)
    private.make_directories(settings.data_dir, settings.home)
    remembered.parent.mkdir(mode=0o700, exist_ok=True)
    private.write(remembered, account)
    return account


async def known_id(settings: Settings, fivetran: Fivetran | None, *, may_ask: bool) -> str | None:
    """Like `own_id`, but asks at most once, and writes nothing down. None if it may not ask.

    Raises the error of Fivetran's look-up.
    """
    if fivetran is None:
        return GUESTS
    if settings.sandbox:
        return "sandbox"
    fingerprint = settings.key_fingerprint
    with suppress(OSError):
        return private.read(settings.home / "accounts" / fingerprint).decode()
    if not may_ask:
        return None
    try:
        return await fivetran.get_account_id()
    except FivetranError as error:
        if _may_not_ask(error):
            return _stand_in(fingerprint)
        raise


class Accounts:
    """The clients of this process's own account and of its guests'."""

    def __init__(
        self,
        settings: Settings,
        events: Events,
        own: Own,
        own_id: str,
        texts: Texts,
        is_refused: Callable[[str], bool],
    ) -> None:
        """`is_refused` tells whether Fivetran has refused the credentials of this update."""
        self._settings = settings
        self._events = events
        self._own = own
        self._own_id = own_id
        self._texts = texts
        self._is_refused = is_refused
        self._guests: OrderedDict[tuple[str, str], tuple[Account, float]] = OrderedDict()

    def own(self) -> Account:
        """This process's own account; raises `MissingCredentials`."""
        if self._own.fivetran is None:
            raise no_credentials()
        return Account(self._own.fivetran)

    async def guest(self, key: str, secret: str) -> Account:
        """The account of the credentials in a request; the sandbox takes any credentials.

        Raises `Unauthorized`, or the error of Fivetran's look-up.
        """
        if self._own.sandbox is not None:
            return self.own()
        known, asked_at = self._guests.get((key, secret), (None, 0.0))
        if known is not None and time.monotonic() < asked_at + GUEST_INTERVAL:
            self._guests.move_to_end((key, secret))
            return known
        fivetran = client(self._settings, self._events, key, secret, max_idle=GUEST_MAX_IDLE)
        try:
            account_id = await fivetran.get_account_id()
        except FivetranError as error:
            if not _may_not_ask(error):
                await fivetran.aclose()
                raise
            account_id = _stand_in(self._settings.fingerprint_of(key))
        guest = Account(
            fivetran,
            id=None if account_id == self._own_id else safe(account_id),
            credentials=self._texts.serialize({"key": key, "secret": secret}),
        )
        replaced = self._guests.pop((key, secret), None)
        self._guests[key, secret] = guest, time.monotonic()
        if replaced is None and len(self._guests) > REMEMBERED_GUESTS:
            _, replaced = self._guests.popitem(last=False)
        if replaced is not None:
            await replaced[0].fivetran.aclose()
        return guest

    @asynccontextmanager
    async def client_for(self, request: UpdateRequest, workflow_id: str) -> AsyncIterator[Fivetran]:
        """A client of the request's account, for as long as its update runs.

        If the credentials of a guest have been erased, or Fivetran has refused them for this update:
        with the newest ones the account came with. Raises `MissingCredentials` if there are none.
        """
        account, sealed = request.get("account"), request.get("credentials")
        if account is None and sealed is None:
            yield self.own().fivetran
            return
        newest = max(
            (each for each in self._guests.values() if each[0].id == account),
            key=lambda each: each[1],
            default=None,
        )
        is_unusable = sealed is None or self._is_refused(workflow_id)
        if is_unusable and newest is not None and newest[0].credentials is not None:
            sealed = newest[0].credentials
        if sealed is None:
            raise MissingCredentials("The credentials of this guest were erased after its update.")
        found = self._texts.deserialize(sealed)
        fivetran = client(
            self._settings, self._events, found["key"], found["secret"], max_idle=GUEST_MAX_IDLE
        )
        try:
            yield fivetran
        finally:
            await fivetran.aclose()

    async def aclose(self) -> None:
        """Close the guests' clients."""
        for guest, _ in self._guests.values():
            await guest.fivetran.aclose()


def safe(account: str) -> str:
    """The account id as a part of application names and ids.

    DBOS allows 3 to 256 of a-z, 0-9, - and _. Any other account id is replaced by its hash.
    """
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,127}", account) is None:
        return hashlib.sha256(account.encode()).hexdigest()[:16]
    return account


def no_credentials() -> MissingCredentials:
    return MissingCredentials("FIVETRAN_API_KEY and FIVETRAN_API_SECRET are not both set.")


def _may_not_ask(error: FivetranError) -> bool:
    """True if Fivetran itself says so. A proxy may refuse one process and answer the next, and then the two
    would not see each other's updates."""
    return isinstance(error, Forbidden) and error.details.get("fivetran_code") is not None


def _stand_in(fingerprint: str) -> str:
    """An account id for a key that may not read its account's id."""
    return f"key-{fingerprint}"
