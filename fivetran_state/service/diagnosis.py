"""What `fivetran-state doctor` finds: each cause once, and each update that has not ended.

It starts no engine, so it neither creates tables nor takes over the updates of dead processes.
"""

import asyncio
import platform
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata

from sqlalchemy.exc import SQLAlchemyError

from fivetran_state import __version__, database, vault
from fivetran_state.config import Settings
from fivetran_state.errors import (
    AuthenticationUnavailable,
    DatabaseUnavailable,
    FivetranStateError,
    FivetranUnavailable,
    UnusableSettings,
)
from fivetran_state.runtime import accounts, survey
from fivetran_state.runtime.accounts import Accounts, Own
from fivetran_state.runtime.storage import unusable_directory
from fivetran_state.runtime.survey import Survey
from fivetran_state.service.unfinished import Finding, Unfinished
from fivetran_state.tokens import TokenFile

ANSWER_TIME = 30.0
"""Seconds that Fivetran gets to answer, with all tries."""


class Doctor:
    """Makes one report. It needs neither the engine nor its database to be usable."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._findings = [Finding("versions", True, _versions())]

    async def examine(self) -> list[Finding]:
        """The findings, in the order in which a start meets their causes."""
        has_directory = await self._tell("data directory", lambda: survey.directory(self._settings))
        tables = await self._tables(has_directory)
        own, account_id = await self._fivetran()
        try:
            await self._key_and_updates(tables, own, account_id)
        finally:
            if own is not None:
                await own.aclose()
        return self._findings

    async def _tell(self, what: str, look: Callable[[], str]) -> bool:
        """Add what the look finds; false if that is an error."""
        try:
            detail = await asyncio.to_thread(look)
        except FivetranStateError as error:
            self._add_error(what, error)
            return False
        self._findings.append(Finding(what, True, detail))
        return True

    def _add_error(self, what: str, error: FivetranStateError, reason: str | None = None) -> None:
        """`reason`: the driver's own words."""
        names_what_to_do = isinstance(error, DatabaseUnavailable | UnusableSettings)
        said = "" if reason is None else f" The driver says: {reason}"
        next_ = None if names_what_to_do else error.hint
        self._findings.append(Finding(what, False, f"{error.message}{said}", next_))

    def _add_unknown(self, what: str, reason: str) -> None:
        self._findings.append(Finding(what, None, reason))

    async def _tables(self, has_directory: bool) -> survey.Tables | None:
        """What is known of the database; None if it cannot be used."""
        what, settings = "database", self._settings
        if settings.database_url is None and not has_directory:
            self._add_unknown(what, "not looked at, because it is in the data directory")
            return None
        try:
            found = await asyncio.to_thread(survey.tables, settings)
        except FivetranStateError as error:
            self._add_error(what, error)
            return None
        except Exception as error:
            if not _is_of_driver(error):
                raise
            reason = database.driver_says(error, settings)
            self._add_error(what, database.unavailable(error), reason)
            return None
        self._findings.append(Finding(what, True, found.detail))
        return found

    async def _fivetran(self) -> tuple[Own | None, str | None]:
        """The access to Fivetran and the account's id, as far as they are known."""
        what, settings, own = "Fivetran", self._settings, None
        answers = True
        try:
            own = accounts.connect(settings)
            detail = await asyncio.wait_for(_connections(own), ANSWER_TIME)
            self._findings.append(Finding(what, True, detail))
        except asyncio.TimeoutError:
            answers = False
            told = FivetranUnavailable(f"Fivetran did not answer within {ANSWER_TIME:g} s.")
            self._add_error(what, told)
        except FivetranStateError as error:
            answers = not isinstance(error, FivetranUnavailable)
            self._add_error(what, error, _reason(error))
        except OSError as error:  # Of the sandbox's own file.
            self._add_error(what, unusable_directory(settings, error))
        if own is not None:
            with suppress(FivetranStateError, asyncio.TimeoutError):
                asking = accounts.known_id(settings, own.fivetran, may_ask=answers)
                return own, await asyncio.wait_for(asking, ANSWER_TIME)
        return own, None

    async def _key_and_updates(
        self, tables: survey.Tables | None, own: Own | None, account_id: str | None
    ) -> None:
        keys = await self._keys()
        if keys is not None and tables and tables.are_current and own and account_id:
            await self._look_into(own, account_id, keys)
            return
        if keys is not None:
            self._findings.append(Finding("key", True, self._where_key_is(keys)))
        await self._tokens()
        if tables is not None and not tables.exist:
            self._findings.append(Finding("updates", True, "0 running, there are no tables yet"))
            return
        missing = (
            "the database cannot be used"
            if tables is None
            else "the next start of a server has to bring the tables up to date first"
            if not tables.are_current
            else "the key cannot be used"
            if keys is None
            else "it is not known which account the API key belongs to"
        )
        self._add_unknown("updates", f"not looked at, because {missing}")

    async def _keys(self) -> list[bytes] | None:
        """The keys; None if they cannot be used."""
        try:
            return await asyncio.to_thread(vault.keys, self._settings)
        except FivetranStateError as error:
            self._add_error("key", error)
        except OSError as error:
            self._add_error("key", unusable_directory(self._settings, error))
        return None

    def _where_key_is(self, keys: list[bytes]) -> str:
        if self._settings.secret_key is not None:
            return "FIVETRAN_STATE_SECRET_KEY"
        path = self._settings.home / vault.KEY_FILE
        return str(path) if keys else f"{path}; it does not exist yet, the first start makes it"

    async def _look_into(self, own: Own, account_id: str, keys: list[bytes]) -> None:
        application = f"fivetran-state-{accounts.safe(account_id)}"
        try:
            found = await asyncio.to_thread(Survey, self._settings, application, keys)
        except Exception as error:
            if not _is_of_driver(error):
                raise
            self._add_error("updates", database.unavailable(error))
            return
        clients = Accounts(self._settings, own, account_id, found.texts, lambda _: False)
        try:
            has_key = await self._tell("key", lambda: self._checked_key(found, keys))
            await self._tokens()
            if has_key:
                self._findings += await Unfinished(self._settings, found, clients).findings()
            else:
                self._add_unknown("updates", "not looked at, because the key cannot open them")
        except DatabaseUnavailable as error:
            self._add_error("updates", error)
        finally:
            await clients.aclose()
            await asyncio.to_thread(found.close)

    def _checked_key(self, found: Survey, keys: list[bytes]) -> str:
        found.canary.check()
        return f"{self._where_key_is(keys)}; it opens what the database holds"

    async def _tokens(self) -> None:
        file = TokenFile(self._settings)
        if not await asyncio.to_thread(file.exists):
            return
        what = "tokens"
        try:
            tokens = (await asyncio.to_thread(file.tokens)).values()
        except AuthenticationUnavailable as error:
            self._findings.append(Finding(what, False, f"{file.path}: {error.message}", error.hint))
            return
        valid = [token for token in tokens if not token.has_expired]
        detail = f"{file.path}: {len(valid)} valid, {len(tokens) - len(valid)} expired"
        if valid:
            self._findings.append(Finding(what, True, detail))
            return
        self._findings.append(
            Finding(
                what,
                False,
                f"{detail}. While the file exists, the HTTP server refuses who has no token.",
                "Create one (fivetran-state token create), or delete the file.",
            )
        )


async def _connections(own: Own) -> str:
    if own.fivetran is None:
        return "no account of the server's own; requests bring theirs"
    connections, cursor = await own.fivetran.list_connections(limit=1000)
    keeping = sum(connection.keeps_state for connection in connections)
    more = " or more" if cursor else ""
    return f"{len(connections)}{more} connections, {keeping} of which keep a state"


def _reason(error: FivetranStateError) -> str | None:
    """The words of the network's first error. None of them quotes credentials, which are in a header."""
    said, cause = None, error.__cause__ if isinstance(error, FivetranUnavailable) else None
    while cause is not None:
        said = str(cause) or said
        cause = cause.__cause__ or cause.__context__
    return said


def _is_of_driver(error: Exception) -> bool:
    import psycopg  # Import it here: it takes long, and only an error needs it.

    return isinstance(error, SQLAlchemyError | sqlite3.Error | psycopg.Error)


def _versions() -> str:
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("dbos", "mcp", "httpx"))
    return f"fivetran-state {__version__}, {packages}, Python {platform.python_version()}"
