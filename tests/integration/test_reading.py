"""Reading: lists, states and their outlines, and requests that are refused before anything is sent."""

import json
import re
from typing import Any

import pytest
from mcp import Client

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import (
    EMPTY,
    EXACT,
    IDLE,
    LARGE,
    NO_VERSION,
    PAUSED,
    STATELESS,
    SYNCING,
    Watch,
    api_calls,
    arrival,
    call,
    refused,
    state_of,
    until,
    version_of,
    written_down,
)

ODD = "odd_heron"
"""A connection that tests add, with a state of its own."""
TWIN = "twin_harvest"
"""A connection with the same name as SYNCING, in another group."""
MANUAL = "idle_turbine"
BROKEN = "severed_cable"
RESYNC = "patient_archive"


async def ids(client: Client, **arguments: Any) -> list[str]:
    """The ids of every page, in order."""
    found: list[str] = []
    cursor = None
    while True:
        page = await call(client, "list_connections", **arguments, cursor=cursor)
        found += [each["id"] for each in page["connections"]]
        cursor = page.get("next_cursor")
        if cursor is None:
            return found


# Lists


@pytest.mark.parametrize("limit", [1, 3, 8, 1000])
async def test_paging_to_the_end_shows_each_connection_once(
    connect: Connect, sandbox: Sandbox, limit: int
) -> None:
    everything = [each.id for each in sandbox.world.connections()]
    async with connect() as client:
        assert await ids(client, limit=limit) == everything


@pytest.mark.parametrize("limit", [1, 3, 4])
async def test_a_page_holds_no_more_than_its_limit_whatever_is_filtered(
    connect: Connect, sandbox: Sandbox, limit: int
) -> None:
    for number in range(3):
        sandbox.add_connection(f"zinc_{number}", service="postgres")
    async with connect() as client:
        page = await call(client, "list_connections", service="connector_sdk", limit=limit)
        found = await ids(client, service="connector_sdk", limit=limit)

    assert len(page["connections"]) <= limit
    assert found == [
        each.id for each in sandbox.world.connections() if each.service == "connector_sdk"
    ]


@pytest.mark.parametrize("name", ["shutdown", "BULLION", "payments_lambda", "ments_la"])
async def test_connections_are_found_by_a_part_of_their_id_or_name(
    connect: Connect, name: str
) -> None:
    async with connect() as client:
        page = await call(client, "list_connections", name=name)

    assert page == {
        "connections": [
            {
                "id": IDLE,
                "name": "payments_lambda",
                "service": "aws_lambda",
                "group_id": "warehouse",
                "group_name": "Production warehouse",
                "keeps_state": True,
                "paused": False,
                "sync_state": "scheduled",
            }
        ]
    }


async def test_a_name_that_nothing_has_finds_nothing(connect: Connect) -> None:
    async with connect() as client:
        assert await call(client, "list_connections", name="nothing") == {"connections": []}


async def test_connections_are_found_by_their_service(connect: Connect) -> None:
    async with connect() as client:
        assert await ids(client, service="azure_function") == [PAUSED]


async def test_the_list_tells_who_keeps_a_state_and_who_is_paused_or_syncing(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        page = await call(client, "list_connections")

    shown = {each["id"]: each for each in page["connections"]}
    assert [id_ for id_, each in shown.items() if not each["keeps_state"]] == [STATELESS]
    assert shown[STATELESS]["unusable_because"] == "The service postgres keeps no state."
    assert [id_ for id_, each in shown.items() if "unusable_because" in each] == [STATELESS]
    paused = [each.id for each in sandbox.world.connections() if each.paused]
    assert [id_ for id_, each in shown.items() if each["paused"]] == paused
    assert shown[SYNCING]["sync_state"] == "syncing"
    assert shown[PAUSED]["sync_state"] == "paused"


async def test_connections_named_alike_are_told_apart(connect: Connect) -> None:
    async with connect() as client:
        page = await call(client, "list_connections", name="orders_api")
        seen = [await call(client, "get_state", connection_id=id_) for id_ in (SYNCING, TWIN)]

    for found in (page["connections"], seen):
        assert {(each["name"], each["group_id"], each["group_name"]) for each in found} == {
            ("orders_api", "warehouse", "Production warehouse"),
            ("orders_api", "projected_sickle", "Staging warehouse"),
        }


@pytest.mark.parametrize(
    ("connection_id", "facts"),
    [
        (IDLE, {}),
        (MANUAL, {"schedule_type": "manual"}),
        (BROKEN, {"setup_state": "broken"}),
        (RESYNC, {"is_historical_sync": True}),
    ],
)
async def test_what_is_unusual_is_shown(
    connect: Connect, connection_id: str, facts: dict[str, Any]
) -> None:
    async with connect() as client:
        page = await call(client, "list_connections", name=connection_id)
        seen = await call(client, "get_state", connection_id=connection_id)

    unusual = ("schedule_type", "setup_state", "is_historical_sync")
    for found in (*page["connections"], seen):
        assert {name: found[name] for name in unusual if name in found} == facts


async def test_groups_are_asked_for_once(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        for connection_id in (IDLE, TWIN, IDLE):
            await call(client, "get_state", connection_id=connection_id)
            await call(client, "list_connections")

    assert [each.path for each in sandbox.log].count("/v1/groups") == 1


async def test_groups_that_cannot_be_named_keep_their_ids(
    connect: Connect, sandbox: Sandbox
) -> None:
    sandbox.fault("status", path="/v1/groups$", status=403)
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=IDLE)

    assert seen["group_id"] == "warehouse"
    assert "group_name" not in seen


async def test_an_unknown_service_names_the_known_ones(connect: Connect) -> None:
    async with connect() as client:
        error = await refused(client, "list_connections", service="connector-sdk")

    assert error["code"] == "invalid_request"
    assert "connector-sdk" in error["message"]
    assert "connector_sdk" in error["message"]
    assert "google_cloud_function" in error["message"]


async def test_a_cursor_that_fivetran_did_not_give_is_refused(connect: Connect) -> None:
    async with connect() as client:
        error = await refused(client, "list_connections", cursor="%%%")

    assert error["code"] == "invalid_request"
    assert "cursor" in error["message"]


# States


async def test_a_state_comes_whole_with_its_connection(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=IDLE)

    text = sandbox.connection(IDLE).state
    assert text is not None
    assert re.fullmatch("[0-9a-f]{32}", seen.pop("version"))
    assert seen == {
        "connection_id": IDLE,
        "name": "payments_lambda",
        "service": "aws_lambda",
        "group_id": "warehouse",
        "group_name": "Production warehouse",
        "paused": False,
        "sync_state": "scheduled",
        "bytes": len(text),
        "state": json.loads(text),
    }


async def test_the_version_changes_with_the_state_and_comes_back_with_it(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        versions = []
        for text in ('{"a":1,"b":2}', '{"a":1.0,"b":2}', '{"b":2,"a":1}'):
            sandbox.set_state(IDLE, text)
            versions.append(await version_of(client, IDLE))

    assert versions[0] == versions[2] != versions[1]


async def test_a_path_leads_to_a_part_of_the_state(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.add_connection(ODD, state='{"a/b":[{"~c":null},7],"":{"":8}}')
    async with connect() as client:

        async def at(path: str) -> dict[str, Any]:
            return await call(client, "get_state", connection_id=ODD, path=path)

        whole = await at("")
        assert (await at("/a~1b/1"))["state"] == 7
        assert (await at("/a~1b/0"))["state"] == {"~c": None}
        assert (await at("//"))["state"] == 8
        part = await at("/a~1b")

    assert whole["state"] == state_of(sandbox, ODD)
    assert (part["path"], part["version"]) == ("/a~1b", whole["version"])
    assert part["bytes"] == len('[{"~c":null},7]')


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("/orders/nothing", "/orders"),
        ("/orders/cursor/deeper", "/orders/cursor"),
        ("/nothing", "the top"),
        ("orders", "JSON Pointer"),
        ("/orders~2", "JSON Pointer"),
    ],
)
async def test_a_path_that_leads_nowhere_names_the_nearest_parent(
    connect: Connect, path: str, nearest: str
) -> None:
    async with connect() as client:
        error = await refused(client, "get_state", connection_id=SYNCING, path=path)

    assert error["code"] == "invalid_request"
    assert nearest in error["message"]


async def test_nulls_of_a_state_survive(connect: Connect, sandbox: Sandbox) -> None:
    state = {"cursor": None, "tables": [None, {"page": None}]}
    sandbox.add_connection(ODD, state=json.dumps(state))
    async with connect() as client:
        assert (await call(client, "get_state", connection_id=ODD))["state"] == state


async def test_a_part_that_is_null_is_told_from_none_at_all(
    connect: Connect, sandbox: Sandbox
) -> None:
    sandbox.add_connection(ODD, state='{"cursor":null}')
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=ODD, path="/cursor")

    assert seen["bytes"] == len("null")
    assert seen["state"] is None
    assert "outline" not in seen


async def test_no_state_yet_is_told_from_an_empty_one(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        error = await refused(client, "get_state", connection_id=EMPTY)
        sandbox.set_state(EMPTY, "{}")
        seen = await call(client, "get_state", connection_id=EMPTY)

    assert error["code"] == "no_state_yet"
    assert "run once" in error["hint"]
    assert seen["state"] == {}


@pytest.mark.parametrize("path", [None, "/tables"])
async def test_the_size_of_a_state_costs_no_outline(
    connect: Connect, sandbox: Sandbox, path: str | None
) -> None:
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=LARGE, path=path, max_bytes=0)

    assert seen["bytes"] > 1_900_000
    assert seen["version"]
    assert not {"state", "state_json", "outline"} & seen.keys()


async def test_a_text_longer_than_max_bytes_says_how_to_get_it(
    connect: Connect, sandbox: Sandbox
) -> None:
    sandbox.add_connection(ODD, state=json.dumps({"token": "x" * 30_000}))
    async with connect() as client:
        short = await call(client, "get_state", connection_id=ODD, path="/token")
        whole = await call(
            client, "get_state", connection_id=ODD, path="/token", max_bytes=short["bytes"]
        )
        sandbox.set_state(ODD, json.dumps({"token": "x" * 1_000_000}))
        huge = await call(client, "get_state", connection_id=ODD, path="/token", max_bytes=100)

    assert not {"state", "state_json", "outline"} & short.keys()
    assert f"max_bytes {short['bytes']}" in short["hint"]
    assert whole["state"] == "x" * 30_000
    assert "/state/get" in huge["hint"]


@pytest.mark.parametrize("max_bytes", [100, 1_000, 20_000])
async def test_a_large_state_comes_as_an_outline_that_fits(
    connect: Connect, sandbox: Sandbox, max_bytes: int
) -> None:
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=LARGE, max_bytes=max_bytes)

    text = sandbox.connection(LARGE).state
    assert text is not None
    assert seen["bytes"] == len(text) > 1_900_000
    assert "state" not in seen
    assert seen["outline"]
    assert len(json.dumps(seen["outline"], separators=(",", ":"))) <= max_bytes


@pytest.mark.slow
async def test_the_paths_of_an_outline_lead_deeper(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        top = await call(client, "get_state", connection_id=LARGE, max_bytes=2_000)
        tables = top["outline"][0]
        deeper = await call(
            client, "get_state", connection_id=LARGE, path=tables["path"], max_bytes=2_000
        )
        table = await call(
            client, "get_state", connection_id=LARGE, path=deeper["outline"][0]["path"]
        )

    assert (tables["path"], tables["type"], tables["items"]) == ("/tables", "object", 15_000)
    assert deeper["outline"][-1]["type"] == "more"
    assert deeper["version"] == top["version"]
    assert table["state"] == state_of(sandbox, LARGE)["tables"]["library_00000"]


async def test_a_state_of_exactly_max_bytes_comes_whole(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.add_connection(ODD, state='{"a":"' + "x" * 142 + '"}')
    async with connect() as client:
        fits = await call(client, "get_state", connection_id=ODD, max_bytes=150)
        not_quite = await call(client, "get_state", connection_id=ODD, max_bytes=149)

    assert fits["bytes"] == 150
    assert "state" in fits
    assert "outline" in not_quite


async def pages(client: Client, **arguments: Any) -> list[dict[str, Any]]:
    """The answers of get_state to the end of an outline or a search."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        found.append(await call(client, "get_state", **arguments, cursor=cursor))
        cursor = found[-1].get("next_cursor")
        if cursor is None:
            return found


def listed(answers: list[dict[str, Any]]) -> list[str]:
    """The paths of all pages."""
    entries = (entry for answer in answers for entry in answer["outline"])
    return [entry["path"] for entry in entries if entry["type"] != "more"]


TABLES = {f"table {number}": {"cursor": number, "Page": None} for number in range(60)}
HIDING = "\u202e\x00<b>~/"
"""A key that hides, that is markup, and that a path escapes."""


async def test_one_key_among_thousands_is_found_in_one_call(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=LARGE, search="LIBRARY_09876")

    (entry,) = seen["outline"]
    assert entry["path"] == "/tables/library_09876"
    assert json.loads(entry["preview"]) == state_of(sandbox, LARGE)["tables"]["library_09876"]
    assert seen["matches_total"] == 1
    assert seen["version"]
    assert not {"state", "next_cursor", "hint"} & seen.keys()


@pytest.mark.parametrize("search", [None, "", "page", "table 1", "/"])
@pytest.mark.parametrize("max_bytes", [300, 1_000])
async def test_the_pages_of_a_listing_show_each_value_once(
    connect: Connect, sandbox: Sandbox, search: str | None, max_bytes: int
) -> None:
    sandbox.add_connection(ODD, state=json.dumps(TABLES))
    async with connect() as client:
        answers = await pages(client, connection_id=ODD, search=search, max_bytes=max_bytes)

    everything = [f"/{table}{key}" for table in TABLES for key in ("", "/cursor", "/Page")]
    expected = {
        "page": [f"/{table}/Page" for table in TABLES],
        "table 1": [f"/{table}" for table in TABLES if table.startswith("table 1")],
    }.get(search or "/", everything)
    assert sorted(listed(answers)) == sorted(expected)
    assert len(answers) > 1
    for answer in answers:
        assert len(json.dumps(answer["outline"], separators=(",", ":"))) <= max_bytes
        assert answer.get("matches_total") == (len(expected) if search else None)


async def test_a_listing_goes_on_only_in_the_version_that_it_began_with(
    connect: Connect, sandbox: Sandbox
) -> None:
    sandbox.add_connection(ODD, state=json.dumps(TABLES))
    async with connect() as client:
        wanted = {"connection_id": ODD, "search": "page", "max_bytes": 1_000}
        first = await call(client, "get_state", **wanted)
        await written_down(client, ODD)
        sandbox.set_state(ODD, json.dumps({"page": 1}))
        moved = await refused(client, "get_state", **wanted, cursor=first["next_cursor"])
        past = {"at": first["version"], "max_bytes": 20_000}
        rest = await call(client, "get_state", **wanted | past, cursor=first["next_cursor"])
        again = await call(client, "get_state", **wanted)

    assert moved["code"] == "invalid_request"
    assert f"set at to {first['version']}" in moved["message"]
    assert listed([first, rest]) == [f"/{table}/Page" for table in TABLES]
    assert listed([again]) == ["/page"]


@pytest.mark.parametrize("cursor", ["x", "1", "\x1b[2J", "0" * 32 + ":1:00000000", "9" * 5_000])
async def test_what_is_no_cursor_of_this_listing_is_refused(
    connect: Connect, sandbox: Sandbox, cursor: str
) -> None:
    async with connect() as client:
        error = await refused(client, "get_state", connection_id=LARGE, cursor=cursor)

    assert error["code"] == "invalid_request"
    assert "cursor" in error["message"]
    assert len(error["message"]) < 300


@pytest.mark.parametrize("other", [{"path": "/tables"}, {"search": "cursor"}, {"search": None}])
async def test_a_cursor_goes_on_with_its_own_path_and_search(
    connect: Connect, other: dict[str, Any]
) -> None:
    async with connect() as client:
        first = await call(client, "get_state", connection_id=LARGE, search="library")
        wanted = {"search": "library", "cursor": first["next_cursor"]} | other
        error = await refused(client, "get_state", connection_id=LARGE, **wanted)

    assert "path or search" in error["message"]


async def test_a_search_that_finds_nothing_says_what_it_looks_at(connect: Connect) -> None:
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=LARGE, search="2026-01-01")

    assert (seen["outline"], seen["matches_total"]) == ([], 0)
    assert "Values are not searched" in seen["hint"]


async def test_matches_are_counted_without_being_listed(connect: Connect) -> None:
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=LARGE, search="lib", max_bytes=0)

    assert seen["matches_total"] == 15_000
    assert not {"outline", "hint", "next_cursor"} & seen.keys()


@pytest.mark.parametrize("search", [None, "k"])
async def test_an_entry_longer_than_max_bytes_says_how_to_get_it(
    connect: Connect, sandbox: Sandbox, search: str | None
) -> None:
    sandbox.add_connection(ODD, state=json.dumps({"😀k" * 5_000: {"x": 1}}))
    async with connect() as client:
        wanted = {"connection_id": ODD, "search": search}
        short = await call(client, "get_state", **wanted, max_bytes=200)
        seen = await call(client, "get_state", **wanted, max_bytes=20_000)

    assert "max_bytes 20000" in short["hint"]
    assert "next_cursor" not in short
    assert seen["outline"][0]["bytes"] == len('{"x":1}')


@pytest.mark.parametrize("search", [HIDING, "b>~", "B>~0~1", "\u202e", "~/"])
async def test_a_strange_key_is_found_and_its_path_leads_to_it(
    connect: Connect, sandbox: Sandbox, search: str
) -> None:
    state = {"tables": [{HIDING: {HIDING: 1}}, {"other": 2}]}
    sandbox.add_connection(ODD, state=json.dumps(state))
    async with connect() as client:
        outer, inner = listed(await pages(client, connection_id=ODD, search=search))
        value = await call(client, "get_state", connection_id=ODD, path=inner)
        below = listed(await pages(client, connection_id=ODD, search=search, path=outer))

    assert value["state"] == 1
    assert below == [inner]


async def test_a_search_has_a_bound(connect: Connect) -> None:
    async with connect() as client:
        longest = await call(client, "get_state", connection_id=IDLE, search="x" * 1_000)
        error = await refused(client, "get_state", connection_id=IDLE, search="x" * 1_001)

    assert longest["matches_total"] == 0
    assert "1,000 characters" in error["message"]


async def test_what_is_no_state_is_not_searched(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.set_state(IDLE, '[{"cursor":1}]')
    async with connect() as client:
        error = await refused(client, "get_state", connection_id=IDLE, search="cursor")

    assert error["code"] == "invalid_request"
    assert "search" in error["message"]


async def test_numbers_that_a_double_would_change_are_given_exactly(connect: Connect) -> None:
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=EXACT)
        part = await call(client, "get_state", connection_id=EXACT, path="/forty_digits")

    exact = seen["exact_numbers"]
    assert exact["/largest_exact_double_and_one"] == "9007199254740993"
    assert exact["/forty_digits"] == "3.141592653589793238462643383279502884197"
    assert exact["/beyond_doubles"] == "1e400"
    assert "/price" not in exact
    assert list(part["exact_numbers"].values()) == [exact["/forty_digits"]]


# Documents that are not states

NO_STATES = {
    "a key twice": '{"cursor":1,"cursor":2}',
    "too deep": '{"a":' * 200 + "1" + "}" * 200,
    "far too deep": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "an array": '[{"cursor":1.10}]',
    "encoded twice": r'"{\"cursor\":1}"',
    "a number": "7",
    "NaN": '{"cursor":NaN}',
}


@pytest.mark.parametrize("text", NO_STATES.values(), ids=NO_STATES)
async def test_what_is_no_state_is_seen_and_replaced_as_a_whole(
    connect: Connect, sandbox: Sandbox, text: str
) -> None:
    sandbox.set_state(IDLE, text)
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=IDLE)
        nowhere = await refused(client, "get_state", connection_id=IDLE, path="/cursor")
        change = {"connection_id": IDLE, "expected_version": seen["version"], "wait_seconds": 50}
        plan = await call(client, "update_state", **change, new_state={"a": 1}, dry_run=True)
        done = await call(client, "update_state", **change, new_state={"a": 1})
        undo = await refused(
            client, "update_state", connection_id=IDLE, restore_from=done["workflow_id"]
        )

    assert seen["state_json"] == text[:20_000]
    assert ("hint" in seen) == (len(text) > 20_000)
    assert seen["bytes"] == len(text)
    assert seen["problem"]
    assert "state" not in seen
    assert nowhere["code"] == "invalid_request"
    assert plan["changes"][0]["path"] == ""
    assert "is not usable" in plan["message"]
    assert done["status"] == "updated"
    assert undo["code"] == "invalid_change"
    assert seen["problem"] in undo["message"]
    assert state_of(sandbox, IDLE) == {"a": 1}


@pytest.mark.parametrize("text", NO_STATES.values(), ids=NO_STATES)
async def test_what_is_no_state_is_not_changed_in_part(
    connect: Connect, sandbox: Sandbox, text: str
) -> None:
    sandbox.set_state(IDLE, text)
    sandbox.set_state(PAUSED, '{"cursor":1}')
    async with connect() as client:
        version = await version_of(client, IDLE)
        change = {"connection_id": IDLE, "expected_version": version, "wait_seconds": 50}
        since = len(sandbox.log)
        errors = [
            await refused(client, "update_state", **change, merge_patch={"a": 1}),
            await refused(
                client,
                "update_state",
                **change,
                json_patch=[{"op": "add", "path": "/a", "value": 1}],
            ),
            await refused(client, "update_state", **change, copy_from=PAUSED, only="/cursor"),
            await refused(client, "update_state", connection_id=PAUSED, copy_from=IDLE),
        ]

    assert [error["code"] for error in errors] == ["invalid_change"] * 4
    assert all("new_state" in error["message"] for error in errors[:3])
    assert not [each for each in sandbox.log[since:] if each.method == "PATCH"]
    assert sandbox.connection(IDLE).state == text


# What the operator allows


@pytest.mark.parametrize("globs", ["gentle_*", "gentle_harbour", "x, g*r ", "[a-z]entle_*"])
async def test_only_allowed_connections_are_listed_and_readable(
    connect: Connect, sandbox: Sandbox, globs: str
) -> None:
    async with connect(FIVETRAN_STATE_ALLOWED_CONNECTIONS=globs) as client:
        assert await ids(client, limit=2) == [PAUSED]
        assert (await call(client, "get_state", connection_id=PAUSED))["connection_id"] == PAUSED


async def test_a_connection_that_is_not_allowed_is_refused_by_every_tool_and_nothing_is_sent(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect(FIVETRAN_STATE_ALLOWED_CONNECTIONS="gentle_*,vast_*") as client:
        change = {"connection_id": IDLE, "merge_patch": {"a": 1}}
        errors = [
            await refused(client, "get_state", connection_id=IDLE),
            await refused(client, "update_state", **change),
            await refused(client, "update_state", **change, expected_version=NO_VERSION),
            await refused(client, "workflow_status", workflow_id=f"{IDLE}:1"),
        ]

    assert [error["code"] for error in errors] == ["not_allowed"] * 4
    assert api_calls(sandbox, IDLE) == []


async def test_a_read_only_server_reads_and_does_not_list_update_state(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect(FIVETRAN_STATE_READ_ONLY="true") as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        seen = await call(client, "get_state", connection_id=IDLE)

    assert names == ["list_connections", "get_state", "workflow_status", "state_history"]
    assert seen["state"] == state_of(sandbox, IDLE)


BAD_IDS = {
    "empty": "",
    "slash": "a/b",
    "encoded slash": "a%2Fb",
    "dot-dot": "..",
    "up": f"../{IDLE}",
    "dot": ".",
    "query": f"{IDLE}?x=1",
    "fragment": f"{IDLE}#x",
    "percent": "%00",
    "newline": f"{IDLE}\n",
    "carriage return": f"{IDLE}\r\nX-Header: 1",
    "null byte": f"{IDLE}\x00",
    "space": f" {IDLE}",
    "colon": f"{IDLE}:1",
    "non-ASCII digits": "connection_\u0661",
    "full-width": "\uff42\uff55\uff4c\uff4c",
    "emoji": "\U0001f600",
    "long": "a" * 10_000,
    "backslash": "a\\b",
    "state": f"{IDLE}/state",
}


@pytest.mark.parametrize("connection_id", BAD_IDS.values(), ids=BAD_IDS)
async def test_what_is_no_connection_id_is_refused_and_nothing_is_sent(
    connect: Connect, sandbox: Sandbox, connection_id: str
) -> None:
    async with connect() as client:
        change = {"connection_id": connection_id, "merge_patch": {"a": 1}}
        errors = [
            await refused(client, "get_state", connection_id=connection_id),
            await refused(client, "update_state", **change),
            await refused(client, "update_state", **change, expected_version=NO_VERSION),
            await refused(client, "workflow_status", workflow_id=f"{connection_id}:1"),
        ]

    # With the colon, the last one is a well-formed, unknown workflow of a well-formed connection.
    assert {error["code"] for error in errors[:3]} == {"invalid_request"}
    assert errors[3]["code"] in ("invalid_request", "workflow_not_found")
    assert all(len(error["message"]) < 1_000 for error in errors)
    assert [each.path for each in sandbox.log if "account" not in each.path] == []


@pytest.mark.parametrize(
    "workflow_id",
    ["", ":", IDLE, f"{IDLE}:", f"{IDLE}:0", f"{IDLE}:x", f"key:{IDLE}:1", f":{IDLE}"],
)
async def test_what_is_no_workflow_id_is_refused(
    connect: Connect, sandbox: Sandbox, workflow_id: str
) -> None:
    async with connect() as client:
        error = await refused(client, "workflow_status", workflow_id=workflow_id)

    assert error["code"] in ("invalid_request", "workflow_not_found")
    assert [each.path for each in sandbox.log if "account" not in each.path] == []


# Credentials, and a Fivetran that cannot be reached

EVERY_TOOL: dict[str, dict[str, Any]] = {
    "list_connections": {},
    "get_state": {"connection_id": IDLE},
    "update_state": {
        "connection_id": IDLE,
        "merge_patch": {"a": 1},
        "expected_version": NO_VERSION,
    },
    "update_states": {"connection_ids": [IDLE], "merge_patch": {"a": 1}},
    "cancel_update": {"workflow_id": f"{IDLE}:1"},
    "workflow_status": {"workflow_id": f"{IDLE}:1"},
    "state_history": {"connection_id": IDLE},
}


@pytest.mark.parametrize("missing", ["FIVETRAN_API_KEY", "FIVETRAN_API_SECRET"])
async def test_without_credentials_the_server_starts_and_every_tool_says_what_is_missing(
    connect: Connect, sandbox: Sandbox, missing: str
) -> None:
    async with connect(**{missing: ""}) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        errors = [await refused(client, tool, **given) for tool, given in EVERY_TOOL.items()]

    assert names == EVERY_TOOL.keys()
    assert {error["code"] for error in errors} == {"missing_credentials"}
    assert all("FIVETRAN_API_SECRET" in error["message"] for error in errors)
    assert sandbox.log == []


async def test_a_wrong_secret_is_told_by_every_tool_that_asks_fivetran(
    connect: Connect,
) -> None:
    async with connect(FIVETRAN_API_SECRET="another-secret") as client:
        errors = [
            await refused(client, tool, **EVERY_TOOL[tool])
            for tool in ("list_connections", "get_state")
        ]
        started = await refused(
            client, "update_state", **EVERY_TOOL["update_state"], wait_seconds=50
        )

    assert {error["code"] for error in (*errors, started)} == {"unauthorized"}
    assert "another-secret" not in json.dumps([errors, started])


async def test_a_fivetran_that_cannot_be_reached_at_the_start_is_told(connect: Connect) -> None:
    async with connect(FIVETRAN_API_URL="http://127.0.0.1:9") as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        error = await refused(client, "get_state", connection_id=IDLE)

    assert names == EVERY_TOOL.keys()
    assert error["code"] == "fivetran_unavailable"
    assert "could not be reached" in error["message"]
    assert "FIVETRAN_API_URL" in error["hint"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"status": 503}, "fivetran_unavailable"),
        pytest.param(
            {"status": 403, "body": "<h1>Forbidden</h1>"}, "forbidden", marks=pytest.mark.slow
        ),
        pytest.param({"status": 401}, "unauthorized", marks=pytest.mark.slow),
        pytest.param({"status": 302, "body": ""}, "fivetran_error", marks=pytest.mark.slow),
    ],
    ids=str,
)
async def test_a_server_that_was_not_told_its_account_works_once_it_is(
    connect: Connect, sandbox: Sandbox, answer: dict[str, Any], code: str
) -> None:
    """A key for which Fivetran itself refuses to tell the account counts as an account of its own."""
    sandbox.fault("status", path="/account/info", times=1000, **answer)
    async with connect() as client:
        error = await refused(client, "get_state", connection_id=IDLE)
        sandbox.clear_faults()
        await arrival(sandbox, lambda each: "account" in each.path and each.status == 200)

        async def works() -> bool:
            return not (await client.call_tool("get_state", {"connection_id": IDLE})).is_error

        await until(works)
        seen = await call(client, "get_state", connection_id=IDLE)

    assert error["code"] == code
    assert "has to be asked once" in error["message"]
    assert seen["state"] == state_of(sandbox, IDLE)


@pytest.mark.slow
async def test_an_account_known_from_before_lets_a_server_start_while_fivetran_is_away(
    connect: Connect, spawn: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        done = await call(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"a": 1},
            expected_version=await version_of(client, IDLE),
        )
    sandbox.fault("status", status=503, times=1000)
    async with spawn() as client:
        status = await call(client, "workflow_status", workflow_id=done["workflow_id"])

    assert status["status"] == "updated"


async def test_a_key_that_may_not_ask_for_its_account_works(
    connect: Connect, sandbox: Sandbox
) -> None:
    sandbox.fault("status", path="/account/info", status=403)
    async with connect() as client:
        watch = Watch(sandbox, IDLE)
        version = await version_of(client, IDLE)
        await call(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"a": 1},
            expected_version=version,
            wait_seconds=50,
        )

    watch.ended_with(watch.old | {"a": 1})


@pytest.mark.parametrize("status", [500, 429])
async def test_a_read_sits_out_a_short_fault(
    connect: Connect, sandbox: Sandbox, status: int
) -> None:
    async with connect() as client:
        await call(client, "list_connections")
        sandbox.fault("status", path=f"{IDLE}$", status=status)
        sandbox.fault("status", path=f"{IDLE}/state$", status=status)
        seen = await call(client, "get_state", connection_id=IDLE)

    assert seen["state"] == state_of(sandbox, IDLE)


async def test_a_read_does_not_sit_out_a_long_rate_limit_but_tells_its_length(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        await call(client, "list_connections")
        sandbox.fault("status", path=IDLE, status=429, headers={"Retry-After": "3600"}, times=1000)
        error = await refused(client, "get_state", connection_id=IDLE)

    assert (error["code"], error["retry_after"]) == ("rate_limited", 3600)
