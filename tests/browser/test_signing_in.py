"""Signing in with a real browser, and how a session ends."""

import pytest
from playwright.async_api import Browser, expect

from fivetran_state.http_server import sessions
from fivetran_state.sandbox import Sandbox
from fivetran_state.tokens import TokenFile
from tests.conftest import Serve
from tests.support.calls import IDLE, SYNCING
from tests.support.http_server import WRONG_TOKEN
from tests.support.people import client_of
from tests.support.views import running_update
from tests.support.visitor import Visitor, visitor


async def sign_in(person: Visitor, token: str) -> None:
    """Types the token by keyboard into the form that has been shown."""
    await person.page.get_by_label("Token").focus()
    await person.page.keyboard.type(token)
    async with person.page.expect_navigation():
        await person.page.keyboard.press("Enter")


@pytest.mark.slow
async def test_a_person_signs_in_where_they_wanted_to_go_and_signs_out(
    http: Serve, browser: Browser
) -> None:
    async with http() as server:
        token = server.new_token()
        person = await visitor(browser, server.url)
        await person.go(f"/page/connections/{IDLE}")
        await sign_in(person, WRONG_TOKEN)
        await expect(person.page.get_by_role("alert")).to_contain_text("unknown")
        refused = person.path
        await sign_in(person, token)
        entered = person.path
        (cookie,) = await person.context.cookies()
        seen_by_scripts = await person.page.evaluate("document.cookie")
        async with person.page.expect_navigation():
            await person.page.get_by_role("button", name="Sign out").click()
        left = person.path
        await person.context.add_cookies(
            [{"name": cookie["name"], "value": cookie["value"], "url": server.url}]
        )
        await person.go("/")
        with_a_copy = person.path

    assert refused == "/sign-in"
    assert entered == f"/page/connections/{IDLE}"
    assert (cookie["httpOnly"], cookie["sameSite"], seen_by_scripts) == (True, "Strict", "")
    assert left == "/sign-in"
    assert with_a_copy.startswith("/sign-in")


@pytest.mark.slow
async def test_a_session_that_has_expired_leads_back_to_signing_in(
    http: Serve, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with http() as server:
        token = server.new_token()
        person = await visitor(browser, server.url)
        await person.go("/")
        await sign_in(person, token)
        with monkeypatch.context() as later:
            later.setattr(sessions, "VALID_SECONDS", -1)
            async with person.page.expect_navigation():
                await person.page.get_by_role("link", name="Updates", exact=True).click()
            asked = person.path
        await sign_in(person, token)

    assert asked == "/sign-in?next=%2Fpage%2Fupdates"
    assert person.path == "/page/updates"
    assert person.problems == []


@pytest.mark.slow
async def test_who_follows_an_update_is_sent_away_when_their_token_is_revoked(
    http: Serve, sandbox: Sandbox, browser: Browser
) -> None:
    async with http() as server:
        text, token = TokenFile(server.settings).create("write", None, None)
        person = await visitor(browser, server.url)
        async with client_of(server.url, text) as client:
            workflow_id = await running_update(client, sandbox)
        path = f"/page/updates/{workflow_id}"
        await person.go(path)
        await sign_in(person, text)
        await expect(person.page.locator(".steps .current")).to_contain_text("now")
        server.new_token()
        TokenFile(server.settings).revoke(token.id)
        await person.page.wait_for_url("**/sign-in?*", timeout=60_000)
        sandbox.finish_sync(SYNCING)

    assert "What it" not in await person.page.inner_text("body")
