"""Key, token and lock files that somebody else could have created, read or replaced."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fivetran_state import private
from tests.conftest import Connect, Serve
from tests.support.calls import IDLE, refused, version_of
from tests.support.http_server import authorization, run_cli


def open_to_others(path: Path) -> None:
    path.chmod(0o640)


def behind_a_symlink(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("elsewhere")))


@pytest.mark.parametrize(
    ("attack", "advice"),
    [(open_to_others, "chmod 600 '{path}'"), (behind_a_symlink, "{path} is a symlink")],
)
@pytest.mark.parametrize("name", ["key", "setup.lock"])
async def test_a_file_that_is_not_ours_alone_is_refused_by_its_name_with_what_mends_it(
    connect: Connect, tmp_path: Path, attack: Callable[[Path], None], advice: str, name: str
) -> None:
    path = tmp_path / "data" / name
    async with connect() as client:
        await version_of(client, IDLE)
    path.touch(mode=0o600)
    attack(path)

    async with connect() as client:
        error = await refused(client, "get_state", connection_id=IDLE)

    assert error["code"] == "unusable_settings"
    assert advice.format(path=path) in error["message"]


async def test_a_database_that_was_open_to_others_is_closed_and_one_elsewhere_is_not_used(
    connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "data" / "state.db"
    async with connect() as client:
        await version_of(client, IDLE)
    path.chmod(0o644)

    async with connect() as client:
        await version_of(client, IDLE)
    assert path.stat().st_mode & 0o777 == 0o600

    behind_a_symlink(path)
    async with connect() as client:
        error = await refused(client, "get_state", connection_id=IDLE)
    assert f"{path} is a symlink" in error["message"]


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = Path("/etc/hosts")
    if os.geteuid() == 0:
        path = tmp_path / "key"
        path.touch(mode=0o600)
        os.chown(path, 1, -1)

    with pytest.raises(private.NotPrivate, match=f"chown .* '{path}'"):
        private.read(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can make a file of root's.")
@pytest.mark.parametrize(("mode", "is_read"), [(0o440, True), (0o444, False), (0o460, False)])
def test_a_secret_that_kubernetes_mounts_is_read_if_only_a_group_can_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, is_read: bool
) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(b"secret")
    path.chmod(mode)
    monkeypatch.setattr(os, "geteuid", lambda: 10001)

    if is_read:
        assert private.read(path) == b"secret"
    else:
        with pytest.raises(private.NotPrivate, match=f"chown 10001 '{path}'"):
            private.read(path)


def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "key"
    os.mkfifo(path, 0o600)

    with pytest.raises(private.NotPrivate, match="is not a file"):
        private.read(path)


async def test_tokens_that_others_could_have_made_are_not_believed_and_callers_learn_no_path(
    http: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with http() as server:
        token = server.new_token()
        path = server.settings.tokens_path
        assert await server.status(token=token) == 200

        path.chmod(0o620)
        answer = await server.client.get("/", headers=authorization(token))

        assert answer.status_code == 503
        assert str(path) not in answer.text
        assert f"chmod 600 '{path}'" in caplog.text
        path.chmod(0o600)
        assert await server.status(token=token) == 200


async def test_a_token_is_not_made_through_a_lock_that_somebody_has_planted(
    tmp_path: Path,
) -> None:
    tokens, victim = tmp_path / "tokens.json", tmp_path / "victim"
    victim.write_text("precious")
    lock = tmp_path / "tokens.json.lock"
    lock.symlink_to(victim)

    code, stdout, stderr = await run_cli(
        {"FIVETRAN_STATE_TOKENS_FILE": str(tokens)}, *["token", "create", "--scope", "read"]
    )

    assert (code, stdout) == (64, "")
    assert f"{lock} is a symlink" in stderr
    assert victim.read_text() == "precious"
    assert not tokens.exists()


async def test_readyz_names_no_path(http: Serve, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "key").touch(mode=0o644)

    async with http() as server:
        ready = await server.client.get("/readyz")

    assert (ready.status_code, ready.json()) == (503, {"status": "unusable_settings"})
