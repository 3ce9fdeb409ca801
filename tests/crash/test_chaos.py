"""Short runs of the chaos benchmarks; docs/explanation/reliability.md has the long ones."""

import pytest

from benchmarks import chaos, http_chaos

KILLS = 20
UPDATES = 60
pytestmark = pytest.mark.filterwarnings("default")  # Of sockets whose other end is killed.


@pytest.mark.slow
@pytest.mark.parametrize("postgres", [False, True], ids=["sqlite", "postgres"])
def test_killed_servers_keep_the_promises(postgres: bool) -> None:
    run = chaos.run(seed=5, kills=KILLS, servers=2, postgres=postgres)

    assert run.happened["kills"] == KILLS
    assert any(update["status"] == "updated" for update in run.updates)
    assert run.violations() == []


@pytest.mark.slow
def test_killed_http_servers_keep_them_too() -> None:
    run = http_chaos.run(seed=5, updates=UPDATES, clients=len(http_chaos.KINDS))

    assert run.happened["kills"] > 0
    assert run.happened["told updated"] >= UPDATES
    assert run.violations() == []
