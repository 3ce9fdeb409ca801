"""Reading the page: by keyboard, on a phone, in the dark, with a screen reader."""

from typing import Any

import pytest
from playwright.async_api import Browser

from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import IDLE, SYNCING
from tests.support.views import furnished
from tests.support.visitor import DESKTOP, PHONE, Visitor, visitor

slow = pytest.mark.slow
_REACHABLE = """() => [...document.querySelectorAll(
    'a[href], button, input:not([type=hidden]), select, textarea, [tabindex="0"]'
)].filter((each) => each.checkVisibility()).length"""
_FOCUS = """() => {
    const focused = document.activeElement;
    if (focused === document.body) return null;
    focused.dataset.seen ??= Math.random();
    const style = getComputedStyle(focused), box = focused.getBoundingClientRect();
    const x = box.left + Math.min(box.width, innerWidth) / 2;
    const y = Math.max(box.top, 0) + Math.min(box.height, 20) / 2;
    return {
        key: focused.dataset.seen,
        what: focused.outerHTML.slice(0, 100),
        visible: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
        inside: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
    };
}"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "size"),
    [
        pytest.param("light", DESKTOP, id="light-desktop", marks=slow),
        pytest.param("dark", PHONE, id="dark-phone"),
        pytest.param("dark", DESKTOP, id="dark-desktop", marks=slow),
        pytest.param("light", PHONE, id="light-phone", marks=slow),
    ],
)
async def test_no_view_has_barriers_or_scrolls_sideways(
    http: Serve, sandbox: Sandbox, browser: Browser, axe: str, scheme: Any, size: Any
) -> None:
    found = {}
    async with http() as server:
        views = await furnished(server.client, sandbox)
        reader = await visitor(browser, server.url, color_scheme=scheme, viewport=size)
        for name, path in views.items():
            await reader.go(path)
            found[name] = [await reader.barriers(axe), await reader.overflow()]
        server.new_token()
        await reader.go("/")
        found["sign in"] = [await reader.barriers(axe), await reader.overflow()]
        sandbox.finish_sync(SYNCING)

    wrong = [f"{name}: {each}" for name, each in found.items() if each != [[], 0]]
    assert not wrong, "\n".join(wrong)


@slow
async def test_every_control_of_every_view_is_reached_by_the_tab_key_and_shows_the_focus(
    http: Serve, sandbox: Sandbox, browser: Browser
) -> None:
    async with http() as server:
        views = await furnished(server.client, sandbox)
        reader = await visitor(browser, server.url)
        for name, path in views.items():
            await reader.go(path)
            count = await reader.page.evaluate(_REACHABLE)
            seen = await tabbed(reader, count if count <= 80 else 80)
            assert len(seen) == min(count, 80), name
        sandbox.finish_sync(SYNCING)


async def tabbed(reader: Visitor, times: int) -> set[str]:
    """The controls that get the focus, each in the window and with a visible outline."""
    seen = set()
    for _ in range(times):
        await reader.page.keyboard.press("Tab")
        focus = await reader.page.evaluate(_FOCUS)
        assert focus is not None
        assert focus["visible"], focus
        assert focus["inside"], focus
        seen.add(focus["key"])
    return seen


@pytest.mark.slow
async def test_the_keyboard_leads_past_the_header_to_a_connection_and_its_update(
    http: Serve, sandbox: Sandbox, browser: Browser
) -> None:
    async with http() as server:
        await furnished(server.client, sandbox)
        reader = await visitor(browser, server.url)
        press = reader.page.keyboard.press
        await reader.go("/page/connections")
        await press("Tab")
        await press("Enter")
        await press("Tab")
        assert await reader.page.evaluate("document.activeElement.id") == "name"
        await reader.page.keyboard.type(IDLE)
        async with reader.page.expect_navigation():
            await press("Enter")
        await to(reader, f"/page/connections/{IDLE}")
        await to(reader, f"/page/updates/{IDLE}%3A3")
        heading = await reader.page.inner_text("h1")
        sandbox.finish_sync(SYNCING)

    assert heading == f"Update {IDLE}:3"
    assert reader.problems == []


async def to(reader: Visitor, path: str) -> None:
    """Tabs to the link to this address, and follows it."""
    for _ in range(100):
        await reader.page.keyboard.press("Tab")
        if await reader.page.evaluate("document.activeElement.getAttribute('href')") == path:
            break
    async with reader.page.expect_navigation():
        await reader.page.keyboard.press("Enter")
    assert reader.path == path
