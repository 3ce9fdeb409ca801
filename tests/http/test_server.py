"""The HTTP server answers, and it ends."""

from pathlib import Path

import anyio
import pytest

from tests.conftest import ERAS, Serve
from tests.support.calls import IDLE, call, updates_in
from tests.support.http_server import counted_statements, run_cli

CHECKS = 200


@pytest.mark.parametrize("era", ERAS)
async def test_an_update_over_http_is_made_and_can_be_followed(http: Serve, era: str) -> None:
    async with http() as server, server.mcp(era) as client:
        version = (await call(client, "get_state", connection_id=IDLE))["version"]
        update = await call(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"cursor": 1},
            expected_version=version,
        )
        listed = await call(client, "state_history", connection_id=IDLE)

    assert update["status"] == "updated"
    assert [each["workflow_id"] for each in updates_in(listed)] == [update["workflow_id"]]


async def test_it_says_that_it_lives_and_that_it_is_ready(http: Serve) -> None:
    async with http() as server:
        alive = await server.client.get("/healthz")
        ready = await server.client.get("/readyz")

    assert (alive.status_code, ready.status_code) == (200, 200)


async def test_many_health_checks_at_once_ask_the_database_once(http: Serve) -> None:
    async with http(FIVETRAN_STATE_RATE_LIMIT="1") as server:
        server.new_token()
        assert await server.status("/readyz") == 200
        with counted_statements() as statements:
            async with anyio.create_task_group() as callers:
                for _ in range(CHECKS):
                    callers.start_soon(server.status, "/readyz")
        ready = await server.status("/readyz")

    looks = [each for each in statements if "workflow_status.status IN" in each]
    assert ready == 200
    # A check's own look, and the server's own, every two seconds, for what has been left behind.
    assert len(looks) < CHECKS / 4


@pytest.mark.parametrize("command", [(), ("serve",)])
async def test_several_workers_are_refused_and_it_says_what_to_do_instead(
    environment: dict[str, str], command: tuple[str, ...]
) -> None:
    code, stdout, stderr = await run_cli(environment, *command, "--http", "--workers", "2")

    assert (code, stdout) == (64, "")
    assert "Start several of them" in " ".join(stderr.split())


@pytest.mark.parametrize(
    ("option", "command"),
    [
        (("--sandbox",), ("serve", "--http", "--port", "0")),
        (("--http",), ("serve",)),
        (("--host", "127.0.0.1"), ("serve", "--http")),
        (("--port", "8000"), ("doctor",)),
        (("--workers", "1"), ("serve", "--http")),
        (("--sandbox",), ("token", "create", "--scope", "write")),
    ],
)
async def test_an_option_before_the_command_is_refused_instead_of_dropped(
    environment: dict[str, str], tmp_path: Path, option: tuple[str, ...], command: tuple[str, ...]
) -> None:
    code, stdout, stderr = await run_cli(environment, *option, *command)

    assert (code, stdout) == (64, "")
    assert f"Put {option[0]} behind the command" in " ".join(stderr.split())
    assert not (tmp_path / "data").exists()
