"""Each error explains its meaning and the next step; the page about errors is made from these."""

import inspect

import pytest

from fivetran_state import errors
from fivetran_state.errors import FivetranStateError
from tests.support.calls import ROOT

ALL = [
    cls
    for cls in vars(errors).values()
    if inspect.isclass(cls)
    and issubclass(cls, FivetranStateError)
    and cls is not FivetranStateError
]


def test_the_page_about_errors_is_what_the_code_says() -> None:
    """If this fails, run python -m fivetran_state.errors > docs/reference/errors.md."""
    assert (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8") == errors.reference()


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.code)
def test_an_error_says_when_it_is_met_and_what_to_do_next(error: type[FivetranStateError]) -> None:
    assert f"{error.__name__} " in (errors.__doc__ or "")
    assert f" {error.code}\n" in (errors.__doc__ or "")
    for text in (error.__dict__["__doc__"], error.__dict__["hint"]):
        assert len(text) > 20
        assert text.strip().endswith(".")


def test_every_error_has_a_code_of_its_own() -> None:
    assert len({error.code for error in ALL}) == len(ALL)
