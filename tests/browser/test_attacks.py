"""Pages of other sites, open in the browser of a person who uses the page."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.browser import ELSEWHERE
from tests.support.calls import IDLE, api_calls, state_of
from tests.support.visitor import visitor

STATE = {"cursor": "from elsewhere"}
TEXT = json.dumps(STATE)
FORMS = [
    ("/state/update", {"connection_id": IDLE, "new_state": TEXT, "expected_version": "*"}),
    (
        f"/page/connections/{IDLE}/make",
        {"kind": "new_state", "value": TEXT, "expected_version": "*"},
    ),
    (f"/page/connections/{IDLE}/plan", {"kind": "new_state", "value": TEXT}),
    ("/sign-out", {}),
]
_SUBMIT = """([url, fields, type]) => {
    const form = document.createElement("form");
    Object.assign(form, {method: "post", action: url, enctype: type});
    for (const [name, value] of Object.entries(fields)) {
        const input = document.createElement("input");
        Object.assign(input, {name, value});
        form.append(input);
    }
    document.body.append(form);
    form.submit();
}"""
_FETCH = """async ([url, body]) => {
    const read = [];
    for (const credentials of ["include", "omit"])
        for (const mode of ["cors", "no-cors"])
            for (const type of ["text/plain", "application/json", "application/x-www-form-urlencoded"])
                for (const method of ["GET", "POST"])
                    try {
                        const answer = await fetch(url, {
                            method, mode, credentials,
                            ...(method === "POST" && {body, headers: {"Content-Type": type}}),
                        });
                        if (answer.type !== "opaque") read.push(`${mode} ${method} ${answer.status}`);
                    } catch {}
    return read;
}"""
_EMBED = """async ([tag, url]) => {
    const element = document.createElement(tag);
    const ended = new Promise((resolve) => { element.onload = element.onerror = resolve; });
    element.src = url;
    document.body.append(element);
    await ended;
    return [element.contentDocument?.body.innerText ?? "", Object.keys(window).includes("fivetran")];
}"""


@contextmanager
def other_site() -> Iterator[int]:
    """The port of an empty page."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>Elsewhere</title><body></body>")

        def log_message(self, *_: object) -> None:
            pass

    site = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    serving = Thread(target=site.serve_forever)
    serving.start()
    try:
        yield site.server_port
    finally:
        site.shutdown()
        serving.join()
        site.server_close()


async def attack(page: Page, site: str, victim: str) -> list[str]:
    """Tries everything from a page of this site; returns what the site could read."""
    read: list[str] = []
    for path, fields in FORMS:
        for type_ in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data"):
            await page.goto(site)
            async with page.expect_navigation():
                await page.evaluate(_SUBMIT, [victim + path, fields, type_])
    await page.goto(site)
    for path in ("/state/update", "/mcp", "/workflows", "/", f"/page/connections/{IDLE}/make"):
        body = json.dumps({"connection_id": IDLE, "new_state": STATE, "expected_version": "*"})
        read += await page.evaluate(_FETCH, [victim + path, body])
    for tag in ("iframe", "img", "script"):
        for path in ("/", f"/page/connections/{IDLE}/change", f"/connections/{IDLE}/state"):
            text, is_named = await page.evaluate(_EMBED, [tag, victim + path])
            read += [text] * bool(text) + ["a script"] * is_named
    return read


@pytest.mark.slow
@pytest.mark.parametrize("host", [ELSEWHERE, "127.0.0.1"])
@pytest.mark.parametrize("has_tokens", [True, False])
async def test_another_site_changes_nothing_reads_nothing_and_signs_nobody_out(
    http: Serve, sandbox: Sandbox, browser: Browser, host: str, has_tokens: bool
) -> None:
    before: Any = state_of(sandbox, IDLE)
    async with http() as server:
        person = await visitor(browser, server.url)
        if has_tokens:
            token = server.new_token()
            await person.go("/")
            await person.page.get_by_label("Token").fill(token)
            async with person.page.expect_navigation():
                await person.page.get_by_role("button", name="Sign in").click()
        with other_site() as port:
            page = await person.context.new_page()
            read = await attack(page, f"http://{host}:{port}/", server.url)
        await person.go("/page/updates")
        shown = await person.page.inner_text("main")

    assert read == []
    assert person.path == "/page/updates"
    assert "No update has been made." in shown
    assert state_of(sandbox, IDLE) == before
    assert "PATCH" not in "".join(api_calls(sandbox, IDLE))
