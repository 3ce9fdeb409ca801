"""The page: what is there, for a person with a browser, without a script."""

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from starlette.datastructures import Headers

from fivetran_state import look
from fivetran_state.errors import FivetranUnavailable, LeftPaused
from fivetran_state.http_server.negotiation import prefers_html
from fivetran_state.http_server.page import Pages, charts, differences
from fivetran_state.http_server.page.links import Links
from fivetran_state.models import Change, Failure, HistoryEntry, WorkflowView
from fivetran_state.phases import TABLE
from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import (
    EMPTY,
    EXACT,
    IDLE,
    LARGE,
    PAUSED,
    STATELESS,
    SYNCING,
)
from tests.support.http_server import WRONG_TOKEN
from tests.support.page import ACCEPT, Page, page
from tests.support.rest import ANY, get, parsed, post
from tests.support.views import change, remembered, running_update

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
MARKUP = "</title></bdo><script>alert(1)</script><img src=x onerror=alert(2)>\"' style=x"
HIDDEN = "\u202egnp.exe\u2066\u200b\x1b[31m"
HOSTILE = f"{MARKUP}{HIDDEN}\n{{{{ 12345678*9 }}}}{{% raw %}}"
MAX_PAGE = 400_000


# Who gets a page


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (ACCEPT["Accept"], True),
        ("text/html", True),
        ("TEXT/HTML;level=1, application/json;q=0.5", True),
        ("application/json, text/html;q=0.9", False),
        ("application/json, text/html", False),
        ("text/html;q=0", False),
        ("text/html;q=none", False),
        ("*/*", False),
        ("text/event-stream", False),
        ("", False),
        (",;,", False),
    ],
)
def test_only_who_prefers_html_gets_it(accept: str, wanted: bool) -> None:
    assert prefers_html(Headers({"accept": accept})) is wanted


async def test_programs_still_get_json_at_the_front(http: Serve) -> None:
    async with http() as server:
        for accept in ("*/*", "application/json"):
            answer = await server.client.get("/", headers={"Accept": accept})
            assert (parsed(answer, 200)["rest"], answer.headers["Vary"]) == ("/docs", "Accept")


async def test_a_program_is_told_that_a_page_is_not_for_it(http: Serve) -> None:
    async with http() as server:
        problem = await get(server.client, "/page/connections", status=406)

    assert "/docs" in problem["detail"]


async def test_every_page_has_the_strict_policy_and_is_not_kept(http: Serve) -> None:
    async with http() as server:
        for path in ("/", "/page/connections", f"/page/connections/{IDLE}", "/page/nothing"):
            answer = await server.client.get(path, headers=ACCEPT)
            assert answer.headers["Content-Security-Policy"] == POLICY
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert answer.headers["Vary"] == "Accept"


async def test_without_a_token_there_is_a_page_that_says_so_and_its_files(http: Serve) -> None:
    async with http() as server:
        token = server.new_token("read")
        asked = await server.client.get("/", headers=ACCEPT)
        wrong = await page(server.client, "/page/updates", status=401, token=WRONG_TOKEN)
        for path, media_type in (("style.css", "text/css"), ("script.js", "text/javascript")):
            found = await server.client.get(f"/page/{path}")
            assert found.headers["Content-Type"].startswith(media_type)
        await page(server.client, "/", token=token)

    assert asked.headers["Location"].startswith("/sign-in")
    assert "unknown, expired, revoked" in wrong.words
    assert "/sign-in" in wrong.links


# What the pages show


async def test_now_shows_what_waits_and_since_when_its_connection_is_paused(
    http: Serve, sandbox: Sandbox
) -> None:
    async with http() as server:
        workflow_id = await running_update(server.client, sandbox)
        now = await page(server.client, "/")
        sandbox.finish_sync(SYNCING)

    assert f"/page/updates/{quote(workflow_id)}" in now.links
    assert "Its connection is paused by us since 2" in now.words
    assert "Reason: a rewind" in now.words
    assert "Nothing is running." in now.words


async def test_now_shows_what_has_failed(http: Serve) -> None:
    stale = {"connection_id": IDLE, "merge_patch": {"a": 1}, "expected_version": "0" * 32}
    async with http() as server:
        await post(server.client, "/state/update", ANY | stale, status=409)
        now = await page(server.client, "/")
        update = await page(server.client, f"/page/updates/{IDLE}:1")

    assert f"{IDLE}:1" in now.words.split("Failed lately")[1].split("Latest updates")[0]
    assert "What went wrong: conflict" in update.words
    assert "What to do:" in update.words


async def test_connections_are_found_by_name_group_and_service(http: Serve) -> None:
    async with http() as server:
        every = await page(server.client, "/page/connections?every=true")
        keeping = await page(server.client, "/page/connections")
        named = await page(server.client, "/page/connections?name=LEDGER&group=&service=")
        group = await page(server.client, "/page/connections?group=Staging+warehouse")
        service = await page(server.client, "/page/connections?service=aws_lambda")
        none = await page(server.client, "/page/connections?name=nobody")

    assert STATELESS in every.text
    assert STATELESS not in keeping.text
    assert (EXACT in named.text, IDLE in named.text) == (True, False)
    assert ("twin_harvest" in group.text, IDLE in group.text) == (True, False)
    assert (IDLE in service.text, EXACT in service.text) == (True, False)
    assert "No connection fits." in none.words


async def test_connections_come_in_pages(http: Serve, sandbox: Sandbox) -> None:
    for number in range(60):
        sandbox.add_connection(f"one_of_many_{number}", state="{}")
    async with http() as server:
        first = await page(server.client, "/page/connections?name=one_of_many")
        (following,) = [link for link in first.links if "cursor=" in link]
        second = await page(server.client, following)

    assert "name=one_of_many" in following
    shown = [first.text.count("one_of_many_"), second.text.count("one_of_many_")]
    assert sum(shown) == 60 * shown[0] // 50


async def test_a_time_line_shows_what_moved_and_how_the_cursor_went(http: Serve) -> None:
    async with http() as server:
        for day in (1, 2, 3):
            await change(server.client, IDLE, merge_patch={"cursor": f"2025-01-0{day}T00:00:00Z"})
        await remembered(server.client, IDLE, 4)
        line = await page(server.client, f"/page/connections/{IDLE}")
        nowhere = await page(server.client, f"/page/connections/{IDLE}?path=/nothing")

    assert line.charts == ["Line of 3 values, oldest first"]
    assert '/cursor from "2025-01-02T00:00:00Z" to "2025-01-03T00:00:00Z"' in line.words
    assert f"/page/updates/{IDLE}%3A3" in line.links
    assert "Nothing is known to have moved at this path" in nowhere.words


@pytest.mark.slow
async def test_a_long_time_line_comes_in_pages(http: Serve) -> None:
    async with http() as server:
        for number in range(25):
            await change(server.client, PAUSED, merge_patch={"offset": number})
        await remembered(server.client, PAUSED, 26)
        first = await page(server.client, f"/page/connections/{PAUSED}?limit=100")
        (older,) = [link for link in first.links if "cursor=" in link]
        second = await page(server.client, older)

    assert first.size < MAX_PAGE
    assert f"{PAUSED}:25" in first.text
    assert (f"{PAUSED}:1 " in first.words, f"{PAUSED}:1 " in second.words) == (False, True)
    assert f"/page/connections/{PAUSED}" in second.links


async def test_a_state_is_shown_exactly(http: Serve) -> None:
    async with http() as server:
        now = await page(server.client, f"/page/connections/{EXACT}/state")
        part = await page(server.client, f"/page/connections/{EXACT}/state?path=/price")

    for number in (
        "9007199254740993",
        "1.10",
        "3.141592653589793238462643383279502884197",
        "1e400",
    ):
        assert number in now.text
    assert "1.10" in part.text
    assert "beyond_doubles" not in part.text
    assert f"/connections/{EXACT}/state?path=%2Fprice" in part.links


async def test_a_state_at_a_moment_is_shown(http: Serve) -> None:
    async with http() as server:
        await change(server.client, IDLE, new_state={"cursor": "first"})
        await change(server.client, IDLE, new_state={"cursor": "second"})
        entries = await remembered(server.client, IDLE, 3)
        found = await page(server.client, f"/page/connections/{IDLE}/state?at={IDLE}:2")
        same = await page(
            server.client, f"/page/connections/{IDLE}/state?at={entries[1]['version']}"
        )

    assert '"first"' in found.text
    assert '"first"' in same.text
    assert f"/page/updates/{IDLE}%3A1" in same.links


@pytest.mark.slow
async def test_a_large_state_is_an_outline_in_pages_that_can_be_searched(http: Serve) -> None:
    async with http() as server:
        first = await page(server.client, f"/page/connections/{LARGE}/state")
        (following,) = [link for link in first.links if "cursor=" in link]
        second = await page(server.client, following)
        found = await page(
            server.client, f"/page/connections/{LARGE}/state?search=library_00042/cursor"
        )

    assert (first.size < MAX_PAGE, second.size < MAX_PAGE) == (True, True)
    assert first.text != second.text
    assert "1 found" in found.words
    assert "/tables/library_00042/cursor" in found.text


async def test_a_connection_without_a_state_says_so(http: Serve) -> None:
    async with http() as server:
        empty = await page(server.client, f"/page/connections/{EMPTY}/state")
        stateless = await page(server.client, f"/page/connections/{STATELESS}/state")
        line = await page(server.client, f"/page/connections/{EMPTY}")

    assert "has no state yet" in empty.words
    assert "What to do" in stateless.words
    assert "Nothing" in line.words


async def test_two_moments_are_compared_side_by_side(http: Serve) -> None:
    async with http() as server:
        await change(server.client, IDLE, new_state={"cursor": "2026-01-01", "old": 1})
        await change(server.client, IDLE, new_state={"cursor": "2026-02-01", "new": {"a": [1.10]}})
        await remembered(server.client, IDLE, 3)
        address = f"/page/connections/{IDLE}/compare"
        form = await page(server.client, address)
        compared = await page(server.client, f"{address}?from={IDLE}:2&to=")

    assert "Differences" not in form.words
    assert "3 changes." in compared.words
    assert (compared.elements["ins"], compared.elements["del"]) == (1, 1)
    for shown in ("Changed /cursor", "Removed /old", "Added /new"):
        assert shown in compared.words


async def test_an_update_shows_its_steps_its_reason_and_every_change(http: Serve) -> None:
    many = {f"key_{number:03}": number for number in range(120)}
    async with http() as server:
        update = await change(server.client, IDLE, merge_patch=many, reason="for a test")
        address = f"/page/updates/{quote(update['workflow_id'], safe='')}"
        first = await page(server.client, address)
        pages = [first, *[await page(server.client, f"{address}?start={n}") for n in (50, 100)]]

    assert "Reason for a test" in first.words
    assert "Pause the connection: done" in first.words
    assert "120 changes, of which these are 1 to 50" in first.words
    for number in range(120):
        assert f"Added /key_{number:03}" in pages[number // 50].words


async def test_a_running_update_is_followed_by_events_until_its_end(
    http: Serve, sandbox: Sandbox
) -> None:
    async with http() as server:
        workflow_id = await running_update(server.client, sandbox)
        shown = await page(server.client, f"/page/updates/{workflow_id}")
        events: list[str] = []
        sync_goes_on = True
        async with server.client.stream("GET", f"/page/updates/{workflow_id}/events") as stream:
            assert stream.headers["Content-Type"].startswith("text/event-stream")
            async for line in stream.aiter_lines():
                events.append(line)
                if line == "" and sync_goes_on:
                    sandbox.finish_sync(SYNCING)
                    sync_goes_on = False
        ended = await page(server.client, f"/page/updates/{workflow_id}")

    assert "What it will change" in shown.words
    assert "Reload to see how far it is." in shown.words
    assert "event: progress" in events
    assert events[events.index("event: end") + 1] == "data: updated"
    assert "What it changed" in ended.words
    assert "Reload" not in ended.words


async def test_a_group_shows_each_connection(http: Serve) -> None:
    async with http() as server:
        group = await post(
            server.client,
            "/states/update",
            {"connection_ids": [IDLE, PAUSED], "merge_patch": {"a": 1}, "expected_version": "*"},
        )
        address = f"/page/updates/{group['workflow_id']}"
        shown = await page(server.client, address)
        events = await server.client.get(f"{address}/events")
        member = await page(server.client, f"/page/updates/{IDLE}:1")

    assert "2 of 2 connections were changed." in shown.words
    assert f"/page/updates/{PAUSED}%3A1" in shown.links
    assert "event: end\ndata: updated" in events.text
    assert f"/page/updates/{quote(group['workflow_id'], safe='')}" in member.links


@pytest.mark.slow
async def test_all_updates_come_in_pages(http: Serve) -> None:
    async with http() as server:
        for number in range(52):
            await change(server.client, PAUSED, merge_patch={"offset": number})
        first = await page(server.client, "/page/updates")
        (older,) = [link for link in first.links if "cursor=" in link]
        second = await page(server.client, older)

    assert f"{PAUSED}:52" in first.text
    assert f"{PAUSED}:1 " in second.words


# What goes wrong


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/page/nothing", 404, "Not Found"),
        ("/page/connections/no_such_connection", 404, "no_such_connection"),
        ("/page/connections/no_such_connection/state", 404, "no_such_connection"),
        ("/page/connections/%3Cb%3E", 422, "is not a connection's id"),
        ("/page/connections/%3Cb%3E/compare", 422, "is not a connection's id"),
        (f"/page/connections/{IDLE}?cursor=x", 422, "cursor"),
        (f"/page/connections/{IDLE}?limit=0", 422, "limit"),
        (f"/page/connections/{IDLE}/state?at=yesterday", 422, "yesterday"),
        (f"/page/connections/{IDLE}/state?at=2001-01-01T00:00Z", 404, "had looked"),
        (f"/page/connections/{IDLE}/state?path=/nothing", 422, "path"),
        (f"/page/connections/{IDLE}/compare?from=2001-01-01T00:00Z", 404, "had looked"),
        ("/page/connections?service=nothing", 422, "nothing"),
        ("/page/updates?cursor=x", 422, "cursor"),
        ("/page/updates/x", 422, "is not a workflow_id"),
        (f"/page/updates/{IDLE}:7", 404, "There is no update"),
        (f"/page/updates/{IDLE}:7?start=-1", 422, "start"),
        (f"/page/proposals/proposal:{'0' * 32}", 404, "There is no proposal"),
        (f"/page/connections/{IDLE}/plan", 422, "exactly one of"),
        (f"/page/connections/{IDLE}/plan?restore_from=yesterday", 422, "yesterday"),
        (f"/page/updates/other_account%2F{IDLE}:1", 404, "There is no update"),
        (f"/page/updates/together:{'0' * 32}", 404, "There is no update"),
    ],
)
async def test_an_error_is_a_page_with_its_status_and_what_to_do(
    http: Serve, path: str, status: int, told: str
) -> None:
    async with http() as server:
        found = await page(server.client, path, status=status)

    assert told in found.words
    assert "/page/connections" in found.links


async def test_events_of_an_unknown_update_are_refused_as_a_problem(http: Serve) -> None:
    async with http() as server:
        problem = await get(server.client, f"/page/updates/{IDLE}:7/events", status=404)

    assert problem["code"] == "workflow_not_found"


async def test_a_connection_that_is_not_allowed_is_shown_nowhere(http: Serve) -> None:
    async with http() as server:
        await change(server.client, PAUSED, merge_patch={"a": 1})
    async with http(FIVETRAN_STATE_ALLOWED_CONNECTIONS=IDLE) as server:
        for path in ("/", "/page/connections", "/page/updates"):
            assert PAUSED not in (await page(server.client, path)).text
        for path in (
            f"/page/connections/{PAUSED}",
            f"/page/connections/{PAUSED}/state",
            f"/page/connections/{PAUSED}/compare",
            f"/page/updates/{PAUSED}:1",
        ):
            found = await page(server.client, path, status=403)
            assert "is not allowed" in found.words


async def test_a_deleted_connection_keeps_its_time_line(http: Serve, sandbox: Sandbox) -> None:
    async with http() as server:
        await change(server.client, IDLE, new_state={"cursor": "last"})
        await remembered(server.client, IDLE, 2)
        sandbox.delete_connection(IDLE)
        line = await page(server.client, f"/page/connections/{IDLE}")
        for link in line.links:
            if link.startswith("/page/"):
                await page(server.client, link)

    assert "What this server remembers of it is below." in line.words
    assert f"{IDLE}:1" in line.text


async def test_a_server_whose_database_is_away_says_so_and_what_to_do(http: Serve) -> None:
    async with http(
        DBOS_SYSTEM_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing",
        FIVETRAN_STATE_SECRET_KEY="a key that is long enough",
    ) as server:
        found = await page(server.client, "/", status=503)

    assert "database_unavailable" in found.words
    assert "What to do:" in found.words


# Text from outside


async def test_hostile_text_stays_text_on_every_page(http: Serve, sandbox: Sandbox) -> None:
    sandbox.add_group("evil", HOSTILE)
    sandbox.add_connection(
        "evil_one", service="connector_sdk", schema=HOSTILE, group_id="evil", state="{}"
    )
    body = {
        HOSTILE: HOSTILE,
        "onclick": "x",
        "a/b~c": {MARKUP: 1},
        "schema": ["javascript:alert(1)"],
    }
    async with http() as server:
        await change(server.client, "evil_one", new_state=body, reason=HOSTILE)
        await change(server.client, "evil_one", new_state={HOSTILE: MARKUP}, reason=MARKUP)
        await remembered(server.client, "evil_one", 3)
        seen = set()
        for path in (
            "/",
            "/page/connections",
            "/page/connections?" + str(httpx.QueryParams({"name": MARKUP, "group": HIDDEN})),
            "/page/connections/evil_one",
            "/page/connections/evil_one?" + str(httpx.QueryParams({"path": f"/{MARKUP}"})),
            "/page/connections/evil_one/state",
            "/page/connections/evil_one/state?at=evil_one:2",
            "/page/connections/evil_one/compare?from=evil_one:1",
            "/page/updates",
            "/page/updates/evil_one:1",
            "/page/updates/evil_one:2",
        ):
            found = await page(server.client, path)
            assert not set("\u202e\u2066\u200b\x1b") & set(found.text + found.title), path
            assert str(12345678 * 9) not in found.text, path
            if "<script>alert(1)</script>" in found.text:
                seen.add(path)
        wrong = await page(
            server.client,
            "/page/connections/evil_one/state?" + str(httpx.QueryParams({"at": HOSTILE})),
            status=422,
        )

    assert len(seen) >= 8
    assert "\u202e" not in wrong.text


@pytest.mark.slow
async def test_ten_megabytes_give_bounded_pages(http: Serve, sandbox: Sandbox) -> None:
    cursors = {f"table_{n:05}": {"cursor": "2026-01-01", "page": "x" * 60} for n in range(80_000)}
    sandbox.set_state(IDLE, json.dumps(cursors))
    async with http() as server:
        body = {"connection_id": IDLE, "new_state": {"one": "y" * 3_000_000}}
        assert (await server.client.post("/state/update", json=ANY | body)).status_code == 200
        await remembered(server.client, IDLE, 2)
        for path in (
            f"/page/connections/{IDLE}",
            f"/page/connections/{IDLE}/state",
            f"/page/connections/{IDLE}/state?at={IDLE}:1",
            f"/page/connections/{IDLE}/compare?from={IDLE}:1",
            f"/page/updates/{IDLE}:1",
        ):
            assert (await page(server.client, path)).size < MAX_PAGE, path


# All of it


@pytest.mark.slow
async def test_every_link_leads_somewhere(http: Serve, sandbox: Sandbox) -> None:
    async with http() as server:
        await change(server.client, IDLE, merge_patch={"cursor": "2026-01-01", "n": 1})
        await change(server.client, IDLE, merge_patch={"cursor": "2026-01-02", "n": 2})
        await post(
            server.client,
            "/states/update",
            {"connection_ids": [IDLE, PAUSED], "merge_patch": {"a": 1}, "expected_version": "*"},
        )
        await remembered(server.client, IDLE, 4)
        seen: set[str] = set()
        todo = ["/"]
        while todo:
            path = todo.pop()
            seen.add(path)
            answer = await server.client.get(path, headers=ACCEPT)
            assert answer.status_code == 200, path
            if not path.startswith(("/page/", "/?")) and path != "/":
                continue  # Of REST.
            found = await page(server.client, path)
            new = {link for link in found.links if link and link not in seen}
            # One page of an outline is like the others.
            todo += [link for link in new - set(todo) if f"{LARGE}/state?" not in link]

    assert len(seen) > 40


# Parts


def now(**found: Any) -> Page:
    """The page of what is there now, with nothing but this."""
    empty: dict[str, Any] = dict.fromkeys(
        ("running", "waiting", "groups", "left", "failed", "latest", "proposed"), ()
    )
    rendered = Pages("").render(
        "now.html",
        **empty
        | {"more": 0, "left_problem": None, "paused_since": lambda _: None, "looked_at": 100}
        | found,
    )
    shown = Page(httpx.Response(200, html=rendered))
    assert shown.problems == []
    return shown


def test_a_connection_that_was_left_paused_comes_with_what_to_do() -> None:
    error = LeftPaused("late_ferry could not be resumed.")
    view = WorkflowView(
        connection_id="late_ferry",
        status="failed",
        message=error.message,
        workflow_id="late_ferry:3",
        steps=[],
        started_at="2026-01-01T00:00:00.000Z",
        error=Failure(code=error.code, message=error.message, hint=error.hint),
    )
    shown = now(left=[view])

    assert "Left paused by late_ferry:3" in shown.words
    assert "late_ferry could not be resumed." in shown.words
    assert "What to do:" in shown.words
    assert shown.links.index("/page/connections/late_ferry") > 0


def test_if_fivetran_does_not_answer_it_is_unknown_what_is_left_paused() -> None:
    shown = now(left_problem=FivetranUnavailable("Fivetran does not answer."))

    assert "Left paused: unknown" in shown.words
    assert "Fivetran does not answer." in shown.words
    assert "Nothing is running." in shown.words


def test_every_step_has_words() -> None:
    assert {entry.name for entry in TABLE} == set(look.STEPS)


def test_ids_and_values_are_quoted_in_addresses() -> None:
    links = Links("/below")

    assert links.update("account/one:1") == "/below/page/updates/account%2Fone%3A1"
    assert links.state("one", path="/a&b", at=None) == (
        "/below/page/connections/one/state?path=%2Fa%26b"
    )


def entries(path: str, *values: Any) -> list[HistoryEntry]:
    """A page of a time line, newest first, in which the value at the path moved."""
    return [
        HistoryEntry(
            at=f"2026-01-0{day}T00:00:00Z",
            kind="sync",
            version="0" * 32,
            changes=[Change(op="replace", path=path, before="0", after=json.dumps(value))],
            changes_total=1,
        )
        for day, value in reversed(list(enumerate(values, 1)))
    ]


def test_a_chart_goes_from_the_oldest_value_to_the_newest() -> None:
    (chart,) = charts.of_page(entries("/offset", 10, 30, 20))

    assert (chart.first, chart.last, chart.count, chart.backwards) == ("10", "20", 3, 1)
    assert chart.points == "4.0,44.0 160.0,4.0 316.0,24.0"


@pytest.mark.parametrize(
    "values",
    [("a", "b"), ({}, []), (1,), ("2026-99-99", "2026-13-01"), (True, None), ()],
)
def test_there_is_no_chart_of_what_is_neither_time_nor_number(values: tuple[Any, ...]) -> None:
    assert charts.of_page(entries("/cursor", *values)) == []


def test_long_equal_ends_of_a_value_are_left_out_and_counted() -> None:
    same = "s" * 5_000
    (row,) = differences.rows({"a": f"{same}1{same}"}, {"a": f"{same}2{same}"}).rows

    assert row.before is not None
    assert row.after is not None
    assert [part.text for part in row.before.parts if part.is_changed] == ["1"]
    assert [part.text for part in row.after.parts if part.is_changed] == ["2"]
    assert sum(len(part.text) + part.skipped for part in row.before.parts) == 10_003
    assert sum(len(part.text) for part in row.before.parts) < 100


def test_pages_of_differences_have_each_difference_once() -> None:
    after = {str(number): number for number in range(120)}
    paths, start = [], 0
    while True:
        found = differences.rows({}, after, start)
        paths += [row.path for row in found.rows]
        assert found.total == 120
        if found.next_start is None:
            break
        start = found.next_start

    assert paths == [f"/{number}" for number in range(120)]
