"""The tools as a client sees them: the list, their arguments, and the form of their answers."""

import itertools
import json
import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from mcp import Client
from mcp_types import CallToolResult, Tool

from fivetran_state.sandbox import Sandbox
from tests import schemas
from tests.conftest import ERAS, Connect
from tests.support.calls import (
    API_KEY,
    API_SECRET,
    EXACT,
    IDLE,
    LARGE,
    NO_VERSION,
    PAUSED,
    ROOT,
    STATELESS,
    SYNCING,
    api_calls,
    arrival,
    call,
    refused,
    version_of,
)

ODD = "odd_heron"
"""A connection that tests add, with a state of its own."""

UNUSUAL = ("twin_harvest", "idle_turbine", "severed_cable", "patient_archive")
"""Connections in another group, with a manual schedule, with a broken set-up, and with a pending
historical re-sync."""

TOOLS = {
    "list_connections": "List connections",
    "get_state": "Read a state",
    "update_state": "Change a state",
    "update_states": "Change many states",
    "cancel_update": "Cancel an update",
    "workflow_status": "Follow an update",
    "state_history": "See how a state moved",
}
CHANGING = ("update_state", "update_states")
UPDATE = {"connection_id": IDLE, "merge_patch": {"rewound": True}}
VALID: dict[str, dict[str, Any]] = {
    "list_connections": {},
    "get_state": {"connection_id": IDLE},
    "update_state": UPDATE,
    "update_states": {"connection_ids": [IDLE], "merge_patch": {"rewound": True}},
    "cancel_update": {"workflow_id": f"{IDLE}:1"},
    "workflow_status": {"workflow_id": f"{IDLE}:1"},
    "state_history": {"connection_id": IDLE},
}


async def listed(client: Client) -> dict[str, Tool]:
    return {tool.name: tool for tool in (await client.list_tools()).tools}


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert content.type == "text"
    return content.text


class Checked:
    """Calls tools, and compares each result with the tool's output schema and its own text."""

    def __init__(self, client: Client, tools: dict[str, Tool]) -> None:
        self._client = client
        self._tools = tools

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self._client.call_tool(tool, arguments)
        assert not result.is_error, result.content
        structured: dict[str, Any] = result.structured_content or {}
        jsonschema.validate(structured, self._tools[tool].output_schema or {"not": {}})
        assert json.loads(text_of(result)) == structured
        return structured


# What is listed


@pytest.mark.parametrize("era", ERAS)
async def test_the_tools_are_listed_with_titles_hints_and_schemas(
    connect: Connect, era: str
) -> None:
    async with connect(era) as client:
        tools = await listed(client)

    assert {name: tool.title for name, tool in tools.items()} == TOOLS
    for name, tool in tools.items():
        hints = tool.annotations
        assert hints is not None
        assert hints.read_only_hint is (name not in (*CHANGING, "cancel_update"))
        assert bool(hints.destructive_hint) is (name in CHANGING)
        assert hints.open_world_hint
        # By the protocol, the hint has a meaning only for a tool that changes something.
        assert hints.idempotent_hint is (None if hints.read_only_hint else True)
        assert tool.description
        assert len(tool.description) < 2_048
        assert "additionalProperties" not in tool.input_schema
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        jsonschema.Draft202012Validator.check_schema(tool.output_schema)


@pytest.mark.parametrize("era", ERAS)
async def test_the_tools_are_those_that_clients_know(connect: Connect, era: str) -> None:
    async with connect(era) as client:
        tools = await schemas.listed(client)

    known = {file.stem: json.loads(file.read_text()) for file in schemas.FOLDER.glob("*.json")}
    assert tools == known, "if that is what you want: python -m tests.schemas"


async def test_the_tools_cost_a_model_few_bytes(connect: Connect) -> None:
    async with connect() as client:
        tools = await client.list_tools()

    read = [
        {"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema}
        for tool in tools.tools
    ]
    by_model = len(json.dumps(read, ensure_ascii=False, separators=(",", ":")).encode())
    whole = len(tools.model_dump_json(by_alias=True, exclude_none=True).encode())
    print(f"tools: a model reads {by_model:,} bytes, tools/list has {whole:,}")  # noqa: T201
    assert by_model < 8_000
    assert whole < 14_000


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_the_instructions_fit(connect: Connect, era: str) -> None:
    async with connect(era) as client:
        instructions = client.instructions

    assert instructions is not None
    assert len(instructions) <= 2_048


async def test_tools_are_listed_although_fivetran_cannot_be_reached(connect: Connect) -> None:
    async with connect(FIVETRAN_API_URL="http://127.0.0.1:9") as client:
        assert (await listed(client)).keys() == TOOLS.keys()


# What they answer


async def test_every_answer_of_an_update_s_life_is_as_its_schema_says(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        checked = Checked(client, await listed(client))
        await checked.call("list_connections", limit=3)
        seen = await checked.call("get_state", connection_id=IDLE)
        plan = await checked.call("update_state", **UPDATE)
        request = UPDATE | {"expected_version": seen["version"], "reason": "bad rows"}
        hold = sandbox.fault("hang", method="GET", path="/state$")
        started = await checked.call("update_state", **request, wait_seconds=0)
        await arrival(sandbox, lambda each: each.fault == "hang")
        running = await checked.call("workflow_status", workflow_id=started["workflow_id"])
        hold.release()
        done = await checked.call("update_state", **request, wait_seconds=50)
        status = await checked.call("workflow_status", workflow_id=started["workflow_id"])
        same = {"expected_version": done["version_after"], "wait_seconds": 50}
        unchanged = await checked.call("update_state", **UPDATE | same)

    answers = (plan, started, running, done, status, unchanged)
    assert [answer["status"] for answer in answers] == [
        *("planned", "running", "running", "updated", "updated", "unchanged")
    ]


async def test_the_status_of_a_failed_update_is_as_its_schema_says(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        checked = Checked(client, await listed(client))
        seen = {"expected_version": NO_VERSION, "wait_seconds": 50}
        error = await refused(client, "update_state", **UPDATE | seen)
        status = await checked.call("workflow_status", workflow_id=error["workflow_id"])

    assert status["status"] == "failed"
    assert status["error"].keys() == {"code", "message", "hint"}
    assert {key: error[key] for key in status["error"]} == status["error"]


async def test_every_kind_of_state_is_answered_as_the_schema_says(connect: Connect) -> None:
    async with connect() as client:
        checked = Checked(client, await listed(client))
        for connection_id in (IDLE, PAUSED, SYNCING, LARGE, EXACT, *UNUSUAL):
            seen = await checked.call("get_state", connection_id=connection_id)
            assert seen["connection_id"] == connection_id


STRANGE_STATES = {
    "lone surrogates": r'{"\ud800":"\udfff","cursor":"a\ud83d"}',
    "a surrogate pair": r'{"\ud83d\ude00":"\ud83d\ude00"}',
    "control characters": r'{"\u0000":"\u0007\u001b[31m\u007f","line":"a\nb\u2028c"}',
    "long keys": json.dumps({"k" * 5_000: 1}),
    "right-to-left": json.dumps({"\u202e": "\u202egnp"}),
    "numbers": '{"a":1e400,"b":-0,"c":123456789012345678901234567890,"d":1E-400}',
}


async def test_whatever_a_state_holds_it_is_read(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.add_connection(ODD)
    async with connect() as client:
        checked = Checked(client, await listed(client))
        for name, text in STRANGE_STATES.items():
            sandbox.set_state(ODD, text)
            for max_bytes in (100, 20_000):
                seen = await checked.call("get_state", connection_id=ODD, max_bytes=max_bytes)
                assert seen["bytes"] > 0, name
                assert len({"state", "state_json", "outline"} & seen.keys()) == 1, name


@pytest.mark.parametrize("text", STRANGE_STATES.values(), ids=STRANGE_STATES)
async def test_whatever_a_state_holds_it_is_planned_and_updated_and_the_rest_is_left(
    connect: Connect, sandbox: Sandbox, text: str
) -> None:
    sandbox.add_connection(ODD, state=text)
    before = sandbox.connection(ODD).state
    assert before is not None
    async with connect() as client:
        checked = Checked(client, await listed(client))
        version = await version_of(client, ODD)
        change = {"connection_id": ODD, "merge_patch": {"rewound": True}}
        plan = await checked.call("update_state", **change)
        done = await checked.call(
            "update_state", **change, expected_version=version, wait_seconds=50
        )
        await checked.call("workflow_status", workflow_id=done["workflow_id"])

    assert plan["changes"] == done["changes"]
    after = sandbox.connection(ODD).state
    assert after is not None
    assert json.loads(after) == json.loads(before) | {"rewound": True}


@pytest.mark.parametrize("text", STRANGE_STATES.values(), ids=STRANGE_STATES)
async def test_whatever_a_state_held_is_shown_when_it_goes(
    connect: Connect, sandbox: Sandbox, text: str
) -> None:
    sandbox.add_connection(ODD, state=text)
    async with connect() as client:
        checked = Checked(client, await listed(client))
        version = await version_of(client, ODD)
        done = await checked.call(
            "update_state",
            connection_id=ODD,
            new_state={},
            expected_version=version,
            wait_seconds=50,
        )

    assert {change["op"] for change in done["changes"]} == {"remove"}
    assert len(done["changes"]) == done["changes_total"] == len(json.loads(text))


async def test_a_strange_path_that_leads_nowhere_does_not_break_the_answer(
    connect: Connect, sandbox: Sandbox
) -> None:
    sandbox.add_connection(ODD, state=STRANGE_STATES["lone surrogates"])
    async with connect() as client:
        error = await refused(client, "get_state", connection_id=ODD, path="/\x00\x1b\u2028")

    assert error["code"] == "invalid_request"


@pytest.mark.slow
async def test_a_large_change_is_answered_in_few_bytes(connect: Connect) -> None:
    async with connect() as client:
        version = await version_of(client, LARGE)
        result = await client.call_tool(
            "update_state",
            {
                "connection_id": LARGE,
                "new_state": {},
                "expected_version": version,
                "wait_seconds": 50,
            },
        )

    assert not result.is_error, result.content
    assert len(text_of(result)) < 5_000


# What they refuse


UNKNOWN = (
    ("update_state", "expected_verison", "expected_version"),
    ("update_state", "mergePatch", "merge_patch"),
    ("update_states", "connection_id", "connection_ids"),
    ("cancel_update", "workflow", "workflow_id"),
)


async def test_a_tool_that_writes_names_an_unknown_argument_and_the_nearest_and_sends_nothing(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        for (tool, argument, meant), value in itertools.product(UNKNOWN, (NO_VERSION, None)):
            error = await refused(client, tool, **VALID[tool], **{argument: value})
            assert error["code"] == "invalid_request"
            assert f"{argument} is not an argument (did you mean {meant}?)" in error["message"]

    assert [each.path for each in sandbox.log if "account" not in each.path] == []


async def test_of_many_unknown_arguments_the_first_are_named(connect: Connect) -> None:
    unknown = {"x" * 100_000: 1} | {f"{number}": number for number in range(10_000)}
    async with connect() as client:
        error = await refused(client, "update_state", **UPDATE, **unknown)

    assert "; 3 is not an argument; and 9996 more. update_state takes: " in error["message"]


async def test_a_tool_that_reads_passes_unknown_arguments_over(connect: Connect) -> None:
    async with connect() as client:
        update = await call(client, "update_state", **UPDATE)
        made = await call(
            client, "update_state", **UPDATE, expected_version=update["version_before"]
        )
        for tool in TOOLS.keys() - {*CHANGING, "cancel_update"}:
            with_more = VALID[tool] | {"toolCallId": "call_1", "session": {"id": None}}
            expected = await client.call_tool(tool, VALID[tool])
            answered = await client.call_tool(tool, with_more)
            assert not answered.is_error, answered.content
            assert answered.content == expected.content

    assert made["status"] == "updated"


async def test_an_unknown_tool_is_an_error_like_every_other(connect: Connect) -> None:
    async with connect(FIVETRAN_STATE_READ_ONLY="true") as client:
        error = await refused(client, "update_state", **UPDATE)
        odd = await refused(client, "\x1b[31m" + "x" * 10_000)

    assert error["code"] == odd["code"] == "invalid_request"
    assert error["message"].startswith("There is no tool 'update_state'; this server has list_con")
    assert "\x1b" not in odd["message"]
    assert len(odd["message"]) < 500


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "limit 0": ("list_connections", {"limit": 0}, "limit"),
    "limit 1001": ("list_connections", {"limit": 1_001}, "limit"),
    "limit text": ("list_connections", {"limit": "many"}, "limit"),
    "name number": ("list_connections", {"name": 7}, "name"),
    "no id": ("get_state", {}, "connection_id"),
    "id number": ("get_state", {"connection_id": 7}, "connection_id"),
    "id list": ("get_state", {"connection_id": [IDLE]}, "connection_id"),
    "id null": ("get_state", {"connection_id": None}, "connection_id"),
    "max_bytes -1": ("get_state", {"connection_id": IDLE, "max_bytes": -1}, "max_bytes"),
    "max_bytes 1000001": (
        "get_state",
        {"connection_id": IDLE, "max_bytes": 1_000_001},
        "max_bytes",
    ),
    "limit 1.5": ("list_connections", {"limit": 1.5}, "limit"),
    "path list": ("get_state", {"connection_id": IDLE, "path": ["a"]}, "path"),
    "merge_patch list": (
        "update_state",
        {"connection_id": IDLE, "merge_patch": [1]},
        "merge_patch",
    ),
    "merge_patch number": (
        "update_state",
        {"connection_id": IDLE, "merge_patch": 1},
        "merge_patch",
    ),
    "new_state true": ("update_state", {"connection_id": IDLE, "new_state": True}, "new_state"),
    "json_patch object": ("update_state", {"connection_id": IDLE, "json_patch": {}}, "json_patch"),
    "json_patch of numbers": (
        "update_state",
        {"connection_id": IDLE, "json_patch": [1]},
        "json_patch",
    ),
    "dry_run text": ("update_state", UPDATE | {"dry_run": "perhaps"}, "dry_run"),
    "version number": ("update_state", UPDATE | {"expected_version": 7}, "expected_version"),
    "long reason": ("update_state", UPDATE | {"reason": "x" * 501}, "reason"),
    "long key": ("update_state", UPDATE | {"idempotency_key": "x" * 201}, "idempotency_key"),
    "wait 51": ("update_state", UPDATE | {"wait_seconds": 51}, "wait_seconds"),
    "wait -1": (
        "workflow_status",
        {"workflow_id": f"{IDLE}:1", "wait_seconds": -1},
        "wait_seconds",
    ),
    "workflow number": ("workflow_status", {"workflow_id": 1}, "workflow_id"),
}


async def test_a_wrong_argument_is_named_and_nothing_is_sent(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        for case, (tool, arguments, name) in WRONG.items():
            error = await refused(client, tool, **arguments)
            problem = error["message"].partition(f"{tool} takes:")[0]
            assert error["code"] == "invalid_request", case
            assert re.match(rf"{name}(\[\d\])? (is missing|must (be|have) )", problem), case
            of_python = r"dict|list|\bstr\b|\bint|float|bool|input|valid|[Ff]ield"
            assert not re.search(of_python, problem), case

    assert [each.path for each in sandbox.log if "account" not in each.path] == []


MISTAKEN: list[tuple[str, Any, str]] = [
    ("new_state", [1], "new_state must be a JSON object or a JSON string, not an array."),
    ("merge_patch", 1.5, "merge_patch must be a JSON object or a JSON string, not a number."),
    ("json_patch", {}, "json_patch must be a JSON array or a JSON string, not an object."),
    ("json_patch", [{}, 7], "json_patch[1] must be a JSON object, not a number."),
    ("new_state", "[1]", "new_state: a state is a JSON object, but this is an array"),
    ("merge_patch", "7", "merge_patch: a merge patch is a JSON object, but this is a number"),
    ("json_patch", "{}", "json_patch: a JSON patch is an array of operations, but this is an ob"),
    ("new_state", "{'a': None}", "new_state: not valid JSON"),
    ("new_state", '{"a":1,"a":2}', 'new_state: an object has the key "a" twice'),
    ("new_state", '{"a":NaN}', "new_state: NaN is not a JSON number"),
    (
        "merge_patch",
        '"{\\"a\\":1}"',
        "merge_patch: a merge patch is a JSON object, but this is a str",
    ),
]


async def test_a_wrong_change_is_told_in_words_of_json(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        for argument, value, problem in MISTAKEN:
            error = await refused(client, "update_state", connection_id=IDLE, **{argument: value})
            assert error["code"] == "invalid_request"
            assert error["message"].startswith(problem)

    assert api_calls(sandbox, IDLE) == []


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "short version": {"expected_version": "0123456789abcde"},
    "long version": {"expected_version": NO_VERSION + "0"},
    "upper case": {"expected_version": NO_VERSION.upper()},
    "words": {"expected_version": "latest"},
    "star": {"expected_version": "*"},
    "unknown op": {"json_patch": [{"op": "set", "path": "/a", "value": 1}]},
    "no op": {"json_patch": [{"path": "/a", "value": 1}]},
    "bad pointer": {"json_patch": [{"op": "remove", "path": "a"}]},
    "bad escape": {"json_patch": [{"op": "remove", "path": "/a~2"}]},
    "bad from": {"json_patch": [{"op": "move", "from": "a", "path": "/b"}]},
    "no value": {"json_patch": [{"op": "add", "path": "/a"}]},
    "empty patch": {"merge_patch": {}},
    "empty patch text": {"merge_patch": "{}"},
    "no operations": {"json_patch": []},
    "only": {"merge_patch": {"a": 1}, "only": "/a"},
}


async def test_what_can_never_work_is_refused_unsent(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        for case, how in IMPOSSIBLE.items():
            is_change = {"merge_patch", "json_patch"} & how.keys()
            arguments = {"connection_id": IDLE} | (
                how if is_change else {"merge_patch": {"a": 1}} | how
            )
            for more in ({}, {"dry_run": True}, {"reason": "x"}, {"expected_version": NO_VERSION}):
                error = await refused(client, "update_state", **more | arguments)
                assert error["code"] == "invalid_request", case

    assert [each.path for each in sandbox.log if "account" not in each.path] == []


async def test_a_version_of_release_0_1_is_a_conflict(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        old = (await version_of(client, IDLE))[:16]
        read = len(sandbox.log)
        error = await refused(client, "update_state", **UPDATE, expected_version=old)

    assert error["code"] == "conflict"
    assert sorted(api_calls(sandbox, IDLE, read)) == ["GET", "GET state"]


async def test_a_missing_parent_is_named(connect: Connect) -> None:
    patch = [{"op": "add", "path": "/tables/orders/cursor", "value": 1}]
    async with connect() as client:
        error = await refused(client, "update_state", connection_id=IDLE, json_patch=patch)

    assert error["code"] == "invalid_change"
    assert "/tables" in error["message"]
    assert "'" not in error["message"]


async def test_a_byte_order_mark_is_ignored(connect: Connect) -> None:
    async with connect() as client:
        plans = [
            await call(client, "update_state", connection_id=IDLE, **{kind: f"\ufeff{text}"})
            for kind, text in (
                ("new_state", '{"cursor":1}'),
                ("merge_patch", '{"cursor":1}'),
                ("json_patch", '[{"op":"replace","path":"/cursor","value":1}]'),
            )
        ]

    assert [plan["changes"][0]["after"] for plan in plans] == ["1"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("nothing", ["", None])
async def test_an_argument_that_says_nothing_is_as_good_as_none(
    connect: Connect, nothing: str | None
) -> None:
    async with connect() as client:
        tools = await listed(client)
        version = await version_of(client, IDLE)
        await call(client, "update_state", **UPDATE, expected_version=version)
        given = {tool: dict(arguments) for tool, arguments in VALID.items()}
        given["update_state"] |= {
            "expected_version": await version_of(client, IDLE),
            "dry_run": True,
        }
        for tool, arguments in given.items():
            without = await client.call_tool(tool, arguments)
            optional = _optional(tools[tool]) - arguments.keys()
            for filled in [{name} for name in optional] + [optional]:
                answer = await client.call_tool(tool, dict.fromkeys(filled, nothing) | arguments)
                assert answer.content == without.content, (tool, filled)


def _optional(tool: Tool) -> set[str]:
    """The optional arguments."""
    return set(tool.input_schema["properties"]) - set(tool.input_schema.get("required", []))


@pytest.mark.parametrize("nothing", ["", None])
async def test_an_update_with_every_other_argument_saying_nothing_is_made(
    connect: Connect, nothing: str | None
) -> None:
    async with connect() as client:
        optional = _optional((await listed(client))["update_state"])
        done = await call(
            client,
            "update_state",
            **dict.fromkeys(optional, nothing)
            | UPDATE
            | {"expected_version": await version_of(client, IDLE)},
        )
        found = await call(client, "workflow_status", workflow_id=done["workflow_id"])

    assert done["status"] == "updated"
    assert "reason" not in found


async def test_text_that_looks_like_json_stays_text(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.add_connection(ODD, state="{}")
    async with connect() as client:
        version = await version_of(client, ODD)
        status = await call(
            client,
            "update_state",
            connection_id=ODD,
            merge_patch={"cursor": "17", "flag": "true"},
            expected_version=version,
            reason="123",
            wait_seconds=50,
        )
        found = await call(client, "workflow_status", workflow_id=status["workflow_id"])

    assert sandbox.connection(ODD).state == '{"cursor":"17","flag":"true"}'
    assert found["reason"] == "123"


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "invalid_request": ("get_state", {"connection_id": "../etc/passwd"}),
    "connection_not_found": ("get_state", {"connection_id": "no_such_connection"}),
    "state_not_kept": ("get_state", {"connection_id": STATELESS}),
    "workflow_not_found": ("workflow_status", {"workflow_id": f"{IDLE}:7"}),
    "conflict": ("update_state", UPDATE | {"expected_version": NO_VERSION}),
    "invalid_change": (
        "update_state",
        {"connection_id": IDLE, "json_patch": [{"op": "remove", "path": "/nothing"}]},
    ),
}


async def test_a_refusal_has_a_code_a_message_and_a_hint_and_no_traceback(
    connect: Connect,
) -> None:
    async with connect() as client:
        for code, (tool, arguments) in REFUSED.items():
            result = await client.call_tool(tool, arguments)
            assert result.is_error, code
            assert result.structured_content is None, code
            error = json.loads(text_of(result))
            assert error["code"] == code
            assert error["message"], code
            assert error["hint"], code
            _shows_nothing_of_the_inside(text_of(result))


@pytest.mark.parametrize("name", ["get_state", "update_state"])
async def test_an_unexpected_answer_of_fivetran_shows_nothing_of_the_inside(
    connect: Connect, sandbox: Sandbox, name: str
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        sandbox.fault("garbage", path=f"{IDLE}$", body='{"data":{"id":[]}}', times=100)
        arguments = VALID[name] | ({"expected_version": version} if name == "update_state" else {})
        result = await client.call_tool(name, arguments)

    assert result.is_error
    assert json.loads(text_of(result))["code"]
    _shows_nothing_of_the_inside(text_of(result))


def _shows_nothing_of_the_inside(text: str) -> None:
    assert "Traceback" not in text
    assert str(ROOT) not in text
    assert not re.search(r"\.py\b|site-packages|/usr/|/tmp/", text)
    assert API_KEY not in text
    assert API_SECRET not in text
