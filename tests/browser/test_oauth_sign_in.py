"""Signing in at an OAuth issuer of another site, with a real browser."""

from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser

from benchmarks.balancer import Balancer
from tests.conftest import Serve
from tests.support.calls import IDLE
from tests.support.issuer import CLIENT_ID, OAuthIssuer
from tests.support.visitor import visitor


@pytest.mark.slow
@pytest.mark.parametrize("asks_first", [True, False])
async def test_a_person_signs_in_at_the_issuer_goes_where_they_wanted_and_signs_out(
    http: Serve, browser: Browser, asks_first: bool
) -> None:
    servers: dict[str, str] = {}
    # The address has to be known before the server starts. For browsers, localhost is another site.
    async with Balancer(servers).running() as url:
        with OAuthIssuer(host="localhost", audience=url).running() as issuer:
            issuer.asks_first = asks_first
            async with http(
                FIVETRAN_STATE_PUBLIC_URL=url,
                FIVETRAN_STATE_OAUTH_ISSUER=issuer.url,
                FIVETRAN_STATE_OAUTH_CLIENT_ID=CLIENT_ID,
            ) as server:
                servers["only"] = server.url
                person = await visitor(browser, url)
                page = person.page
                await person.go(f"/page/connections/{IDLE}")
                asked = person.path
                await page.get_by_role("button", name="Sign in with localhost").press("Enter")
                if asks_first:
                    await page.get_by_role("button", name="Agree").click()
                await page.wait_for_url(f"{url}/page/connections/{IDLE}")
                name = await page.locator(".account").inner_text()
                (cookie,) = await person.context.cookies(url)
                seen_by_scripts = await page.evaluate("document.cookie")
                await page.go_back(wait_until="commit")
                before = person.path
                await person.go("/")
                await page.get_by_role("button", name="Sign out").click()
                await page.wait_for_url(f"{url}/sign-in")
                await person.go("/page/updates")
                after = person.path

    assert asked == f"/sign-in?next=%2Fpage%2Fconnections%2F{IDLE}"
    assert "oauth:ann" in name
    assert (cookie["httpOnly"], cookie["sameSite"], seen_by_scripts) == (True, "Strict", "")
    assert after.startswith("/sign-in?")
    assert "/sign-in/callback" not in before  # The history has no code.
    elsewhere = {urlsplit(each.removeprefix("requested ")).netloc for each in person.problems}
    assert elsewhere == {urlsplit(issuer.url).netloc}  # And the policy reported nothing.
