"""The screens of `fivetran-state doctor` for set-ups that are broken, and for one that is at work."""

import gzip
import json
import os
import re
import resource
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.calls import API_SECRET, IDLE, ROOT, state_of
from tests.support.hand_over import start_update_that_waits_for_a_sync
from tests.support.postgres import KEY, PASSWORD, SECRET_KEY, URL, Postgres
from tests.support.shell import Ended, Shell
from tests.support.updates import SLOW
from tests.support.wire import raw_server

SECRETS = (API_SECRET, PASSWORD, SECRET_KEY)


class Screen:
    """What the doctor showed: it has no secret, and names each cause once."""

    def __init__(self, ended: Ended) -> None:
        for secret in SECRETS:
            assert secret not in ended.stdout + ended.stderr
        self.text = ended.stdout
        lines = [line for line in ended.stdout.splitlines() if not line.startswith(" ")]
        self.details = {line[5:].partition(": ")[0]: line[5:].partition(": ")[2] for line in lines}
        self.verdicts = {line[5:].partition(": ")[0]: line[:3].strip() for line in lines}
        assert len(lines) == len(self.details), ended.stdout
        assert ended.code == ("BAD" in self.verdicts.values())

    @property
    def bad(self) -> list[str]:
        return [what for what, verdict in self.verdicts.items() if verdict == "BAD"]

    @property
    def next(self) -> list[str]:
        """What it says to do."""
        return [line[7:] for line in self.text.splitlines() if line.startswith("     → ")]


@pytest.fixture
def look(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Screen]:
    def looked(**variables: str) -> Screen:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return Screen(shell("doctor"))

    return looked


Look = Callable[..., Screen]


def test_where_nothing_was_started_yet_nothing_is_wrong_and_nothing_is_made(
    look: Look, tmp_path: Path
) -> None:
    screen = look()

    assert list(screen.verdicts.items()) == [
        ("versions", "ok"),
        ("data directory", "ok"),
        ("database", "ok"),
        ("Fivetran", "ok"),
        ("key", "ok"),
        ("updates", "ok"),
    ]
    assert "the first start makes it" in screen.details["database"]
    assert not (tmp_path / "data").exists()


# PostgreSQL


def role_of(url: str, role: str) -> str:
    return url.replace("//postgres:", f"//{role}:")


@pytest.mark.parametrize(
    ("change", "reason", "driver"),
    [
        (
            lambda url: role_of(url, "guarded"),
            "it refuses the user or the password in DBOS_SYSTEM_DATABASE_URL",
            'password authentication failed for user "guarded"',
        ),
        (
            lambda url: role_of(url, "stranger"),
            "it does not accept the user in DBOS_SYSTEM_DATABASE_URL",
            'FATAL: role "stranger" does not exist',
        ),
        (
            lambda url: re.sub(r":\d+/", ":1/", url),
            "nothing answers at the host and port in DBOS_SYSTEM_DATABASE_URL",
            'connection to server at "127.0.0.1", port 1 failed: Connection refused',
        ),
        (
            lambda url: f"{url}?sslmode=require",
            "it does not offer TLS, but sslmode in DBOS_SYSTEM_DATABASE_URL requires it",
            "server does not support SSL, but SSL was required",
        ),
        (
            lambda url: f"{url}?sslmode=requre",
            "a part of DBOS_SYSTEM_DATABASE_URL is malformed",
            'invalid sslmode value: "requre"',
        ),
        (
            lambda url: url.replace("127.0.0.1", "no.such.host.invalid"),
            "the host in DBOS_SYSTEM_DATABASE_URL is not known",
            "failed to resolve host 'no.such.host.invalid'",
        ),
    ],
    ids=["password", "user", "port", "TLS", "malformed", "host"],
)
def test_a_postgres_that_does_not_let_us_in(
    look: Look,
    on_postgres: dict[str, str],
    change: Callable[[str], str],
    reason: str,
    driver: str,
) -> None:
    screen = look(**on_postgres | {URL: change(on_postgres[URL])})

    assert screen.bad == ["database"]
    assert reason in screen.details["database"]
    assert driver in screen.details["database"]
    assert screen.verdicts["updates"] == "?"
    assert screen.verdicts["Fivetran"] == "ok"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"mysql://user:{PASSWORD}@host/db", "must begin with postgresql://"),
        (f"postgresql://user:{PASSWORD}@host", "does not name a database"),
        (f"postgresql://user:{PASSWORD[:8]}@{PASSWORD[8:]}@host/db", "write %40 for an @"),
    ],
    ids=["scheme", "no name", "an @ in the password"],
)
def test_an_address_that_is_none_of_a_postgres(look: Look, url: str, reason: str) -> None:
    screen = look(**{URL: url, KEY: SECRET_KEY})

    assert screen.bad == ["database"]
    assert "DBOS_SYSTEM_DATABASE_URL" in screen.details["database"]
    assert reason in screen.details["database"]


@pytest.mark.parametrize("broken", ["pa/{}", "pa%zz{}", "pa'{}", 'pa"{}', "{}:x/y", "pa?x@{}"])
def test_what_the_driver_quotes_of_a_malformed_address_shows_no_part_of_the_password(
    look: Look, broken: str
) -> None:
    password = broken.format(PASSWORD)

    screen = look(**{URL: f"postgresql://user:{password}@127.0.0.1:1/db", KEY: SECRET_KEY})

    assert screen.bad == ["database"]
    assert "pa" not in re.findall(r"\w+", screen.details["database"])


def test_a_database_that_the_user_may_not_create(
    look: Look, on_postgres: dict[str, str], postgres: Postgres
) -> None:
    role = postgres.new_role()
    url = on_postgres[URL]
    name = url.rpartition("/")[2]

    screen = look(**on_postgres | {URL: role_of(url, role)})
    who_may = look(**on_postgres)

    assert screen.bad == ["database"]
    assert "does not exist and was not created" in screen.details["database"]
    assert f'FATAL: database "{name}" does not exist' in screen.details["database"]
    assert who_may.bad == []
    assert "the first start creates it" in who_may.details["database"]
    exists = f"SELECT 1 FROM pg_database WHERE datname = '{name}'"
    assert postgres.query(url.replace(name, "postgres"), exists) == []


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ([], "may not create the schema dbos"),
        (
            ["CREATE SCHEMA dbos", "CREATE TABLE dbos.workflow_status ()"],
            "may not read and change the tables in the schema dbos",
        ),
    ],
)
def test_a_user_without_rights_in_the_database(
    look: Look, on_postgres: dict[str, str], postgres: Postgres, made: list[str], reason: str
) -> None:
    url = on_postgres[URL]
    postgres.execute(url, f"CREATE DATABASE {url.rpartition('/')[2]}", name="postgres")
    postgres.execute(url, *made)

    screen = look(**on_postgres | {URL: role_of(url, postgres.new_role())})

    assert screen.bad == ["database"]
    assert reason in screen.details["database"]


def test_a_postgres_without_the_key(look: Look, on_postgres: dict[str, str]) -> None:
    screen = look(**{URL: on_postgres[URL]})

    assert screen.bad == ["key"]
    assert "FIVETRAN_STATE_SECRET_KEY" in screen.details["key"]


# The data directory


@contextmanager
def as_a_user_who_may_not_write_there() -> Iterator[Path]:
    """A folder that the user of this process may only read, root too."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)  # noqa: PTH101
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if is_root:
                os.seteuid(0)
            os.chmod(folder, stat.S_IRWXU)  # noqa: PTH101


def test_a_data_directory_that_is_read_only(look: Look) -> None:
    with as_a_user_who_may_not_write_there() as folder:
        screen = look(FIVETRAN_STATE_DATA_DIR=str(folder / "data"))

    assert screen.bad == ["data directory"]
    assert screen.details["data directory"] == (
        f"{folder}, in FIVETRAN_STATE_DATA_DIR, cannot be used: Permission denied."
    )
    assert screen.verdicts["database"] == "?"


def test_a_data_directory_that_is_a_file(look: Look, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")

    screen = look()

    assert screen.bad == ["data directory"]
    assert "Not a directory" in screen.details["data directory"]


def test_a_disk_that_is_full(look: Look) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 * 1024, before[1]))
    try:
        screen = look()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert screen.bad == ["data directory"]
    assert "File too large" in screen.details["data directory"]


def test_a_key_that_others_may_read(look: Look, shell: Shell, tmp_path: Path) -> None:
    shell.done("get", IDLE)
    key = tmp_path / "data" / "key"
    key.chmod(0o644)

    screen = look()

    assert screen.bad == ["key"]
    assert f"chmod 600 '{key}'" in screen.details["key"]


# What is in the database


def test_a_database_that_was_sealed_with_another_key(look: Look, shell: Shell) -> None:
    shell.done("get", IDLE)

    screen = look(**{KEY: SECRET_KEY})
    gone = look()

    assert screen.bad == gone.bad == []  # The key file opens it.

    (Path(os.environ["FIVETRAN_STATE_DATA_DIR"]) / "key").unlink()
    screen = look()

    assert screen.bad == ["key"]
    assert "sealed with another key" in screen.details["key"]
    assert "FIVETRAN_STATE_SECRET_KEY" in screen.next[0]
    assert screen.verdicts["updates"] == "?"


def change_database(tmp_path: Path, statement: str) -> None:
    with closing(sqlite3.connect(tmp_path / "data" / "state.db")) as database, database:
        assert database.execute(statement).rowcount > 0


def test_a_database_of_a_newer_version(look: Look, shell: Shell, tmp_path: Path) -> None:
    shell.done("get", IDLE)
    change_database(tmp_path, "UPDATE fivetran_state_layout SET number = 99")

    screen = look()

    assert screen.bad == ["database"]
    assert "changed by a newer version of this program" in screen.details["database"]


def test_a_database_of_an_earlier_version_is_left_as_it_is(look: Look, tmp_path: Path) -> None:
    recorded = gzip.decompress((ROOT / "tests/recorded/0.1.0/draining/state.db.gz").read_bytes())
    (tmp_path / "data").mkdir(mode=0o700)
    database = tmp_path / "data" / "state.db"
    database.write_bytes(recorded)

    screen = look()

    assert screen.bad == []
    assert "its tables are those of an earlier version" in screen.details["database"]
    assert screen.verdicts["updates"] == "?"
    assert database.read_bytes() == recorded


def test_a_file_that_is_no_database(look: Look, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "state.db").write_bytes(b"no database" * 1000)

    screen = look()

    assert screen.bad == ["database"]
    assert "file is not a database" in screen.details["database"]


# Fivetran


def test_a_key_that_fivetran_refuses(look: Look) -> None:
    screen = look(FIVETRAN_API_SECRET="a-wrong-secret")

    assert screen.bad == ["Fivetran"]
    assert "FIVETRAN_API_SECRET" in screen.next[0]
    assert "a-wrong-secret" not in screen.text


def test_a_fivetran_that_cannot_be_reached(look: Look) -> None:
    screen = look(FIVETRAN_API_URL="http://127.0.0.1:1")

    assert screen.bad == ["Fivetran"]
    assert "Connect call failed ('127.0.0.1', 1)" in screen.details["Fivetran"]
    assert "FIVETRAN_API_URL" in screen.next[0]


def test_an_account_that_is_not_set(look: Look) -> None:
    screen = look(FIVETRAN_API_KEY="")

    assert screen.bad == ["Fivetran"]
    assert "FIVETRAN_API_KEY" in screen.details["Fivetran"]


def test_two_causes_are_both_named(look: Look) -> None:
    screen = look(FIVETRAN_API_KEY="", **{URL: "mysql://host/db"})

    assert screen.bad == ["database", "Fivetran", "key"]


# Tokens


def test_tokens_that_have_all_expired(look: Look, shell: Shell, tmp_path: Path) -> None:
    shell.done("token", "create", "--scope", "read", "--expires-days", "1")
    valid = look()
    file = tmp_path / "data" / "tokens.json"
    content = json.loads(file.read_text())
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)
    content["tokens"][0]["expires"] = yesterday.isoformat()
    file.write_text(json.dumps(content))

    screen = look()

    assert valid.verdicts["tokens"] == "ok"
    assert screen.bad == ["tokens"]
    assert "0 valid, 1 expired" in screen.details["tokens"]
    assert "fivetran-state token create" in screen.next[0]


# Updates


@pytest.mark.slow
def test_an_update_at_work_is_well_until_its_server_dies_and_is_left_alone(
    look: Look,
    shell: Shell,
    on_either: dict[str, str],
    sandbox: Sandbox,
    tmp_path: Path,
    slow: dict[str, Any],
) -> None:
    update = f"update {SLOW}:1"
    with raw_server(on_either, tmp_path) as server:
        start_update_that_waits_for_a_sync(server, sandbox)
        at_work = look(**on_either)
        (recorded,) = [each for each in shell("doctor", "--json").objects if "phase" in each]
        too_long = look(FIVETRAN_STATE_ALERT_MINUTES="0.0001")
        pid = server.process.pid
        server.process.kill()
        server.process.wait()
    dead = look(FIVETRAN_STATE_ALERT_MINUTES="60")
    limited = look(FIVETRAN_STATE_READ_ONLY="true")

    assert at_work.bad == []
    assert at_work.details["updates"] == "1 running well, no connection is left paused"
    assert re.fullmatch(
        rf"asked for by \S+, run by process {pid} for \d+ s, now in the phase drain: Waiting for the "
        r"running sync to stop.* It has held the connection paused for \d+ s\.",
        at_work.details[update],
    )
    assert recorded["is_well"] is True
    assert recorded["workflow_id"] == f"{SLOW}:1"
    assert recorded["phase"] == "drain"
    assert recorded["process"].startswith(f"{pid}-")
    assert recorded["seconds"] >= recorded["paused_seconds"] >= 0
    assert too_long.bad == [update]
    assert f"fivetran-state status {SLOW}:1" in too_long.next[0]
    assert dead.bad == limited.bad == [update]
    assert "The process that ran it has ended." in dead.details[update]
    assert dead.next == [
        "A server goes on with it within seconds. If none runs: fivetran-state finish"
    ]
    assert "FIVETRAN_STATE_READ_ONLY" in limited.next[0]
    assert sandbox.connection(SLOW).paused is True
    assert state_of(sandbox, SLOW) == slow
