"""The server's surroundings: its database, its directory, proxies, certificates."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certifi
import pytest
from mcp import Client
from mcp.client.stdio import PROCESS_TERMINATION_TIMEOUT

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import IDLE, call, refused, until
from tests.support.hand_over import (
    assert_updated_once,
    start_update_that_waits_for_a_sync,
    wait_until_nobody_is_left,
)
from tests.support.http_server import run_cli
from tests.support.postgres import PASSWORD, SECRET_KEY
from tests.support.socks import socks_proxy
from tests.support.updates import SLOW, resumed
from tests.support.wire import raw_server

# Where the data directory is


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("~/mine", "home/mine"),
        ("there and/../here", "work/here"),
        ("{here}/50%20 a?mode=memory&b=c#d", "50%20 a?mode=memory&b=c#d"),
        ("link", "elsewhere"),
    ],
)
async def test_a_data_directory_is_where_a_person_means_it_to_be_and_private(
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    written: str,
    found: str,
) -> None:
    for folder in ("home", "work", "elsewhere"):
        (tmp_path / folder).mkdir(mode=0o755)
    (tmp_path / "work" / "link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    async with connect(FIVETRAN_STATE_DATA_DIR=written.format(here=tmp_path)) as client:
        monkeypatch.chdir("/")
        await call(client, "list_connections")
        modes = _modes(tmp_path)

    databases = {path.parent for path in modes if path.name.startswith("state.db")}
    assert databases == {tmp_path / found}
    assert modes.pop(tmp_path / found) == 0o700
    made = {path: mode for path, mode in modes.items() if (tmp_path / found) in path.parents}
    assert set(made.values()) == {0o600, 0o700}
    assert {mode for path, mode in made.items() if path.name.startswith("state.db")} == {0o600}


def _modes(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mode & 0o777 for path in folder.rglob("*")}


# What the start waits for, and says


async def told(client: Client) -> dict[str, Any]:
    """The tool's error; its hint must not ask to call again in seconds."""
    error = await refused(client, "get_state", connection_id=IDLE)
    assert "in a few seconds" not in error["hint"]
    assert PASSWORD not in json.dumps(error)
    return error


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite:///state.db", "is a SQLite URL. Remove it"),
        (f"mysql://user:{PASSWORD}@host/db", "must begin with postgresql://"),
        (f"postgresql://user:{PASSWORD}@host:port/db", "is not a URL"),
        (f"postgresql://user:{PASSWORD}@host", "does not name a database"),
        (f"user:{PASSWORD}@host/db", "is not a URL"),
    ],
)
async def test_a_database_url_that_cannot_be_used_is_told_by_its_variable(
    connect: Connect, url: str, why: str
) -> None:
    variables = {"DBOS_SYSTEM_DATABASE_URL": url, "FIVETRAN_STATE_SECRET_KEY": SECRET_KEY}
    async with connect(**variables) as client:
        error = await told(client)

    assert error["code"] == "unusable_settings"
    assert f"DBOS_SYSTEM_DATABASE_URL {why}" in error["message"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda url: url.replace("//postgres:", "//guarded:"), "refuses the user or the password"),
        (lambda url: url.replace("//postgres:", "//nobody:"), "does not accept the user"),
        (lambda url: re.sub(r":\d+/", ":1/", url), "nothing answers at the host and port"),
        (lambda url: f"{url}?sslmode=require", "does not offer TLS"),
        (lambda url: f"{url}?sslmode=nonsense", "malformed"),
    ],
)
async def test_a_postgres_that_does_not_let_us_in_is_told_by_its_variable(
    connect: Connect, on_postgres: dict[str, str], change: Callable[[str], str], why: str
) -> None:
    url = change(on_postgres["DBOS_SYSTEM_DATABASE_URL"])
    async with connect(**on_postgres | {"DBOS_SYSTEM_DATABASE_URL": url}) as client:
        error = await told(client)

    assert error["code"] == "database_unavailable"
    assert why in error["message"]
    assert "DBOS_SYSTEM_DATABASE_URL" in error["message"]


async def test_a_data_directory_that_cannot_be_used_is_told_by_path_until_it_can(
    connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    data.write_text("a file")

    async with connect() as client:
        error = await told(client)
        again = await told(client)
        data.unlink()

        async def is_up() -> bool:
            return not (await client.call_tool("list_connections", {})).is_error

        await until(is_up)

    assert error == again
    assert error["code"] == "unusable_settings"
    assert "FIVETRAN_STATE_DATA_DIR" in error["message"]
    assert str(data) in error["message"]
    assert [str(data) in message for message in caplog.messages].count(True) == 1


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_certificates_that_are_missing_are_told_by_variable_and_path(
    environment: dict[str, str], tmp_path: Path, variable: str
) -> None:
    missing = str(tmp_path / "missing.pem")

    code, stdout, _ = await run_cli(environment | {variable: missing}, "doctor")

    assert code == 1
    assert stdout.count(f"{variable} names {missing}") == 1
    assert "in a few seconds" not in stdout


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:1", "http://127.0.0.1:port", "nonsense://"])
async def test_a_proxy_that_cannot_be_used_is_told_by_its_variable(
    connect: Connect, proxy: str
) -> None:
    async with connect(ALL_PROXY=proxy) as client:
        error = await told(client)

    assert error["code"] == "unusable_settings"
    assert "ALL_PROXY" in error["message"]


@pytest.mark.parametrize("entry", ["::1/128", "[::1]:http", "http://[", "a b:c", "*:x"])
async def test_an_entry_of_no_proxy_that_says_nothing_is_passed_over(
    connect: Connect, entry: str
) -> None:
    variables = {"ALL_PROXY": "http://127.0.0.1:1", "NO_PROXY": f"{entry}, 127.0.0.1"}
    async with connect(**variables) as client:
        assert await call(client, "list_connections")


async def test_fivetran_is_reached_through_a_socks_proxy(
    connect: Connect, fivetran_url: str
) -> None:
    async with (
        socks_proxy() as proxy,
        connect(ALL_PROXY=f"socks5://{proxy.address}", NO_PROXY="") as client,
    ):
        assert await call(client, "list_connections")

    assert set(proxy.destinations) == {fivetran_url.removeprefix("http://")}


async def test_the_doctor_tells_once_what_is_wrong(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("a file")

    code, stdout, _ = await run_cli(environment, "doctor")

    assert code == 1
    assert stdout.count("BAD") == 1
    assert stdout.count("FIVETRAN_STATE_DATA_DIR") == 1
    assert "in a few seconds" not in stdout


@pytest.mark.slow
def test_the_process_that_finishes_an_update_means_the_same_files(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, slow: dict[str, Any]
) -> None:
    """The paths are relative to the server's directory. By then, the policy cannot be read any more."""
    shutil.copyfile(certifi.where(), tmp_path / "certificates.pem")
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[[rule]]\nname = "nobody"\nconnections = ["none_*"]\napproval = "forbidden"\n'
    )
    data = {
        "FIVETRAN_STATE_DATA_DIR": "my data?a=b#c",
        "FIVETRAN_STATE_AUDIT_FILE": "audit.jsonl",
        "FIVETRAN_STATE_POLICY": policy.name,
        "SSL_CERT_FILE": "certificates.pem",
    }
    with raw_server(environment | data, tmp_path) as server:
        start_update_that_waits_for_a_sync(server, sandbox)
        policy.write_text("[[rule")
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(PROCESS_TERMINATION_TIMEOUT) == 0

    sandbox.finish_sync(SLOW)

    sandbox.wait_for(resumed(SLOW))
    assert_updated_once(sandbox, SLOW, slow)
    wait_until_nobody_is_left(
        {"FIVETRAN_STATE_DATA_DIR": str(tmp_path / data["FIVETRAN_STATE_DATA_DIR"])}
    )
    assert not (tmp_path / "data").exists()
    assert '"hand_over.finished"' in (tmp_path / "audit.jsonl").read_text()
