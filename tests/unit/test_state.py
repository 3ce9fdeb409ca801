import copy
import gc
import json
import pickle
import sys
import time
from decimal import Decimal
from typing import Any

import pytest

from fivetran_state.state import (
    MAX_ANSWER_BYTES,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_VALUES,
    Applied,
    Change,
    DiffEntry,
    InvalidChange,
    InvalidState,
    JsonValue,
    Listing,
    NotThere,
    OutlineEntry,
    RawDocument,
    adopt,
    applied,
    apply,
    at,
    check,
    diff,
    differences,
    document,
    dump,
    indented,
    inexact,
    is_version,
    matches,
    number,
    outline,
    parse,
    parse_answer,
    parse_change,
    parse_envelope,
    parse_value,
    part_of,
    plain,
    preview,
    same,
    search,
    shown_path,
    version,
)

DECIMAL_40 = "0.1234567890123456789012345678901234567890"

# Numbers


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


# Reading


def test_a_state_is_parsed_in_its_order() -> None:
    state = parse(b' {"b": {"x": [1, "\xc3\xa9", true, false, null]},\n"a": 1.50}')
    assert list(state) == ["b", "a"]
    assert state == {"b": {"x": [1, "é", True, False, None]}, "a": number("1.5")}


@pytest.mark.parametrize("document", ["[]", '"x"', "1", "1.5", "true", "null"])
def test_a_state_has_to_be_an_object(document: str) -> None:
    with pytest.raises(InvalidState, match="a state is a JSON object, but this is"):
        parse(document)


@pytest.mark.parametrize("document", ['{"a":1,"a":1}', '{"x":[{"b":0,"a":1,"\\u0061":2}]}'])
def test_a_key_that_occurs_twice_is_refused_by_name(document: str) -> None:
    with pytest.raises(InvalidState, match='key "a" twice'):
        parse(document)


def test_the_same_key_in_two_objects_is_fine() -> None:
    assert parse('{"a":{"a":1}}') == {"a": {"a": 1}}


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_finite_number_is_refused(constant: str) -> None:
    with pytest.raises(InvalidState, match=f"^{constant} is not a JSON number"):
        parse(f'{{"a":{constant}}}')


def test_a_syntax_error_is_located() -> None:
    with pytest.raises(InvalidState, match="at line 2, column 5"):
        parse('{"a": 1,\n    x}')


@pytest.mark.parametrize(
    "document", ["", "{", '{"a":01}', '{"a":1,}', "{'a':1}", "{}x", '{"a":"\n"}']
)
def test_text_that_is_no_json_is_refused(document: str) -> None:
    with pytest.raises(InvalidState, match="not valid JSON"):
        parse(document)


@pytest.mark.parametrize("document", [b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', '{"a":"\ud800"}'])
def test_text_that_is_no_utf_8_is_refused(document: str | bytes) -> None:
    with pytest.raises(InvalidState, match="not valid UTF-8 at position 6"):
        parse(document)


def test_bytes_in_another_encoding_are_refused() -> None:
    with pytest.raises(InvalidState):
        parse('{"a":1}'.encode("utf-16"))


@pytest.mark.parametrize("mark", ["\ufeff", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_ignored(mark: Any) -> None:
    text = mark + ('{"a":1}' if isinstance(mark, str) else b'{"a":1}')
    assert parse(text) == document(text) == {"a": 1}
    with pytest.raises(InvalidState):
        parse(mark + text)


@pytest.mark.parametrize("text", [r'"\ud800"', r'"\udfff\ud800"', r'{"\ude00":1}'])
def test_lone_surrogates_survive(text: str) -> None:
    assert dump(parse_value(text)) == text


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse_value(r'"\ud83d\ude00"') == "😀"


def test_the_size_limit_is_met_exactly() -> None:
    assert len(parse('{"a":"' + "x" * (MAX_BYTES - 8) + '"}')["a"]) == MAX_BYTES - 8


@pytest.mark.parametrize("filler", ["x" * (MAX_BYTES - 7), "é" * (MAX_BYTES // 2)])
def test_one_byte_too_many_is_refused(filler: str) -> None:
    with pytest.raises(InvalidState, match="larger than 9,999,999 bytes"):
        parse(f'{{"a":"{filler}"}}')
    with pytest.raises(InvalidState, match="larger than 9,999,999 bytes"):
        adopt({"a": filler})


def test_the_limit_is_on_utf_8_rather_than_on_escapes() -> None:
    state = parse('{"a":"' + "é" * (MAX_BYTES // 2 - 10) + '"}')
    assert apply(Change("new_state", adopt(state)), {}) == state
    assert parse(dump(state)) == state
    with pytest.raises(InvalidState, match="larger than 9,999,999 bytes"):
        parse(dump({"a": "é" * (MAX_BYTES // 2)}))


@pytest.mark.slow
def test_the_most_values_are_parsed_and_one_more_is_refused_however_it_comes() -> None:
    most = '{"a":[' + "0," * (MAX_VALUES - 3) + "0]}"
    one_more = most.replace("[", "[0,")
    empty = '{"a":[' + "[]," * (MAX_VALUES - 3) + "{}]}"
    commas = '{"a":"' + "," * MAX_VALUES + '"}'
    value = json.loads(one_more)

    assert len(parse(most)["a"]) == MAX_VALUES - 2
    assert adopt(parse(empty)) == parse(empty)
    assert parse(commas)["a"] == "," * MAX_VALUES
    refusal = "it has more than 500,000 values"
    with pytest.raises(InvalidState, match=refusal):
        parse(one_more)
    with pytest.raises(InvalidState, match=refusal):
        adopt(value)
    assert document(one_more) == RawDocument(one_more, refusal)
    answer = parse_answer(b'{"data":{"state":' + one_more.encode() + b',"more":1}}')
    assert answer["data"] == {"state": RawDocument(one_more, refusal), "more": 1}
    with pytest.raises(InvalidChange, match=refusal):
        apply(Change("merge_patch", {"b": [0]}), parse(most))


def nested(depth: int) -> str:
    return '{"a":' * (depth - 1) + "[]" + "}" * (depth - 1)


def test_the_depth_limit_is_met_exactly() -> None:
    deepest = parse(nested(MAX_DEPTH))
    assert adopt(deepest) == apply(Change("new_state", deepest), {}) == deepest


def test_one_level_too_deep_is_refused() -> None:
    with pytest.raises(InvalidState, match="deeper than 100 levels"):
        parse(nested(MAX_DEPTH + 1))
    with pytest.raises(InvalidState, match="deeper than 100 levels"):
        adopt(json.loads(nested(MAX_DEPTH + 1)))


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_hostile_nesting_is_refused(opening: str) -> None:
    with pytest.raises(InvalidState):
        parse_value(opening * 1_000_000)


# Documents that are not states

RAW = [
    ("[1, 2]", "it is an array, not an object"),
    ("null", "it is null, not an object"),
    ('"x"', "it is a string, not an object"),
    (r'"{\"a\":1}"', "it is a string that contains a JSON object: it was encoded twice"),
    ('{"a":1, "a":1}', 'an object has the key "a" twice'),
    ('{"a":[NaN]}', "NaN is not a JSON number"),
    ('{"a":1e9999999999999999999}', "the number 1e9999999999999999999 is out of range"),
    (nested(MAX_DEPTH + 1), "it is nested deeper than 100 levels"),
    ('[{"a]\\"":' * 50_000 + '"}"' + "}]" * 50_000, "it is nested deeper than 100 levels"),
    (f'{{"a":"{"x" * (MAX_BYTES - 7)}"}}', "it is larger than 9,999,999 bytes"),
]
raws = pytest.mark.parametrize(("text", "problem"), RAW, ids=[problem for _, problem in RAW])


@raws
def test_an_unusable_document_stays_raw_text(text: str, problem: str) -> None:
    assert document(f"\n{text} ".encode()) == RawDocument(text, problem)
    assert dump(document(text)) == text


@pytest.mark.parametrize("text", ["", "{", "[1,]", "{} {}", "[" * 100_000, b"\xff"])
def test_what_is_not_json_is_no_document(text: str | bytes) -> None:
    with pytest.raises(InvalidState, match="not valid"):
        document(text)


def test_raw_documents_differ_by_text() -> None:
    raw, spaced, state = document("[1]"), document("[1 ]"), document('{"a":1}')
    assert same(raw, document(" [1]"))
    assert not same(raw, spaced)
    assert not same(raw, state)
    assert len({version(found) for found in (raw, spaced, state)}) == 3
    assert not same(state, RawDocument(dump(state), ""))
    assert version(state) != version(RawDocument(dump(state), ""))


def test_a_raw_document_differs_as_a_whole() -> None:
    raw = document("[1]")
    assert diff(raw, {}).changes == [DiffEntry("replace", "", raw, {})]
    assert diff({}, raw).changes == [DiffEntry("replace", "", {}, raw)]
    assert diff(raw, raw).total == 0
    assert preview(document('["é", 1]'), limit=5) == '["é",… (9 bytes)'


def test_a_raw_document_is_replaced_whole() -> None:
    raw = document("[1]")
    assert apply(Change("new_state", {"a": 1.5}, exact=False), raw) == {"a": 1.5}
    for change in (
        Change("merge_patch", {"a": 1}),
        Change("json_patch", [{"op": "add", "path": "/a", "value": 1}]),
        Change("part", {"path": "", "value": {}}),
    ):
        with pytest.raises(InvalidChange, match=r"it is an array, .* whole state with new_state"):
            apply(change, raw)


# Answers


def answer(state: str) -> bytes:
    return f'{{"code":"Success", "data" : {{"state":{state} ,"n":1.10}}}}'.encode()


@raws
def test_an_answer_holds_raw_documents(text: str, problem: str) -> None:
    found = parse_answer(answer(text))["data"]["state"]
    assert found == (None if text == "null" else RawDocument(text, problem))


@pytest.mark.parametrize(
    "text",
    [
        nested(MAX_DEPTH),
        '{"a":"' + "x" * (MAX_BYTES - 8) + '"}',
        '{"a":"' + r"\u00e9" * (MAX_BYTES // 2 - 4) + '"}',
        '{"a":' + " " * (3 * MAX_BYTES) + "1}",
    ],
    ids=["deepest", "largest", "escapes", "white space"],
)
def test_the_envelope_does_not_count(text: str) -> None:
    assert isinstance(parse_answer(answer(text))["data"]["state"], dict)


def test_an_answer_is_exact() -> None:
    content = b'\xef\xbb\xbf{"a":1,"a":2,"data":{"state":{"b":1.10},"x":{"y":0,"y":1e2}},"c":[]} '
    assert dump(parse_answer(content)) == '{"a":2,"data":{"state":{"b":1.10},"x":{"y":1e2}},"c":[]}'
    assert parse_answer(b'{"data":null}') == {"data": None}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b'{"a":1}x', b'{"a":1,}', b"{a:1}", b'{"a" 1}', b'{"a":NaN}', b"\xff"),
        *(b'{"a";1}', b'{"a":1;"b":2}', b"{1:2}"),
        *(b'{"data":{"state":[1,}}', b'{"data":{"state":{"a":1,"a":2}}', b'{"data":nul}'),
        *(b'{"data":{"state":' + b"[" * 100_000 + b"}}", b'{"a":' + b"[" * 9999 + b"]" * 9999),
        b'{"a":"' + b"x" * MAX_ANSWER_BYTES + b'"}',
    ],
)
def test_what_is_not_an_answer_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidState):
        parse_answer(content)


# Files


def test_the_state_of_a_file_is_exact_and_has_limits_of_its_own() -> None:
    deepest = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    text = f'{{"version":"v","state":{{"price":1.10,"deep":{deepest}}}}}'

    found = parse_envelope(indented(parse_envelope(text.encode())).encode())

    assert dump(found) == text


def test_a_file_has_room_for_the_indentation_of_the_largest_state() -> None:
    content = b'{"state":{' + b" " * MAX_BYTES + b'"a":1}}'

    assert parse_envelope(content) == {"state": {"a": 1}}


def test_a_state_in_a_file_that_cannot_be_used_is_a_raw_document() -> None:
    found = parse_envelope(b'{"state": {"a": 1, "a": 2}}')["state"]

    assert isinstance(found, RawDocument)
    assert found.text == '{"a": 1, "a": 2}'


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"a":1} 2', b'{"a":1,"a":2}', b"\xff", b'{"a":' + b"[" * 100_000],
)
def test_what_is_no_file_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidState):
        parse_envelope(content)


def test_each_level_of_an_indented_text_is_two_spaces_further_in() -> None:
    assert indented(parse('{"a":{"b":[1]}}')) == ('{\n  "a": {\n    "b": [\n      1\n    ]\n  }\n}')


def test_indented_text_shows_all_of_it_and_is_exact() -> None:
    value = parse('{"a\u202e\u007f":[1.10,{}],"é":"\\u0000"}'.replace("\\\\", "\\"))

    text = indented(value)

    assert text.splitlines()[0] == "{"
    assert all(" " <= character <= "~" for line in text.splitlines() for character in line)
    assert dump(parse(text)) == dump(value)


# Adopting


def test_values_of_another_parser_are_adopted() -> None:
    adopted = adopt(
        {"a": [1, True, None, "x", 0.1, 1e22, Decimal("1.50"), Decimal(7), number("1E2")]}
    )
    assert dump(adopted) == '{"a":[1,true,null,"x",0.1,1e+22,1.50,7,1E2]}'
    assert type(at(adopted, "/a/7")) is int


def test_an_adopted_value_shares_nothing_with_its_source() -> None:
    source: dict[str, Any] = {"a": [{"b": 1}]}
    adopted = adopt(source)
    source["a"][0]["b"] = 2
    assert adopted == {"a": [{"b": 1}]}


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), Decimal("NaN"), Decimal("-Infinity"), (1,), {1}, b"x", object()],
)
def test_what_json_cannot_say_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(InvalidState, match="at /a/0"):
        adopt({"a": [value]})


def test_an_integer_too_long_to_write_is_refused() -> None:
    with pytest.raises(InvalidState, match="the number at the top has too many digits; send it"):
        adopt(10**5000)


def test_a_key_that_is_no_string_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidState, match="a key at /a is not a string"):
        adopt({"a": {1: 2}})


def test_a_value_that_contains_itself_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(InvalidState, match="more than 500,000 values"):
        adopt(circle)


# Version and equality

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


# Changes: RFC 7386, appendix A


@pytest.mark.parametrize(
    ("state", "patch", "result"),
    [
        ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
        ('{"a":"b"}', '{"a":null}', "{}"),
        ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
        ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
        ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
        ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
        ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
        ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
    ],
)
def test_a_merge_patch_of_the_rfc(state: str, patch: str, result: str) -> None:
    assert dump(apply(Change("merge_patch", parse(patch)), parse(state))) == result


@pytest.mark.parametrize("patch", ['["c"]', "null", '"bar"', "1", "true"])
def test_a_merge_patch_that_would_replace_the_state_is_refused(patch: str) -> None:
    with pytest.raises(InvalidChange, match="a merge patch is a JSON object"):
        apply(Change("merge_patch", parse_value(patch)), {"a": "foo"})


# Changes: RFC 6902, appendix A


@pytest.mark.parametrize(
    ("state", "patch", "result"),
    [
        pytest.param(
            '{"foo":"bar"}',
            '[{"op":"add","path":"/baz","value":"qux"}]',
            '{"foo":"bar","baz":"qux"}',
            id="A.1 adding an object member",
        ),
        pytest.param(
            '{"foo":["bar","baz"]}',
            '[{"op":"add","path":"/foo/1","value":"qux"}]',
            '{"foo":["bar","qux","baz"]}',
            id="A.2 adding an array element",
        ),
        pytest.param(
            '{"baz":"qux","foo":"bar"}',
            '[{"op":"remove","path":"/baz"}]',
            '{"foo":"bar"}',
            id="A.3 removing an object member",
        ),
        pytest.param(
            '{"foo":["bar","qux","baz"]}',
            '[{"op":"remove","path":"/foo/1"}]',
            '{"foo":["bar","baz"]}',
            id="A.4 removing an array element",
        ),
        pytest.param(
            '{"baz":"qux","foo":"bar"}',
            '[{"op":"replace","path":"/baz","value":"boo"}]',
            '{"baz":"boo","foo":"bar"}',
            id="A.5 replacing a value",
        ),
        pytest.param(
            '{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}',
            '[{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]',
            '{"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}',
            id="A.6 moving a value",
        ),
        pytest.param(
            '{"foo":["all","grass","cows","eat"]}',
            '[{"op":"move","from":"/foo/1","path":"/foo/3"}]',
            '{"foo":["all","cows","eat","grass"]}',
            id="A.7 moving an array element",
        ),
        pytest.param(
            '{"baz":"qux","foo":["a",2,"c"]}',
            '[{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2}]',
            '{"baz":"qux","foo":["a",2,"c"]}',
            id="A.8 testing a value: success",
        ),
        pytest.param(
            '{"foo":"bar"}',
            '[{"op":"add","path":"/child","value":{"grandchild":{}}}]',
            '{"foo":"bar","child":{"grandchild":{}}}',
            id="A.10 adding a nested member object",
        ),
        pytest.param(
            '{"foo":"bar"}',
            '[{"op":"add","path":"/baz","value":"qux","xyz":123}]',
            '{"foo":"bar","baz":"qux"}',
            id="A.11 ignoring unrecognized elements",
        ),
        pytest.param(
            '{"/":9,"~1":10}',
            '[{"op":"test","path":"/~01","value":10}]',
            '{"/":9,"~1":10}',
            id="A.14 ~ escape ordering",
        ),
        pytest.param(
            '{"foo":["bar"]}',
            '[{"op":"add","path":"/foo/-","value":["abc","def"]}]',
            '{"foo":["bar",["abc","def"]]}',
            id="A.16 adding an array value",
        ),
        pytest.param(
            '{"a":{"b":[1.10]}}',
            '[{"op":"copy","from":"/a","path":"/c"},{"op":"add","path":"/c/b/-","value":2}]',
            '{"a":{"b":[1.10]},"c":{"b":[1.10,2]}}',
            id="a copy is a value of its own",
        ),
        pytest.param(
            '{"a":1}',
            '[{"op":"replace","path":"","value":{"b":2}},{"op":"add","path":"/c","value":3}]',
            '{"b":2,"c":3}',
            id="the whole may be replaced",
        ),
        pytest.param(
            '{"a":1,"b":2}',
            '[{"op":"remove","path":"/a","from":"/nowhere"}]',
            '{"b":2}',
            id="a member of another operation is unrecognized too",
        ),
    ],
)
def test_a_json_patch_of_the_rfc(state: str, patch: str, result: str) -> None:
    assert dump(apply(Change("json_patch", parse_value(patch)), parse(state))) == result


@pytest.mark.parametrize(
    ("state", "patch", "message"),
    [
        pytest.param(
            '{"baz":"qux"}',
            '[{"op":"test","path":"/baz","value":"bar"}]',
            r'operation 0 \(test /baz\): there is "qux", not "bar"',
            id="A.9 testing a value: error",
        ),
        pytest.param(
            '{"foo":"bar"}',
            '[{"op":"add","path":"/baz/bat","value":"qux"}]',
            r"operation 0 \(add /baz/bat\): nothing at /baz; the nearest is the top, an object",
            id="A.12 adding to a nonexistent target",
        ),
        pytest.param(
            '{"/":9,"~1":10}',
            '[{"op":"test","path":"/~01","value":"10"}]',
            'there is 10, not "10"',
            id="A.15 comparing strings and numbers",
        ),
        ('{"a":1}', '[{"op":"replace","path":"/b","value":1}]', "nothing at /b"),
        (
            '{"a":1}',
            '[{"op":"remove","path":"/a/b"}]',
            "nothing at /a/b; the nearest is /a, a number",
        ),
        ('{"a":1}', '[{"op":"move","from":"/b","path":"/c"}]', "nothing at /b"),
        ('{"a":{}}', '[{"op":"move","from":"/a","path":"/a/b"}]', "cannot be moved into itself"),
        (
            '{"a":[1]}',
            '[{"op":"add","path":"/a/2","value":1}]',
            r"operation 0 \(add /a/2\): 2 is not an index of /a, an array of 1; use 0 to 1",
        ),
        (
            '{"a":1}',
            '[{"op":"add","path":"/a/b","value":1}]',
            "/a is a number; only an object or array has members",
        ),
        (
            '{"a":[1]}',
            '[{"op":"replace","path":"/a/1","value":1}]',
            "nothing at /a/1; the nearest is /a, an array of 1",
        ),
        ('{"a":[1]}', '[{"op":"remove","path":"/a/-"}]', "nothing at /a/-"),
        ('{"a":[1]}', '[{"op":"remove","path":"/a/00"}]', "nothing at /a/00"),
        ('{"a":1}', '[{"op":"test","path":"","value":{"a":true}}]', "operation 0"),
        ('{"a":1}', '[{"op":"remove","path":""}]', r'\(remove ""\): the whole state cannot'),
        ('{"a":1}', '[{"op":"replace","path":"","value":[]}]', "the change makes it an array"),
        ('{"a":1}', '[{"op":"add","path":"","value":null}]', "the change makes it null"),
        (
            '{"a":1}',
            '[{"op":"test","path":"/a","value":1},{"op":"add","path":"/b"}]',
            "operation 1",
        ),
    ],
)
def test_a_json_patch_that_does_not_fit_is_refused(state: str, patch: str, message: str) -> None:
    with pytest.raises(InvalidChange, match=message):
        apply(Change("json_patch", parse_value(patch)), parse(state))


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("new_state", "[]", "a state is a JSON object, but this is an array"),
        ("merge_patch", "null", "a merge patch is a JSON object, but this is null"),
        ("merge_patch", "{}", "the patch is empty"),
        ("json_patch", "[]", "the patch is empty"),
        ("json_patch", '{"op":"remove","path":"/a"}', "a JSON patch is an array of operations"),
        ("json_patch", '"[]"', "a JSON patch is an array of operations"),
        ("json_patch", '["add"]', "operation 0 is a string; it must be an object"),
        ("json_patch", "[null]", "operation 0 is null; it must be an object"),
        ("json_patch", '[{"path":"/a"}]', "operation 0 has no op; its op is one of add, remove"),
        ("json_patch", '[{"op":["add"]}]', r'operation 0 has the unknown op \["add"\]; its op is'),
        ("json_patch", '[{"op":"append"}]', 'operation 0 has the unknown op "append"; its op is'),
        ("json_patch", '[{"op":"add","value":1}]', r"operation 0 \(add\) has no path; add it"),
        ("json_patch", '[{"op":"add","path":"/b"}]', r"operation 0 \(add\) has no value; add it"),
        ("json_patch", '[{"op":"move","path":"/a"}]', r"operation 0 \(move\) has no from; add it"),
        ("json_patch", '[{"op":"remove","path":["a"]}]', "its path is an array, not a string"),
        ("json_patch", '[{"op":"copy","path":"","from":1}]', "its from is a number, not a string"),
        ("json_patch", '[{"op":"remove","path":"a"}]', "its path a is not a JSON Pointer; start"),
        ("json_patch", '[{"op":"copy","path":"","from":"/~2"}]', "its from /~2 is not a JSON Poin"),
        (
            "json_patch",
            '[{"op":"test","path":"","value":{}},{"op":"remove","path":1}]',
            "operation 1",
        ),
        ("part", "[]", "a part is a JSON object with a path"),
        ("part", '{"value":1}', "a part is a JSON object with a path"),
        ("part", '{"path":"a"}', "a is not a JSON Pointer"),
        ("part", '{"path":""}', "the whole state cannot be removed"),
    ],
)
def test_a_malformed_change_is_refused(kind: Any, value: str, message: str) -> None:
    change = parse_change(kind, value)
    with pytest.raises(InvalidChange, match=message):
        check(change)
    with pytest.raises(InvalidChange, match=message):
        apply(change, {})


def test_a_sound_change_passes_its_check() -> None:
    for change in CHANGES:
        check(change)


# Changes: parts


@pytest.mark.parametrize(
    ("state", "part", "result"),
    [
        ('{"a":1,"b":2}', '{"path":"/a","value":1.10}', '{"a":1.10,"b":2}'),
        ('{"a":{}}', '{"path":"/a/b","value":null}', '{"a":{"b":null}}'),
        ('{"a":[1,2]}', '{"path":"/a/0","value":3}', '{"a":[3,2]}'),
        ('{"a":[1,2]}', '{"path":"/a/2","value":3}', '{"a":[1,2,3]}'),
        ('{"a":1}', '{"path":"","value":{"b":2}}', '{"b":2}'),
        ('{"a":[1,2]}', '{"path":"/a/0"}', '{"a":[2]}'),
        ('{"a":1,"b":2}', '{"path":"#/a"}', '{"b":2}'),
        ('{"a":1}', '{"path":"/b"}', '{"a":1}'),
        ('{"a":1}', '{"path":"/b/c"}', '{"a":1}'),
        ('{"a":[1]}', '{"path":"/a/-"}', '{"a":[1]}'),
    ],
)
def test_a_part_is_put_or_removed(state: str, part: str, result: str) -> None:
    change = parse_change("part", part, exact=False)
    assert dump(apply(change, parse(state))) == result


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ('{"path":"/x/y/z","value":1}', "part /x/y/z: nothing at /x/y; the nearest is the top"),
        ('{"path":"/b/c","value":1}', "/b is a number; only an object or array has members"),
        ('{"path":"/a/2","value":1}', "2 is not an index of /a, an array of 1; use 0 to 1"),
        ('{"path":"/a/-","value":1}', "- is not an index of /a, an array of 1; use 0 to 1"),
        ('{"path":"","value":[]}', "the change makes it an array"),
    ],
)
def test_a_part_that_does_not_fit_is_refused(part: str, message: str) -> None:
    with pytest.raises(InvalidChange, match=message):
        apply(parse_change("part", part), {"a": [1], "b": 1})


def test_the_largest_part_can_be_stored() -> None:
    state = parse(nested(MAX_DEPTH))
    stored = dump(part_of(state, "").value)
    assert apply(parse_change("part", stored), {}) == state


def test_a_part_has_a_well_formed_path() -> None:
    with pytest.raises(NotThere, match="not a JSON Pointer"):
        part_of({}, "a")


# Changes: the tests of a patch


@pytest.mark.parametrize(
    ("there", "tested", "passes"),
    [
        *(("1", "1.0", True), ("1.10", "1.1", True), ("[1e2]", "[100]", True), ("-0", "0", True)),
        *(("1", "true", False), ("[0]", "[false]", False), ('{"x":1}', '{"x":true}', False)),
        *(
            ("null", "false", False),
            ("1", "2", False),
            ("[1]", "[1,1]", False),
            ("{}", "[]", False),
        ),
        *(
            ('{"x":1,"y":2}', '{"y":2,"x":1}', True),
            ("9007199254740993", "9007199254740992", False),
        ),
    ],
)
def test_a_test_compares_as_the_rfc_says(there: str, tested: str, passes: bool) -> None:
    state = {"a": parse_value(there)}
    change = Change("json_patch", [{"op": "test", "path": "/a", "value": parse_value(tested)}])
    if passes:
        assert apply(change, state) == state
    else:
        with pytest.raises(InvalidChange, match="there is"):
            apply(change, state)


# Changes: limits, purity, exactness


def test_a_new_state_replaces_the_whole() -> None:
    assert apply(Change("new_state", {"b": 2}), {"a": 1}) == {"b": 2}


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_a_new_state_has_to_be_an_object(value: JsonValue) -> None:
    with pytest.raises(InvalidChange, match="a state is a JSON object"):
        apply(Change("new_state", value), {})


CHANGES = [
    Change("new_state", {"a": {"b": [2]}}),
    Change("merge_patch", {"a": {"b": None, "d": {"e": [1]}}}),
    Change("json_patch", [{"op": "add", "path": "/a/b/-", "value": {"e": [1]}}]),
    Change("json_patch", [{"op": "move", "from": "/a/b", "path": "/c/b"}]),
]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("change", CHANGES, ids=repr)
def test_neither_the_state_nor_the_change_is_touched(change: Change, exact: bool) -> None:
    change = Change(change.kind, copy.deepcopy(change.value), exact)
    state: dict[str, Any] = {"a": {"b": [1]}, "c": {}}
    result = apply(change, state)
    vandalise(result)
    assert state == {"a": {"b": [1]}, "c": {}}
    assert change.value in [other.value for other in CHANGES]


def vandalise(value: Any) -> None:
    for member in list(value.values()) if isinstance(value, dict) else value:
        if isinstance(member, dict | list):
            vandalise(member)
    value.clear()


def test_the_operations_of_a_patch_do_not_change_each_other() -> None:
    patch = [
        {"op": "add", "path": "/a", "value": []},
        {"op": "add", "path": "/a/-", "value": 1},
    ]
    change = Change("json_patch", patch)
    assert apply(change, {}) == apply(change, {}) == {"a": [1]}


def test_a_change_that_nests_too_deep_is_refused() -> None:
    patch = [{"op": "copy", "from": "/a", "path": "/a" * (MAX_DEPTH - 1) + "/-"}]
    with pytest.raises(InvalidChange, match="deeper than 100 levels"):
        apply(Change("json_patch", patch), parse(nested(MAX_DEPTH)))


def test_a_change_that_grows_too_large_is_refused() -> None:
    half = {"b": "x" * (MAX_BYTES // 2)}
    with pytest.raises(InvalidChange, match="larger than 9,999,999 bytes"):
        apply(Change("merge_patch", half), {"a": half["b"]})


@pytest.mark.parametrize("depth", ["wide", "deep"])
def test_a_patch_that_doubles_the_state_again_and_again_is_refused_soon(depth: str) -> None:
    patch = [
        {"op": "copy", "from": "" if depth == "deep" else "/a", "path": f"/a/{n}"}
        for n in range(60)
    ]
    with pytest.raises(InvalidChange):
        apply(Change("json_patch", patch), {"a": {"x": "y" * 100_000}})


@pytest.mark.slow
def test_a_patch_copies_so_many_values_and_no_more() -> None:
    state = {"a": [[1]] * 49_999 + [1]}  # 100,000 values, with the array itself.
    copies: list[JsonValue] = [{"op": "copy", "from": "/a", "path": f"/{n}"} for n in range(3)]
    assert apply(Change("json_patch", copies[:2]), state)["1"] == state["a"]
    with pytest.raises(InvalidChange, match=r"operation 2 .*more than 200,000 values"):
        apply(Change("json_patch", copies), state)
    # Each one doubles it; in bytes, millions of values would be allowed.
    doubled: JsonValue = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 24
    with pytest.raises(InvalidChange, match="more than 200,000 values"):
        apply(Change("json_patch", doubled), {"a": [1]})


def test_a_patch_has_so_many_operations_and_no_more() -> None:
    patch: list[JsonValue] = [{"op": "add", "path": "/a/-", "value": 1}] * 10_001
    assert apply(Change("json_patch", patch[1:]), {"a": []}) == {"a": [1] * 10_000}
    with pytest.raises(InvalidChange, match="more than 10,000 operations"):
        apply(Change("json_patch", patch), {"a": []})


def test_a_patch_that_nests_the_state_again_and_again_is_refused() -> None:
    patch: JsonValue = [{"op": "copy", "from": "", "path": "/a"}] * 1500
    with pytest.raises(InvalidChange, match=r"operation [0-9]+ "):
        apply(Change("json_patch", patch), {})


def test_an_inexact_change_gives_back_the_numbers_it_rounded() -> None:
    text = f'{{"a":[{DECIMAL_40},1.10,1e2],"b":{{"c":1.00000000000000001e-7,"d":-0.0}},"e":2.5}}'
    state = parse(text)
    rounded = adopt(json.loads(text))
    assert dump(rounded) != text
    assert dump(apply(Change("new_state", rounded, exact=False), state)) == text


def test_an_inexact_change_may_add_to_an_array() -> None:
    change = Change("new_state", adopt({"a": [0.1, 2.5, "x"]}), exact=False)
    assert dump(apply(change, parse('{"a":[0.10]}'))) == '{"a":[0.10,2.5,"x"]}'


def test_an_exact_change_keeps_its_own_spelling() -> None:
    state = parse(f'{{"a":{DECIMAL_40}}}')
    assert dump(apply(Change("new_state", adopt({"a": float(DECIMAL_40)})), state)) != dump(state)


@pytest.mark.parametrize(("before", "new"), [("0.1", "0.2"), ("0.0", "-0.0"), ("1e400", "1e500")])
def test_an_inexact_change_still_changes_numbers(before: str, new: str) -> None:
    change = Change("new_state", parse(f'{{"a":{new}}}'), exact=False)
    assert dump(apply(change, parse(f'{{"a":{before}}}'))) == f'{{"a":{new}}}'


def test_an_inexact_change_undoes_what_javascript_does_to_numbers_it_only_passes_on() -> None:
    state = parse('{"a":1.0,"b":9007199254740993,"c":-0,"d":1e400,"e":123456789012345678901234}')
    seen_by_javascript = adopt(
        {"a": 1, "b": 9007199254740992, "c": 0, "d": plain(state["d"]), "e": 1.2345678901234568e23}
    )
    change = Change("new_state", seen_by_javascript, exact=False)
    assert dump(apply(change, state)) == dump(state)


@pytest.mark.parametrize(
    ("before", "new"),
    [
        *(("1", "2"), ("1", "1.0"), ("9007199254740993", "9007199254740995")),
        # Each of these has the same double as the one before, and JavaScript prints neither.
        *(("1234567890123456789", "1234567890123456788"), ("9007199254740992", "9007199254740993")),
        *(
            ("1234567890123456789", "1234567890123456768"),
            ("9007199254740993", "9007199254740992.0"),
        ),
        *(("1" + "0" * 22 + "1", "1" + "0" * 23), ("1e-400", "0.0"), ("1.0", "-0")),
    ],
)
def test_an_inexact_change_still_changes_integers(before: str, new: str) -> None:
    change = Change("new_state", parse(f'{{"a":{new}}}'), exact=False)
    assert dump(apply(change, parse(f'{{"a":{before}}}'))) == f'{{"a":{new}}}'


def test_numbers_that_were_kept_are_listed() -> None:
    state = parse(f'{{"a":[1234567890123456789,1.10,5],"b/c":{DECIMAL_40},"d":1.0,"e":2}}')
    patch = adopt({"a": [1234567890123456800, 1.1, 5], "b/c": float(DECIMAL_40), "d": 1, "e": 3})
    after = state | {"e": 3}
    kept = ("/a/0", "/b~1c", "/d")
    assert applied(Change("merge_patch", patch, exact=False), state) == Applied(after, kept, 3)
    assert applied(Change("merge_patch", patch), state).kept_total == 0


def test_the_list_of_kept_numbers_is_bounded() -> None:
    state = parse(f'{{"a":[{",".join(["1.0"] * 60)}]}}')
    change = Change("new_state", {"a": [1] * 60}, exact=False)
    assert applied(change, state) == Applied(
        state, kept=tuple(f"/a/{index}" for index in range(50)), kept_total=60
    )


def test_an_inserted_number_is_not_a_rounding() -> None:
    patch: JsonValue = [
        {"op": "add", "path": "/a/0", "value": 1},
        {"op": "replace", "path": "/a/1", "value": 2},
        {"op": "add", "path": "/b", "value": {"c": 3}},
    ]
    state = parse('{"a":[1.0,2.0],"b":{"c":3.0}}')
    found = applied(Change("json_patch", patch, exact=False), state)
    assert dump(found.after) == '{"a":[1,2,2.0],"b":{"c":3.0}}'
    assert found.kept == ("/b/c",)


def test_an_inexact_patch_does_not_respell_what_it_only_moves() -> None:
    near = DECIMAL_40[:-1] + "9"
    patch = adopt([{"op": "remove", "path": "/a/0"}, {"op": "add", "path": "/b", "value": 0.1}])
    state = parse(f'{{"a":[{DECIMAL_40},{near}],"b":0.10}}')
    assert (
        dump(apply(Change("json_patch", patch, exact=False), state)) == f'{{"a":[{near}],"b":0.10}}'
    )


def test_an_inexact_add_below_the_top_gives_back_the_number_it_rounded() -> None:
    state = parse('{"a":{"b":12345678901234567891}}')
    patch = [{"op": "add", "path": "/a/b", "value": 12345678901234567000}]

    found = applied(Change("json_patch", patch, exact=False), state)

    assert (found.after, found.kept) == (state, ("/a/b",))


def test_an_integer_beyond_all_doubles_is_given_back_for_the_outermost_double() -> None:
    state = {"a": 10**400, "b": -(10**400)}
    change = Change("new_state", adopt({"a": sys.float_info.max, "b": -sys.float_info.max}), False)

    assert applied(change, state) == Applied(state, ("/a", "/b"), 2)
    assert apply(Change("new_state", {"a": 10**401}, exact=False), state) == {"a": 10**401}


def test_an_inexact_test_compares_what_its_parser_could_carry() -> None:
    patch = adopt([{"op": "test", "path": "/a", "value": float(DECIMAL_40)}])
    state = parse(f'{{"a":{DECIMAL_40}}}')
    assert apply(Change("json_patch", patch, exact=False), state) == state
    with pytest.raises(InvalidChange, match="there is"):
        apply(Change("json_patch", patch), state)
    near: JsonValue = [{"op": "test", "path": "/a", "value": 1234567890123456788}]
    with pytest.raises(InvalidChange, match="there is 1234567890123456789, not"):
        apply(Change("json_patch", near, exact=False), {"a": 1234567890123456789})


def test_errors_show_little_of_the_state() -> None:
    secret = "s" * 10_000
    state = {secret: secret}
    attempts: list[JsonValue] = [
        [{"op": "test", "path": "", "value": secret}],
        [{"op": "remove", "path": f"/{secret}/{secret}"}],
        [{"op": "add", "path": f"/{secret}/x", "value": 1}],
        [{"op": "add", "path": f"/{secret}x/x", "value": 1}],
        [{"op": "add", "path": secret, "value": 1}],
        [{"op": secret, "path": "/x", "value": 1}],
    ]
    for patch in attempts:
        with pytest.raises(InvalidChange) as refused:
            apply(Change("json_patch", patch), state)
        assert str(refused.value).count("s") < 280
    for text in (
        f'{{"{secret}":1,"{secret}":1}}',
        secret,
        f'{{"a":{secret}}}',
        f"[1e{'9' * 999}]",
    ):
        with pytest.raises(InvalidState) as unread:
            parse(text)
        assert len(str(unread.value)) < 200


def test_errors_can_be_encoded() -> None:
    with pytest.raises(NotThere, match=r"nothing at /\\ud800") as error:
        at({}, "/\ud800")
    assert str(error.value).encode()


# Diff


def test_a_diff_lists_changes_in_document_order() -> None:
    before = parse('{"z":1,"a":{"x":1,"y":[1,2,3]},"gone":null}')
    after = parse('{"new":0,"a":{"y":[1,5],"x":1},"z":{"w":1}}')
    assert diff(before, after).changes == [
        DiffEntry("replace", "/z", 1, {"w": 1}),
        DiffEntry("replace", "/a/y/1", 2, 5),
        DiffEntry("remove", "/a/y/2", 3, None),
        DiffEntry("remove", "/gone", None, None),
        DiffEntry("add", "/new", None, 0),
    ]


def test_a_diff_escapes_its_pointers() -> None:
    assert diff({}, {"a/b~c": 1, "": 2}).changes == [
        DiffEntry("add", "/a~1b~0c", None, 1),
        DiffEntry("add", "/", None, 2),
    ]


def test_a_longer_array_is_added_to_at_its_end() -> None:
    assert [entry.path for entry in diff([1], [1, 2, 3]).changes] == ["/1", "/2"]


def test_a_shorter_array_is_removed_from_at_its_end() -> None:
    assert [entry.path for entry in diff([1, 2, 3], [1]).changes] == ["/2", "/1"]


@pytest.mark.parametrize(("a", "b"), [("1", "1.0"), ("1", "true"), ("0", "-0"), ("[]", "{}")])
def test_a_diff_tells_apart_what_python_does_not(a: str, b: str) -> None:
    before, after = parse_value(a), parse_value(b)
    assert diff({"x": before}, {"x": after}).changes == [DiffEntry("replace", "/x", before, after)]


def test_another_spelling_is_no_difference() -> None:
    assert diff(parse('{"a":1.10,"b":1e2}'), parse('{"b":100.0,"a":1.1}')).total == 0


def test_a_diff_counts_all_and_keeps_the_first() -> None:
    found = diff({}, {str(n): n for n in range(80)}, limit=3)
    assert [entry.path for entry in found.changes] == ["/0", "/1", "/2"]
    assert found.total == 80


def test_differences_come_one_at_a_time() -> None:
    before, after = parse('{"a":[1,2],"b":1}'), parse('{"a":[1],"c":2}')
    found = differences(before, after)
    assert next(found) == DiffEntry("remove", "/a/1", 2, None)
    assert list(found) == diff(before, after).changes[1:]


# Looking


def test_a_preview_is_the_exact_text() -> None:
    assert preview(parse('{"a": 1.10, "b": "é"}')) == r'{"a":1.10,"b":"\u00e9"}'


def test_a_long_preview_is_cut_and_tells_the_size() -> None:
    assert preview({"a": "x" * 5112}, limit=9) == '{"a":"xxx… (5,120 bytes)'
    assert preview("x" * 8, limit=10) == f'"{"x" * 8}"'


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        *(("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/c%d", 2)),
        *(("/e^f", 3), ("/g|h", 4), ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8)),
    ],
)
def test_a_pointer_of_the_rfc(pointer: str, found: JsonValue) -> None:
    document = r'{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}'
    assert at(parse(document), pointer) == found
    assert at(parse(document), "") == parse(document)


@pytest.mark.parametrize(
    ("pointer", "path"),
    [
        ("/a/b", "/a/b"),
        ("/k\u200b", "#/k%E2%80%8B"),
        ("/\u202e%/é", "#/%E2%80%AE%25/é"),
        ("/\n~1/\ud800", "#/%0A~1/%ED%A0%80"),
        ("#", "#"),
    ],
)
def test_a_path_is_shown_as_a_fragment_if_some_of_it_would_not_show(
    pointer: str, path: str
) -> None:
    assert shown_path(pointer) == path


def test_a_path_that_was_shown_as_a_fragment_can_be_used_in_a_patch() -> None:
    patch = parse_value(
        '[{"op":"move","from":"#/%E2%80%8B","path":"#/%25"},{"op":"test","path":"#/%25","value":1}]'
    )
    assert apply(Change("json_patch", patch), {"\u200b": 1}) == {"%": 1}


def test_a_path_that_is_shown_has_an_end() -> None:
    assert len(shown_path("/" + "k" * 10_000)) == len(shown_path("/\x00" * 900)) == 1000


def test_an_outline_names_what_is_behind_a_huge_key_but_not_what_is_in_it() -> None:
    huge = {f"{n}" + "k" * 100_000: {"x": {"y": 1}} for n in range(3)}
    entries = outline({**huge, "z": {"w": 1}}, max_bytes=6000).entries
    assert [entry.path[:2] for entry in entries] == ["/0", "/1", "/2", "/z", "/z"]


@pytest.mark.parametrize("pointer", ["foo", "/a~", "/a~2", "#a", "#/%ff"])
def test_what_is_no_pointer_is_said_so(pointer: str) -> None:
    with pytest.raises(NotThere, match="is not a JSON Pointer"):
        at({"foo": 1}, pointer)


@pytest.mark.parametrize(
    "index", ["2", "-", "-1", "01", "1.0", "1e0", "", "x", "\u0661", "9" * 5000]
)
def test_an_array_has_only_its_indices(index: str) -> None:
    with pytest.raises(NotThere, match="an array of 2"):
        at({"a": [0, 1]}, f"/a/{index}")


def test_a_pointer_to_nowhere_names_the_nearest_parent() -> None:
    state: dict[str, Any] = {"tables": {f"t{n}": {} for n in range(9)}}
    with pytest.raises(NotThere) as error:
        at(state, "/tables/users/cursor")
    assert str(error.value) == (
        "nothing at /tables/users/cursor; the nearest is /tables, "
        'an object with 9 keys: "t0", "t1", "t2", "t3", "t4", …'
    )
    with pytest.raises(NotThere, match=r'the nearest is the top, an object with 1 key: "tables"$'):
        at(state, "/users")


def test_an_outline_is_breadth_first() -> None:
    value = parse('{"a":{"x":[1.50,"é"]},"b":[],"c":null,"d":true}')
    assert outline(value).entries == [
        OutlineEntry("/a", "object", 21, 1, None),
        OutlineEntry("/b", "array", 2, 0, None),
        OutlineEntry("/c", "null", 4, None, "null"),
        OutlineEntry("/d", "boolean", 4, None, "true"),
        OutlineEntry("/a/x", "array", 15, 2, None),
        OutlineEntry("/a/x/0", "number", 4, None, "1.50"),
        OutlineEntry("/a/x/1", "string", 8, None, r'"\u00e9"'),
    ]


def test_an_outline_counts_what_it_leaves_out() -> None:
    entries = outline({"a": {f"k{n}": "v" for n in range(100)}}, max_bytes=1000).entries
    assert entries[0] == OutlineEntry("/a", "object", 991, 100, None)
    listed = len(entries) - 2
    assert listed > 3
    assert entries[-1] == OutlineEntry("/a", "more", 3 * (100 - listed), 100 - listed, None)


@pytest.mark.parametrize("max_bytes", range(800, 2400, 80))
def test_an_outline_has_room_to_name_a_long_parent(max_bytes: int) -> None:
    value = {"k" * 600: {"x" * 100: 1, "y": 2}, "z": {}}
    entries = outline(value, max_bytes=max_bytes).entries
    assert len(dump([vars(entry) for entry in entries])) <= max_bytes


def test_an_outline_begins_its_paths_with_the_pointer_it_was_given() -> None:
    entries = outline({"x": [1]}, "/a/b").entries
    assert [entry.path for entry in entries] == ["/a/b/x", "/a/b/x/0"]


def test_an_outline_cuts_long_scalars() -> None:
    [entry] = outline(["x" * 1000]).entries
    assert entry.bytes == 1002
    assert entry.preview == '"' + "x" * 58 + "…"


def test_an_outline_of_a_scalar_is_empty() -> None:
    assert outline("x" * 10_000) == Listing([], None)


def found(value: JsonValue, text: str, pointer: str = "") -> list[str]:
    """The paths that a search finds."""
    return [entry.path for entry in matches(value, text, pointer)]


def test_a_search_finds_a_part_of_a_path_in_any_case_at_any_depth() -> None:
    state = {"Orders": {"page": [{"CURSOR": 1}]}, "cursors": None, "other": 2}
    assert found(state, "cursor") == ["/Orders/page/0/CURSOR", "/cursors"]
    assert found(state, "orders/PAGE/0") == ["/Orders/page/0"]
    assert found(state, "/0") == ["/Orders/page/0"]
    assert found({"GRÖSSE": 1, "größe": 2}, "Größe") == ["/GRÖSSE", "/größe"]
    assert found(state, "nothing") == found("cursor", "cursor") == []


def test_what_is_inside_a_match_is_found_only_by_its_own_key() -> None:
    state = {"orders": {"cursor": 1, "old_orders": {"cursor": 2}}}
    assert found(state, "orders") == ["/orders", "/orders/old_orders"]
    assert found(state, "orders/") == [
        "/orders/cursor",
        "/orders/old_orders",
        "/orders/old_orders/cursor",
    ]


def test_a_search_below_a_path_begins_there() -> None:
    state = {"cursor": 1, "page": 2}
    assert found(state, "orders", "/orders") == []
    assert (
        found(state, "orders/c", "/orders")
        == found(state, "orders/c", "#/%6Frders")
        == ["/orders/cursor"]
    )


@pytest.mark.parametrize("text", ["public/orders", "public~1orders", "/public~1"])
def test_a_key_with_a_slash_is_found_as_it_reads_and_as_its_path_is_written(text: str) -> None:
    assert found({"public/orders": 1, "a~b": 2}, text) == ["/public~1orders"]


@pytest.mark.parametrize("text", ["~b", "a~0b"])
def test_a_key_with_a_tilde_is_found_as_it_reads_and_as_its_path_is_written(text: str) -> None:
    assert found({"public/orders": 1, "a~b": 2}, text) == ["/a~0b"]


def test_a_search_may_begin_in_the_path_of_the_value() -> None:
    assert [found.path for found in matches({"b": 1}, "/a/b", "/a")] == ["/a/b"]


def test_a_search_shows_small_values_whole_and_the_size_of_others() -> None:
    small = parse('{"cursor":1.50,"name":"\u007f"}')
    assert list(matches({"a1": small, "a2": "x" * 300, "a3": list(range(300))}, "a")) == [
        OutlineEntry("/a1", "object", 31, 2, r'{"cursor":1.50,"name":"\u007f"}'),
        OutlineEntry("/a1/name", "string", 8, None, r'"\u007f"'),
        OutlineEntry("/a2", "string", 302, None, '"' + "x" * 58 + "…"),
        OutlineEntry("/a3", "array", 1091, 300, None),
    ]


@pytest.mark.slow
def test_a_huge_path_does_not_make_what_is_below_it_expensive() -> None:
    above = "/" + "k" * 5_000_000
    state = {f"table_{n}": {"rows": {"x": 1}} for n in range(50_000)}
    assert search(state, "kk/table_7/ROWS", above).total == 1
    assert search(state, "rows", above).total == 50_000
    assert outline(state, above, start=49_990).next_start is not None


def test_a_page_of_a_search_counts_all_matches() -> None:
    state = {f"key_{n}": n for n in range(100)}
    first = search(state, "KEY", max_bytes=1000)
    assert first.next_start == len(first.entries) > 3
    rest = search(state, "KEY", max_bytes=100_000, start=first.next_start)
    assert [entry.path for entry in first.entries + rest.entries] == [f"/{key}" for key in state]
    assert (first.total, rest.total, rest.next_start) == (100, 100, None)


def test_plain_values_suit_other_libraries() -> None:
    value = parse(r'{"\ud800":[1.10,9007199254740993,-0,1e400,"a\udfff😀",true,null]}')
    assert plain(value) == {
        r"\ud800": [1.1, 9007199254740993, 0.0, sys.float_info.max, r"a\udfff😀", True, None]
    }
    assert json.dumps(plain(value), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "text",
    ["9007199254740993", "-9007199254740993", DECIMAL_40, "1e400", "1e-400", "-0", "1" * 5000],
)
def test_a_number_that_a_double_cannot_carry_is_listed(text: str) -> None:
    assert inexact({"a": [parse_value(text)]}) == {"/a/0": text}


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "9007199254740992",
        "1.10",
        "0.1",
        "-0.0",
        "1e2",
        "0.30000000000000004",
        "true",
        '"1e400"',
    ],
)
def test_a_number_that_a_double_can_carry_is_not_listed(text: str) -> None:
    assert inexact({"a": [parse_value(text)]}) == {}


def test_the_list_of_inexact_numbers_is_bounded() -> None:
    assert list(inexact([2**60] * 9, limit=2)) == ["/0", "/1"]


# Speed


def test_two_megabytes_take_well_under_a_second() -> None:
    table = '{"cursor":"2024-01-01T00:00:00Z","id":9007199254740993,"lag":0.12345,"done":true}'
    document = "{" + ",".join(f'"table_{n}":{table}' for n in range(20_000)) + "}"
    assert len(document) > 1_900_000
    started = time.process_time()
    state = parse(document)
    assert dump(state) == document
    version(state)
    outline(state)
    assert time.process_time() - started < 2  # measured 0.3; room for a busy machine


def test_a_huge_key_does_not_make_its_members_expensive() -> None:
    state = {"k" * 1_000_000: {"x": list(range(2**53, 2**53 + 100_000))}}
    started = time.process_time()
    assert diff(state, adopt({"k" * 1_000_000: {"x": []}}), limit=1).total == 100_000
    assert len(inexact(state, limit=1)) == 1
    assert time.process_time() - started < 3
