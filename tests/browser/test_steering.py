"""What a person does on the page with a real browser: change, undo, go back, approve, reject."""

import re

import pytest
from playwright.async_api import Browser, Page, expect

from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import IDLE, Watch, api_calls, state_of
from tests.support.people import Person, person
from tests.support.visitor import Visitor, visitor

SOON = 30_000
CHANGE = '{"cursor":"2020"}'


async def click(page: Page, role: str, name: str) -> None:
    """Click the first link or button of that name, and wait for the page that follows."""
    async with page.expect_navigation():
        await page.get_by_role(role, name=name).first.click()  # type: ignore[arg-type]


async def ended(page: Page) -> None:
    """Wait, on the page of an update, until it has ended."""
    await expect(page.get_by_role("heading", name="What it changed")).to_be_visible(timeout=SOON)


async def signed_in(who: Visitor, me: Person, path: str) -> Page:
    """The page at this path, for whom this token belongs to."""
    await who.go(path)
    await who.page.get_by_label("Token").fill(me.text)
    async with who.page.expect_navigation():
        await who.page.keyboard.press("Enter")
    return who.page


async def make(page: Page, reason: str) -> None:
    """Change the connection that is shown, from its plan to the end."""
    await click(page, "link", "Change it")
    await page.get_by_label("JSON", exact=True).first.fill(CHANGE)
    await click(page, "button", "Show what would change")
    await expect(page.locator("main")).to_contain_text("/cursor")
    await page.get_by_label("Reason, for the history").fill(reason)
    await click(page, "button", "Make this change")
    await ended(page)


@pytest.mark.slow
async def test_a_person_changes_a_state_undoes_it_and_goes_back_in_three_clicks(
    http: Serve, sandbox: Sandbox, browser: Browser
) -> None:
    watch = Watch(sandbox, IDLE)
    async with http() as server:
        who = await visitor(browser, server.url)
        page = who.page
        await who.go("/")
        await click(page, "link", "Connections")
        await click(page, "link", IDLE)
        assert "PATCH" not in api_calls(sandbox, IDLE)
        await make(page, "A bad deploy.")
        made = state_of(sandbox, IDLE)
        await expect(page.locator("main")).to_contain_text("A bad deploy.")

        await click(page, "link", "Undo it")
        await click(page, "button", "Make this change")
        await ended(page)
        undone = state_of(sandbox, IDLE)

        await click(page, "link", IDLE)  # The first of the three clicks.
        row = page.get_by_role("listitem").filter(has_text=re.compile(f"{re.escape(IDLE)}:1"))
        async with page.expect_navigation():
            await row.get_by_role("link", name="Put this state back").click()
        await click(page, "button", "Make this change")
        await ended(page)

    assert (made, undone) == (watch.old | {"cursor": "2020"}, watch.old)
    watch.ended_with(made)
    assert who.problems == []


@pytest.mark.slow
async def test_a_second_person_approves_one_proposal_and_rejects_another(
    http: Serve, sandbox: Sandbox, browser: Browser
) -> None:
    watch = Watch(sandbox, IDLE)
    async with (
        http() as server,
        person(server, "write") as asker,
        person(server, "approve") as approver,
    ):
        who = await visitor(browser, server.url)
        page = await signed_in(who, approver, "/page/proposals")
        unwanted = await asker.propose(IDLE, merge_patch={"cursor": "1999"})
        await page.reload()
        await click(page, "link", f"merge_patch of {IDLE}")
        await expect(page.locator("main")).to_contain_text("1999")
        await page.get_by_label("Why not").fill("Too far back.")
        await click(page, "button", "Reject")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("rejected")
        left = api_calls(sandbox, IDLE)

        await asker.propose(IDLE, merge_patch={"cursor": "2020"}, reason="A bad deploy.")
        await click(page, "link", "Proposals")
        await click(page, "link", f"merge_patch of {IDLE}")
        await click(page, "button", "Approve exactly this")
        await ended(page)
        await expect(page.locator("main")).to_contain_text(approver.name)
        rejected = await asker.get(f"/proposals/{unwanted}")

    assert "PATCH" not in left
    assert (rejected["status"], rejected["note"]) == ("rejected", "Too far back.")
    watch.ended_with(watch.old | {"cursor": "2020"})
    assert who.problems == []
