"""Tokens of an OAuth issuer: only its own, for this server, unexpired, and signed by its keys."""

import time
from typing import Any, get_args

import jwt
import pytest
from mcp.shared.auth import ProtectedResourceMetadata

from fivetran_state.http_server import oauth
from fivetran_state.http_server.oauth import MAX_ANSWER_BYTES
from tests.conftest import Serve
from tests.support.calls import IDLE
from tests.support.http_server import WRONG_TOKEN, authorization
from tests.support.issuer import AUDIENCE, OAuthIssuer, Trick, private_key


async def test_only_a_token_that_the_issuer_made_for_this_server_opens_it(
    http: Serve, issuer: OAuthIssuer, trusting: dict[str, str]
) -> None:
    soon = int(time.time()) + 600
    good = {
        "plain": issuer.token(),
        "one of several audiences": issuer.token(aud=["https://other", f"{AUDIENCE}/"]),
        "scp, a list": issuer.token(scope=None, scp=["read"]),
        "of nobody but a client": issuer.token(sub=None, client_id=None, azp="robot"),
    }
    bad = {
        "other audience": issuer.token(aud="https://other.example.com"),
        "no audience": issuer.token(aud=None),
        "other issuer": issuer.token(iss="https://other.example.com"),
        "no issuer": issuer.token(iss=None),
        "expired": issuer.token(exp=soon - 1200),
        "without end": issuer.token(exp=None),
        "not yet": issuer.token(nbf=soon),
        "of nobody": issuer.token(sub=None, client_id=None),
        "of an empty name": issuer.token(sub="", client_id=""),
        "of what is no name": issuer.token(sub=None, client_id={"an": "agent"}, azp=5, cid=True),
        "of a number": issuer.token(sub=5, client_id=None),
        "unsigned": issuer.unsigned(),
        "signed with the public key": issuer.forged_with_the_public_key(),
        "signed with a secret": jwt.encode(
            issuer.claims(), "secret" * 8, "HS256", headers={"kid": "symmetric"}
        ),
        "signed by another": jwt.encode(
            issuer.claims(), private_key(99), "RS256", headers={"kid": "key-0"}
        ),
        "of another kind": jwt.encode(
            issuer.claims(), private_key(0), "RS256", headers={"kid": "key-0", "typ": "logout+jwt"}
        ),
        "without a key's name": jwt.encode(issuer.claims(), private_key(0), "RS256"),
        "not a token": "eyJhbGciOiJSUzI1NiJ9.e30.e30",
        "not one of ours": WRONG_TOKEN,
    }
    async with http(**trusting) as server:
        assert {
            name for name, token in good.items() if await server.status(token=token) != 200
        } == set()
        assert {
            name for name, token in bad.items() if await server.status(token=token) != 401
        } == set()
        assert await server.status() == 401


async def test_what_a_token_grants_is_text_or_a_list_of_texts_and_anything_else_is_nothing(
    http: Serve, issuer: OAuthIssuer, trusting: dict[str, str]
) -> None:
    path = f"/workflows/{IDLE}:1/cancel"
    async with http(**trusting) as server:

        async def answer(**claims: Any) -> tuple[int, str]:
            headers = authorization(issuer.token(**({"scope": None} | claims)))
            got = await server.client.post(path, json={}, headers=headers)
            return got.status_code, got.json()["code"]

        for good in ("write", "openid write", ["read", "write"]):
            assert await answer(scope=good) == (404, "workflow_not_found"), good
            assert await answer(scp=good) == (404, "workflow_not_found"), good
        for odd in (5, True, {"write": 1}, ["write", 5], [["write"]], "writer", ["read write"], ""):
            assert await answer(scope=odd) == (403, "insufficient_scope"), odd
            assert await answer(scp=odd) == (403, "insufficient_scope"), odd
        assert await answer() == (403, "insufficient_scope")


async def test_a_client_is_told_where_the_issuer_is(
    http: Serve, issuer: OAuthIssuer, trusting: dict[str, str]
) -> None:
    path = "/.well-known/oauth-protected-resource"
    async with http(**trusting) as server:
        refused = await server.client.post("/mcp", json={})
        without_scope = await server.client.get(
            "/", headers=authorization(issuer.token(scope="openid"))
        )
        # Pages of any site may read it in a browser.
        metadata = await server.client.get(path, headers={"Origin": "https://inspector.example"})

    told = f'resource_metadata="{AUDIENCE}{path}"'
    assert refused.headers["WWW-Authenticate"] == f"Bearer {told}"
    assert without_scope.status_code == 403
    assert without_scope.headers["WWW-Authenticate"] == (
        f'Bearer error="insufficient_scope", scope="read", {told}'
    )
    assert metadata.headers["Access-Control-Allow-Origin"] == "*"
    described = ProtectedResourceMetadata.model_validate_json(metadata.content)
    assert str(described.resource) == AUDIENCE
    assert [str(server) for server in described.authorization_servers] == [issuer.url]
    assert described.scopes_supported == ["read", "write", "approve"]


async def test_a_rotated_key_is_found_at_once_and_unknown_ones_do_not_flood_the_issuer(
    http: Serve, issuer: OAuthIssuer, trusting: dict[str, str]
) -> None:
    async with http(**trusting) as server:
        old = issuer.token()
        assert await server.status(token=old) == 200
        issuer.rotate()
        assert await server.status(token=issuer.token()) == 200
        assert await server.status(token=old) == 401
        fetches = issuer.times_asked_for_keys
        for number in range(5):
            assert await server.status(token=issuer.token(key_id=f"made-up-{number}")) == 401

    assert issuer.times_asked_for_keys <= fetches + 1


async def test_while_the_issuer_is_silent_known_keys_hold_and_before_that_nobody_is_judged(
    http: Serve, issuer: OAuthIssuer, trusting: dict[str, str]
) -> None:
    issuer.is_silent = True
    async with http(**trusting) as server:
        answer = await server.client.get("/", headers=authorization(issuer.token()))
        assert answer.status_code == 503
        assert answer.json()["code"] == "authentication_unavailable"
    issuer.is_silent = False
    async with http(**trusting) as server:
        assert await server.status(token=issuer.token()) == 200
        issuer.is_silent = True
        assert await server.status(token=issuer.token()) == 200


@pytest.mark.slow
async def test_an_issuer_that_drips_or_floods_or_sends_elsewhere_is_cut_off(
    http: Serve, issuer: OAuthIssuer, trusting: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oauth, "TIMEOUT", 1.0)
    for trick in get_args(Trick):
        issuer.trick, issuer.bytes_sent = trick, 0
        async with http(**trusting) as server:
            answer = await server.client.get("/", headers=authorization(issuer.token()))
        assert (answer.status_code, answer.json()["code"]) == (503, "authentication_unavailable")
        assert issuer.bytes_sent < 100 * MAX_ANSWER_BYTES, trick


async def test_known_keys_hold_while_the_issuer_plays_tricks(
    http: Serve, issuer: OAuthIssuer, trusting: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oauth, "KEYS_AGE", 0.0)
    async with http(**trusting) as server:
        assert await server.status(token=issuer.token()) == 200
        issuer.trick = "drips"
        assert await server.status(token=issuer.token()) == 200
        assert await server.status(token=issuer.token()) == 200


async def test_an_issuer_that_speaks_openid_connect_alone_will_do(http: Serve) -> None:
    with OAuthIssuer(is_openid=True).running() as issuer:
        variables = {
            "FIVETRAN_STATE_OAUTH_ISSUER": issuer.url,
            "FIVETRAN_STATE_PUBLIC_URL": AUDIENCE,
        }
        async with http(**variables) as server:
            assert await server.status(token=issuer.token()) == 200


async def test_tokens_of_the_file_and_of_the_issuer_serve_side_by_side(
    http: Serve, issuer: OAuthIssuer, trusting: dict[str, str]
) -> None:
    async with http(**trusting) as server:
        assert await server.status(token=server.new_token("read")) == 200
        assert await server.status(token=issuer.token()) == 200
