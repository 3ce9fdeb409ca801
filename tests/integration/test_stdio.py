"""The stdio wire, without any client library: the lines on stdout, and the end of the process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import IDLE, ROOT, call, state_of
from tests.support.updates import resumed
from tests.support.wire import (
    DISCOVER,
    INITIALIZE,
    INITIALIZED,
    LEGACY,
    LIST_TOOLS,
    META,
    MODERN,
    ODD_ANSWERS,
    Message,
    RawServer,
    Start,
    ends_in_time,
    tool_call,
)

RESOURCE = f"fivetran://connections/{IDLE}/state"
LISTEN_TO = {"resourceSubscriptions": [RESOURCE]}


def subscribe(method: str, **params: Any) -> Message:
    return {"jsonrpc": "2.0", "id": "listen", "method": method, "params": params}


def ids(messages: list[Message]) -> list[str]:
    return [message["id"] for message in messages]


# What is on stdout


@pytest.mark.slow
@pytest.mark.parametrize("handshake", [LEGACY, MODERN], ids=["legacy", "2026-07-28"])
def test_each_request_is_answered_with_one_line_and_nothing_else_is_on_stdout(
    start: Start, handshake: list[Message]
) -> None:
    with start() as server:
        server.say(*handshake)

        assert server.answer("handshake")["result"][
            "serverInfo" if handshake is LEGACY else "_meta"
        ]
        tools = server.answer("tools")["result"]["tools"]
        assert "update_state" in [tool["name"] for tool in tools]
        request = tool_call("list_connections")
        server.say(request | {"params": handshake[-1]["params"] | request["params"]})
        assert server.answer("list_connections")["result"]["structuredContent"]["connections"]
        assert server.exit_code() == 0
        assert ids(server.heard) == ["handshake", "tools", "list_connections"]
        assert '"level": "debug"' in server.stderr


def test_garbage_on_stdin_puts_nothing_but_messages_on_stdout(start: Start) -> None:
    garbage = (
        b"What is the state of my connection?",
        b"",
        b"null",
        b"{}",
        b"[]",
        b'{"jsonrpc":"2.0"}',
        b'{"jsonrpc":"2.0","id":"handshake"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
    )
    with start() as server:
        server.say(*garbage, INITIALIZE, INITIALIZED, *garbage, LIST_TOOLS)

        assert "result" in server.answer("handshake")
        assert "result" in server.answer("tools")
        assert server.exit_code() == 0


UNREADABLE: list[tuple[bytes, str | int | None, int]] = [
    (b'{"jsonrpc":"2.0","id":"half","method":"ping","params":{"a":"\xc3"}}', "half", -32700),
    (b'{"jsonrpc":"2.0","id":"ha\xc3lf","method":"ping"}', None, -32700),
    (rb'{"jsonrpc":"2.0","id":"lone","method":"ping","params":{"a":"\ud800"}}', "lone", -32700),
    (rb'{"jsonrpc":"2.0","id":"\udc00","method":"ping"}', None, -32700),
    (b'{"jsonrpc":"2.0","id":"cut","method":"ping"', None, -32700),
    ('{"jsonrpc":"2.0","id":"utf-16","method":"ping"}'.encode("utf-16"), None, -32700),
    (b"What is the state of my connection?", None, -32700),
    (b'{"a":' * 100_000, None, -32700),
    (b'[{"jsonrpc":"2.0","id":"one of several","method":"ping"}]', None, -32600),
    (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', None, -32600),
    (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', None, -32600),
    (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', None, -32600),
    (b'{"jsonrpc":"2.0","id":"listed","method":"ping","params":[]}', "listed", -32600),
    (b'{"jsonrpc":"1.0","id":17,"method":"ping"}', 17, -32600),
    (b'{"id":"bare","method":"ping"}', "bare", -32600),
    (b'{"jsonrpc":"2.0","id":"no method"}', "no method", -32600),
    (b'"text"', None, -32600),
]


@pytest.mark.slow
def test_a_line_that_is_not_a_message_is_answered_and_logged(start: Start) -> None:
    with start() as server:
        server.say(*LEGACY)
        server.answer("tools")
        for line, request_id, code in UNREADABLE:
            server.say(line)
            answered = server.hear(lambda _: True)
            assert (answered["id"], answered["error"]["code"]) == (request_id, code), line[:80]
            assert answered["error"]["message"].endswith("Nothing was done.")
        server.say(tool_call("list_connections"))
        assert "result" in server.answer("list_connections")
        assert server.exit_code() == 0

    assert server.stderr.count("Refused a line on stdin") == len(UNREADABLE)


@pytest.mark.slow
def test_a_change_with_half_a_character_is_not_made_with_another_in_its_place(
    start: Start, sandbox: Sandbox
) -> None:
    before = state_of(sandbox, IDLE)
    with start() as server:
        server.say(*LEGACY, tool_call("get_state", connection_id=IDLE))
        version = server.answer("get_state")["result"]["structuredContent"]["version"]
        change = {"connection_id": IDLE, "merge_patch": {"a": "?"}, "expected_version": version}
        line = json.dumps(tool_call("update_state", **change)).encode().replace(b"?", b"\xe2\x82")
        server.say(line)

        assert server.answer("update_state")["error"]["code"] == -32700
    assert state_of(sandbox, IDLE) == before


def test_a_byte_order_mark_before_the_handshake_is_passed_over_and_logged(start: Start) -> None:
    with start() as server:
        server.say(b"\xef\xbb\xbf" + json.dumps(INITIALIZE).encode(), *LEGACY[1:])

        assert server.answer("handshake")["result"]["serverInfo"]
        assert server.answer("tools")["result"]
        assert server.exit_code() == 0
    assert "byte order mark" in server.stderr


@pytest.mark.slow
def test_an_answer_of_an_odd_shape_is_no_yes(start: Start, sandbox: Sandbox) -> None:
    before = state_of(sandbox, IDLE)
    asking = INITIALIZE["params"] | {"capabilities": {"elicitation": {}}}
    with start() as server:
        server.say(INITIALIZE | {"params": asking}, INITIALIZED)
        half = {"action": "accept", "content": {"a": "\ud800"}}
        for result in [*ODD_ANSWERS, half]:
            server.say(tool_call("update_state", connection_id=IDLE, merge_patch={"a": 1}))
            question = server.hear(lambda each: each.get("method") == "elicitation/create")
            server.say({"jsonrpc": "2.0", "id": question["id"], "result": result})
            assert server.refusal("update_state") == "not_confirmed", result
        server.say(tool_call("update_state", connection_id=IDLE, merge_patch={"a": 1}))
        question = server.hear(lambda each: each.get("method") == "elicitation/create")
        server.say({"jsonrpc": "2.0", "id": question["id"], "error": "no"})
        assert server.refusal("update_state") == "not_confirmed"
        assert server.exit_code() == 0

    assert state_of(sandbox, IDLE) == before


@pytest.mark.slow
def test_an_answer_of_an_odd_shape_between_two_rounds_is_no_yes(
    start: Start, sandbox: Sandbox
) -> None:
    before = state_of(sandbox, IDLE)
    capabilities: Message = {
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}
    }
    request = tool_call("update_state", connection_id=IDLE, merge_patch={"a": 1})
    request["params"]["_meta"] = META | capabilities
    with start() as server:
        server.say(DISCOVER, request)
        question = server.answer("update_state")["result"]
        assert question["resultType"] == "input_required"
        (key,) = question["inputRequests"]
        kept = {"requestState": question["requestState"]}
        odd: list[Message] = [{"inputResponses": {key: answer}} for answer in ODD_ANSWERS]
        others: list[Any] = [None, {}, [], "true", {"other": {}}]
        odd += [{"inputResponses": answers} for answers in others]
        for responses in [*odd, {}]:
            server.say(request | {"params": request["params"] | kept | responses})
            assert server.refusal("update_state") == "not_confirmed", responses
        # The answer may leave out empty content.
        yes = {"inputResponses": {key: {"action": "accept"}}}
        server.say(request | {"params": request["params"] | kept | yes})
        update = server.answer("update_state")["result"]["structuredContent"]

    assert update["status"] == "updated"
    assert state_of(sandbox, IDLE) == before | {"a": 1}


@pytest.mark.slow
def test_a_tool_that_fails_puts_nothing_but_messages_on_stdout(start: Start) -> None:
    with start() as server:
        server.say(*LEGACY, tool_call("get_state", connection_id="no_such_thing"))

        assert server.refusal("get_state") == "connection_not_found"
        assert server.exit_code() == 0


@pytest.mark.slow
def test_a_tool_that_crashes_puts_nothing_but_messages_on_stdout(
    start: Start, tmp_path: Path
) -> None:
    """In a broken installation, one of the packages for the first call cannot be imported."""
    (tmp_path / "dbos.py").write_text("raise RuntimeError('broken')")
    with start(PYTHONPATH=str(tmp_path)) as server:
        server.say(*LEGACY, tool_call("list_connections"))

        assert server.refusal("list_connections") == "internal_error"
        assert server.exit_code() == 0
        assert '"exception": ' in server.stderr


@pytest.mark.slow
def test_an_unusable_data_directory_is_the_tools_answer_and_not_the_handshakes(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with start(FIVETRAN_STATE_DATA_DIR=str(tmp_path / "file")) as server:
        server.say(*LEGACY, tool_call("get_state", connection_id=IDLE))

        assert "result" in server.answer("handshake")
        assert "result" in server.answer("tools")
        assert server.refusal("get_state") == "unusable_settings"
        assert server.exit_code() == 0


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FIVETRAN_STATE_SYNC_WAIT", "abc"),
        ("FIVETRAN_STATE_HTTP_TIMEOUT", "0"),
        ("FIVETRAN_STATE_LOG_LEVEL", "loud"),
        ("FIVETRAN_STATE_READ_ONLY", "perhaps"),
    ],
)
def test_an_invalid_setting_ends_the_server_with_one_line_that_names_it(
    start: Start, variable: str, value: str
) -> None:
    with start(**{variable: value}) as server:
        assert server.exit_code() == 64

        assert server.heard == []
        [line] = server.stderr.splitlines()
        assert variable in line


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT])
def test_a_server_that_is_killed_leaves_no_broken_line_on_stdout(
    start: Start, sandbox: Sandbox, how: signal.Signals
) -> None:
    with start() as server:
        start_update_that_hangs(server, sandbox)
        server.process.send_signal(how)

        assert server.exit_code() == -how
        assert ids(server.heard)[:3] == ["handshake", "tools", "get_state"]


def start_update_that_hangs(server: RawServer, sandbox: Sandbox) -> None:
    """An update in flight: its write has arrived at Fivetran, which does not answer."""
    server.say(*LEGACY, tool_call("get_state", connection_id=IDLE))
    version = server.answer("get_state")["result"]["structuredContent"]["version"]
    sandbox.fault("hang", method="PATCH", path="/state$")
    change = {"connection_id": IDLE, "merge_patch": {"cursor": "2020"}, "wait_seconds": 50}
    server.say(tool_call("update_state", expected_version=version, **change))
    sandbox.wait_for(lambda request: request.fault == "hang")


@pytest.mark.slow
def test_a_host_that_does_not_read_the_log_is_answered_all_the_same(
    environment: dict[str, str], tmp_path: Path
) -> None:
    # The server logs a byte order mark for each, and answers nothing.
    more_than_a_pipe_takes = [b"\xef\xbb\xbf" + json.dumps(INITIALIZED).encode()] * 2000
    with subprocess.Popen(
        [sys.executable, str(ROOT / "server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | {"FIVETRAN_STATE_LOG_LEVEL": "DEBUG"},
        cwd=tmp_path,
    ) as process:
        with ends_in_time(process):
            server = RawServer(process, tmp_path / "unread")
            server.say(*LEGACY, *more_than_a_pipe_takes, tool_call("list_connections"))

            assert "result" in server.answer("list_connections")
            assert server.exit_code() == 0
        assert process.stderr is not None
        assert process.stderr.read().count(b"\n") < 2000, "it was never full"


# When the process answers


@pytest.mark.slow
def test_the_handshake_is_answered_before_dbos_is_imported(start: Start, tmp_path: Path) -> None:
    """A module that waits for us replaces `dbos`, before it becomes the real one."""
    imports = tmp_path / "imports"
    imports.mkdir()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (imports / "dbos.py").write_text(
        "import importlib, sys\n"
        f"open({str(gate)!r}).read()\n"
        f"sys.path.remove({str(imports)!r})\n"
        "del sys.modules['dbos']\n"
        "importlib.import_module('dbos')\n"
    )
    with start(PYTHONPATH=str(imports)) as server:
        server.say(*LEGACY)

        assert "result" in server.answer("handshake")
        assert "result" in server.answer("tools")

        server.say(tool_call("get_state", connection_id=IDLE))
        gate.write_text("go on")
        assert server.answer("get_state")["result"]["structuredContent"]["version"]
        assert server.exit_code() == 0


# When the process ends


def test_the_server_ends_when_stdin_closes_before_a_word_was_said(start: Start) -> None:
    with start() as server:
        assert server.exit_code() == 0
        assert server.heard == []


@pytest.mark.slow
def test_the_handshake_is_answered_although_stdin_closes_at_once(start: Start) -> None:
    """Later requests may get no answer: when stdin closes, the SDK drops requests that it has not
    begun."""
    with start() as server:
        server.say(*LEGACY)

        assert server.exit_code() == 0
        assert ids(server.heard) in (["handshake"], ["handshake", "tools"])


@pytest.mark.slow
def test_the_server_ends_when_stdin_closes_while_fivetran_does_not_answer(
    start: Start, sandbox: Sandbox
) -> None:
    sandbox.fault("hang", path="/account/info")
    with start() as server:
        server.say(*LEGACY, tool_call("get_state", connection_id=IDLE))
        sandbox.wait_for(lambda request: request.fault == "hang")

        assert server.exit_code() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "opening",
    [
        [*LEGACY, subscribe("resources/subscribe", uri=RESOURCE)],
        [*MODERN, subscribe("subscriptions/listen", notifications=LISTEN_TO, _meta=META)],
    ],
    ids=["legacy", "modern"],
)
def test_the_server_ends_when_stdin_closes_although_somebody_listens(
    start: Start, opening: list[Message]
) -> None:
    with start() as server:
        server.say(*opening)
        server.hear(lambda each: each.get("id") == "listen" or "acknowledged" in str(each))

        assert server.exit_code() == 0


@pytest.mark.slow
def test_an_update_in_flight_when_stdin_closes_is_completed_although_no_server_is_left(
    start: Start, sandbox: Sandbox
) -> None:
    before = state_of(sandbox, IDLE)
    with start() as server:
        start_update_that_hangs(server, sandbox)

        assert server.exit_code() == 0

    sandbox.wait_for(resumed(IDLE))
    assert state_of(sandbox, IDLE) == before | {"cursor": "2020"}
    assert sandbox.connection(IDLE).paused is False


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_an_update_in_flight_when_a_signal_ends_the_server_is_completed_once_by_the_next_one(
    start: Start, connect: Connect, sandbox: Sandbox, how: signal.Signals
) -> None:
    before = state_of(sandbox, IDLE)
    with start() as server:
        start_update_that_hangs(server, sandbox)
        server.process.send_signal(how)
        server.exit_code()

    async with connect() as client:
        status = await call(client, "workflow_status", workflow_id=f"{IDLE}:1", wait_seconds=50)

    assert status["status"] == "updated"
    assert state_of(sandbox, IDLE) == before | {"cursor": "2020"}
    assert sandbox.connection(IDLE).paused is False
