"""The MCP App in a host: what tools answer, inside the chat."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect
from playwright.async_api import Error as PlaywrightError

from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.app_host import AppHost, Sites, app_host
from tests.support.calls import IDLE, LARGE, PAUSED, SYNCING, state_of, sync_runs_on
from tests.support.hostile import HIDDEN, MARKUP, STATE, TALL, hostile_connection
from tests.support.http_server import HttpServer, http_forked
from tests.support.postgres import free_port
from tests.support.rest import ANY, get, post
from tests.support.views import change, remembered, running_update
from tests.support.visitor import PHONE

MOVED = {"cursor": "2020-01-01T00:00:00Z"}
UNDO = "Undo…"
AGREE = "Make exactly this change"


@pytest.fixture
async def server(http: Serve, sites: Sites) -> AsyncIterator[HttpServer]:
    async with http(FIVETRAN_STATE_ALLOWED_ORIGINS=sites.host) as running:
        yield running


@pytest.fixture
async def host(browser: Browser, sites: Sites, server: HttpServer) -> AsyncIterator[AppHost]:
    async with app_host(browser, sites, server.url) as found:
        yield found
        assert found.problems == []


async def updated(host: AppHost, connection_id: str = IDLE, **body: Any) -> str:
    """The id of an update whose end the App shows."""
    plan = await host.call("update_state", connection_id=connection_id, dry_run=True, **body)
    version = plan["structuredContent"]["version_before"]
    ended = await host.call(
        "update_state", connection_id=connection_id, expected_version=version, **body
    )
    workflow_id: str = ended["structuredContent"]["workflow_id"]
    return workflow_id


# What it shows


@pytest.mark.slow
async def test_a_plan_shows_the_difference_and_calls_nothing(host: AppHost) -> None:
    await host.call("update_state", connection_id=IDLE, merge_patch=MOVED, dry_run=True)

    await expect(host.heading).to_have_text("Plan")
    await expect(host.app.locator(".op-replace")).to_contain_text('changed /cursor from "20')
    await expect(host.app.locator(".op-replace")).to_contain_text('to "2020-01-01T00:00:00Z"')
    await expect(host.app.get_by_role("button")).to_have_count(0)
    await host.fits()
    assert await host.tool_calls() == []


@pytest.mark.slow
async def test_a_running_update_is_followed_to_its_end(host: AppHost, sandbox: Sandbox) -> None:
    sync_runs_on(sandbox)
    rewind: dict[str, Any] = {"connection_id": SYNCING, "merge_patch": MOVED}
    plan = await host.call("update_state", **rewind, dry_run=True)
    version = plan["structuredContent"]["version_before"]
    began = await host.call("update_state", **rewind, expected_version=version, wait_seconds=0)
    await expect(host.app.locator(".steps .current")).to_have_text(
        "Wait until the running sync has ended: now"
    )
    sandbox.finish_sync(SYNCING)
    await expect(host.app.locator("#message")).to_contain_text("updated", timeout=30_000)
    await expect(host.app.locator(".steps .current")).to_have_count(0)
    await expect(host.app.locator(".steps")).to_contain_text("Resume the connection: done")

    workflow_id = began["structuredContent"]["workflow_id"]
    calls = await host.tool_calls()
    assert {each["name"] for each in calls} == {"workflow_status"}
    assert {each["arguments"]["workflow_id"] for each in calls} == {workflow_id}


@pytest.mark.slow
async def test_an_update_is_followed_across_a_kill_of_the_server(
    environment: dict[str, str], tmp_path: Path, sandbox: Sandbox, browser: Browser, sites: Sites
) -> None:
    allowing = environment | {"FIVETRAN_STATE_ALLOWED_ORIGINS": sites.host}
    port = str(free_port())
    async with AsyncExitStack() as stack:
        async with http_forked(allowing, tmp_path, "--port", port) as server:
            url = str(server.client.base_url).rstrip("/")
            host = await stack.enter_async_context(app_host(browser, sites, url))
            workflow_id = await running_update(server.client, sandbox)
            await host.call("workflow_status", workflow_id=workflow_id)
            await expect(host.app.locator(".steps .current")).to_contain_text("now")
            await server.kill()
        message = host.app.locator("#message")
        await expect(message).to_contain_text("cannot be reached", timeout=120_000)
        async with http_forked(allowing, tmp_path, "--port", port):
            sandbox.finish_sync(SYNCING)
            await expect(message).to_contain_text("updated", timeout=120_000)

    assert state_of(sandbox, SYNCING)["a"] == 1


@pytest.mark.slow
async def test_a_result_that_comes_only_as_text_is_shown_too(host: AppHost) -> None:
    plan = await host.call("update_state", connection_id=IDLE, merge_patch=MOVED, dry_run=True)
    await host.show("update_state", {"content": plan["content"]})
    await expect(host.app.locator(".op-replace")).to_contain_text('to "2020-01-01T00:00:00Z"')
    await host.show("update_state", {"content": [{"type": "text", "text": "no JSON"}]})

    await expect(host.app.locator(".notice")).to_contain_text("no JSON")


@pytest.mark.slow
async def test_an_error_shows_its_code_and_what_to_do(host: AppHost) -> None:
    await host.call(
        "update_state", connection_id=IDLE, merge_patch=MOVED, expected_version="0" * 32
    )

    await expect(host.heading).to_have_text("It did not work")
    await expect(host.app.locator(".notice")).to_contain_text("What went wrong: conflict")
    await expect(host.app.locator(".notice .hint")).to_contain_text("What to do:")


@pytest.mark.slow
async def test_a_plan_of_a_group_and_its_end_show_each_connection(host: AppHost) -> None:
    chosen: dict[str, Any] = {"connection_ids": [IDLE, PAUSED], "merge_patch": MOVED}
    plan = await host.call("update_states", **chosen, dry_run=True)
    await expect(host.heading).to_have_text("Plan for a group")
    await expect(host.app.locator(".cards > li")).to_have_count(2)
    version = plan["structuredContent"]["version"]
    await host.call("update_states", **chosen, expected_version=version, wait_seconds=50)

    await expect(host.heading).to_have_text("Group of updates")
    await expect(host.app.locator(".counts")).to_have_text("updated: 2")
    await expect(host.app.locator(".cards > li")).to_have_count(2)


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_it_has_the_theme_of_the_host_and_no_barriers(
    host: AppHost, axe: str, theme: str
) -> None:
    await updated(host, merge_patch=MOVED)
    await host.call("state_history", theme=theme, connection_id=IDLE)
    scheme = await host.evaluate("getComputedStyle(document.documentElement).colorScheme")
    back = await host.evaluate("getComputedStyle(document.body).backgroundColor")

    assert scheme == theme
    assert back == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[theme]
    assert await host.barriers(axe) == []


@pytest.mark.slow
async def test_it_changes_its_theme_with_the_host(host: AppHost) -> None:
    await host.call("update_state", connection_id=IDLE, merge_patch=MOVED, dry_run=True)
    await host.page.evaluate("host.setTheme('dark')")

    await expect(host.app.locator("html")).to_have_css("color-scheme", "dark")


# What a person does in it


@pytest.mark.slow
async def test_an_undo_shows_its_plan_and_writes_what_the_person_agreed_to(
    host: AppHost, server: HttpServer, sandbox: Sandbox
) -> None:
    before = state_of(sandbox, IDLE)
    workflow_id = await updated(host, merge_patch=MOVED)
    version = (await get(server.client, f"/workflows/{workflow_id}"))["version_after"]
    await host.button(UNDO).click()
    await expect(host.app.locator("#plan-view .op-replace")).to_contain_text("/cursor")
    await host.button(AGREE).click()
    await expect(host.app.locator("#view")).to_contain_text(f"{IDLE}:2")
    await expect(host.app.locator("#message")).to_contain_text("updated")

    assert state_of(sandbox, IDLE) == before
    undo = {"connection_id": IDLE, "restore_from": workflow_id}
    assert (await host.tool_calls())[:2] == [
        {"name": "update_state", "arguments": undo | {"dry_run": True}},
        {
            "name": "update_state",
            "arguments": undo | {"expected_version": version, "wait_seconds": 0},
        },
    ]
    (told,) = await host.said("ui/update-model-context")
    assert version in told["content"][0]["text"]


@pytest.mark.slow
async def test_an_undo_writes_nothing_if_the_state_has_moved_since_its_plan(
    host: AppHost, server: HttpServer, sandbox: Sandbox
) -> None:
    await updated(host, merge_patch=MOVED)
    await host.button(UNDO).click()
    await expect(host.button(AGREE)).to_be_visible()
    await change(server.client, IDLE, merge_patch={"cursor": "2021"})
    await host.button(AGREE).click()

    await expect(host.app.locator(".notice")).to_contain_text("conflict")
    assert state_of(sandbox, IDLE)["cursor"] == "2021"


@pytest.mark.slow
async def test_it_is_used_with_the_keyboard_alone(host: AppHost, sandbox: Sandbox) -> None:
    before = state_of(sandbox, IDLE)
    await updated(host, merge_patch=MOVED)
    await host.button(UNDO).focus()
    await host.page.keyboard.press("Enter")
    await expect(host.app.locator("#plan-title")).to_be_focused()
    await expect(host.button(AGREE)).to_be_visible()
    await host.page.keyboard.press("Tab")
    await expect(host.button(AGREE)).to_be_focused()
    await host.page.keyboard.press("Space")
    await expect(host.app.locator("#view")).to_contain_text(f"{IDLE}:2")
    await expect(host.app.locator("#message")).to_contain_text("updated")

    assert state_of(sandbox, IDLE) == before


@pytest.mark.slow
async def test_a_double_click_agrees_to_nothing(host: AppHost, sandbox: Sandbox) -> None:
    await updated(host, merge_patch=MOVED)
    await host.button(UNDO).dblclick()
    await expect(host.button(AGREE)).to_be_visible()
    await host.button(AGREE).dispatch_event("click")

    assert [each["arguments"].get("dry_run") for each in await host.tool_calls()] == [True]
    assert state_of(sandbox, IDLE)["cursor"] == MOVED["cursor"]


@pytest.mark.slow
async def test_an_undo_that_cannot_be_shown_in_full_is_not_offered(host: AppHost) -> None:
    await updated(host, LARGE, new_state={})
    await host.button(UNDO).click()

    await expect(host.app.locator("#plan-actions")).to_contain_text("too large to be shown")
    await expect(host.button(AGREE)).to_have_count(0)


@pytest.mark.slow
async def test_the_time_line_puts_an_earlier_state_back(
    host: AppHost, server: HttpServer, sandbox: Sandbox
) -> None:
    for cursor in ("2021", "2022", "2023"):
        await change(server.client, IDLE, merge_patch={"cursor": cursor})
    line = await remembered(server.client, IDLE, 4)
    await host.call("state_history", connection_id=IDLE)
    await expect(host.app.locator(".timeline > li")).to_have_count(len(line))
    second = host.app.locator(".timeline > li", has_text='to "2021"')
    await second.get_by_role("button").click()
    await host.button(AGREE).click()
    await expect(host.app.locator("#message")).to_contain_text("updated")

    assert state_of(sandbox, IDLE)["cursor"] == "2021"


@pytest.mark.slow
async def test_the_time_line_goes_on_to_older_entries(host: AppHost, server: HttpServer) -> None:
    for cursor in ("2021", "2022"):
        await change(server.client, IDLE, merge_patch={"cursor": cursor})
    line = await remembered(server.client, IDLE, 3)
    await host.call("state_history", connection_id=IDLE, limit=1)
    for entry in line[1:]:
        await host.button("Older ones").click()
        moment = f"{entry['at'][:10]} {entry['at'][11:19]}"
        await expect(host.app.locator(".timeline")).to_contain_text(moment)
        await expect(host.app.locator(".timeline > li")).to_have_count(1)


@pytest.mark.slow
async def test_a_group_is_undone_as_a_group(host: AppHost, sandbox: Sandbox) -> None:
    chosen: dict[str, Any] = {"connection_ids": [IDLE, PAUSED], "merge_patch": {"a": 1}}
    plan = await host.call("update_states", **chosen, dry_run=True)
    version = plan["structuredContent"]["version"]
    await host.call("update_states", **chosen, expected_version=version, wait_seconds=50)
    await host.button(UNDO).click()
    await host.button(AGREE).click()
    await expect(host.app.locator("#view .op-remove")).to_have_count(2, timeout=30_000)
    await expect(host.app.locator(".counts")).to_have_text("updated: 2", timeout=30_000)

    assert "a" not in state_of(sandbox, IDLE)
    assert "a" not in state_of(sandbox, PAUSED)


@pytest.mark.slow
async def test_a_server_that_only_reads_offers_no_undo(
    http: Serve, browser: Browser, sites: Sites
) -> None:
    origins = {"FIVETRAN_STATE_ALLOWED_ORIGINS": sites.host}
    async with http(**origins) as server:
        await change(server.client, IDLE, merge_patch=MOVED)
        await remembered(server.client, IDLE, 2)
    async with (
        http(**origins, FIVETRAN_STATE_READ_ONLY="1") as server,
        app_host(browser, sites, server.url) as host,
    ):
        for tool, subject in (
            ("workflow_status", {"workflow_id": f"{IDLE}:1"}),
            ("state_history", {"connection_id": IDLE}),
        ):
            await host.call(tool, **subject)
            await expect(host.app.locator("#view")).to_contain_text("/cursor")
            await expect(host.app.get_by_role("button")).to_have_count(0)


# What attacks it


_PLACES = """() => ["#title", "#message"].map((each) => {
    const box = document.querySelector(each).getBoundingClientRect();
    return [box.left, box.top, getComputedStyle(document.querySelector(each)).direction];
})"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [None, PHONE])
async def test_nothing_in_a_state_runs_loads_moves_or_calls(
    browser: Browser, sites: Sites, server: HttpServer, sandbox: Sandbox, size: Any
) -> None:
    hostile_connection(sandbox, "evil_one", json.dumps({"cursor": 1}))
    other = {MARKUP: TALL, "new": MARKUP}
    await change(server.client, "evil_one", new_state=STATE, reason=MARKUP + HIDDEN)
    await change(server.client, "evil_one", new_state=other, reason=TALL)
    await remembered(server.client, "evil_one", 3)
    evil = {"connection_id": "evil_one"}
    group = {"connection_ids": ["evil_one"], "new_state": STATE, "reason": MARKUP}
    done = (await post(server.client, "/states/update", ANY | group))["workflow_id"]
    views: list[tuple[str, dict[str, Any], list[str]]] = [
        ("update_state", {**evil, "new_state": other, "dry_run": True}, []),
        ("update_states", {**group, "new_state": other, "dry_run": True}, []),
        ("update_state", {**evil, "new_state": MARKUP, "dry_run": True}, []),
        ("update_state", {**evil, "json_patch": [{"op": MARKUP}], "dry_run": True}, []),
        ("workflow_status", {"workflow_id": "evil_one:1"}, [UNDO]),
        ("workflow_status", {"workflow_id": "evil_one:2"}, [UNDO]),
        ("workflow_status", {"workflow_id": done}, [UNDO]),
        ("workflow_status", {"workflow_id": MARKUP}, []),
        ("state_history", evil, ["Put this state back…"] * 3),
    ]
    async with app_host(browser, sites, server.url, **{"viewport": size} if size else {}) as host:
        await host.call("workflow_status", workflow_id=f"{IDLE}:1")
        places = await host.evaluate(_PLACES)
        below = await host.page.locator("#below").bounding_box()
        for tool, arguments, buttons in views:
            await host.call(tool, **arguments)
            await host.fits()
            assert await host.app.get_by_role("button").all_inner_texts() == buttons, tool
            assert await host.evaluate(_PLACES) == places, tool
            assert await host.overflow() == 0, tool
            assert await host.tool_calls() == [], tool
            assert host.problems == [], tool
        shown = await host.app.locator("#view").inner_text()
        made = await get(server.client, "/workflows")

    assert below is not None
    assert "<script>alert(1)</script>" in shown
    assert "\\u202e" in shown
    assert "\u202e" not in shown
    assert len(made["workflows"]) == 3


@pytest.mark.slow
async def test_nothing_in_an_undo_of_a_hostile_state_runs(host: AppHost, sandbox: Sandbox) -> None:
    hostile_connection(sandbox, "evil_one", json.dumps(STATE))
    await updated(host, "evil_one", merge_patch={"onclick": 1, MARKUP: None})
    await host.button(UNDO).click()
    await expect(host.app.locator("#plan-view .changes > li")).to_have_count(2)

    assert len(await host.tool_calls()) == 1


@pytest.mark.slow
async def test_ten_megabytes_are_shown_in_part_and_run_nothing(
    host: AppHost, server: HttpServer, sandbox: Sandbox
) -> None:
    values = {f"{n:05}{MARKUP[:60]}": MARKUP[:60] for n in range(60_000)}
    hostile_connection(sandbox, "evil_one", json.dumps(values))
    await host.call("update_state", connection_id="evil_one", new_state={"a": 1}, dry_run=True)
    await expect(host.app.locator(".more")).to_contain_text("more.")
    await updated(host, "evil_one", new_state={"a": 1})
    await host.button(UNDO).click()
    # Ten megabytes are read and compared first.
    await expect(host.app.locator("#plan-actions")).to_contain_text(
        "too large to be shown", timeout=30_000
    )
    await remembered(server.client, "evil_one", 2)
    await host.call("state_history", connection_id="evil_one")
    await expect(host.app.locator(".timeline > li")).to_have_count(2)

    assert await host.overflow() == 0


@pytest.mark.slow
async def test_its_policy_stops_markup_made_of_text_and_every_request(host: AppHost) -> None:
    met: list[object] = []
    async with await asyncio.start_server(lambda *each: met.append(each), "127.0.0.1") as site:
        url = f"http://127.0.0.1:{site.sockets[0].getsockname()[1]}/"
        await host.call("update_state", connection_id=IDLE, merge_patch=MOVED, dry_run=True)
        for attempt in (
            f"document.body.innerHTML = {json.dumps(MARKUP)}",
            "document.write('<p>')",
            f"fetch('{url}')",
            "import('data:text/javascript,alert(1)')",
            f"new Promise((_, no) => Object.assign(new Image(), {{src: '{url}', onerror: no}}))",
        ):
            with pytest.raises(PlaywrightError):
                await host.evaluate(attempt)

    assert met == []
    host.problems.clear()  # Chromium tells of what it has stopped.


@pytest.mark.slow
async def test_a_result_that_no_server_would_send_runs_nothing(host: AppHost) -> None:
    long = MARKUP * 200
    changes = [{"op": MARKUP, "path": long, "before": long, "after": MARKUP}] * 1_000
    entries = [{"at": long, "kind": "__proto__", "version": MARKUP, "changes": changes}]
    hostile: list[dict[str, Any]] = [
        {"status": MARKUP, "message": long, "changes": changes, "changes_total": MARKUP},
        {"status": "planned", "kinds": MARKUP, "message": {"toString": 1}, "version": {}},
        {
            "status": "running",
            "message": HIDDEN,
            "workflow_id": {"a": 1},
            "steps": [{"name": long}],
        },
        {"entries": entries, "next_cursor": {"a": 1}},
        {"updates": [{"connection_id": MARKUP, "status": HIDDEN}], "counts": {MARKUP: MARKUP}},
    ]
    for content in hostile:
        await host.show("update_state", {"content": [], "structuredContent": content})
        assert await host.overflow() == 0
        assert await host.tool_calls() == []
        assert host.problems == []
