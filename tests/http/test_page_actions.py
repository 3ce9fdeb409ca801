"""What people do on the page: change, undo, go back, cancel, approve, reject, withdraw."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from fivetran_state.access import Scope
from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import (
    IDLE,
    PAUSED,
    SYNCING,
    Watch,
    api_calls,
    arrival,
    state_of,
    sync_runs_on,
)
from tests.support.http_server import NO_TLS, HttpServer
from tests.support.page import ACCEPT, Page
from tests.support.people import Person, person
from tests.support.rest import ANY

CHANGE = {"kind": "merge_patch", "value": '{"cursor":"2020"}'}
OWN = {"Sec-Fetch-Site": "same-origin"}
RESYNCING = "patient_archive"


class Forms(HTMLParser):
    """The forms of a page: where each goes, and the fields that the browser would send.

    `boxes` says of each box whether it is ticked; the fields are without them.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.boxes: dict[str, bool] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append((given["action"], {}))
        elif tag == "input" and given.get("type") == "checkbox":
            self.boxes[given["name"]] = "checked" in given
        elif tag == "input":
            self.found[-1][1][given["name"]] = given.get("value", "")


@dataclass(frozen=True)
class Browser:
    """Somebody who looks at pages, and sends their forms."""

    client: httpx.AsyncClient
    me: Person | None = None

    async def see(self, path: str, *, status: int = 200) -> Page:
        return self._page(await self.client.get(path), status)

    def _page(self, answer: httpx.Response, status: int) -> Page:
        found = Page(answer)
        assert (found.status, found.problems) == (status, [])
        return found

    async def send(
        self, on: str, ending: str, *, status: int = 200, **fields: str
    ) -> tuple[Page, str]:
        """Send the form on this page whose address ends so; the page that follows, and its path."""
        (form,) = [
            each
            for each in Forms((await self.client.get(on)).text).found
            if each[0].endswith(ending)
        ]
        return await self.post(form[0], form[1] | fields, status=status)

    async def post(
        self, path: str, fields: Mapping[str, str], *, status: int = 200
    ) -> tuple[Page, str]:
        answer = await self.client.post(path, data=dict(fields), headers=OWN)
        if answer.status_code == 303:
            path = answer.headers["Location"]
            answer = await self.client.get(path)
        return self._page(answer, status), path

    async def plan(self, connection_id: str = IDLE, **change: str) -> tuple[Page, dict[str, str]]:
        """The plan of a change, and the fields of the form that makes it."""
        on = f"/page/connections/{connection_id}/change"
        token = Forms((await self.client.get(on)).text).found[0][1]["form_token"]
        fields = {"form_token": token} | (change or CHANGE)
        answer = await self.client.post(
            f"/page/connections/{connection_id}/plan", data=fields, headers=OWN
        )
        forms = [each[1] for each in Forms(answer.text).found if each[0].endswith("/make")]
        return self._page(answer, 200), forms[0] if forms else {}


@asynccontextmanager
async def browser(server: HttpServer, scope: Scope | None = None) -> AsyncIterator[Browser]:
    """Somebody who has signed in with a token of this scope; None: the server needs none."""
    client = httpx.AsyncClient(base_url=server.url, headers=ACCEPT, timeout=60, verify=NO_TLS)
    async with client:
        if scope is None:
            yield Browser(client)
            return
        async with person(server, scope) as me:
            fields = {"token": me.text, "next": "/"}
            assert (await client.post("/sign-in", data=fields, headers=OWN)).status_code == 303
            yield Browser(client, me)


async def ended(who: Browser, path: str) -> Page:
    """The page of an update, once it has ended."""
    workflow_id = unquote(path.rpartition("/")[2])
    api = {"Accept": "application/json"}
    await who.client.get(f"/workflows/{workflow_id}", params={"wait": 50}, headers=api)
    return await who.see(path)


async def test_a_change_is_made_as_it_was_shown(http: Serve, sandbox: Sandbox) -> None:
    watch = Watch(sandbox, IDLE)
    async with http() as server, browser(server, "write") as who:
        plan, fields = await who.plan()
        assert "PATCH" not in api_calls(sandbox, IDLE)
        _, path = await who.post(
            f"/page/connections/{IDLE}/make", fields | {"reason": "A bad deploy."}
        )
        made = await ended(who, path)

    assert "/cursor" in plan.words
    assert "The connection is paused for a moment and resumed." in plan.words
    assert unquote(path) == f"/page/updates/{IDLE}:1"
    assert "updated" in made.words
    assert "A bad deploy." in made.words
    assert who.me is not None
    assert who.me.name in made.words
    watch.ended_with(watch.old | {"cursor": "2020"})


async def test_a_state_that_has_moved_is_shown_again_and_nothing_is_written(
    http: Serve, sandbox: Sandbox
) -> None:
    async with http() as server, browser(server) as who:
        _, fields = await who.plan()
        sandbox.set_state(IDLE, '{"cursor":"2027"}')
        again, _ = await who.post(f"/page/connections/{IDLE}/make", fields, status=409)

    assert "This is the plan on the state as it is now." in again.words
    assert "2027" in again.words
    assert "PATCH" not in api_calls(sandbox, IDLE)


async def test_after_a_conflict_the_boxes_are_as_they_were_and_only_they_count(
    http: Serve, sandbox: Sandbox
) -> None:
    ticked = {"allow_resync": "on", "propose": "on"}
    path = f"/page/connections/{RESYNCING}/make"
    async with http() as server, browser(server) as who:
        _, fields = await who.plan(RESYNCING)
        sandbox.set_state(RESYNCING, '{"cursor":"2027"}')
        again = await who.client.post(path, data=fields | ticked, headers=OWN)
        shown = Forms(again.text)
        (unticked,) = [each[1] for each in shown.found if each[0] == path]
        _, update = await who.post(path, unticked)
        refused = await ended(who, update)

    assert again.status_code == 409
    assert shown.boxes == {"then_sync": False, "allow_resync": True, "propose": True}
    assert "resync_pending" in refused.words
    assert "PATCH" not in api_calls(sandbox, RESYNCING)


async def test_what_was_ticked_stays_so_on_the_next_page_of_a_long_plan(
    http: Serve, sandbox: Sandbox
) -> None:
    many = json.dumps(dict.fromkeys(map(str, range(1000)), 1))
    path = f"/page/connections/{IDLE}/make"
    async with http() as server, browser(server) as who:
        _, fields = await who.plan(kind="merge_patch", value=many)
        sandbox.set_state(IDLE, '{"cursor":"2027"}')
        again = await who.client.post(path, data=fields | {"propose": "on"}, headers=OWN)
        (on,) = [each for each in Forms(again.text).found if each[0].endswith("/plan")]
        later = await who.client.post(on[0], data=on[1] | {"start": "500"}, headers=OWN)

    assert Forms(later.text).boxes == {"then_sync": False, "propose": True}


@pytest.mark.parametrize("number", ["1.10", "12345678901234567890.123"])
async def test_every_number_is_taken_exactly(http: Serve, sandbox: Sandbox, number: str) -> None:
    async with http() as server, browser(server) as who:
        _, fields = await who.plan(kind="merge_patch", value=f'{{"exact":{number}}}')
        _, path = await who.post(f"/page/connections/{IDLE}/make", fields)
        await ended(who, path)

    assert f'"exact":{number}' in str(sandbox.connection(IDLE).state)


async def test_the_whole_state_is_edited_in_a_field_that_has_it(
    http: Serve, sandbox: Sandbox
) -> None:
    async with http() as server, browser(server) as who:
        text = (await who.client.get(f"/page/connections/{IDLE}/change")).text
        shown = re.findall(r"<textarea[^>]*>\n?(.*?)</textarea>", text, re.S)[-1]
        plan, _ = await who.plan(kind="new_state", value='{"cursor":"2020","new":1}')

    assert json.loads(shown.replace("&#34;", '"')) == state_of(sandbox, IDLE)
    assert "Added /new" in plan.words


@pytest.mark.slow
async def test_an_update_is_undone_from_its_page(http: Serve, sandbox: Sandbox) -> None:
    watch = Watch(sandbox, IDLE)
    async with http() as server, browser(server, "write") as who:
        _, fields = await who.plan()
        _, path = await who.post(f"/page/connections/{IDLE}/make", fields)
        (undo,) = [each for each in (await ended(who, path)).links if "restore_from" in each]
        _, path = await who.send(undo, "/make")
        await ended(who, path)

    watch.ended_with(watch.old)


async def test_an_earlier_state_is_three_clicks_away(http: Serve, sandbox: Sandbox) -> None:
    old = state_of(sandbox, IDLE)
    async with http() as server, browser(server) as who:
        _, fields = await who.plan()
        _, path = await who.post(f"/page/connections/{IDLE}/make", fields)
        await ended(who, path)
        line = await who.see(f"/page/connections/{IDLE}")  # The first click leads here.
        (back,) = [each for each in line.links if "restore_from" in each]
        _, path = await who.send(back, "/make")  # The second to the plan, the third makes it.
        await ended(who, path)

    assert state_of(sandbox, IDLE) == old


async def test_an_update_that_waits_is_cancelled(http: Serve, sandbox: Sandbox) -> None:
    sync_runs_on(sandbox)
    watch = Watch(sandbox, SYNCING)
    async with http() as server, browser(server) as who:
        _, fields = await who.plan(SYNCING)
        _, path = await who.post(f"/page/connections/{SYNCING}/make", fields)
        await arrival(sandbox, lambda each: each.method == "PATCH")
        await who.send(path, "/cancel")
        gone = await ended(who, path)

    assert "cancelled" in gone.words
    watch.ended_with(watch.old)


async def test_a_reader_sees_plans_and_no_way_to_make_them(http: Serve, sandbox: Sandbox) -> None:
    async with http() as server, browser(server, "read") as who:
        plan, fields = await who.plan()
        token = Forms((await who.client.get(f"/page/connections/{IDLE}/change")).text).found[0][1]
        body = token | CHANGE | {"expected_version": "0" * 32}
        refused, _ = await who.post(f"/page/connections/{IDLE}/make", body, status=403)

    assert "needs a token with the scope write" in plan.words
    assert fields == {}
    assert "insufficient_scope" in refused.words
    assert "PATCH" not in api_calls(sandbox, IDLE)


@pytest.mark.parametrize("what", ["make", "approve", "reject", "withdraw", "cancel"])
async def test_a_form_that_was_not_shown_here_does_nothing(
    http: Serve, sandbox: Sandbox, what: str
) -> None:
    async with http() as server, browser(server, "approve") as who:
        assert who.me is not None
        async with person(server, "write") as asker:
            proposal = await asker.propose(IDLE, merge_patch={"cursor": "2020"})
            _, fields = await who.plan()
            version = await who.me.version_of(proposal)
            path = {
                "make": f"/page/connections/{IDLE}/make",
                "cancel": f"/page/updates/{IDLE}:1/cancel",
            }.get(what, f"/page/proposals/{proposal}/{what}")
            body = fields | {"expected_version": version}
            elsewhere = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
            answers = [
                await who.client.post(path, data=body | {"form_token": "x"}, headers=OWN),
                await who.client.post(path, data=body, headers=elsewhere),
                await who.client.post(path, data=body, headers={"Origin": "null"}),
                await who.client.post(path, json=body, headers=OWN),
            ]
            left = await asker.get(f"/proposals/{proposal}")

    assert {answer.status_code for answer in answers} <= {401, 403, 415}, answers
    assert left["status"] == "proposed"
    assert "PATCH" not in api_calls(sandbox, IDLE)


async def test_a_person_approves_what_the_page_shows(http: Serve, sandbox: Sandbox) -> None:
    watch = Watch(sandbox, IDLE)
    async with http() as server, browser(server, "approve") as who:
        async with person(server, "write") as asker:
            proposal = await asker.propose(
                IDLE, merge_patch={"cursor": "2020"}, reason="<b>now</b>"
            )
        listed = await who.see("/page/proposals")
        front = await who.see("/")
        shown = await who.see(f"/page/proposals/{proposal}")
        as_update = await who.client.get(f"/page/updates/{proposal}")
        sandbox.set_state(IDLE, json.dumps(watch.old | {"page": 7}))
        moved, _ = await who.send(f"/page/proposals/{proposal}", "/approve")
        made = await ended(who, f"/page/updates/{IDLE}:1")

    assert f"/page/proposals/{proposal}".replace(":", "%3A") in listed.links
    assert "Waiting for approval" in front.words
    assert "<b>now</b>" in shown.words
    assert asker.name in shown.words
    assert as_update.headers["Location"] in listed.links
    assert moved.status == 200
    assert "updated" in made.words
    watch.ended_with(watch.old | {"page": 7, "cursor": "2020"})


async def test_an_approval_of_what_has_moved_shows_the_new_plan(
    http: Serve, sandbox: Sandbox
) -> None:
    async with http() as server, browser(server, "approve") as who:
        async with person(server, "write") as asker:
            proposal = await asker.propose(IDLE, merge_patch={"cursor": "2020"})
        on = f"/page/proposals/{proposal}"
        forms = Forms((await who.client.get(on)).text).found
        (path, fields) = next(each for each in forms if each[0].endswith("/approve"))
        sandbox.set_state(IDLE, '{"cursor":"2027"}')
        again, _ = await who.post(path, fields, status=409)

    assert "2027" in again.words
    assert "PATCH" not in api_calls(sandbox, IDLE)


async def test_a_group_is_approved_on_the_page(http: Serve, sandbox: Sandbox) -> None:
    watches = [Watch(sandbox, each) for each in (IDLE, PAUSED)]
    async with http() as server, browser(server, "approve") as who:
        async with person(server, "write") as asker:
            body: dict[str, Any] = {"connection_ids": [IDLE, PAUSED], "propose": True}
            asked = await asker.post(
                "/states/update", ANY | body | {"merge_patch": {"cursor": "2020"}}, status=202
            )
        on = f"/page/proposals/{asked['workflow_id']}"
        shown = await who.see(on)
        _, path = await who.send(on, "/approve")
        await ended(who, path)

    assert IDLE in shown.words
    assert PAUSED in shown.words
    for watch in watches:
        watch.ended_with(watch.old | {"cursor": "2020"})


async def test_a_proposal_is_rejected_and_its_asker_sees_why(http: Serve) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(http())
        who = await stack.enter_async_context(browser(server, "approve"))
        asker = await stack.enter_async_context(browser(server, "write"))
        _, fields = await asker.plan()
        asked, path = await asker.post(f"/page/connections/{IDLE}/make", fields | {"propose": "on"})
        await who.send(path, "/reject", reason="Wait for the backfill.")
        seen = await asker.see(path)

    assert "Deciding needs a token with the scope approve." in asked.words
    assert "Take it back" in asked.words
    assert "Wait for the backfill." in seen.words


async def test_what_one_has_asked_for_is_taken_back_and_not_approved(http: Serve) -> None:
    async with http() as server, browser(server, "approve") as who:
        _, fields = await who.plan()
        asked, path = await who.post(f"/page/connections/{IDLE}/make", fields | {"propose": "on"})
        gone, _ = await who.send(path, "/withdraw")

    assert "another person has to approve it" in asked.words
    assert "withdrawn" in gone.words


async def test_who_is_signed_in_can_sign_out(http: Serve) -> None:
    async with http() as server, browser(server, "read") as who:
        _, path = await who.send("/", "/sign-out")
        after = await who.client.get("/")

    assert path == "/sign-in"
    assert after.headers["Location"].startswith("/sign-in")
