"""The table of phases agrees with what callers are told that there is."""

from typing import get_args

from fivetran_state import phases


def test_the_table_has_every_phase_that_a_caller_may_see() -> None:
    only_steps = {"undo", "sync"}

    assert [entry.name for entry in phases.TABLE if entry.name not in only_steps] == list(
        get_args(phases.Phase)
    )


def test_an_update_never_goes_back_in_what_it_says_after_a_step() -> None:
    for step, (phase, _) in phases.AFTER.items():
        assert phases.USUAL.index(phase) >= phases.USUAL.index(step)
