"""REST: the version that a change is for, and entity tags."""

import json
import re
from pathlib import Path
from typing import Any

import anyio
import pytest

from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import IDLE, PAUSED, ROOT, SYNCING, api_calls, state_of
from tests.support.http_server import HttpServer
from tests.support.rest import ANY, get, parsed, post

UPDATE = "/state/update"
STATE = f"/connections/{IDLE}/state"
ONE = {"connection_id": IDLE}
PATCH = ONE | {"merge_patch": {"cursor": "2020"}}
OTHER = f'"{"0" * 32}"'


async def change(server: HttpServer, status: int, tag: str, **more: Any) -> dict[str, Any]:
    """The answer to a change with this If-Match."""
    return await post(server.client, UPDATE, PATCH | more, status=status, If_Match=tag)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (UPDATE, {"connection_id": IDLE}),
        (UPDATE, {"connection_id": IDLE, "propose": True}),
        ("/state/update-multiple", {"connection_ids": [IDLE, PAUSED]}),
        ("/states/update", {"connection_ids": [IDLE, PAUSED]}),
    ],
)
async def test_a_change_without_a_version_is_refused_and_a_star_is_any(
    http: Serve, sandbox: Sandbox, path: str, body: dict[str, Any]
) -> None:
    change = body | {"merge_patch": {"cursor": "2020"}}
    async with http() as server:
        refused = await post(server.client, path, change, status=428)
        assert api_calls(sandbox, IDLE) == []
        await post(server.client, path, ANY | change, status=202 if "propose" in body else 200)

    assert refused["code"] == "version_required"
    assert "expected_version" in refused["hint"]


async def test_a_plan_needs_no_version(http: Serve) -> None:
    bodies: dict[str, dict[str, Any]] = {
        UPDATE: ONE,
        "/states/update": {"connection_ids": [IDLE, PAUSED]},
    }
    more = {"merge_patch": {"cursor": "2020"}, "dry_run": True}
    async with http() as server:
        for path, body in bodies.items():
            plain = await post(server.client, path, body | more)
            star = await post(server.client, path, ANY | body | more)
            assert plain["status"] == star["status"] == "planned"


async def test_the_example_of_the_reference_changes_the_version_that_it_has_read(
    http: Serve, sandbox: Sandbox, tmp_path: Path
) -> None:
    page = (ROOT / "docs/reference/http.md").read_text(encoding="utf-8")
    [script] = re.findall(r"^```bash\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    before = state_of(sandbox, SYNCING)
    async with http() as server:
        there = script.replace("localhost:8000", server.url)
        ended = await anyio.run_process(["bash", "-euo", "pipefail", "-c", there], cwd=tmp_path)

    answer = json.loads(ended.stdout)
    assert (answer["status"], answer["current_state"]) == ("updated", before)
    assert state_of(sandbox, SYNCING) == {"cursor": "2025-03-06 20:20:20"}


# Entity tags


async def test_a_state_has_its_version_as_tag_and_is_not_sent_again(
    http: Serve, sandbox: Sandbox
) -> None:
    async with http() as server:
        first = await server.client.get(STATE)
        tag = first.headers["ETag"]
        for known in (tag, f"W/{tag}", f"{OTHER}, {tag}", "*"):
            again = await server.client.get(STATE, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
        sandbox.set_state(IDLE, '{"cursor":"2021"}')
        moved = await server.client.get(STATE, headers={"If-None-Match": tag})

    assert tag == f'"{first.json()["version"]}"'
    assert (moved.status_code, moved.json()["state"]) == (200, {"cursor": "2021"})
    assert moved.headers["ETag"] != tag


async def test_if_match_names_the_version_and_412_says_that_it_has_gone(
    http: Serve, sandbox: Sandbox
) -> None:
    before = state_of(sandbox, IDLE)
    async with http() as server:
        tag = (await server.client.get(STATE)).headers["ETag"]
        gone = await change(server, 412, OTHER)
        in_body = await post(
            server.client, UPDATE, PATCH | {"expected_version": OTHER.strip('"')}, status=409
        )
        assert state_of(sandbox, IDLE) == before
        made = await change(server, 200, tag)
        undo = ONE | {"restore_from": made["workflow_id"]}
        await post(server.client, UPDATE, undo, If_Match="*")

    assert gone["code"] == in_body["code"] == "conflict"
    assert gone["title"] == in_body["title"]
    assert state_of(sandbox, IDLE) == before


async def test_if_match_pins_the_plan_of_a_group(http: Serve, sandbox: Sandbox) -> None:
    path = "/states/update"
    body = {"connection_ids": [IDLE, PAUSED], "merge_patch": {"cursor": "2020"}}
    async with http() as server:
        plan = await post(server.client, path, body | {"dry_run": True})
        await post(server.client, path, body, status=412, If_Match=OTHER)
        await post(server.client, path, body, If_Match=f'"{plan["version"]}"')

    assert state_of(sandbox, IDLE)["cursor"] == state_of(sandbox, PAUSED)["cursor"] == "2020"


async def test_two_versions_in_one_request_change_nothing(http: Serve, sandbox: Sandbox) -> None:
    async with http() as server:
        seen = await get(server.client, STATE)
        tag = f'"{seen["version"]}"'
        await change(server, 400, tag, expected_version="*")
        await change(server, 400, OTHER, expected_version=seen["version"])
        for wrong in (seen["version"], f"{tag}, {OTHER}", '""', tag[:-1]):
            await change(server, 400, wrong)
        await change(server, 412, f"W/{tag}")
        assert "PATCH" not in api_calls(sandbox, IDLE)
        await change(server, 200, tag, expected_version=seen["version"])


async def test_if_match_without_a_change_is_a_mistake(http: Serve) -> None:
    async with http() as server:
        answer = await server.client.post(UPDATE, json=ONE, headers={"If-Match": "*"})

    assert parsed(answer, 422)["detail"].startswith("The change is missing")
