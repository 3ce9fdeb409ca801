import copy
import gc
import pickle
from decimal import Decimal
from typing import Any

import pytest

from fivetran_state.state import InvalidState, dump, number, parse, parse_value
from tests.support.states import DECIMAL_40


@pytest.mark.parametrize(
    "text",
    [
        *("0", "-0", "1", "-1", "9007199254740993", "1" * 600, "-" + "1" * 5000),
        *("1.0", "-0.0", "1.10", "0e0", "1e2", "1E+2", "1.5e-7", "1e400", "1e-400", "1e999999999"),
        *(DECIMAL_40, "123456789012345678901234567890.10"),
    ],
)
def test_a_number_keeps_its_spelling(text: str) -> None:
    assert dump(parse_value(text)) == text
    assert dump(parse(f'{{"n":[{text}]}}')) == f'{{"n":[{text}]}}'


def test_integers_are_plain_ints() -> None:
    assert type(parse_value("9007199254740993")) is int


@pytest.mark.parametrize("text", ["1.10", "-0", "1e2", "7" * 5000])
def test_other_numbers_are_numbers_with_their_text(text: str) -> None:
    value = parse_value(text)
    assert isinstance(value, Decimal)
    assert str(value) == f"{value}" == text


@pytest.mark.parametrize("text", ["0.15", "-0", "100.0", "7" * 5000])
def test_a_garbage_collection_passes_over_numbers_that_are_spelled_plainly(text: str) -> None:
    assert not gc.is_tracked(parse_value(text))


def test_a_number_equals_the_decimal_it_spells() -> None:
    assert number("1.10") == Decimal("1.1") == number("11e-1")
    assert number("1.10") != 1.1


def test_a_number_formats_like_a_decimal() -> None:
    assert f"{number('1.10'):.3f}" == "1.100"


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))]
)
def test_a_copied_or_pickled_number_keeps_its_spelling(again: Any) -> None:
    copied = again(number("1e400"))
    assert isinstance(copied, Decimal)
    assert repr(copied) == "Decimal('1e400')"


@pytest.mark.parametrize(
    "text", ["", "x", "+1", "01", "1.", ".5", "1_0", "NaN", " 1", "1\n", "\u0661"]
)
def test_what_json_would_not_take_is_no_number(text: str) -> None:
    with pytest.raises(InvalidState):
        number(text)


@pytest.mark.parametrize("text", ["1e9999999999999999999", "1e-9999999999999999999"])
def test_an_exponent_beyond_decimals_is_refused(text: str) -> None:
    with pytest.raises(InvalidState, match="out of range"):
        parse_value(text)
