"""The table of phases agrees with the phases that callers see."""

from typing import get_args

from fivetran_state import phases
from tests.support import matrix


def test_the_table_has_every_phase_that_a_caller_may_see() -> None:
    only_steps = {"undo", "sync"}

    assert [entry.name for entry in phases.TABLE if entry.name not in only_steps] == list(
        get_args(phases.Phase)
    )


def test_an_update_never_goes_back_in_what_it_says_after_a_step() -> None:
    for step, (phase, _) in phases.AFTER.items():
        assert phases.USUAL.index(phase) >= phases.USUAL.index(step)


def test_every_recorded_step_is_in_a_matrix_of_faults() -> None:
    assert set(phases.STEPS) <= {*matrix.CALLS, *matrix.MORE, *matrix.OF_GROUPS}


def test_the_calls_of_an_update_come_in_the_order_of_its_phases() -> None:
    called = [name for name in matrix.CALLS if name in phases.USUAL]

    assert called == [name for name in phases.USUAL if name in called]
