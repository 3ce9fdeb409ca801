"""The database of updates: its location, and its errors without secrets."""

import ipaddress
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from fivetran_state import private
from fivetran_state.config import Settings
from fivetran_state.errors import DatabaseUnavailable, UnusableSettings

VARIABLE = "DBOS_SYSTEM_DATABASE_URL"

_REFUSALS = {
    "password authentication failed": f"it refuses the user or the password in {VARIABLE}",
    "no password supplied": f"it needs a password, and {VARIABLE} has none",
    "no pg_hba.conf entry": f"it does not accept this host with the user in {VARIABLE}",
    "certificate": f"a TLS certificate that {VARIABLE} asks for is missing or not trusted",
    "does not support SSL": f"it does not offer TLS, but sslmode in {VARIABLE} requires it",
    "role ": f"it does not accept the user in {VARIABLE}",
    "does not exist": f"the database that {VARIABLE} names does not exist and was not created",
    "resolve host": f"the host in {VARIABLE} is not known",
    "translate host": f"the host in {VARIABLE} is not known",
    "refused": f"nothing answers at the host and port in {VARIABLE}",
    "timeout": f"nothing answers at the host and port in {VARIABLE}",
    "invalid": f"a part of {VARIABLE} is malformed",
}
"""Reasons, by the driver's text while it connects. The text itself may show parts of the URL."""

_BY_SQLSTATE = {
    "25006": f"the server in {VARIABLE} is read-only",
    "42501": f"the user in {VARIABLE} may not create or use the tables",
    "53100": "its disk is full",
}


def path_of(settings: Settings) -> Path:
    """The SQLite file, for settings without a URL."""
    return settings.home / "state.db"


def where(settings: Settings) -> str:
    """The file, or the URL without its password."""
    if settings.database_url is None:
        return str(path_of(settings))
    return make_url(settings.database_url).render_as_string(hide_password=True)


def described(settings: Settings) -> str:
    """The file; or the database with its host and user, for people. Call it after `check_url`."""
    if settings.database_url is None:
        return str(path_of(settings))
    url = make_url(settings.database_url)
    host = url.host or url.query.get("host") or "the driver's default host"
    port = "" if url.port is None else f":{url.port}"
    user = "" if url.username is None else f", as {url.username}"
    return f"PostgreSQL database {url.database} at {host}{port}{user}"


def url_of(settings: Settings) -> str:
    """The URL for DBOS; creates the SQLite file. Raises `UnusableSettings`."""
    if settings.database_url is None:
        _create(path_of(settings))
        return sqlite_url(path_of(settings))
    return check_url(settings.database_url)


def check_url(given: str) -> str:
    """The URL of a PostgreSQL database as it was given; raises `UnusableSettings` for any other."""
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):  # The error's text may show the password.
        raise UnusableSettings(f"{VARIABLE} is not a URL.") from None
    if "@" in f"{url.host}{url.database}":
        # A part of the password would be taken for the host or the database, and shown.
        raise UnusableSettings(f"{VARIABLE} is not a URL: write %40 for an @ in the password.")
    dialect = url.get_backend_name()
    if dialect == "sqlite":
        raise UnusableSettings(
            f"{VARIABLE} is a SQLite URL. Remove it to use SQLite in the directory "
            "FIVETRAN_STATE_DATA_DIR."
        )
    if dialect not in ("postgresql", "postgres"):
        raise UnusableSettings(f"{VARIABLE} must begin with postgresql://.")
    if not url.database:
        raise UnusableSettings(
            f"{VARIABLE} does not name a database: postgresql://user@host/database."
        )
    return given


def libpq_url(given: str) -> str:
    """The URL in libpq's spelling. SQLAlchemy's names a driver too."""
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", given)


def sqlite_url(path: Path, **query: str) -> str:
    """The URL of a SQLite file, for SQLAlchemy."""
    # As a URI, because SQLAlchemy 2.0 and 2.1 read a plain path with ? or % in different ways.
    url = URL.create("sqlite", database=path.as_uri(), query={"uri": "true", **query})
    return url.render_as_string(hide_password=False)


def _create(path: Path) -> None:
    """Create a private file in WAL mode, which the file keeps."""
    # Only sealed values in it are trusted, so a copy of the file with other modes is fine.
    private.create(path, closed_to_others=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


@contextmanager
def answering() -> Iterator[None]:
    """Convert the database's errors inside to `DatabaseUnavailable`."""
    try:
        yield
    except SQLAlchemyError as error:
        raise unavailable(error) from None  # The error's text may show the database's URL.


def unavailable(error: Exception) -> DatabaseUnavailable:
    """The error for a caller, made from an error of SQLAlchemy or of a driver."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.Error):
        # SQLite's own messages quote no value.
        return DatabaseUnavailable(
            f"The database in FIVETRAN_STATE_DATA_DIR cannot be used: {cause}."
        )
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is None:
        said = str(cause)
        why = next((why for text, why in _REFUSALS.items() if text in said), None)
    else:
        why = _BY_SQLSTATE.get(sqlstate)
    return DatabaseUnavailable(f"The database cannot be used: {why or type(cause).__name__}.")


_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")


def driver_says(error: Exception, settings: Settings) -> str | None:
    """The driver's own words, for the operator; None if they cannot be shown without a secret.

    The driver quotes what it was given, and takes a malformed URL apart in other places than we do.
    So a quoted word is shown only if it is known to be no part of the password.
    """
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.Error) or settings.database_url is None:
        return None  # `unavailable` has its text.
    given = unquote(settings.database_url)
    if '"' in given or "'" in given:
        return None
    known = _known(settings.database_url)

    def kept(quoted: re.Match[str]) -> str:
        word = quoted[0][1:-1]
        return quoted[0] if word in known or _is_address(word) else '"…"'

    said = " ".join(str(cause).partition("Multiple connection attempts failed")[0].split())
    return _QUOTED.sub(kept, said)


def _known(given: str) -> set[str]:
    """The words of the URL that are no secret, and the names of its options."""
    from psycopg import pq  # Import it here, so that SQLite users do not pay for it.

    options = pq.Conninfo.get_defaults()
    shown = {option.keyword.decode() for option in options if option.dispchar != b"*"}
    try:
        url = make_url(check_url(given))
    except UnusableSettings:
        return shown
    values = {url.username, url.host, url.database, str(url.port)}
    values |= {str(value) for name, value in url.query.items() if name in shown}
    return {value for value in values | shown if value is not None} - {str(url.password)}


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True
