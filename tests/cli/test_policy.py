"""The policy in the shell: jobs, and people at the terminal."""

from pathlib import Path

import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, PAUSED, api_calls
from tests.support.policies import policy
from tests.support.shell import Shell
from tests.support.warm import warm_terminal

REWIND = ("--merge-patch", '{"cursor":"2020"}')
REFUSED, PROPOSED = 4, 6
ASKS = 'name = "rewinds"\nmax_back = "2d"'
FORBIDS = 'name = "frozen"\napproval = "forbidden"'


def obeys(monkeypatch: pytest.MonkeyPatch, directory: Path, rule: str) -> None:
    for name, value in policy(directory, rule).items():
        monkeypatch.setenv(name, value)


def test_a_job_proposes_what_a_rule_asks_for(
    shell: Shell, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    obeys(monkeypatch, tmp_path, ASKS)
    planned = shell.done("update", IDLE, *REWIND, "--dry-run")
    version = shell.version_of(IDLE)
    one = shell("update", IDLE, *REWIND, "--expected-version", version, "--json")
    many = shell("update-many", IDLE, PAUSED, *REWIND, "--dry-run", "--json")
    pinned = ("--expected-version", many.objects[-1]["version"], "--yes")
    group = shell("update-many", IDLE, PAUSED, *REWIND, *pinned, "--json")

    assert 'The rule "rewinds" asks for approval' in planned.stdout + planned.stderr
    assert (one.code, one.object["status"]) == (PROPOSED, "proposed")
    assert (group.code, group.objects[-1]["status"]) == (PROPOSED, "proposed")
    assert "PATCH" not in api_calls(sandbox, IDLE)


def test_a_job_is_refused_what_a_rule_forbids(
    shell: Shell, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    obeys(monkeypatch, tmp_path, FORBIDS)
    planned = shell.done("update", IDLE, *REWIND, "--dry-run")
    version = shell.version_of(IDLE)
    ended = shell("update", IDLE, *REWIND, "--expected-version", version, "--json")

    assert 'The rule "frozen" forbids' in planned.stdout + planned.stderr
    assert "--expected-version" not in planned.stdout + planned.stderr
    assert ended.code == REFUSED
    assert 'The rule "frozen" forbids to change /cursor.' in ended.error["message"]
    assert "PATCH" not in api_calls(sandbox, IDLE)


@pytest.mark.parametrize("named", [False, True])
async def test_a_person_at_the_terminal_is_asked_for_approval_only_by_name(
    environment: dict[str, str], sandbox: Sandbox, tmp_path: Path, named: bool
) -> None:
    rule = f'{ASKS}\nwho = ["shell:*"]' if named else ASKS
    variables = environment | policy(tmp_path, rule)
    with warm_terminal(("update", IDLE, *REWIND), variables, tmp_path) as screen:
        if not named:
            screen.wait_for("Type yes to agree:")
            screen.type("yes\n")
        assert screen.wait() == (PROPOSED if named else 0), screen.screen

    assert ("PATCH" in api_calls(sandbox, IDLE)) == (not named)
