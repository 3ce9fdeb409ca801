"""The changes that a caller may request, and the idempotency keys derived from them, which are
stored."""

from dataclasses import replace
from typing import Any

import pytest

from fivetran_state import changes, state
from fivetran_state.errors import InvalidRequest
from fivetran_state.plan import Wanted
from fivetran_state.service.requests import Options, derived_key
from fivetran_state.service.sources import unread

OPTIONS = Options("0" * 32, None, None, then_sync=False, allow_resync=False)
KINDS = ("new_state", "merge_patch", "json_patch", "restore_from", "copy_from")
EMPTY: dict[str, object] = dict.fromkeys(KINDS)


async def test_json_text_is_taken_exactly_and_parsed_json_is_not() -> None:
    by_text = await changes.parse(EMPTY | {"merge_patch": '{"a":1.10}'})
    by_value = await changes.parse(EMPTY | {"merge_patch": {"a": 1.1}})

    assert isinstance(by_text, changes.Inline)
    assert isinstance(by_value, changes.Inline)
    assert state.dump(by_text.change.value) == '{"a":1.10}'
    assert (by_text.change.exact, by_value.change.exact) == (True, False)


@pytest.mark.parametrize(
    ("given", "only", "shown"),
    [
        ({}, None, "given: none"),
        ({"new_state": {}, "copy_from": "b"}, None, "given: new_state, copy_from"),
        ({"new_state": {}}, "/a", "only goes with"),
        ({"new_state": []}, None, "new_state: a state is a JSON object"),
        ({"new_state": "{"}, None, "new_state: not valid JSON"),
        ({"merge_patch": {}}, None, "merge_patch: the patch is empty"),
    ],
)
async def test_none_several_and_what_is_no_change_are_refused(
    given: dict[str, object], only: str | None, shown: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await changes.parse(EMPTY | given, only)

    assert shown in refusal.value.message


@pytest.mark.parametrize(
    ("given", "only", "key"),
    [
        ({"new_state": '{"a":1.10}'}, None, "df7f2b313dd503a4"),
        ({"merge_patch": '{"a":1.10}'}, None, "fd6a3dd37c7ee6ee"),
        ({"json_patch": '[{"op":"remove","path":"/a"}]'}, None, "83a7b00385f2568c"),
        ({"restore_from": "orders:1"}, None, "37f7ecd1d7e2d9bc"),
        ({"restore_from": "orders:1"}, "/a", "4c0c96136b41c17c"),
        ({"copy_from": "orders"}, None, "a8f8b1433627a720"),
        ({"copy_from": "orders"}, "/a", "f644002460710935"),
    ],
)
async def test_a_repeated_request_finds_what_earlier_versions_have_stored(
    given: dict[str, object], only: str | None, key: str
) -> None:
    change = await changes.parse(EMPTY | given, only)
    wanted = Wanted(change.change) if isinstance(change, changes.Inline) else unread(change)
    assert wanted is not None

    assert derived_key(OPTIONS, wanted, state.dump(wanted.change.value)).startswith(key)


@pytest.mark.parametrize(
    ("options", "key"),
    [({"then_sync": True}, "b32de46484454b6a"), ({"expected_version": None}, "0ead56fbbe83a584")],
)
async def test_what_is_asked_besides_is_in_the_key(options: dict[str, Any], key: str) -> None:
    change = await changes.parse({"new_state": '{"a":1.10}'})
    assert isinstance(change, changes.Inline)
    wanted = Wanted(change.change)

    assert derived_key(replace(OPTIONS, **options), wanted, '{"a":1.10}').startswith(key)
