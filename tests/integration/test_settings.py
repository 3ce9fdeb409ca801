"""The environment's settings, and the server's answers to wrong ones."""

import json
from pathlib import Path

import anyio
import pytest

from fivetran_state.config import Settings
from fivetran_state.startup import read_settings, settings_for
from tests.conftest import Connect
from tests.support.calls import API_SECRET, call, refused
from tests.support.http_server import run_cli
from tests.support.processes import running

PREFIX = "FIVETRAN_STATE_"


async def test_a_conductor_key_without_its_package_is_a_clear_error(connect: Connect) -> None:
    async with connect(DBOS_CONDUCTOR_KEY="some-conductor-key") as client:
        error = await refused(client, "list_connections")

    assert error["code"] == "unusable_settings"
    assert "dbos[enterprise]" in error["message"]
    assert "some-conductor-key" not in json.dumps(error)


async def test_the_database_url_of_older_set_ups_is_ignored_with_one_warning(
    environment: dict[str, str], tmp_path: Path
) -> None:
    async with running(
        environment, tmp_path, DBOS_DATABASE_URL="postgresql://u:hidden@nowhere/db"
    ) as server:
        listed = await call(server.client, "list_connections")

    assert listed["connections"]
    log = (tmp_path / "stderr.txt").read_text()
    assert log.count("DBOS_DATABASE_URL is ignored") == 1
    assert "hidden" not in log


# What stops the start


async def test_no_command_starts_with_a_setting_that_it_would_pass_over(
    environment: dict[str, str],
) -> None:
    wrong = environment | {"FIVETRAN_STATE_READONLY": "true"}

    async def try_to_start(*arguments: str) -> None:
        code, stdout, stderr = await run_cli(wrong, *arguments)
        assert (code, stdout) == (64, ""), arguments
        assert stderr.splitlines()[0].partition(": ")[2] == (
            "FIVETRAN_STATE_READONLY is not a setting; is FIVETRAN_STATE_READ_ONLY meant?"
        )

    async with anyio.create_task_group() as tries:
        for command in (
            "",
            "--sandbox",
            "--http",
            "doctor",
            "finish",
            "token list",
            "get x",
            "demo",
        ):
            tries.start_soon(try_to_start, *command.split())


def _refusal(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as refused:
        settings_for(sandbox=False)
    assert refused.value.code == 64
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert stderr.startswith("Cannot start: ")
    assert stderr.count("\n") == 1
    return stderr


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FIVETRAN_STATE_ALLOWED_CONNECTION", "FIVETRAN_STATE_ALLOWED_CONNECTIONS"),
        ("fivetran_state_read-only", "FIVETRAN_STATE_READ_ONLY"),
        ("FIVETRAN_STATE_API_KEY", "FIVETRAN_API_KEY"),
        ("FIVETRAN_STATE_PORT", "FIVETRAN_STATE_POLICY"),
    ],
)
def test_the_nearest_setting_is_named_and_the_value_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, meant: str
) -> None:
    monkeypatch.setenv(name, API_SECRET)

    told = _refusal(capsys)

    assert f"{name} is not a setting; is {meant} meant?" in told
    assert API_SECRET not in told


@pytest.mark.parametrize(
    "name",
    [
        "FIVETRAN_API_URL",
        *(
            f"{PREFIX}{rest}"
            for rest in (
                "READ_ONLY",
                "CONFIRM",
                "SYNC_WAIT",
                "RETENTION_DAYS",
                "RATE_LIMIT",
                "LOG_LEVEL",
                "PUBLIC_URL",
                "OAUTH_ISSUER",
                "TRUSTED_PROXIES",
                "NOTIFY_URL",
                "NOTIFY_FORMAT",
                "ALERT_MINUTES",
            )
        ),
    ],
)
@pytest.mark.parametrize(
    "value", [API_SECRET, f"https://user:{API_SECRET}@example.com:port", "nan"]
)
def test_a_value_that_cannot_be_used_is_told_by_its_variable_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    told = _refusal(capsys)

    assert f"Cannot start: {name}: " in told
    assert value not in told


@pytest.mark.parametrize("secret", ["too-short", "whsec_this is not base64 at all"])
def test_a_secret_that_cannot_sign_is_told_by_its_variable_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], secret: str
) -> None:
    monkeypatch.setenv("FIVETRAN_STATE_NOTIFY_SECRET", secret)

    told = _refusal(capsys)

    assert "Cannot start: FIVETRAN_STATE_NOTIFY_SECRET: " in told
    assert secret not in told


CLIENT = "FIVETRAN_STATE_OAUTH_CLIENT_ID"
ISSUER = {"FIVETRAN_STATE_OAUTH_ISSUER": "https://issuer.example.com"}


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({CLIENT: "page"}, f"{CLIENT} needs FIVETRAN_STATE_OAUTH_ISSUER"),
        (ISSUER | {CLIENT: "page"}, f"{CLIENT} needs FIVETRAN_STATE_PUBLIC_URL"),
        (
            ISSUER | {CLIENT: "page", "FIVETRAN_STATE_PUBLIC_URL": "http://example.com"},
            f"{CLIENT} needs FIVETRAN_STATE_PUBLIC_URL with an https URL",
        ),
        ({CLIENT: "pagé"}, f"{CLIENT}: has to be printable"),
        (
            {"FIVETRAN_STATE_OAUTH_CLIENT_SECRET": "a-secret"},
            "FIVETRAN_STATE_OAUTH_CLIENT_SECRET needs",
        ),
        (
            {"FIVETRAN_STATE_OAUTH_CLIENT_SECRET": "a-secret-é"},
            "FIVETRAN_STATE_OAUTH_CLIENT_SECRET: has to be printable",
        ),
    ],
    ids=str,
)
def test_people_sign_in_only_where_client_issuer_and_address_are_known(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    told: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    refusal = _refusal(capsys)

    assert told in refusal
    assert "a-secret" not in refusal


@pytest.mark.parametrize("url", ["http://example.com/hook", "ftp://example.com", "hook"])
def test_notices_go_only_where_nobody_can_read_them_on_the_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("FIVETRAN_STATE_NOTIFY_URL", url)
    monkeypatch.setenv("FIVETRAN_STATE_NOTIFY_FORMAT", "slack")

    assert "FIVETRAN_STATE_NOTIFY_URL: has to be an https URL" in _refusal(capsys)


def test_notices_have_to_be_signed_unless_slack_gets_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIVETRAN_STATE_NOTIFY_URL", "https://example.com/hook-with-a-secret")

    told = _refusal(capsys)
    monkeypatch.setenv("FIVETRAN_STATE_NOTIFY_FORMAT", "slack")

    assert "FIVETRAN_STATE_NOTIFY_SECRET has to be set" in told
    assert "hook-with-a-secret" not in told
    assert "hook-with-a-secret" not in repr(Settings())


def test_everything_that_is_wrong_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIVETRAN_STATE_READ_ONLY", "ture")
    monkeypatch.setenv("FIVETRAN_STATE_CONFIRM", "sometimes")

    told = _refusal(capsys)

    assert "FIVETRAN_STATE_READ_ONLY: " in told
    assert "FIVETRAN_STATE_CONFIRM: " in told


def test_blanks_around_a_value_do_not_count_and_an_empty_value_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    defaults = Settings()
    for name, value in {
        "FIVETRAN_API_SECRET": f" {API_SECRET}\r\n",
        "FIVETRAN_STATE_READ_ONLY": " true ",
        "FIVETRAN_STATE_DATA_DIR": "  ",
        "FIVETRAN_STATE_SYNC_WAIT": "",
        "FIVETRAN_STATE_OAUTH_ISSUER": "\t",
        "FIVETRAN_STATE_NOT_A_SETTING": " ",
    }.items():
        monkeypatch.setenv(name, value)

    settings = Settings()

    assert settings.api_secret is not None
    assert settings.api_secret.get_secret_value() == API_SECRET
    assert settings.read_only
    assert settings.data_dir == defaults.data_dir
    assert settings.sync_wait == defaults.sync_wait
    assert settings.oauth_issuer is None


def test_what_kubernetes_tells_about_a_service_of_this_name_is_no_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "8000",
        "SERVICE_PORT_HTTP": "8000",
        "PORT": "tcp://10.0.0.1:8000",
        "PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "PORT_8000_TCP_PROTO": "tcp",
        "PORT_8000_TCP_PORT": "8000",
        "PORT_8000_TCP_ADDR": "10.0.0.1",
    }.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)

    assert Settings()


def test_a_host_that_sets_only_variables_can_choose_the_sandbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = []
    for value in ("false", "true"):
        monkeypatch.setenv("FIVETRAN_STATE_SANDBOX", value)
        chosen.append([read_settings(sandbox=option).sandbox for option in (False, True)])

    assert chosen == [[False, True], [True, True]]


@pytest.mark.parametrize("level", ["debug", "Info", " WARNING "])
def test_a_log_level_is_taken_in_any_case(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setenv("FIVETRAN_STATE_LOG_LEVEL", level)

    assert Settings().log_level == level.strip().upper()


async def test_a_log_level_that_does_not_exist_is_a_clear_error(
    environment: dict[str, str],
) -> None:
    code, _, stderr = await run_cli(environment | {"FIVETRAN_STATE_LOG_LEVEL": "verbose"}, "doctor")

    assert code == 64
    assert stderr.startswith("Error: FIVETRAN_STATE_LOG_LEVEL: ")
    assert "'DEBUG', 'INFO', 'WARNING' or 'ERROR'" in stderr
    assert stderr.count("\n") == 2


def test_a_policy_that_cannot_be_used_stops_the_start_with_the_line_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    monkeypatch.setenv("FIVETRAN_STATE_POLICY", str(path))
    missing = _refusal(capsys)
    path.write_text('[[rule]]\nname = "a"\napproval = "always"\n')
    wrong = _refusal(capsys)
    path.write_bytes(b"\xff")
    binary = _refusal(capsys)

    start = f"Cannot start: FIVETRAN_STATE_POLICY: {path}"
    assert missing.startswith(f"{start} cannot be read: No such file")
    assert wrong.startswith(f"{start}, line 3: approval 'always': write \"required\"")
    assert binary.startswith(f"{start} cannot be read: it is not UTF-8 text")
