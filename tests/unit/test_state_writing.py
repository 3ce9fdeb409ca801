import pytest

from fivetran_state.state import document, is_version, number, parse, parse_value, same, version
from tests.support.states import DECIMAL_40

APART = [
    "1",
    "1.0",
    "true",
    '"1"',
    "[1]",
    '{"1":1}',
    "0",
    "-0",
    "0.0",
    "-0.0",
    "false",
    "null",
    '""',
]
APART += ["[]", "{}", "100", "100.0", "1.1", "1.10000000000000000000000000000000000000001", "1e400"]
APART += [r'"\ud800"', r'"\\ud800"', "9007199254740993", "9007199254740992", "9007199254740993.0"]
GROUP = [("1.10", "1.1"), ("1.1", "11e-1"), ("1e2", "100.0"), ("1E+2", "1e2"), ("0.0", "0e9")]
GROUP += [("-0.0", "-0.00"), ("5.0", "5.00"), ("1e999999999", "10e999999998")]
GROUP += [('{"a":1,"b":{"c":1,"d":2}}', '{"b":{"d":2,"c":1},"a":1}'), (r'"\u00e9"', '"é"')]


@pytest.mark.parametrize("a", APART)
def test_different_values_have_different_versions(a: str) -> None:
    alike = [b for b in APART if same(parse_value(a), parse_value(b))]
    wrapped = [
        b for b in APART if version({"x": [parse_value(a)]}) == version({"x": [parse_value(b)]})
    ]
    assert alike == wrapped == [a]


@pytest.mark.parametrize(("a", "b"), GROUP)
def test_equal_values_have_the_same_version(a: str, b: str) -> None:
    assert same(parse_value(a), parse_value(b))
    assert version({"x": parse_value(a)}) == version({"x": parse_value(b)})


def test_the_order_of_an_array_counts() -> None:
    assert not same([1, 2], [2, 1])


def test_a_version_never_changes() -> None:
    assert version({}) == "44136fa355b3678a1146ad16f7e8649e"
    # Release 0.1 kept these 16 digits.
    assert version(parse('{"b":[1,1.10,true,"é"],"a":-0}')).startswith("b8682deb51057122")


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        *((version({}), True), (version(document("[]")), True), ("44136fa355b3678a", True)),
        *(("", False), ("44136fa355b3678", False), ("44136FA355B3678A", False)),
        *(("g" * 16, False), ("1" * 24, False), ("1" * 32 + "\n", False), ("\u0661" * 16, False)),
    ],
)
def test_a_version_has_its_form(text: str, valid: bool) -> None:
    assert is_version(text) is valid


def test_a_version_cares_for_every_digit() -> None:
    assert version({"a": number(DECIMAL_40)}) != version({"a": number(DECIMAL_40[:-2] + "1")})
