"""Short runs of the chaos benchmarks; docs/explanation/reliability.md has the long ones."""

import pytest

from benchmarks import chaos, http_chaos

pytestmark = pytest.mark.filterwarnings("default")  # Of sockets whose other end is killed.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "postgres"),
    [
        (4, False),
        (20, False),
        (20, True),
    ],
)
def test_killed_servers_keep_the_promises(kills: int, postgres: bool) -> None:
    run = chaos.run(seed=5, kills=kills, servers=2, postgres=postgres)

    assert run.happened["kills"] == kills
    assert any(update["status"] == "updated" for update in run.updates)
    assert run.violations() == []


@pytest.mark.slow
@pytest.mark.parametrize("updates", [5, 60])
def test_killed_http_servers_keep_them_too(updates: int) -> None:
    run = http_chaos.run(seed=5, updates=updates, clients=len(http_chaos.KINDS))

    assert run.happened["kills"] > 0
    assert run.happened["told updated"] >= updates
    assert run.violations() == []
