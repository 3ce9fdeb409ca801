"""States that several tests try."""

from fivetran_state.state import Change

DECIMAL_40 = "0.1234567890123456789012345678901234567890"


def nested(depth: int) -> str:
    return '{"a":' * (depth - 1) + "[]" + "}" * (depth - 1)


CHANGES = [
    Change("new_state", {"a": {"b": [2]}}),
    Change("merge_patch", {"a": {"b": None, "d": {"e": [1]}}}),
    Change("json_patch", [{"op": "add", "path": "/a/b/-", "value": {"e": [1]}}]),
    Change("json_patch", [{"op": "move", "from": "/a/b", "path": "/c/b"}]),
]
