from typing import Any

import pytest

from fivetran_state.state import (
    Change,
    InvalidChange,
    apply,
    check,
    dump,
    parse,
    parse_change,
    parse_value,
)
from tests.support.states import CHANGES

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
