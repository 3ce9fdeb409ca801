"""Signing in on the page at an OAuth issuer, and what its answers and other sites can do with it."""

import time
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from fivetran_state import vault
from fivetran_state.http_server import forms, issuer_sign_in, oauth
from fivetran_state.http_server.authority import IssuerToken
from fivetran_state.http_server.oauth import MAX_ANSWER_BYTES
from fivetran_state.http_server.sessions import Session
from fivetran_state.http_server.sign_in import ATTEMPTS_A_MINUTE
from tests.conftest import Serve
from tests.support.calls import IDLE
from tests.support.files import files_under, where
from tests.support.http_server import NO_TLS, HttpServer, http_process
from tests.support.issuer import AUDIENCE, CLIENT_ID, OAuthIssuer, Trick
from tests.support.rest import ANY
from tests.support.signing_in import (
    BROWSER,
    BY_USER,
    ELSEWHERE,
    ON_PAGE,
    OWN,
    Cookie,
    Inputs,
    cookies_of,
)

FROM_ISSUER = BROWSER | {
    "Sec-Fetch-Site": "cross-site",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}
SESSION, FLOW = "__Host-fivetran-state", "__Host-fivetran-state-sign-in"
CHANGE = {"connection_id": IDLE, "new_state": {"cursor": "of-ann"}}
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
MARKUP = "<script>alert(1)</script>"


@pytest.fixture
def offering(trusting: dict[str, str]) -> dict[str, str]:
    """The variables of a server on whose page people sign in at the issuer."""
    return trusting | {"FIVETRAN_STATE_OAUTH_CLIENT_ID": CLIENT_ID}


class Attempt:
    """One browser that signs in at the issuer, step by step."""

    def __init__(self, server: HttpServer) -> None:
        self.client = server.client
        self.sent: dict[str, str] = {}
        """The fields of the answer that the issuer sends by the browser."""
        self.cookie: dict[str, str] = {}
        """The header with the cookie of the attempt."""

    async def begin(self, next_: str = "/", **headers: str) -> httpx.Response:
        """Presses the button, and follows the way to the issuer, but not back from it."""
        answer = await self.client.post(
            "/sign-in/issuer", data={"next": next_}, headers=ON_PAGE | headers
        )
        if answer.status_code == 200:
            (kept,) = cookies_of(answer)
            self.cookie = kept.header
            await self._follow(str(Inputs(answer.text).all("a")[0]["href"]))
        self.client.cookies.clear()
        return answer

    async def _follow(self, address: str) -> None:
        async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as browser:
            answer = await browser.get(address)
        assert answer.status_code == 302, answer.text
        back = urlsplit(answer.headers["Location"])
        assert f"{back.scheme}://{back.netloc}{back.path}" == f"{AUDIENCE}/sign-in/callback"
        self.sent = dict(parse_qsl(back.query))

    async def end(self, **changed: str | None) -> httpx.Response:
        """Brings the issuer's answer back, with these fields changed; None removes a field."""
        fields = {name: value for name, value in (self.sent | changed).items() if value is not None}
        answer = await self.client.get(
            "/sign-in/callback", params=fields, headers=FROM_ISSUER | self.cookie
        )
        self.client.cookies.clear()
        return answer


async def answered(server: HttpServer, next_: str = "/") -> httpx.Response:
    """The answer to a browser that has gone the whole way."""
    attempt = Attempt(server)
    await attempt.begin(next_)
    return await attempt.end()


def session_of(answer: httpx.Response) -> Cookie:
    assert answer.status_code == 200, answer.text
    (session,) = [each for each in cookies_of(answer) if each.name == SESSION]
    return session


async def signed_in(server: HttpServer) -> dict[str, str]:
    """The headers of the browser of a person who has signed in at the issuer."""
    return OWN | session_of(await answered(server)).header


def problem_of(answer: httpx.Response) -> str:
    """What the page says; an attempt that has failed leaves no session."""
    assert SESSION not in [each.name for each in cookies_of(answer)]
    text = answer.text.partition('role="alert"')[2].partition("</p>")[0]
    assert text, answer.text
    return text


# The way there and back


async def test_a_person_signs_in_at_the_issuer_changes_a_state_and_signs_out(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with http(**offering) as server:
        attempt = Attempt(server)
        began = await attempt.begin("/page/updates?limit=5")
        ended = await attempt.end()
        session = OWN | session_of(ended).header
        changed = await server.client.post("/state/update", json=ANY | CHANGE, headers=session)
        page = await server.client.get("/page/updates", headers=session | BROWSER)
        hidden = Inputs(page.text).all("input")[0]["value"]
        left = await server.client.post(
            "/sign-out", data={forms.FIELD: hidden}, headers=session | ON_PAGE
        )
        after = await server.status("/workflows", headers=session)

    asked = dict(parse_qsl(urlsplit(str(Inputs(began.text).all("a")[0]["href"])).query))
    assert (asked["tenant"], asked["scope"]) == ("data", "openid read write approve")
    assert asked["resource"] == issuer.asked[0]["resource"] == AUDIENCE
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    assert [each["href"] for each in Inputs(ended.text).all("a")] == ["/page/updates?limit=5"]
    assert (changed.status_code, page.status_code) == (200, 200)
    assert "oauth:ann" in page.text
    assert (left.status_code, left.headers["Location"], after) == (303, "/sign-in", 401)
    names = [vars(each)["principal"] for each in caplog.records if hasattr(each, "duration_ms")]
    assert names == [None, *["oauth:ann"] * 4, None]


async def test_the_browser_goes_both_ways_by_a_page_with_the_strict_policy(
    http: Serve, offering: dict[str, str]
) -> None:
    async with http(**offering) as server:
        attempt = Attempt(server)
        began = await attempt.begin("/docs")
        ended = await attempt.end()

    for answer in (began, ended):
        page = Inputs(answer.text)
        (link,) = page.all("a")
        (refresh,) = [each for each in page.all("meta") if "http-equiv" in each]
        assert refresh == {"http-equiv": "refresh", "content": f"0; url={link['href']}"}
        assert not any(page.all(tag) for tag in ("script", "form", "style"))
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"


async def test_the_cookie_of_the_attempt_comes_back_from_elsewhere_and_the_sessions_does_not(
    http: Serve, offering: dict[str, str]
) -> None:
    common = {"Path": "/", "HttpOnly": "", "Secure": ""}
    async with http(**offering) as server:
        attempt = Attempt(server)
        (kept,) = cookies_of(await attempt.begin())
        forgotten, session = cookies_of(await attempt.end())

    assert kept.name == forgotten.name == FLOW
    assert kept.attributes == common | {"SameSite": "Lax", "Max-Age": "600"}
    assert (forgotten.value, forgotten.attributes["Max-Age"]) == ("", "0")
    assert session.name == SESSION
    assert session.attributes.pop("Max-Age").isdigit()
    assert session.attributes == common | {"SameSite": "Strict"}


async def test_the_page_offers_what_the_server_takes(
    http: Serve, trusting: dict[str, str], issuer: OAuthIssuer, offering: dict[str, str]
) -> None:
    async def shown(server: HttpServer) -> tuple[list[str | None], bool]:
        answer = await server.client.get("/sign-in", headers=BY_USER)
        actions = [each["action"] for each in Inputs(answer.text).all("form")]
        return actions, f"Sign in with {urlsplit(issuer.url).netloc}" in answer.text.replace(
            '<bdo dir="ltr">', ""
        )

    async with http(**trusting) as server:
        assert await shown(server) == (["/sign-in"], False)
    async with http(**offering) as server:
        assert await shown(server) == (["/sign-in/issuer"], True)
        server.new_token()
        assert await shown(server) == (["/sign-in/issuer", "/sign-in"], True)


async def test_a_server_below_a_path_has_its_own_addresses_at_the_issuer(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str]
) -> None:
    below = offering | {"FIVETRAN_STATE_PUBLIC_URL": f"{AUDIENCE}/state/"}
    async with http(**below) as server:
        shown = await server.client.get("/sign-in", headers=BY_USER)
        began = await server.client.post("/sign-in/issuer", data={"next": "/docs"}, headers=ON_PAGE)

    asked = dict(parse_qsl(urlsplit(str(Inputs(began.text).all("a")[0]["href"])).query))
    assert asked["redirect_uri"] == f"{AUDIENCE}/state/sign-in/callback"
    assert asked["resource"] == f"{AUDIENCE}/state/"
    assert Inputs(shown.text).all("form")[0]["action"] == "/state/sign-in/issuer"


@pytest.mark.parametrize(
    ("listed", "asked"),
    [
        (None, "read write approve"),
        ([], "read write approve"),
        (["openid", "profile"], "openid read write approve"),
        (["write", "read", "openid", "admin"], "openid read write"),
    ],
    ids=str,
)
async def test_it_asks_for_its_own_scopes_as_far_as_the_issuer_lists_them(
    http: Serve,
    issuer: OAuthIssuer,
    offering: dict[str, str],
    listed: list[str] | None,
    asked: str,
) -> None:
    issuer.published = {"scopes_supported": listed}
    async with http(**offering) as server:
        began = await Attempt(server).begin()

    query = urlsplit(str(Inputs(began.text).all("a")[0]["href"])).query
    assert dict(parse_qsl(query))["scope"] == asked


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_client_with_a_secret_proves_it_as_the_issuer_wants(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str], method: str
) -> None:
    issuer.client_secret = "a secret of the page"
    issuer.published = {"token_endpoint_auth_methods_supported": [method]}
    secret = {"FIVETRAN_STATE_OAUTH_CLIENT_SECRET": issuer.client_secret}
    async with http(**offering) as server:
        without = problem_of(await answered(server))
    async with http(**offering | secret) as server:
        session_of(await answered(server))

    assert "refuses its secret" in without


async def test_an_issuer_without_openid_or_lists_of_what_it_supports_will_do(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str]
) -> None:
    issuer.published = {
        "scopes_supported": None,
        "code_challenge_methods_supported": None,
        "authorization_response_iss_parameter_supported": False,
    }
    issuer.issued = {"id_token": None}
    async with http(**offering) as server:
        attempt = Attempt(server)
        began = await attempt.begin()
        session_of(await attempt.end(iss=None))

    asked = dict(parse_qsl(urlsplit(str(Inputs(began.text).all("a")[0]["href"])).query))
    assert asked["scope"] == "read write approve"
    assert "nonce" not in asked


async def test_another_process_with_the_same_key_takes_the_answer_and_the_session(
    http: Serve, offering: dict[str, str]
) -> None:
    shared = offering | {"FIVETRAN_STATE_SECRET_KEY": "the key of all servers"}
    async with http(**shared) as server:
        attempt = Attempt(server)
        await attempt.begin()
    async with http(**shared) as server:
        attempt.client = server.client
        session = OWN | session_of(await attempt.end()).header
    async with http(**shared) as server:
        assert await server.status("/workflows", headers=session) == 200


# What a session allows, and its end


async def test_a_session_has_the_scopes_of_its_token_and_no_others(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str]
) -> None:
    async with http(**offering) as server:
        issuer.granted = {"scope": "read"}
        session = await signed_in(server)
        changed = await server.client.post("/state/update", json=ANY | CHANGE, headers=session)
        issuer.granted = {"scope": "openid email"}
        nothing = problem_of(await answered(server))
        issuer.granted = {"scope": None, "scp": ["approve"]}
        asked = {"connection_id": IDLE, "merge_patch": {"a": 1}, "propose": True}
        proposed = await server.client.post("/state/update", json=ANY | asked, headers=session)
        approver = await signed_in(server)
        unknown = await server.client.post("/proposals/x/approve", json={}, headers=approver)

    assert (changed.status_code, changed.json()["code"]) == (403, "insufficient_scope")
    assert "does not allow you to use this server" in nothing
    assert proposed.status_code == 403
    assert unknown.json()["code"] != "insufficient_scope"


async def test_a_session_ends_when_its_token_would_have(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str]
) -> None:
    issuer.granted = {"exp": int(time.time()) + 100}
    async with http(**offering) as server:
        session = session_of(await answered(server))
        keys = vault.Texts(vault.keys(server.settings), f"fivetran-state of the page {AUDIENCE}")
        token = IssuerToken(
            issuer=issuer.url,
            key_id="key-0",
            client_id=CLIENT_ID,
            subject="ann",
            scopes=["read"],
            expires=time.time() + 60,
        )
        statuses = []
        for expires in (token.expires, 0.0):
            ended = token.model_copy(update={"expires": expires})
            made = Session(id="a", token=ended, began=time.time(), issued=time.time())
            cookie = {"Cookie": f"{SESSION}={keys.seal(made.model_dump())}"}
            statuses.append(await server.status("/workflows", headers=OWN | cookie))

    assert 0 < int(session.attributes["Max-Age"]) <= 100
    assert statuses == [200, 401]


async def test_a_session_ends_with_the_key_of_its_token_and_with_the_issuer(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str]
) -> None:
    async with http(**offering) as server:
        withdrawn = await signed_in(server)
        assert await server.status("/workflows", headers=withdrawn) == 200
        issuer.rotate()
        session = await signed_in(server)
        assert await server.status("/workflows", headers=withdrawn) == 401
        assert await server.status("/workflows", headers=session) == 200
    with OAuthIssuer().running() as other:
        async with http(**offering | {"FIVETRAN_STATE_OAUTH_ISSUER": other.url}) as server:
            assert await server.status("/workflows", headers=session) == 401


async def test_a_session_never_opens_mcp(http: Serve, offering: dict[str, str]) -> None:
    async with http(**offering) as server:
        session = await signed_in(server)
        answer = await server.client.post("/mcp", json={}, headers=session)

    assert answer.status_code == 401


# Tokens that are not for this server


@pytest.mark.parametrize(
    "granted",
    [
        {"aud": "https://other.example.com"},
        {"aud": CLIENT_ID},
        {"iss": "https://other.example.com"},
        {"exp": 1},
        {"exp": None},
        {"nbf": 4_000_000_000},
        {"sub": None, "client_id": None},
    ],
    ids=str,
)
async def test_an_access_token_counts_only_where_it_would_as_a_bearer_token(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str], granted: dict[str, Any]
) -> None:
    issuer.granted = granted
    async with http(**offering) as server:
        answer = await answered(server)

    assert answer.status_code == 403
    assert "not valid for this server" in problem_of(answer)


@pytest.mark.parametrize(
    ("issued", "status", "told"),
    [
        ({"access_token": "opaque"}, 403, "not valid for this server"),
        ({"access_token": "fst_1a2b3c4d_x"}, 403, "not valid for this server"),
        ({"token_type": "DPoP"}, 403, "not a bearer token"),
        ({"access_token": None}, 503, "at the moment"),
        ({"access_token": {"a": 1}}, 503, "at the moment"),
        ({"id_token": None}, 403, "no ID token for this attempt"),
        ({"id_token": "opaque"}, 403, "no ID token for this attempt"),
        ({"error": MARKUP}, 403, "did not sign you in"),
        ({"error": [MARKUP]}, 503, "at the moment"),
    ],
    ids=str,
)
async def test_an_answer_that_is_not_a_usable_token_signs_nobody_in(
    http: Serve,
    issuer: OAuthIssuer,
    offering: dict[str, str],
    issued: dict[str, Any],
    status: int,
    told: str,
) -> None:
    issuer.issued = issued
    async with http(**offering) as server:
        answer = await answered(server)

    assert answer.status_code == status
    assert told in problem_of(answer)
    assert "script" not in answer.text


@pytest.mark.parametrize(
    "identified",
    [
        {"nonce": "of another attempt"},
        {"nonce": None},
        {"aud": "another client"},
        {"aud": [CLIENT_ID, "another client"], "azp": "another client"},
        {"iss": "https://other.example.com"},
        {"exp": 1},
    ],
    ids=str,
)
async def test_an_id_token_of_another_attempt_client_or_issuer_signs_nobody_in(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str], identified: dict[str, Any]
) -> None:
    issuer.identified = identified
    async with http(**offering) as server:
        answer = await answered(server)

    assert answer.status_code == 403
    assert "no ID token for this attempt" in problem_of(answer)


# Answers from others, for others, and twice


@pytest.mark.parametrize("iss", ["https://attacker.example", "", None])
async def test_another_issuer_cannot_answer_in_place_of_ours(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str], iss: str | None
) -> None:
    async with http(**offering) as server:
        attempt = Attempt(server)
        await attempt.begin()
        answer = await attempt.end(iss=iss)

    assert answer.status_code == 403
    assert "does not come from" in problem_of(answer)
    assert issuer.asked == []  # The code went nowhere.


async def test_an_attempt_at_one_issuer_does_not_end_at_another(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str]
) -> None:
    shared = offering | {"FIVETRAN_STATE_SECRET_KEY": "the key of all servers"}
    async with http(**shared) as server:
        attempt = Attempt(server)
        await attempt.begin()
    with OAuthIssuer().running() as other:
        async with http(**shared | {"FIVETRAN_STATE_OAUTH_ISSUER": other.url}) as server:
            attempt.client = server.client
            answer = await attempt.end(iss=other.url)

    assert "does not come from" in problem_of(answer)
    assert (issuer.asked, other.asked) == ([], [])


async def test_an_answer_counts_only_in_the_browser_that_began_and_once(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str]
) -> None:
    async with http(**offering) as server:
        attacker, victim = Attempt(server), Attempt(server)
        await attacker.begin()
        await victim.begin()
        foreign = [
            await victim.end(**attacker.sent),  # The attacker's whole answer.
            await victim.end(state=attacker.sent["state"]),
            await victim.end(state=None),
            await victim.end(state=""),
            await victim.end(state="é"),
        ]
        without = Attempt(server)
        without.sent = attacker.sent
        foreign.append(await without.end())
        without.cookie = {"Cookie": f"{FLOW}=x"}
        foreign.append(await without.end())
        session = session_of(await attacker.end())
        without.cookie = {"Cookie": f"{FLOW}={session.value}"}
        foreign.append(await without.end())
        asked = len(issuer.asked)
        again = await attacker.end()

    for answer in foreign:
        assert answer.status_code == 403
        assert "attempt" in problem_of(answer) or "did not begin" in problem_of(answer)
    assert "has ended" in problem_of(again)
    assert asked == len(issuer.asked) == 1


async def test_a_stolen_code_is_worth_nothing_in_another_attempt(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str]
) -> None:
    async with http(**offering) as server:
        attacker, victim = Attempt(server), Attempt(server)
        await attacker.begin()
        await victim.begin()
        injected = await victim.end(code=attacker.sent["code"])

    assert injected.status_code == 403
    assert "did not sign you in" in problem_of(injected)
    assert "script" not in injected.text


async def test_an_attempt_ends_after_ten_minutes(
    http: Serve, offering: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with http(**offering) as server:
        attempt = Attempt(server)
        await attempt.begin()
        monkeypatch.setattr(issuer_sign_in, "VALID_SECONDS", -1)
        answer = await attempt.end()

    assert "has ended" in problem_of(answer)


async def test_an_answer_that_names_something_twice_is_refused(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str]
) -> None:
    async with http(**offering) as server:
        attempt = Attempt(server)
        await attempt.begin()
        fields = urlencode([*attempt.sent.items(), ("code", "another")])
        answer = await server.client.get(
            f"/sign-in/callback?{fields}", headers=FROM_ISSUER | attempt.cookie
        )

    assert "twice" in problem_of(answer)
    assert issuer.asked == []


@pytest.mark.parametrize("elsewhere", [*ELSEWHERE, {}, {"Sec-Fetch-Site": "none"}], ids=str)
async def test_no_page_elsewhere_begins_to_sign_its_visitor_in(
    http: Serve, offering: dict[str, str], elsewhere: dict[str, str]
) -> None:
    async with http(**offering) as server:
        begun = await server.client.post(
            "/sign-in/issuer", data={"next": "/"}, headers=BROWSER | elsewhere
        )
        followed = await server.client.get("/sign-in/issuer", headers=BROWSER | elsewhere)

    assert begun.status_code in (403, 421)
    assert followed.status_code in (303, 401, 403, 421)
    assert "Set-Cookie" not in begun.headers
    assert "Set-Cookie" not in followed.headers


async def test_the_answer_is_not_taken_in_a_frame_or_as_an_image(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str]
) -> None:
    async with http(**offering) as server:
        attempt = Attempt(server)
        await attempt.begin()
        for dest in ("iframe", "image", "empty"):
            answer = await server.client.get(
                "/sign-in/callback",
                params=attempt.sent,
                headers=FROM_ISSUER | attempt.cookie | {"Sec-Fetch-Dest": dest},
            )
            assert answer.status_code == 403
        assert issuer.asked == []


async def test_attempts_are_limited_by_address(http: Serve, offering: dict[str, str]) -> None:
    async with http(**offering, FIVETRAN_STATE_RATE_LIMIT="0") as server:
        for _ in range(ATTEMPTS_A_MINUTE):
            assert (await Attempt(server).begin()).status_code == 200
        limited = await Attempt(server).begin()

    assert limited.status_code == 429
    assert "Set-Cookie" not in limited.headers


@pytest.mark.parametrize(
    "next_", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:x", ""]
)
async def test_nobody_is_led_to_another_site(
    http: Serve, offering: dict[str, str], next_: str
) -> None:
    async with http(**offering) as server:
        ended = await answered(server, next_)

    assert [each["href"] for each in Inputs(ended.text).all("a")] == ["/"]


# What the issuer says, and when it says nothing


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("access_denied", "refused to sign you in"),
        ("invalid_scope", "does not give you the scopes"),
        ("temporarily_unavailable", "is overloaded"),
        ("{0.__class__}", "did not sign you in"),
        (MARKUP, "did not sign you in"),
    ],
)
async def test_an_error_of_the_issuer_is_told_in_our_words_and_where_to_go_stays(
    http: Serve,
    issuer: OAuthIssuer,
    offering: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    error: str,
    told: str,
) -> None:
    async with http(**offering) as server:
        attempt = Attempt(server)
        await attempt.begin("/page/updates")
        answer = await attempt.end(code=None, error=error, error_description=MARKUP)

    assert answer.status_code == 403
    assert told in problem_of(answer)
    assert urlsplit(issuer.url).netloc in answer.text
    assert "script" not in answer.text + caplog.text
    assert Inputs(answer.text).all("input")[0]["value"] == "/page/updates"


async def test_while_the_issuer_is_down_the_page_says_so_and_takes_tokens(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str]
) -> None:
    issuer.is_silent = True
    async with http(**offering) as server:
        token = server.new_token()
        down = await Attempt(server).begin("/docs")
        by_token = await server.client.post(
            "/sign-in", data={"token": token, "next": "/docs"}, headers=ON_PAGE
        )

    assert down.status_code == 503
    assert "does not answer" in problem_of(down)
    assert "/sign-in" in [each["action"] for each in Inputs(down.text).all("form")]
    assert (by_token.status_code, by_token.headers["Location"]) == (303, "/docs")


async def test_an_issuer_that_went_down_keeps_nobody_with_its_session_from_signing_in(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str]
) -> None:
    async with http(**offering) as server:
        session = await signed_in(server)
    issuer.is_silent = True
    async with http(**offering) as server:
        assert await server.status("/workflows", headers=session) == 503
        assert await server.status("/sign-in", headers=session | BROWSER) == 200


async def test_an_issuer_that_drips_floods_or_sends_elsewhere_is_cut_off(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oauth, "TIMEOUT", 1.0)
    async with http(**offering) as server:
        for trick in get_args(Trick):
            attempt = Attempt(server)
            issuer.trick, issuer.bytes_sent = None, 0
            await attempt.begin()
            issuer.trick = trick
            answer = await attempt.end()
            assert answer.status_code == 503
            assert "cannot sign you in at the moment" in problem_of(answer)
            assert issuer.bytes_sent < 100 * MAX_ANSWER_BYTES, trick


@pytest.mark.parametrize(
    "published",
    [
        {"authorization_endpoint": "http://issuer.example/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": None},
        {"token_endpoint": "http://issuer.example/token"},
        {"token_endpoint": None},
        {"code_challenge_methods_supported": ["plain"]},
    ],
    ids=str,
)
async def test_an_issuer_that_cannot_sign_people_in_safely_is_not_used_but_its_tokens_are(
    http: Serve, issuer: OAuthIssuer, offering: dict[str, str], published: dict[str, Any]
) -> None:
    issuer.published = published
    async with http(**offering) as server:
        answer = await Attempt(server).begin()
        by_header = await server.status(token=issuer.token())

    assert (answer.status_code, by_header) == (503, 200)
    assert "cannot sign you in at the moment" in problem_of(answer)


# Where the tokens are


@pytest.mark.slow
async def test_the_access_token_is_in_no_cookie_answer_log_or_file(
    environment: dict[str, str], issuer: OAuthIssuer, offering: dict[str, str], tmp_path: Path
) -> None:
    issuer.client_secret = "a-secret-of-the-page"
    variables = offering | {
        "FIVETRAN_STATE_LOG_LEVEL": "DEBUG",
        "FIVETRAN_STATE_OAUTH_CLIENT_SECRET": issuer.client_secret,
    }
    folder = tmp_path / "process"
    folder.mkdir()
    async with (
        http_process(environment | variables, folder) as url,
        httpx.AsyncClient(base_url=url, headers=ON_PAGE, verify=NO_TLS) as client,
    ):
        began = await client.post("/sign-in/issuer", data={"next": "/"})
        client.cookies.clear()
        (kept,) = cookies_of(began)
        async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as browser:
            back = await browser.get(str(Inputs(began.text).all("a")[0]["href"]))
        sent = urlsplit(back.headers["Location"]).query
        ended = await client.get(f"/sign-in/callback?{sent}", headers=FROM_ISSUER | kept.header)
        client.cookies.clear()
        session = session_of(ended)
        read = await client.get("/workflows", headers=session.header)

    (token,) = issuer.access_tokens
    verifier, code = issuer.asked[0]["code_verifier"], issuer.asked[0]["code"]
    parts = [token, token.split(".")[1], token.split(".")[2]]
    assert read.status_code == 200
    for answer in (began, ended, read):
        for secret in [*parts, verifier, code, issuer.client_secret]:
            assert secret not in str(answer.headers) + answer.text
    secrets = [*parts, verifier, code, issuer.client_secret, kept.value, session.value]
    assert where(secrets, files_under(tmp_path)) == []
