"""A host ends its stdio server in the middle of an update: another process completes the update."""

from pathlib import Path
from typing import Any

import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.hand_over import assert_updated_once, wait_until_nobody_is_left
from tests.support.hosts import TERMINAL, WAYS, host
from tests.support.updates import SLOW, is_poll_of_a_sync, resumed

QUICK = 6
"""The other ways are similar to these."""


@pytest.mark.parametrize(
    "way",
    [*list(WAYS)[:QUICK], *(pytest.param(w, marks=pytest.mark.slow) for w in list(WAYS)[QUICK:])],
)
def test_an_update_is_completed_although_the_host(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, slow: dict[str, Any], way: str
) -> None:
    with host(environment, tmp_path, terminal=way == TERMINAL) as ending:
        ending.start_update(SLOW)
        sandbox.wait_for(lambda request: is_poll_of_a_sync(request) and request.status is not None)

        WAYS[way](ending)

        assert ending.is_left_within(10)
    assert sandbox.connection(SLOW).paused is True

    sandbox.finish_sync(SLOW)

    sandbox.wait_for(resumed(SLOW))
    assert_updated_once(sandbox, SLOW, slow)
    wait_until_nobody_is_left(environment)
