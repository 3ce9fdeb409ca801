"""What the environment says, and what a server answers when it says nonsense."""

import json
from pathlib import Path

from tests.calls import call, refused
from tests.conftest import Connect
from tests.crash.processes import running


async def test_a_conductor_key_without_its_package_is_a_clear_error(connect: Connect) -> None:
    async with connect(DBOS_CONDUCTOR_KEY="some-conductor-key") as client:
        error = await refused(client, "list_connections")

    assert error["code"] == "engine_not_ready"
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
