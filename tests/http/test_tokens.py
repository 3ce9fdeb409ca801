"""Access: a server that others can reach needs a token, and accepts every caller with one."""

import stat
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from fivetran_state import http_server
from fivetran_state.config import Settings
from fivetran_state.errors import FivetranStateError
from fivetran_state.http_server import oauth, visit
from fivetran_state.http_server.gate import DOCUMENTATION
from fivetran_state.sandbox import Sandbox
from fivetran_state.tokens import TokenFile
from tests.conftest import Serve
from tests.support.calls import SYNCING, arrival, sync_runs_on
from tests.support.frames import LEGACY, MODERN, Answer, Frame, RawClient, headers_of, valid
from tests.support.http_server import WRONG_TOKEN, authorization, run_cli
from tests.support.issuer import OAuthIssuer
from tests.support.rest import ANY

RESPOND_ASYNC = {"Prefer": "respond-async"}
SOON = 3
"""Seconds: long enough for a call to begin."""


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [(("--host", "0.0.0.0"), {}), ((), {"FIVETRAN_STATE_OAUTH_ISSUER": "http://issuer"})],
)
async def test_a_server_that_is_set_up_unsafely_says_so_in_one_line_and_does_not_start(
    environment: dict[str, str], arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    code, stdout, stderr = await run_cli(
        environment | variables, "--http", "--port", "0", *arguments
    )

    assert (code, stdout) == (64, "")
    assert stderr.startswith("Cannot start: ")
    assert stderr.count("\n") == 1
    assert ("token create" if arguments else "https URL") in stderr


@pytest.mark.parametrize(
    ("host", "variables", "wanted"),
    [
        ("0.0.0.0", {}, "token create"),
        ("::", {}, "token create"),
        ("", {}, "token create"),
        ("128.0.0.1", {}, "token create"),
        ("localhost.example.com", {}, "token create"),
        ("127.0.0.1", {"FIVETRAN_STATE_PUBLIC_URL": "https://state.example.com"}, "token create"),
        ("127.0.0.1", {"FIVETRAN_STATE_TRUSTED_PROXIES": "10.0.0.0/8"}, "token create"),
        ("127.0.0.1", {"FIVETRAN_STATE_OAUTH_ISSUER": "https://issuer"}, "PUBLIC_URL"),
        ("127.0.0.1", {"FIVETRAN_STATE_TOKENS_FILE": "."}, "cannot be read"),
    ],
)
def test_a_server_that_others_can_reach_does_not_start_while_nothing_says_who_may_use_it(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    variables: dict[str, str],
    wanted: str,
) -> None:
    for name, value in (environment | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FivetranStateError, match=wanted):
        http_server.build(Settings(), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_on_this_machine_alone_it_starts(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert http_server.build(Settings(), host)


async def test_a_server_for_this_machine_alone_is_open_to_it(http: Serve) -> None:
    async with http() as server:
        assert await server.status() == 200
        assert await server.status("/nothing-is-here") == 404


async def test_where_tokens_are_asked_for_only_a_valid_one_opens_all_but_health_and_documentation(
    http: Serve,
) -> None:
    async with http() as server:
        valid, expired = server.new_token(), server.new_token(days=0)
        other_secret = valid[:-4] + "0000"
        for path in ("/", "/mcp", "/docs/", "/docs/openapi.json", "/nothing-is-here", "/healthz/"):
            answer = await server.client.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.json()["code"] == "authentication_required"
        for wrong in (WRONG_TOKEN, expired, other_secret, valid[4:], "a.b.c", "fst_"):
            answer = await server.client.get("/", headers=authorization(wrong))
            assert answer.status_code == 401, wrong
            assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert {"type", "title", "status", "code", "detail", "hint"} == answer.json().keys()
        in_the_query = await server.status("/", params={"access_token": valid})
        basic = await server.client.get("/", auth=("token", valid))
        assert (in_the_query, basic.status_code) == (401, 401)

        assert await server.status("/", valid) == 200
        assert await server.status("/nothing-is-here", valid) == 404
        assert await server.status("/healthz") == 200
        assert await server.status("/readyz") == 200
        for path in DOCUMENTATION:
            assert await server.status(path) == 200, path


async def test_a_token_file_that_vanishes_or_breaks_does_not_open_the_server(http: Serve) -> None:
    async with http() as server:
        token = server.new_token()
        path = server.settings.tokens_path
        assert await server.status(token=token) == 200

        path.unlink()
        assert (await server.status(token=token), await server.status()) == (401, 401)
        path.touch(mode=0o600)
        path.write_text("{}}")
        answer = await server.client.get("/", headers=authorization(token))

    assert answer.status_code == 503
    assert str(path) not in answer.text


async def test_the_last_token_is_revoked_and_opens_nothing_any_more_nor_is_the_server_open(
    http: Serve,
) -> None:
    async with http() as server:
        token = server.new_token()
        assert await server.status(token=token) == 200

        revoked, _, _ = await run_cli(
            {"FIVETRAN_STATE_DATA_DIR": str(server.settings.data_dir)},
            *("token", "revoke", token.split("_")[1]),
        )
        assert revoked == 0
        assert (await server.status(token=token), await server.status()) == (401, 401)
    async with http() as server:
        assert await server.status() == 401


async def test_tokens_are_made_and_listed_at_the_command_line_and_only_their_hash_is_kept(
    environment: dict[str, str], http: Serve, tmp_path: Path
) -> None:
    tokens = tmp_path / "elsewhere" / "tokens.json"
    environment["FIVETRAN_STATE_TOKENS_FILE"] = str(tokens)
    async with http() as server:
        command = ("token", "create", "--scope", "read", "--name", "CI", "--expires-days", "2")
        code, created, told = await run_cli(environment, *command)
        token = created.strip()

        assert code == 0
        assert token.startswith("fst_")
        assert token not in told
        assert await server.status(token=token) == 200
    _, listed, _ = await run_cli(environment, "token", "list")
    missing, _, complaint = await run_cli(environment, "token", "revoke", "00000000")

    token_id = token.split("_")[1]
    assert token_id in listed
    assert "CI" in listed
    assert "expires" in listed
    assert token.removeprefix(f"fst_{token_id}_") not in tokens.read_text() + listed
    assert stat.filemode(tokens.stat().st_mode) == "-rw-------"
    assert (missing, complaint) == (1, "Error: There is no token 00000000.\n")


@pytest.mark.parametrize("era", [LEGACY, MODERN])
async def test_a_stream_ends_soon_after_its_token(http: Serve, era: str) -> None:
    listens = valid(era, "subscriptions/listen", {"notifications": {}})
    if era == LEGACY:
        listens = Frame(headers_of(era, "", {}), method="GET")
    async with http() as server:
        tokens = TokenFile(server.settings)
        text, token = tokens.create("read", None, None)
        client = RawClient(server.port, text)
        await client.open_session()
        headers = {
            name: value.decode().replace("{session}", client.session)
            for name, value in listens.headers
        }
        async with server.client.stream(
            listens.method, "/mcp", content=listens.body, headers=headers | authorization(text)
        ) as stream:
            assert stream.headers["Content-Type"].startswith("text/event-stream"), stream
            tokens.revoke(token.id)
            with anyio.fail_after(30):
                await stream.aread()


@pytest.mark.parametrize("path", ["/mcp", "/state/get"])
async def test_a_token_that_ends_in_the_middle_of_a_body_is_refused(
    http: Serve, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(visit, "BETWEEN_LOOKS", 0.05)
    async with http() as server:
        tokens = TokenFile(server.settings)
        text, token = tokens.create("write", None, None)
        headers = authorization(text) | {"Expect": "100-continue"}
        async with server.half_sent("POST", path, **headers) as head:
            assert (await head()).startswith("HTTP/1.1 100 ")
            tokens.revoke(token.id)
            answer = await head()

    assert answer.startswith("HTTP/1.1 401 ")
    assert 'error="invalid_token"' in answer
    assert "application/problem+json" in answer


async def test_a_call_that_waits_gets_no_answer_once_its_token_is_revoked(
    http: Serve, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync_runs_on(sandbox)
    async with http() as server, anyio.create_task_group() as group:
        tokens = TokenFile(server.settings)
        other = authorization(server.new_token())
        change = {"connection_id": SYNCING, "new_state": {}}
        answers: list[httpx.Response] = []

        async def ask(method: str, path: str, token: str, **named: Any) -> None:
            headers = authorization(token)
            answers.append(await server.client.request(method, path, headers=headers, **named))

        started = await server.client.post(
            "/state/update", json=ANY | change, headers=other | {"Prefer": "respond-async"}
        )
        where = started.headers["Location"]

        # The server breaks them off while they wait.
        monkeypatch.setattr(visit, "BETWEEN_LOOKS", 0.05)
        text, token = tokens.create("write", None, None)
        group.start_soon(ask, "GET", f"{where}?wait=60", text)
        group.start_soon(partial(ask, "POST", "/state/update", text, json=ANY | change))
        await server.has_open(2)
        tokens.revoke(token.id)
        await server.has_open(0)

        # The update that they wait for ends first.
        monkeypatch.setattr(visit, "BETWEEN_LOOKS", 60)
        text, token = tokens.create("write", None, None)
        group.start_soon(ask, "GET", f"{where}?wait=60", text)
        await server.has_open(1)
        tokens.revoke(token.id)
        await server.client.post(f"{where}/cancel", json={}, headers=other)

    assert [answer.status_code for answer in answers] == [401] * 3
    assert all(SYNCING not in answer.text for answer in answers)


async def test_a_call_that_waits_is_answered_although_its_token_cannot_be_checked_any_more(
    http: Serve, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visit, "BETWEEN_LOOKS", 0.05)
    sync_runs_on(sandbox)
    change = ANY | {"connection_id": SYNCING, "new_state": {}}
    answers: list[httpx.Response] = []
    async with http() as server, anyio.create_task_group() as group:
        own = authorization(server.new_token())

        async def ask() -> None:
            answers.append(await server.client.post("/state/update", json=change, headers=own))

        group.start_soon(ask)
        await arrival(sandbox, lambda request: request.method == "PATCH")
        server.settings.tokens_path.write_text("{}}")
        assert await server.status(headers=own) == 503
        sandbox.finish_sync(SYNCING)

    assert [answer.status_code for answer in answers] == [200]
    assert answers[0].json()["status"] == "updated"


@pytest.mark.parametrize("era", [LEGACY, MODERN])
async def test_what_waits_gets_no_answer_once_its_token_has_expired(
    http: Serve,
    sandbox: Sandbox,
    issuer: OAuthIssuer,
    trusting: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    era: str,
) -> None:
    monkeypatch.setattr(visit, "BETWEEN_LOOKS", 0.05)
    sync_runs_on(sandbox)
    async with http(**trusting) as server, anyio.create_task_group() as group:
        other = server.new_token()
        change = {"connection_id": SYNCING, "new_state": {}}
        started = await server.client.post(
            "/state/update", json=ANY | change, headers=authorization(other) | RESPOND_ASYNC
        )
        where = started.headers["Location"]
        asked = {"workflow_id": started.json()["workflow_id"], "wait_seconds": 50}
        waits = valid(era, "tools/call", {"name": "workflow_status", "arguments": asked})
        rest: list[httpx.Response] = []
        mcp: list[Answer | None] = []

        async def ask_by_rest(token: str) -> None:
            rest.append(
                await server.client.get(where, params={"wait": 60}, headers=authorization(token))
            )

        async def ask_by_mcp(client: RawClient) -> None:
            mcp.append(await client.send(waits))

        of_issuer = issuer.token(exp=int(time.time()) + SOON - oauth.LEEWAY)
        for token in (of_issuer, server.new_token(days=SOON / 86_400)):
            client = RawClient(server.port, token)
            await client.open_session()
            group.start_soon(ask_by_rest, token)
            group.start_soon(ask_by_mcp, client)
        await server.has_open(4)
        await server.has_open(0)
        still_runs = await server.client.get(where, headers=authorization(other))
        await server.client.post(f"{where}/cancel", json={}, headers=authorization(other))

    assert still_runs.json()["status"] == "running"
    assert [answer.status_code for answer in rest] == [401, 401]
    assert all(SYNCING not in answer.text for answer in rest)
    for answer in mcp:
        assert answer is not None
        assert answer.status == 401 or answer.is_stream
        assert SYNCING.encode() not in answer.body
