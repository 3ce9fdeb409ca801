"""The checks on every request: names, origins, sizes, rates; and the headers of every answer."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest

from fivetran_state import large
from fivetran_state.http_server import connections, gate, guard, mcp_endpoint
from fivetran_state.http_server.authority import HEALTH
from fivetran_state.http_server.connections import BoundedProtocol
from fivetran_state.http_server.gate import DOCUMENTATION
from fivetran_state.http_server.guard import MAX_BODY_BYTES
from fivetran_state.sandbox import Sandbox
from tests.conftest import ERAS, Serve
from tests.support.calls import IDLE, SYNCING, call, sync_runs_on, version_of
from tests.support.files import files_under, where
from tests.support.frames import MODERN, REQUESTS, RawClient, valid
from tests.support.http_server import (
    WRONG_TOKEN,
    HttpServer,
    authorization,
    http_process,
    lines_of,
    mcp_client,
    run_cli,
)
from tests.support.issuer import OAuthIssuer
from tests.support.rest import ANY

PUBLIC = {
    "FIVETRAN_STATE_PUBLIC_URL": "https://state.example.com",
    "FIVETRAN_STATE_ALLOWED_HOSTS": "state.internal, state.lan:8443",
}
LARGE = {"connection_id": IDLE, "path": "/" + "a" * 70_000}
FOREIGN_HOSTS = [
    "attacker.example",
    "localhost.attacker.example",
    "localhost@attacker.example",
    "127.0.0.1.attacker.example:80",
    "attacker.example/localhost",
    "localhost:80:80",
]


async def refusal(server: HttpServer, path: str = "/", **headers: str) -> tuple[int, str]:
    """Status and code of a problem; the code is empty for any other answer."""
    answer = await server.client.get(path, headers=headers)
    if answer.headers["Content-Type"] != "application/problem+json":
        return answer.status_code, ""
    return answer.status_code, answer.json()["code"]


async def test_a_page_of_another_site_gets_nothing_from_a_server_of_this_machine(
    http: Serve,
) -> None:
    async with http() as server:
        for path in ("/", "/docs", "/mcp", "/nothing-is-here"):
            for host in FOREIGN_HOSTS:
                assert await refusal(server, path, Host=host) == (421, "foreign_host"), host
                origin = f"http://{host}"
                assert await refusal(server, path, Origin=origin) == (403, "foreign_origin"), host
            for origin in ("null", "file://localhost", "localhost", ""):
                assert await refusal(server, path, Origin=origin) == (403, "foreign_origin")
        for host in ("localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:80"):
            allowed = {"Host": host, "Origin": f"http://{host}"}
            assert await refusal(server, **allowed) == (200, "")
        assert await refusal(server, "/healthz", Host="10.0.0.7:8000") == (200, "")


async def test_a_page_of_another_port_or_that_a_browser_calls_foreign_gets_nothing(
    http: Serve,
) -> None:
    async with http() as server:
        own, other = f"http://127.0.0.1:{server.port}", f"http://127.0.0.1:{server.port + 1}"
        foreign = (403, "foreign_origin")
        assert await refusal(server, Origin=own) == (200, "")
        assert await refusal(server, Origin=other) == foreign
        for site, wanted in (
            ("cross-site", foreign),
            ("same-site", foreign),
            ("same-origin", (200, "")),
            ("none", (200, "")),
        ):
            fetched = {"Sec-Fetch-Site": site}
            assert await refusal(server, "/workflows", **fetched) == wanted, site
            assert await refusal(server, Origin=own, **fetched) == wanted, site
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
        assert await refusal(server, "/docs", **link) == (200, "")
        assert await refusal(server, "/workflows", **link) == foreign
        assert await refusal(server, "/docs", **link | {"Sec-Fetch-Dest": "iframe"}) == foreign


async def test_a_page_that_may_call_is_let_in_from_its_own_port_alone(http: Serve) -> None:
    fetched = {"Host": "state.lan:8443", "Sec-Fetch-Site": "cross-site"}
    async with http() as server:
        token = authorization(server.new_token())
    async with http(**PUBLIC) as server:
        for page, status in (
            ("https://state.lan:8443", 200),
            ("https://state.lan", 403),
            ("https://state.internal:3000", 200),
            ("https://state.example.com", 200),
            ("https://state.example.com:8443", 403),
        ):
            answer = await refusal(server, **token, **fetched, Origin=page)
            assert answer[0] == status, page


async def test_a_page_cannot_use_up_what_this_machines_user_may_ask(http: Serve) -> None:
    page = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    async with http(FIVETRAN_STATE_RATE_LIMIT="2") as server:
        for path in DOCUMENTATION * 2:
            await refusal(server, path)
        for path in ("/workflows", "/mcp"):
            assert await refusal(server, path, **page) == (403, "foreign_origin")
        assert await refusal(server) == (200, "")


async def test_a_page_cannot_hold_what_this_machines_user_may_have_open(
    http: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MAX_OPEN_REQUESTS", 1)
    async with http() as server:
        foreign: list[dict[str, str]] = [
            {"Origin": "https://attacker.example"},
            {"Origin": f"http://127.0.0.1:{server.port + 1}"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Host": "attacker.example"},
        ]
        async with AsyncExitStack() as pages:
            for path in ("/mcp", "/state/get", "/healthz"):
                for page in foreign:
                    head = await pages.enter_async_context(server.half_sent("POST", path, **page))
                    assert re.match(r"HTTP/1.1 4(03|05|21) ", await head()), (path, page)
            assert await refusal(server, "/workflows") == (200, "")


async def test_one_principals_open_requests_are_bounded_and_take_none_from_another(
    http: Serve, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MAX_OPEN_REQUESTS", 3)
    sync_runs_on(sandbox)
    async with http() as server, anyio.create_task_group() as group:
        own, other = (authorization(server.new_token()) for _ in range(2))
        change = {"connection_id": SYNCING, "new_state": {}}
        started = await server.client.post(
            "/state/update", json=ANY | change, headers=own | {"Prefer": "respond-async"}
        )
        where = started.headers["Location"]
        for _ in range(3):
            group.start_soon(partial(server.status, f"{where}?wait=50", headers=own))
        await server.has_open(3)
        too_many = await server.client.get("/workflows", headers=own)
        others = await server.status("/workflows", headers=other)
        await server.client.post(f"{where}/cancel", json={}, headers=other)
        await server.has_open(0)
        again = await server.status("/workflows", headers=own)

    assert (too_many.status_code, too_many.json()["code"]) == (429, "too_many_at_once")
    assert int(too_many.headers["Retry-After"]) > 0
    assert (others, again) == (200, 200)


async def test_a_post_that_any_page_may_send_changes_nothing(http: Serve, sandbox: Sandbox) -> None:
    sync_runs_on(sandbox)
    async with http() as server:
        change = {"connection_id": SYNCING, "new_state": {}}
        started = await server.client.post(
            "/state/update", json=ANY | change, headers={"Prefer": "respond-async"}
        )
        where = started.headers["Location"]
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            answer = await server.client.post(f"{where}/cancel", headers={"Content-Type": kind})
            assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
        assert (await server.client.get(where)).json()["status"] == "running"
        ended = await server.client.post(f"{where}/cancel", json={})

    assert ended.json()["status"] == "cancelled"


async def test_addresses_of_one_ipv6_network_count_as_one(http: Serve) -> None:
    proxy = {"FIVETRAN_STATE_TRUSTED_PROXIES": "127.0.0.0/8"}
    async with http() as server:
        server.new_token()
    async with http(FIVETRAN_STATE_RATE_LIMIT="1", **proxy) as server:
        for address, status in (
            ("2001:db8:0:1::1", 401),
            ("2001:db8:0:1:ffff::2", 429),
            ("2001:db8:0:2::1", 401),
        ):
            assert (await refusal(server, **{"X-Forwarded-For": address}))[0] == status, address


async def test_a_public_server_goes_by_its_own_names(http: Serve) -> None:
    async with http() as server:
        token = authorization(server.new_token())
    async with http(**PUBLIC) as server:
        for host in ("state.example.com", "state.example.com:443", "state.internal:80"):
            allowed = {"Host": host, "Origin": f"https://{host}"}
            assert await refusal(server, **token, **allowed) == (200, "")
        assert await refusal(server, **token, Host="state.lan:8443") == (200, "")
        assert (await refusal(server, **token, Host="state.lan:80"))[0] == 421
        assert (await refusal(server, **token, Host="example.com"))[0] == 421
        assert (await refusal(server, **token, Origin="https://example.com"))[0] == 403


DESKTOP_PAGES = ["app://obsidian.md", "vscode-webview://1a2b3c", "tauri://localhost"]


async def test_pages_of_desktop_hosts_get_in_by_the_setting_that_the_hint_names(
    http: Serve,
) -> None:
    async with http() as server:
        for origin in DESKTOP_PAGES:
            answer = await server.client.get("/", headers={"Origin": origin})
            assert answer.json()["code"] == "foreign_origin"
            (setting,) = re.findall(r"FIVETRAN_\w+", answer.json()["hint"])
        token = server.new_token()
    allowed = {setting: "app://obsidian.md, vscode-webview://*,tauri://localhost"}
    async with http(**allowed) as server:
        for origin in DESKTOP_PAGES:
            page = {"Origin": origin}
            asks = {"Access-Control-Request-Method": "POST"} | page
            asks["Access-Control-Request-Headers"] = "authorization,mcp-protocol-version"
            preflight = await server.client.options("/mcp", headers=asks)
            called = await server.client.get("/", headers=authorization(token) | page)
            assert (preflight.status_code, called.status_code) == (200, 200)
            assert "mcp-protocol-version" in preflight.headers["Access-Control-Allow-Headers"]
            for answer in (preflight, called):
                assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert (await refusal(server, **page))[0] == 401
        for origin in ("app://obsidian.md.evil", "app://other", "null", "https://attacker.example"):
            assert await refusal(server, Origin=origin) == (403, "foreign_origin")


@pytest.mark.parametrize("origins", ["*", "obsidian.md", "app://", "app://a/b"])
async def test_an_origin_that_cannot_be_one_stops_the_start(
    environment: dict[str, str], origins: str
) -> None:
    code, _, stderr = await run_cli(
        environment | {"FIVETRAN_STATE_ALLOWED_ORIGINS": origins}, "serve", "--http"
    )

    assert (code, stderr.count("\n")) == (64, 1)
    assert stderr.startswith("Cannot start: FIVETRAN_STATE_ALLOWED_ORIGINS: ")


PROBES = [
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-authorization-server/mcp",
    "/.well-known/oauth-protected-resource/mcp",
    "/.well-known/openid-configuration",
    "/mcp/.well-known/openid-configuration",
    "/connections/.well-known/state",
    "/page/connections/.well-known/change",
    "/proposals/.well-known/approve",
    "/register",
    "/authorize",
    "/token",
]


async def test_a_client_that_looks_for_an_authorization_server_is_told_that_there_is_none(
    http: Serve, trusting: dict[str, str]
) -> None:
    async with http() as server:
        server.new_token()
        for path in (*PROBES, "/.well-known/oauth-protected-resource"):
            for method in ("GET", "POST"):
                answer = await server.client.request(method, path, json={})
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    async with http(**trusting) as server:
        assert [await server.status(path) for path in PROBES] == [404] * len(PROBES)


async def test_a_body_that_is_too_large_is_refused_whether_or_not_it_says_so(http: Serve) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 2**20 + 1):
            yield b" " * 2**20

    headers = {"Content-Type": "application/json"}
    async with http() as server:

        @server.app.post("/length")
        async def length(body: str) -> int:
            return len(body)

        for path in ("/mcp", "/length"):
            for body in (b" " * (MAX_BODY_BYTES + 1), chunks()):
                answer = await server.client.post(path, content=body, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        answer = await server.client.post(
            "/length", params={"body": "short"}, content=b" " * MAX_BODY_BYTES, headers=headers
        )
        assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/state/get", "/mcp"])
async def test_a_body_that_does_not_arrive_in_time_is_refused(
    http: Serve, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(guard, "BODY_TIMEOUT", 0.05)
    async with http() as server, server.half_sent("POST", path) as head:
        answer = await head()

    assert answer.startswith("HTTP/1.1 408 ")
    assert "connection: close" in answer.lower()


async def test_large_bodies_that_one_caller_does_not_finish_keep_nobody_elses_out(
    http: Serve,
) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(http())
        readers = [authorization(server.new_token("read")) for _ in range(2)]
        slow = {"Content-Length": "100000", "half": " " * 70_000} | readers[0]
        for _ in range(4):
            await stack.enter_async_context(server.half_sent("POST", "/mcp", **slow))
        await server.has_open(4)
        with anyio.fail_after(20):
            answer = await server.client.post("/state/get", json=LARGE, headers=readers[1])

    assert answer.status_code == 422


async def test_streams_with_large_bodies_keep_others_out_for_a_while_only(
    http: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = valid(MODERN, *next(each for each in REQUESTS if each[0] == "subscriptions/listen"))
    listen.body += b" " * 70_000
    headers = {name: value.decode() for name, value in listen.headers}
    monkeypatch.setattr(large, "LONGEST", 0.05)
    async with http() as server, AsyncExitStack() as streams:
        for _ in range(3):
            await streams.enter_async_context(
                server.client.stream("POST", "/mcp", content=listen.body, headers=headers)
            )
        answer = await server.client.post("/state/get", json=LARGE)

    assert answer.status_code == 422


async def test_what_needs_no_token_waits_for_no_body_and_keeps_none(
    http: Serve, trusting: dict[str, str]
) -> None:
    metadata = "/.well-known/oauth-protected-resource"
    async with http(**trusting) as server:
        for path in (*HEALTH, *DOCUMENTATION, metadata):
            for method, status in (("GET", 200), ("POST", 405)):
                async with server.half_sent(method, path) as head:
                    assert (await head()).startswith(f"HTTP/1.1 {status} "), path


async def test_each_principal_has_its_own_number_of_requests(http: Serve) -> None:
    async with http() as server:
        tokens = [authorization(server.new_token()) for _ in range(2)]
    async with http(FIVETRAN_STATE_RATE_LIMIT="1") as server:
        for headers in tokens:
            assert await refusal(server, **headers) == (200, "")
            answer = await server.client.get("/", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
            assert 0 < int(answer.headers["Retry-After"]) <= 60
        # Anonymous callers count by address. Only a trusted proxy may set the address.
        assert (await refusal(server))[0] == 401
        forwarded = authorization(WRONG_TOKEN) | {"X-Forwarded-For": "192.0.2.1"}
        assert (await refusal(server, **forwarded))[0] == 429
        assert [await refusal(server, "/healthz") for _ in range(3)] == [(200, "")] * 3
    proxy = {"FIVETRAN_STATE_TRUSTED_PROXIES": "127.0.0.0/8"}
    async with http(FIVETRAN_STATE_RATE_LIMIT="1", **proxy) as server:
        for address in ("192.0.2.1", "192.0.2.2"):
            forwarded = {"X-Forwarded-For": address}
            assert [(await refusal(server, **forwarded))[0] for _ in range(2)] == [401, 429]


async def test_an_open_server_counts_by_address_and_zero_is_no_limit(http: Serve) -> None:
    async with http(FIVETRAN_STATE_RATE_LIMIT="1") as server:
        assert [(await refusal(server))[0] for _ in range(2)] == [200, 429]
    async with http(FIVETRAN_STATE_RATE_LIMIT="0") as server:
        assert [(await refusal(server))[0] for _ in range(5)] == [200] * 5


async def test_every_answer_carries_the_headers_and_its_request_id(http: Serve) -> None:
    async with http() as server:

        @server.app.get("/breaks")
        async def breaks() -> None:
            raise RuntimeError("what nobody outside may read")

        answers = [
            await server.client.get("/"),
            await server.client.get("/nothing-is-here"),
            await server.client.get("/healthz"),
            await server.client.get("/docs", headers={"Host": "attacker.example"}),
            await server.client.post("/mcp", json={}),
            await server.client.get("/breaks"),
        ]
        named = await server.client.get("/", headers={"X-Request-Id": "trace-1.a_B"})
        odd = await server.client.get("/", headers={"X-Request-Id": "x" * 101})
        server.new_token()
        answers.append(await server.client.get("/"))

    assert [answer.status_code for answer in answers] == [200, 404, 200, 421, 400, 500, 401]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"])
        assert "Server" not in answer.headers
    assert answers[5].json()["code"] == "internal_error"
    assert "nobody" not in answers[5].text
    assert named.headers["X-Request-Id"] == "trace-1.a_B"
    assert odd.headers["X-Request-Id"] != "x" * 101


@pytest.mark.parametrize("era", ERAS)
async def test_progress_arrives_while_the_call_still_runs(
    http: Serve, sandbox: Sandbox, era: str
) -> None:
    waits = anyio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        if message and "sync" in message:
            sandbox.finish_sync(SYNCING)
            waits.set()

    async with http() as server, server.mcp(era) as client:
        version = await version_of(client, SYNCING)
        change = {"connection_id": SYNCING, "merge_patch": {"cursor": 1}}
        arguments = change | {"expected_version": version, "wait_seconds": 50}
        with anyio.fail_after(40):
            result = await client.call_tool(
                "update_state", arguments, progress_callback=on_progress
            )

    assert waits.is_set()
    assert result.structured_content is not None
    assert result.structured_content["status"] == "updated"


async def test_a_line_of_the_log_holds_no_more_of_a_request_than_it_needs(
    http: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with http() as server:
        answer = await server.client.request("X" * 20_000, f"/{'y' * 5_000}")

    assert answer.status_code == 404
    (line,) = [each for each in caplog.records if hasattr(each, "duration_ms")]
    assert len(line.getMessage()) < 500


async def test_no_token_is_in_any_log_line_or_file_and_each_request_is_one_line(
    environment: dict[str, str],
    issuer: OAuthIssuer,
    trusting: dict[str, str],
    tmp_path: Path,
) -> None:
    environment |= trusting | {"FIVETRAN_STATE_LOG_LEVEL": "DEBUG"}
    _, created, _ = await run_cli(environment, "token", "create", "--scope", "write")
    token, jwt, wrong_audience = created.strip(), issuer.token(), issuer.token(aud="https://else")
    secrets = [token, jwt, WRONG_TOKEN, wrong_audience, "in-the-query", "in-the-body"]
    folder = tmp_path / "process"
    folder.mkdir()
    async with http_process(environment, folder) as url:
        for good in (token, jwt):
            async with mcp_client(url, token=good) as client:
                await call(client, "get_state", connection_id=IDLE)
        async with httpx.AsyncClient(base_url=url, headers={"X-Request-Id": "mine"}) as client_:
            for bad in (WRONG_TOKEN, wrong_audience, f"{token}x", f"{jwt}x"):
                await client_.get("/", headers=authorization(bad))
            await client_.post(
                "/mcp",
                params={"token": "in-the-query"},
                json={"password": "in-the-body"},
                headers=authorization(token),
            )

    lines = lines_of(folder / "stderr.txt")
    served = [line for line in lines if "duration_ms" in line]
    calls = [
        (each["method"], each["path"], each["status"], each.get("principal")) for each in served
    ]
    token_id = token.split("_")[1]
    assert calls[-5:-1] == [("GET", "/", 401, None)] * 4
    assert calls[-1] == ("POST", "/mcp", 400, f"token:{token_id}")
    assert {line["request_id"] for line in served[-5:]} == {"mine"}
    assert ("POST", "/mcp", 200, f"token:{token_id}") in calls
    assert ("POST", "/mcp", 200, "oauth:ann") in calls
    parts = [part for secret in secrets for part in (secret, secret[-40:])]
    assert where(parts, files_under(tmp_path)) == []


async def test_a_connection_that_says_nothing_or_half_a_head_is_closed(
    http: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.2)
    async with http() as server:
        for said in (b"", b"GET / HTTP/1.1\r\nHost: local"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(said)
            with anyio.fail_after(30):
                assert await reader.read() == b""
            writer.close()
        assert await server.status() == 200


async def test_silent_connections_make_room_for_those_that_speak(
    http: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 5)
    monkeypatch.setattr(BoundedProtocol, "_warnings", connections.Warnings())
    async with http() as server:
        async with server.half_sent("POST", "/state/get", **{"Content-Type": "application/json"}):
            await server.has_open(1)
            silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
            assert await server.status() == 200
            assert server.open_requests == 1
            with anyio.fail_after(30):
                assert await silent[0][0].read() == b""
        for _, writer in silent:
            writer.close()

    warnings = [line for line in caplog.messages if "connections are open" in line]
    assert len(warnings) == 1


async def test_of_one_principals_sessions_only_the_latest_stay(
    http: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_endpoint, "MAX_SESSIONS", 2)
    async with http() as server:
        clients = [RawClient(server.port, server.new_token())]
        own = clients[0].token
        clients += [RawClient(server.port, own) for _ in range(2)]
        other = RawClient(server.port, server.new_token())
        for client in (other, *clients):
            await client.open_session()
        found = []
        for client in (other, *clients):
            headers = authorization(client.token) | {
                "Mcp-Session-Id": client.session,
                "Accept": "application/json, text/event-stream",
            }
            ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            answer = await server.client.post("/mcp", json=ping, headers=headers)
            found.append(answer.status_code)

    assert found == [200, 404, 200, 200]
