"""Signing in on the page: the cookie, how long it lasts, and what other sites can do with it."""

import base64
import re
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from fivetran_state import vault
from fivetran_state.access import Scope
from fivetran_state.config import Settings
from fivetran_state.http_server import forms, sessions, visit
from fivetran_state.http_server.sign_in import ATTEMPTS_A_MINUTE, MAX_BODY_BYTES
from fivetran_state.sandbox import Sandbox
from fivetran_state.tokens import Token, TokenFile
from tests.conftest import Serve
from tests.support.calls import IDLE, api_calls
from tests.support.files import files_under, where
from tests.support.http_server import (
    NO_TLS,
    WRONG_TOKEN,
    HttpServer,
    authorization,
    http_process,
    run_cli,
)
from tests.support.rest import ANY
from tests.support.signing_in import BROWSER, BY_USER, ELSEWHERE, ON_PAGE, OWN, Inputs, cookie_of

PUBLIC = {"FIVETRAN_STATE_PUBLIC_URL": "https://state.example.com"}
CHANGE = {"connection_id": IDLE, "new_state": {"cursor": "from-elsewhere"}}


async def attempt(
    server: HttpServer, token: str, next_: str = "/", **headers: str
) -> httpx.Response:
    fields = {"token": token, "next": next_}
    return await server.client.post("/sign-in", data=fields, headers=ON_PAGE | headers)


async def signed_in(server: HttpServer, token: str) -> dict[str, str]:
    """The header of a browser that has signed in with this token."""
    answer = await attempt(server, token)
    assert answer.status_code == 303
    server.client.cookies.clear()
    return cookie_of(answer).header


def made(server: HttpServer, scope: Scope = "write") -> tuple[str, Token]:
    return TokenFile(server.settings).create(scope, None, None)


async def form_token(server: HttpServer, cookie: dict[str, str]) -> str:
    """The hidden field of a page that the server shows to this session."""

    @server.app.get("/shows-a-form")
    async def show(request: Request) -> str:
        return await forms.token(request)

    shown = await server.client.get("/shows-a-form", headers=cookie | OWN)
    assert shown.status_code == 200
    text: str = shown.json()
    return text


def takes_forms(server: HttpServer) -> list[dict[str, str]]:
    """Adds the route `/takes-a-form`; returns the forms that it took."""
    taken: list[dict[str, str]] = []

    @server.app.post("/takes-a-form")
    async def take(request: Request) -> None:
        taken.append(await forms.read(request))

    return taken


# The life of a session


async def test_a_person_signs_in_reads_changes_and_signs_out(http: Serve) -> None:
    async with http() as server:
        token = server.new_token()
        asked = await server.client.get("/workflows?limit=5", headers=BY_USER)
        address = urlsplit(asked.headers["Location"])
        shown = await server.client.get(asked.headers["Location"], headers=BY_USER)
        page = Inputs(shown.text)
        values: dict[str, Any] = {
            str(each["name"]): each["value"] for each in page.all("input") if "value" in each
        }
        entered = await server.client.post(
            "/sign-in", data=values | {"token": f" {token} "}, headers=ON_PAGE
        )
        cookie = cookie_of(entered).header
        server.client.cookies.clear()
        read = await server.client.get(entered.headers["Location"], headers=BY_USER | cookie)
        changed = await server.client.post("/state/update", json=ANY | CHANGE, headers=OWN | cookie)
        hidden = await form_token(server, cookie)
        left = await server.client.post(
            "/sign-out", data={forms.FIELD: hidden}, headers=ON_PAGE | cookie
        )
        after = await server.client.get("/workflows", headers=BY_USER | cookie)

    assert (asked.status_code, address.path) == (303, "/sign-in")
    assert parse_qs(address.query) == {"next": ["/workflows?limit=5"]}
    assert shown.status_code == 200
    assert (entered.status_code, entered.headers["Location"]) == (303, "/workflows?limit=5")
    assert (read.status_code, changed.status_code) == (200, 200)
    assert (left.status_code, left.headers["Location"]) == (303, "/sign-in")
    assert (cookie_of(left).value, cookie_of(left).attributes["Max-Age"]) == ("", "0")
    assert after.status_code == 303


async def test_the_page_has_one_labelled_field_and_needs_nothing_else(http: Serve) -> None:
    async with http() as server:
        server.new_token()
        answer = await server.client.get("/sign-in?next=/docs", headers=BY_USER)
        page = Inputs(answer.text)

    (field,) = [each for each in page.all("input") if each["type"] == "password"]
    assert [each["for"] for each in page.all("label")] == [field["id"]]
    assert len(page.all("h1")) == 1
    assert page.all("html") == [{"lang": "en"}]
    assert not any(page.all(tag) for tag in ("script", "style", "img", "iframe"))
    assert [str(each["href"]).partition("?")[0] for each in page.all("link")] == ["/page/style.css"]
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self';")
    assert policy.endswith("form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
    assert answer.headers["Cache-Control"] == "no-store"
    # With no-referrer, browsers send the form with "Origin: null".
    assert answer.headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("variables", [{}, PUBLIC], ids=["plain", "https"])
async def test_the_cookie_is_for_this_server_alone(http: Serve, variables: dict[str, str]) -> None:
    async with http() as server:
        token = server.new_token()
    async with http(**variables) as server:
        host = {"Host": "state.example.com"} if variables else {}
        cookie = cookie_of(await attempt(server, token, **host))
        port = server.port

    assert cookie.name == ("__Host-fivetran-state" if variables else f"fivetran-state-{port}")
    maximum = cookie.attributes.pop("Max-Age")
    assert 8 * 3600 - 60 <= int(maximum) <= 8 * 3600
    secure = {"Secure": ""} if variables else {}
    assert cookie.attributes == {"Path": "/", "HttpOnly": "", "SameSite": "Strict"} | secure


async def test_a_server_below_a_path_leads_to_addresses_below_it(http: Serve) -> None:
    async with http() as server:
        token = server.new_token()
    async with http(FIVETRAN_STATE_PUBLIC_URL="https://state.example.com/state") as server:
        asked = await server.client.get("/workflows", headers=BY_USER)
        shown = await server.client.get("/sign-in", headers=BY_USER)
        entered = await attempt(server, token, "/workflows")

    assert asked.headers["Location"] == "/state/sign-in?next=%2Fworkflows"
    assert Inputs(shown.text).all("form")[0]["action"] == "/state/sign-in"
    assert entered.headers["Location"] == "/state/workflows"
    assert cookie_of(entered).attributes["Path"] == "/"


async def test_programs_get_401_and_browsers_the_page_to_sign_in(http: Serve) -> None:
    async with http() as server:
        server.new_token()
        for headers in (
            {"Accept": "application/json"},
            {"Accept": "*/*"},
            {"Accept": "application/json, text/html"},
            BROWSER | authorization(WRONG_TOKEN),
            BROWSER | {"Sec-Fetch-Dest": "image"},
        ):
            answer = await server.client.get("/workflows", headers=headers)
            assert (answer.status_code, "problem+json" in answer.headers["Content-Type"]) == (
                401,
                True,
            ), headers
        assert (await server.client.get("/mcp", headers=BROWSER)).status_code == 401
        assert (await server.client.get("/workflows", headers=BROWSER)).status_code == 303
        form = await server.client.post("/takes-a-form", data={"a": "b"}, headers=ON_PAGE)

    assert form.status_code == 401
    assert "nothing was changed" in form.text


async def test_a_session_has_the_scopes_of_its_token_and_its_name_in_the_log(
    http: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with http() as server:
        text, token = made(server, "read")
        cookie = await signed_in(server, text)
        refused = await server.client.post("/state/update", json=ANY | CHANGE, headers=OWN | cookie)
        planned = await server.client.post(
            "/state/update", json=CHANGE | {"dry_run": True}, headers=OWN | cookie
        )

    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert planned.status_code == 200
    lines = [each for each in caplog.records if hasattr(each, "duration_ms")]
    names = {vars(each)["principal"] for each in lines}
    assert names == {f"token:{token.id}"}


async def test_the_header_decides_if_there_are_both(http: Serve) -> None:
    async with http() as server:
        cookie = await signed_in(server, server.new_token())
        reading = authorization(server.new_token("read"))
        wrong = await server.client.get("/", headers=OWN | cookie | authorization(WRONG_TOKEN))
        scoped = await server.client.post(
            "/state/update", json=ANY | CHANGE, headers=OWN | cookie | reading
        )

    assert (wrong.status_code, wrong.json()["code"]) == (401, "invalid_token")
    assert scoped.json()["code"] == "insufficient_scope"


# Its end


async def test_a_session_ends_with_its_token(http: Serve) -> None:
    async with http() as server:
        tokens = TokenFile(server.settings)
        text, token = made(server)
        cookie = await signed_in(server, text)
        assert await server.status("/workflows", headers=OWN | cookie) == 200
        tokens.revoke(token.id)
        assert await server.status("/workflows", headers=OWN | cookie) == 401

        text, token = made(server)
        cookie = await signed_in(server, text)
        content = server.settings.tokens_path.read_text()
        replaced = content.replace(token.sha256, "0" * 64)
        server.settings.tokens_path.write_text(replaced)
        assert await server.status("/workflows", headers=OWN | cookie) == 401

        expired = content.replace('"expires": null', '"expires": "2020-01-01T00:00:00Z"')
        server.settings.tokens_path.write_text(expired)
        assert await server.status("/workflows", headers=OWN | cookie) == 401
        assert (await attempt(server, text)).status_code == 401

        server.settings.tokens_path.write_text("{}}")
        assert await server.status("/workflows", headers=OWN | cookie) == 503
        assert (await attempt(server, text)).status_code == 503


async def test_a_stream_ends_soon_after_the_token_of_its_session(
    http: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visit, "BETWEEN_LOOKS", 0.05)
    async with http() as server:

        @server.app.get("/streams")
        async def stream() -> StreamingResponse:
            async def events() -> Any:
                yield "data: first\n\n"
                await anyio.sleep_forever()

            return StreamingResponse(events(), media_type="text/event-stream")

        text, token = made(server)
        cookie = await signed_in(server, text)
        async with server.client.stream("GET", "/streams", headers=OWN | cookie) as answer:
            assert answer.status_code == 200
            TokenFile(server.settings).revoke(token.id)
            with anyio.fail_after(30), pytest.raises(httpx.RemoteProtocolError):
                await answer.aread()  # Starlette breaks its streams off.


@pytest.mark.parametrize("name", ["VALID_SECONDS", "LONGEST_SECONDS"])
async def test_a_cookie_ends_with_its_time(
    http: Serve, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with http() as server:
        cookie = await signed_in(server, server.new_token())
        assert await server.status("/workflows", headers=OWN | cookie) == 200
        monkeypatch.setattr(sessions, name, 0)
        assert await server.status("/workflows", headers=OWN | cookie) == 401


async def test_use_renews_a_cookie_that_is_not_new_up_to_a_day_after_signing_in(
    http: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with http() as server:
        cookie = await signed_in(server, server.new_token())
        hidden = await form_token(server, cookie)
        taken = takes_forms(server)
        fresh = await server.client.get("/workflows", headers=OWN | cookie)
        monkeypatch.setattr(sessions, "RENEWED_AFTER", 0)
        monkeypatch.setattr(sessions, "LONGEST_SECONDS", 1000)
        renewed = cookie_of(await server.client.get("/workflows", headers=OWN | cookie))
        server.client.cookies.clear()
        form = await server.client.post(
            "/takes-a-form", data={forms.FIELD: hidden}, headers=OWN | renewed.header
        )
        server.client.cookies.clear()
        left = await server.client.post(
            "/sign-out", data={forms.FIELD: hidden}, headers=OWN | renewed.header
        )

    assert "Set-Cookie" not in fresh.headers
    assert renewed.header != cookie
    assert 0 < int(renewed.attributes["Max-Age"]) <= 1000
    assert (form.status_code, taken) == (200, [{}])
    assert cookie_of(left).value == ""


async def test_of_the_sessions_that_people_ended_the_latest_stay_ended(
    http: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_ENDED", 1)
    async with http() as server:
        token = server.new_token()
        seen = []
        for _ in range(3):
            cookie = await signed_in(server, token)
            hidden = await form_token(server, cookie)
            await server.client.post(
                "/sign-out", data={forms.FIELD: hidden}, headers=ON_PAGE | cookie
            )
            server.client.cookies.clear()
            seen.append(await server.status("/workflows", headers=OWN | cookie))

    assert seen == [401, 401, 401]


# Cookies that were not made here


async def test_a_cookie_that_was_not_made_here_opens_nothing(http: Serve) -> None:
    async with http() as server:
        cookie = cookie_of(await attempt(server, server.new_token()))
        other = cookie_of(await attempt(server, server.new_token()))
        server.client.cookies.clear()
        hidden = await form_token(server, cookie.header)
        keys = vault.keys(server.settings)
        content = {
            "id": "x",
            "token": {"id": "x", "sha256": "0" * 64},
            "began": 4e9,
            "issued": 4e9,
        }
        half = len(cookie.value) // 2
        forged = [
            "",
            "x",
            "é",
            "0" * 400,
            cookie.value[:half],
            cookie.value[:-8],
            cookie.value[:half] + other.value[half:],
            cookie.value[4:],
            cookie.value.swapcase(),
            hidden,
            base64.b64encode(str(content).encode()).decode(),
            vault.Texts([b"0" * 32], "fivetran-state of the page ").seal(content),
            vault.Texts(keys, "another purpose").seal(content),
            vault.Texts(keys, "fivetran-state of the page ").seal(content),
            vault.Texts(keys, "fivetran-state of the page ").seal([]),
        ]
        for value in forged:
            line = f"{cookie.name}={value}".encode()
            answer = await server.client.get("/workflows", headers={b"Cookie": line})
            assert answer.status_code == 401, value
        assert await server.status("/workflows", headers=cookie.header) == 200
        assert await server.status("/workflows", headers=other.header) == 200


@pytest.mark.parametrize("change", ["key", "address", "tokens"])
async def test_a_cookie_of_another_server_opens_nothing(
    http: Serve,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: str,
) -> None:
    key = {"FIVETRAN_STATE_SECRET_KEY": "the first server's key"}
    async with http() as server:
        token = server.new_token()
    async with http(**PUBLIC | key) as server:
        cookie = await signed_in(server, token)
    variables = {
        "key": PUBLIC | {"FIVETRAN_STATE_SECRET_KEY": "the second server's key"},
        "address": key | {"FIVETRAN_STATE_PUBLIC_URL": "https://other.example.com"},
        "tokens": PUBLIC | key | {"FIVETRAN_STATE_TOKENS_FILE": str(tmp_path / "tokens.json")},
    }[change]
    if change == "tokens":
        for name, value in (environment | variables).items():
            monkeypatch.setenv(name, value)
        TokenFile(Settings()).create("write", None, None)
    async with http(**variables) as server:
        assert await server.status("/workflows", headers=cookie) == 401


async def test_a_server_whose_key_was_damaged_signs_nobody_in_and_says_why(http: Serve) -> None:
    async with http() as server:
        token = server.new_token()
        (server.settings.home / vault.KEY_FILE).write_text("no key")
        answer = await attempt(server, token)

    assert answer.status_code == 503
    assert "The server has no usable key" in answer.text


async def test_a_server_with_the_same_key_and_tokens_accepts_the_cookie_and_older_keys_open_it(
    http: Serve,
) -> None:
    async with http() as server:
        token = server.new_token()
    async with http(FIVETRAN_STATE_SECRET_KEY="the key of all servers", **PUBLIC) as server:
        cookie = await signed_in(server, token)
    for keys in ("the key of all servers", "a newer key of them all,the key of all servers"):
        async with http(FIVETRAN_STATE_SECRET_KEY=keys, **PUBLIC) as server:
            assert await server.status("/workflows", headers=cookie) == 200


async def test_a_server_of_another_port_of_this_machine_has_a_cookie_of_its_own(
    http: Serve,
) -> None:
    async with http() as server:
        cookie = cookie_of(await attempt(server, server.new_token()))
        other = {"Cookie": f"fivetran-state-{server.port + 1}={cookie.value}"}
        server.client.cookies.clear()
        assert await server.status("/workflows", headers=other) == 401


# Other sites


@pytest.mark.parametrize("elsewhere", ELSEWHERE, ids=str)
async def test_a_page_elsewhere_does_nothing_with_a_session(
    http: Serve, sandbox: Sandbox, elsewhere: dict[str, str]
) -> None:
    """Browsers keep the cookie back from most of these; a page of another port gets it sent."""
    async with http() as server:
        cookie = await signed_in(server, server.new_token())
        hidden = await form_token(server, cookie)
        taken = takes_forms(server)
        sent = BROWSER | cookie | elsewhere
        answers = [
            await server.client.get("/workflows", headers=sent),
            await server.client.get("/workflows", headers=sent | {"Sec-Fetch-Dest": "iframe"}),
            await server.client.get("/sign-in", headers=sent | {"Sec-Fetch-Dest": "iframe"}),
            await server.client.post("/state/update", json=ANY | CHANGE, headers=sent),
            await server.client.post("/state/update", data=CHANGE, headers=sent),
            await server.client.post("/takes-a-form", data={forms.FIELD: hidden}, headers=sent),
            await server.client.post("/sign-out", data={forms.FIELD: hidden}, headers=sent),
            await server.client.options("/state/update", headers=sent),
        ]
        statuses = {answer.status_code for answer in answers}
        still = await server.status("/workflows", headers=OWN | cookie)

    assert statuses <= {403, 421}
    assert not any("Access-Control-Allow-Origin" in answer.headers for answer in answers)
    assert (still, taken) == (200, [])
    assert "PATCH" not in api_calls(sandbox, IDLE)


@pytest.mark.parametrize("elsewhere", ELSEWHERE, ids=str)
async def test_a_page_elsewhere_changes_nothing_on_a_server_without_tokens(
    http: Serve, sandbox: Sandbox, elsewhere: dict[str, str]
) -> None:
    async with http() as server:
        hidden = await form_token(server, {})
        taken = takes_forms(server)
        sent = BROWSER | elsewhere
        plain = sent | {"Content-Type": "text/plain"}
        answers = [
            await server.client.post("/state/update", json=ANY | CHANGE, headers=sent),
            await server.client.post("/state/update", json=ANY | CHANGE, headers=plain),
            await server.client.post("/state/update", data=CHANGE, headers=sent),
            await server.client.post("/mcp", json={}, headers=sent),
            await server.client.post("/takes-a-form", data={forms.FIELD: hidden}, headers=sent),
            await server.client.get("/workflows", headers=sent | {"Sec-Fetch-Dest": "iframe"}),
        ]

    assert {answer.status_code for answer in answers} <= {403, 421}
    assert taken == []
    assert "PATCH" not in api_calls(sandbox, IDLE)


@pytest.mark.parametrize("elsewhere", [*ELSEWHERE, {}, {"Sec-Fetch-Site": "none"}], ids=str)
async def test_no_other_page_signs_its_visitor_in(http: Serve, elsewhere: dict[str, str]) -> None:
    async with http() as server:
        fields = {"token": server.new_token()}
        answer = await server.client.post("/sign-in", data=fields, headers=BROWSER | elsewhere)

    assert answer.status_code in (403, 421)
    assert "Set-Cookie" not in answer.headers


async def test_a_browser_without_fetch_metadata_proves_by_origin_where_a_change_comes_from(
    http: Serve,
) -> None:
    async with http() as server:
        cookie = await signed_in(server, server.new_token())
        own = {"Origin": server.url}
        planned = CHANGE | {"dry_run": True}
        proved = await server.client.post("/state/update", json=ANY | planned, headers=own | cookie)
        unproved = await server.client.post("/state/update", json=ANY | planned, headers=cookie)
        read = await server.client.get("/workflows", headers=cookie)

    assert (proved.status_code, unproved.status_code, read.status_code) == (200, 401, 200)


async def test_behind_a_proxy_a_page_without_tls_proves_nothing(http: Serve) -> None:
    async with http() as server:
        token = server.new_token()
    async with http(**PUBLIC, FIVETRAN_STATE_ALLOWED_HOSTS="inside") as server:
        cookie = await signed_in(server, token)
        planned = CHANGE | {"dry_run": True}
        for host, origin, status in (
            ("state.example.com", "https://state.example.com", 200),
            ("inside", "https://state.example.com", 200),
            ("state.example.com", "http://state.example.com", 401),
            ("state.example.com", "https://inside:3000", 401),
        ):
            sent = {"Host": host, "Origin": origin} | cookie
            answer = await server.client.post("/state/update", json=ANY | planned, headers=sent)
            assert answer.status_code == status, (host, origin)


async def test_a_cookie_never_opens_mcp(http: Serve) -> None:
    async with http() as server:
        cookie = await signed_in(server, server.new_token())
        for path in ("/mcp", "/mcp/"):
            for method in ("GET", "POST", "DELETE"):
                answer = await server.client.request(method, path, headers=OWN | cookie, json={})
                assert answer.status_code == 401, (path, method)


async def test_a_desktop_page_that_may_call_gets_no_session(http: Serve) -> None:
    async with http(FIVETRAN_STATE_ALLOWED_ORIGINS="app://obsidian.md") as server:
        cookie = await signed_in(server, server.new_token())
        for more in ({}, {"Sec-Fetch-Site": "cross-site"}):
            sent = {"Origin": "app://obsidian.md"} | more | cookie
            answer = await server.client.get("/workflows", headers=sent)
            assert answer.status_code == 401
            assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_a_followed_link_leads_to_the_page_by_way_of_signing_in(http: Serve) -> None:
    link = BROWSER | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    async with http() as server:
        for has_tokens in (False, True):
            followed = await server.client.get("/workflows", headers=link)
            shown = await server.client.get(followed.headers["Location"], headers=link)
            (way_on,) = [each["href"] for each in Inputs(shown.text).all("a")]
            assert (followed.status_code, shown.status_code) == (303, 200)
            assert way_on == "/workflows"
            assert bool(Inputs(shown.text).all("form")) == has_tokens
            server.new_token()


# Forms


async def test_a_form_is_taken_only_from_a_page_that_its_own_session_was_shown(
    http: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with http() as server:
        token = server.new_token()
        cookie, other = await signed_in(server, token), await signed_in(server, token)
        taken = takes_forms(server)
        hidden = await form_token(server, cookie)

        async def send(**fields: str) -> tuple[int, str]:
            answer = await server.client.post("/takes-a-form", data=fields, headers=OWN | cookie)
            return answer.status_code, "" if answer.is_success else answer.json()["code"]

        refused = (403, "foreign_form")
        assert await send(a="1", form_token=hidden) == (200, "")
        assert await send(a="1") == refused
        assert await send(a="1", form_token=hidden[:-6]) == refused
        assert await send(a="1", form_token=cookie["Cookie"].partition("=")[2]) == refused
        assert await send(a="1", form_token=await form_token(server, other)) == refused
        assert (await send(**{f"f{n}": "" for n in range(200)}))[0] == 422
        json = await server.client.post("/takes-a-form", json={}, headers=OWN | cookie)
        monkeypatch.setattr(forms, "VALID_SECONDS", -1)
        assert await send(a="1", form_token=hidden) == refused

    assert json.status_code == 415
    assert taken == [{"a": "1"}]


@pytest.mark.parametrize(
    "body", ["&".join(f"n{number}=" for number in range(101)), "a=%ff", b"a=\xff"]
)
async def test_a_form_that_cannot_be_read_is_refused(http: Serve, body: str | bytes) -> None:
    async with http() as server:
        cookie = await signed_in(server, server.new_token())
        taken = takes_forms(server)
        refused = await server.client.post(
            "/takes-a-form",
            content=body,
            headers=OWN | cookie | {"Content-Type": forms.MEDIA_TYPE},
        )

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert taken == []


async def test_a_server_without_tokens_takes_forms_of_its_own_pages_alone(http: Serve) -> None:
    async with http() as server:
        taken = takes_forms(server)
        hidden = {forms.FIELD: await form_token(server, {})}
        own = await server.client.post("/takes-a-form", data=hidden, headers=OWN)
        unproved = await server.client.post("/takes-a-form", data=hidden)
        bare = await server.client.post("/takes-a-form", data={"a": "b"}, headers=OWN)
        shown = await server.client.get("/sign-in?next=/docs", headers=BY_USER)

    assert (own.status_code, unproved.status_code, bare.status_code) == (200, 403, 403)
    assert taken == [{}]
    assert (shown.status_code, shown.headers["Location"]) == (303, "/docs")


# Where to go


@pytest.mark.parametrize(
    "next_",
    [
        "//evil.example",
        "///evil.example",
        "\\\\evil.example",
        "/\\evil.example",
        "/a\\..\\evil",
        "https://evil.example",
        "https:evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "evil.example",
        "/\t/evil.example",
        "\t//evil.example",
        "/\r\nSet-Cookie: a=b",
        " /docs",
        "/中",
        "",
        "/" * 2100,
        "/" + "a" * 2100,
    ],
)
async def test_nobody_is_led_to_another_site(http: Serve, next_: str) -> None:
    async with http() as server:
        token = server.new_token()
        shown = await server.client.get("/sign-in", params={"next": next_}, headers=BY_USER)
        entered = await attempt(server, token, next_)
        server.client.cookies.clear()
        asked = await server.client.get("/%2Fevil.example/", headers=BY_USER)

    fields = {each["name"]: each.get("value") for each in Inputs(shown.text).all("input")}
    assert fields["next"] == "/"
    assert (entered.status_code, entered.headers["Location"]) == (303, "/")
    assert urlsplit(asked.headers["Location"]).netloc == ""


async def test_markup_in_an_address_stays_text(http: Serve) -> None:
    async with http() as server:
        server.new_token()
        shown = await server.client.get("/sign-in?next=/%22%3E%3Cscript%3Ex", headers=BY_USER)

    assert not Inputs(shown.text).all("script")
    assert '/"><script>x' in [each.get("value") for each in Inputs(shown.text).all("input")]


# Guesses, and where the token is


async def test_guesses_are_limited_by_address_and_their_bodies_by_size(http: Serve) -> None:
    async with http(FIVETRAN_STATE_RATE_LIMIT="0") as server:
        token = server.new_token()
        cookie = await signed_in(server, token)
        guesses = [await attempt(server, WRONG_TOKEN) for _ in range(ATTEMPTS_A_MINUTE - 1)]
        limited = await attempt(server, token)
        large = await attempt(server, "x" * MAX_BODY_BYTES)
        elsewhere = await server.status("/workflows", headers=OWN | cookie)

    assert {answer.status_code for answer in guesses} == {401}
    assert all("Set-Cookie" not in answer.headers for answer in [*guesses, limited])
    assert limited.status_code == 429
    assert 0 < int(limited.headers["Retry-After"]) <= 60
    assert "Try again in" in limited.text
    assert (large.status_code, elsewhere) == (413, 200)


async def test_pages_elsewhere_use_up_no_attempts(http: Serve) -> None:
    async with http() as server:
        token = server.new_token()
        for _ in range(ATTEMPTS_A_MINUTE + 1):
            await server.client.post("/sign-in", headers=ELSEWHERE[0])
            await server.client.post("/sign-in")
        assert (await attempt(server, token)).status_code == 303


@pytest.mark.slow
async def test_the_token_is_in_no_cookie_answer_address_log_or_file(
    environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= {"FIVETRAN_STATE_LOG_LEVEL": "DEBUG"}
    _, created, _ = await run_cli(environment, "token", "create", "--scope", "write")
    token = created.strip()
    secret = token.split("_", 2)[2]
    folder = tmp_path / "process"
    folder.mkdir()
    async with (
        http_process(environment, folder) as url,
        httpx.AsyncClient(base_url=url, headers=ON_PAGE, verify=NO_TLS) as client,
    ):
        answers = [
            await client.post("/sign-in", data={"token": given, "next": "/"})
            for given in (token, f"{token}x", f"fst_{secret}", WRONG_TOKEN)
        ]
        cookie = cookie_of(answers[0])
        answers.append(await client.get("/workflows"))
        answers.append(await client.get("/sign-in"))

    assert [answer.status_code for answer in answers] == [303, 401, 401, 401, 200, 200]
    for answer in answers:
        assert secret not in str(answer.headers) + answer.text + str(answer.url)
    opened = base64.urlsafe_b64decode(cookie.value)
    assert not re.search(secret.encode(), opened)
    with pytest.raises(zlib.error):
        zlib.decompress(opened[16:])  # It is encrypted, not only packed.
    assert where([secret, cookie.value], files_under(tmp_path)) == []
