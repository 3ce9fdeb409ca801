"""States at the limits, rounded numbers, and answers to a write that cannot be used."""

import json

import pytest

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import IDLE, Watch, call, refused, state_of, update, version_of

LSN = '{"lsn":1234567890123456789,"flag":true}'
ROUNDED = 1234567890123456800
"""JavaScript prints this for the double of that number."""


# Sizes


@pytest.mark.parametrize("levels", [99, 100])
async def test_a_state_of_many_levels_is_changed_and_undone(
    connect: Connect, sandbox: Sandbox, levels: int
) -> None:
    before = state_of(sandbox, IDLE)
    deep = '{"a":' * levels + "1" + "}" * levels
    async with connect() as client:
        first = await update(client, IDLE, new_state=deep)
        assert sandbox.connection(IDLE).state == deep
        seen = await call(client, "get_state", connection_id=IDLE)
        assert seen["state"] == json.loads(deep)
        second = await update(client, IDLE, merge_patch={"b": 2})
        await update(client, IDLE, restore_from=second["workflow_id"])
        assert sandbox.connection(IDLE).state == deep
        await update(client, IDLE, restore_from=first["workflow_id"])

    assert state_of(sandbox, IDLE) == before


async def test_a_state_of_a_level_more_is_refused(connect: Connect, sandbox: Sandbox) -> None:
    watch = Watch(sandbox, IDLE)
    async with connect() as client:
        error = await refused(
            client,
            "update_state",
            connection_id=IDLE,
            new_state='{"a":' * 101 + "1" + "}" * 101,
            expected_version=await version_of(client, IDLE),
        )

    assert error["code"] == "invalid_request"
    assert "100 levels" in error["message"]
    watch.ended_with(watch.old)


@pytest.mark.slow
async def test_a_state_of_ten_megabytes_is_changed_and_undone(
    connect: Connect, sandbox: Sandbox
) -> None:
    before = state_of(sandbox, IDLE)
    large = json.dumps({"a": "x" * (9_999_999 - 8)}, separators=(",", ":"))
    assert len(large) == 9_999_999
    async with connect() as client:
        first = await update(client, IDLE, new_state=large)
        assert sandbox.connection(IDLE).state == large
        seen = await call(client, "get_state", connection_id=IDLE)
        assert seen["bytes"] == len(large)
        second = await update(client, IDLE, merge_patch={"a": 1})
        await update(client, IDLE, restore_from=second["workflow_id"])
        assert sandbox.connection(IDLE).state == large
        await update(client, IDLE, restore_from=first["workflow_id"])

    assert state_of(sandbox, IDLE) == before


# Numbers


async def test_another_number_is_another_number(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.set_state(IDLE, LSN)
    async with connect() as client:
        done = await update(client, IDLE, merge_patch={"lsn": 1234567890123456788})

    assert done["status"] == "updated"
    assert "kept_numbers" not in done
    assert state_of(sandbox, IDLE)["lsn"] == 1234567890123456788


async def test_a_rounding_is_kept_and_named(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.set_state(IDLE, LSN)
    change = {"lsn": ROUNDED, "flag": False}
    async with connect() as client:
        plan = await call(client, "update_state", connection_id=IDLE, merge_patch=change)
        done = await update(client, IDLE, merge_patch=change)
        status = await call(client, "workflow_status", workflow_id=done["workflow_id"])

    for answer in (plan, done, status):
        assert answer["kept_numbers"] == ["/lsn"]
        assert "/lsn" in answer["message"]
        assert "give the change as JSON text" in answer["message"]
        assert [each["path"] for each in answer["changes"]] == ["/flag"]
    assert state_of(sandbox, IDLE) == {"lsn": 1234567890123456789, "flag": False}


async def test_nothing_but_a_rounding_is_told_too(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.set_state(IDLE, LSN)
    async with connect() as client:
        plan = await call(client, "update_state", connection_id=IDLE, merge_patch={"lsn": ROUNDED})
        done = await update(client, IDLE, merge_patch={"lsn": ROUNDED})

    assert done["status"] == "unchanged"
    for answer in (plan, done):
        assert answer["kept_numbers"] == ["/lsn"]
        assert "give the change as JSON text" in answer["message"]


async def test_json_text_means_every_digit(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.set_state(IDLE, LSN)
    async with connect() as client:
        done = await update(client, IDLE, merge_patch=f'{{"lsn":{ROUNDED}}}')

    assert done["status"] == "updated"
    assert "kept_numbers" not in done
    assert state_of(sandbox, IDLE)["lsn"] == ROUNDED


# Answers to a write


ODD_ANSWERS = {
    "a key twice": '{"code":"Success","code":"Success","data":{"state":{"a":1,"a":1}}}',
    "an array": "[]",
    "text": "OK",
    "cut off": '{"code":"Success","data":{"state":{"rew',
    "no state": '{"code":"Success","data":{}}',
    "no data": '{"code":"Success"}',
    "encoded twice": r'{"code":"Success","data":{"state":"{\"rewound\":true}"}}',
}


@pytest.mark.parametrize("body", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
async def test_an_odd_answer_to_a_write_is_verified(
    connect: Connect, sandbox: Sandbox, body: str
) -> None:
    async with connect() as client:
        watch = Watch(sandbox, IDLE)
        sandbox.fault("apply_then_garbage", method="PATCH", path="/state$", body=body)
        done = await update(client, IDLE, merge_patch={"rewound": True})

    assert done["status"] == "updated"
    assert watch.calls.count("PATCH state") == 1
    watch.ended_with(watch.old | {"rewound": True})
