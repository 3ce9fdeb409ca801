"""A short run of the chaos benchmark; docs/reliability.md has the long ones."""

import pytest

from benchmarks import chaos


@pytest.mark.filterwarnings("default")  # Of sockets whose other end is killed.
@pytest.mark.parametrize(
    ("kills", "postgres"),
    [
        (4, False),
        pytest.param(20, False, marks=pytest.mark.slow),
        pytest.param(20, True, marks=pytest.mark.slow),
    ],
)
def test_nothing_is_lost_left_paused_or_done_twice_whatever_is_killed(
    kills: int, postgres: bool
) -> None:
    run = chaos.run(seed=5, kills=kills, servers=2, postgres=postgres)

    assert run.happened["kills"] == kills
    assert any(update["status"] == "updated" for update in run.updates)
    assert run.violations() == []
