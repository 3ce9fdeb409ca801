import json
from decimal import Decimal
from typing import Any

import pytest

from fivetran_state.state import (
    MAX_ANSWER_BYTES,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_VALUES,
    Change,
    DiffEntry,
    InvalidChange,
    InvalidState,
    RawDocument,
    adopt,
    apply,
    at,
    diff,
    document,
    dump,
    indented,
    number,
    parse,
    parse_answer,
    parse_envelope,
    parse_value,
    preview,
    same,
    version,
)
from tests.support.states import nested

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
