"""What an update can change, and the numbers that it keeps."""

from typing import Any

import pytest

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import EXACT, IDLE, NO_VERSION, Watch, call, refused, state_of, version_of
from tests.support.updating import LOOK, STEADY, failing, update

# Changes


async def test_a_change_to_what_is_there_already_writes_nothing(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)

        done = await update(client, IDLE, version, merge_patch=watch.old)

    assert done["status"] == "unchanged"
    assert done["version_before"] == done["version_after"] == version
    assert not watch.requests("PATCH", state=True)
    watch.ended_with(watch.old)


async def test_a_new_state_that_is_the_expected_one_pauses_nobody(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)

        done = await update(client, IDLE, version, new_state=watch.old)

    assert done["status"] == "unchanged"
    assert sorted(watch.calls) == LOOK


async def test_a_new_state_that_was_the_expected_one_conflicts_with_what_came_since(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        seen = state_of(sandbox, IDLE)
        sandbox.set_state(IDLE, '{"cursor":"moved"}')
        watch = Watch(sandbox, IDLE)

        error = await failing(client, IDLE, version, new_state=seen)

    assert error["code"] == "conflict"
    assert sorted(watch.calls) == LOOK


async def test_each_kind_of_change_does_what_it_says(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.add_connection(STEADY, state='{"a":{"b":1,"c":2},"d":[1,2]}')
    async with connect() as client:

        async def after(**change: Any) -> Any:
            await update(client, STEADY, await version_of(client, STEADY), **change)
            return state_of(sandbox, STEADY)

        assert await after(merge_patch={"a": {"b": None}}) == {"a": {"c": 2}, "d": [1, 2]}
        assert await after(json_patch=[{"op": "remove", "path": "/d/0"}]) == {
            "a": {"c": 2},
            "d": [2],
        }
        assert await after(new_state={"e": None}) == {"e": None}
        assert await after(new_state={}) == {}


async def test_a_json_patch_whose_test_fails_writes_nothing_and_resumes(
    connect: Connect, sandbox: Sandbox
) -> None:
    operations = [
        {"op": "replace", "path": "/cursor", "value": "x"},
        {"op": "test", "path": "/cursor", "value": "y"},
    ]
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)

        error = await failing(client, IDLE, version, json_patch=operations)

    assert error["code"] == "invalid_change"
    assert not watch.requests("PATCH", state=True)
    watch.ended_with(watch.old)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"merge_patch": {}, "new_state": {}},
        {"merge_patch": {}, "json_patch": []},
        {"new_state": {}, "merge_patch": {}, "json_patch": []},
    ],
    ids=["none", "two", "another two", "three"],
)
@pytest.mark.parametrize("version", [None, NO_VERSION], ids=["plan", "update"])
async def test_anything_but_exactly_one_kind_of_change_is_refused(
    connect: Connect, sandbox: Sandbox, change: dict[str, Any], version: str | None
) -> None:
    watch = Watch(sandbox, IDLE)
    async with connect() as client:
        error = await refused(
            client, "update_state", connection_id=IDLE, expected_version=version, **change
        )

    assert error["code"] == "invalid_request"
    assert "exactly one" in error["message"]
    assert watch.calls == []


@pytest.mark.parametrize(
    "change",
    [
        {"new_state": "[]"},
        {"new_state": "not JSON"},
        {"new_state": '{"a":1,"a":2}'},
        {"new_state": '{"a":NaN}'},
        {"merge_patch": "3"},
        {"json_patch": "{}"},
        {"json_patch": "null"},
        {"new_state": '{"a":' * 200 + "1" + "}" * 200},
    ],
    ids=lambda change: str(change)[:40],
)
async def test_a_change_that_is_no_such_json_is_refused_before_anything_is_sent(
    connect: Connect, sandbox: Sandbox, change: dict[str, str]
) -> None:
    watch = Watch(sandbox, IDLE)
    async with connect() as client:
        error = await refused(
            client, "update_state", connection_id=IDLE, expected_version=NO_VERSION, **change
        )

    assert error["code"] == "invalid_request"
    assert next(iter(change)) in error["message"]
    assert watch.calls == []


async def test_a_state_deeper_than_the_limit_by_the_change_is_refused_and_resumed(
    connect: Connect, sandbox: Sandbox
) -> None:
    deep = '{"a":' * 90 + "1" + "}" * 90
    sandbox.add_connection(STEADY, state=deep)
    pointer = "/a" * 90
    operation = f'[{{"op":"replace","path":"{pointer}","value":{deep}}}]'
    async with connect() as client:
        version = await version_of(client, STEADY)
        watch = Watch(sandbox, STEADY)

        error = await failing(client, STEADY, version, json_patch=operation)

    assert error["code"] == "invalid_change"
    watch.ended_with(watch.old)


# Numbers


async def test_numbers_that_a_merge_patch_does_not_touch_stay_exactly_as_they_were(
    connect: Connect, sandbox: Sandbox
) -> None:
    text = sandbox.connection(EXACT).state
    assert text is not None
    async with connect() as client:
        await update(client, EXACT, await version_of(client, EXACT), merge_patch={"other": 1})

    assert sandbox.connection(EXACT).state == text[:-1] + ',"other":1}'


async def test_numbers_of_a_whole_state_sent_back_by_a_client_stay_exactly_as_they_were(
    connect: Connect, sandbox: Sandbox
) -> None:
    text = (
        '{"forty_digits":3.141592653589793238462643383279502884197,"price":1.10,'
        '"big":9007199254740993,"zero":-0,"list":[1e2,0.1000]}'
    )
    sandbox.add_connection(STEADY, state=text)
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=STEADY)

        done = await update(client, STEADY, seen["version"], new_state=seen["state"] | {"other": 1})

    assert [change["path"] for change in done["changes"]] == ["/other"]
    assert sandbox.connection(STEADY).state == text[:-1] + ',"other":1}'


async def test_a_number_beyond_doubles_in_a_whole_state_sent_back_stays_a_number(
    connect: Connect, sandbox: Sandbox
) -> None:
    sandbox.add_connection(STEADY, state='{"far":1e400}')
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=STEADY)

        await update(client, STEADY, seen["version"], new_state=seen["state"] | {"other": 1})

    assert sandbox.connection(STEADY).state == '{"far":1e400,"other":1}'


@pytest.mark.parametrize("kind", ["merge_patch", "new_state", "json_patch"])
async def test_a_change_given_as_text_is_written_with_every_digit(
    connect: Connect, sandbox: Sandbox, kind: str
) -> None:
    number = "1.230000000000000000000000000000000000000000001"
    text = f'{{"price":{number}}}'
    if kind == "json_patch":
        text = f'[{{"op":"add","path":"/price","value":{number}}}]'
    sandbox.add_connection(STEADY, state="{}")
    async with connect() as client:
        done = await update(client, STEADY, await version_of(client, STEADY), **{kind: text})

    assert sandbox.connection(STEADY).state == f'{{"price":{number}}}'
    assert done["changes"] == [{"op": "add", "path": "/price", "after": number}]
