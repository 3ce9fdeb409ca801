"""The key, and only the key, opens sealed values."""

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from fivetran_state import vault
from fivetran_state.errors import Conflict, FivetranStateError, UnusableKey

KEY, OLD_KEY, STRANGE_KEY = vault.keys_from_environment(
    "a key that is long enough, the old one which is too, the key of somebody else"
)


def sealed(value: object, *keys: bytes) -> str:
    return vault.SealingSerializer(keys or [KEY], "account").serialize(value)


def opened(text: str, *keys: bytes) -> Any:
    return vault.SealingSerializer(keys or [KEY], "account").deserialize(text)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        1.5,
        "",
        "text",
        [],
        {},
        {"args": [{"nested": [1, None, "two"]}], "kwargs": {}},
        {"$error": "not one of ours", "and": "more"},
        2**53 + 1,
        -(10**400),
        "\ud800 alone",
        {"\udfff": "\ud83d"},
        "x" * 2_000_000,
    ],
    ids=lambda value: repr(value)[:20].encode("ascii", "replace").decode(),
)
def test_a_json_value_comes_back_as_it_was(value: object) -> None:
    again = opened(sealed(value))

    assert again == value
    assert type(again) is type(value)


def test_an_error_comes_back_as_the_same_class_with_its_message_and_details() -> None:
    again = opened(sealed(Conflict("The state moved on.", current_version="abc", was_paused=False)))

    assert type(again) is Conflict
    assert again.message == "The state moved on."
    assert again.details == {"current_version": "abc", "was_paused": False}
    assert again.hint == Conflict.hint


def test_an_unexpected_exception_comes_back_without_its_text() -> None:
    again = opened(sealed(ValueError("what it quotes")))

    assert isinstance(again, FivetranStateError)
    assert again.code == "internal_error"
    assert "ValueError" in again.message
    assert "what it quotes" not in str(again.to_json())


def test_what_is_neither_json_nor_an_exception_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        sealed({"thing": object()})


def test_each_of_several_keys_opens() -> None:
    assert opened(sealed("old", OLD_KEY), KEY, OLD_KEY) == "old"
    assert opened(sealed("new", KEY), KEY, OLD_KEY) == "new"


def test_the_first_of_several_keys_seals() -> None:
    text = sealed("value", KEY, OLD_KEY)

    assert opened(text, KEY) == "value"
    with pytest.raises(UnusableKey):
        opened(text, OLD_KEY)


def test_another_key_does_not_open() -> None:
    with pytest.raises(UnusableKey, match="another key"):
        opened(sealed("value"), STRANGE_KEY)


@pytest.mark.parametrize("place", [0, 3, 4, 15, 16, 20, -1])
def test_a_text_in_which_one_bit_was_changed_is_refused(place: int) -> None:
    stored = bytearray(base64.b64decode(sealed({"cursor": "2026"})))
    stored[place] ^= 1

    with pytest.raises(UnusableKey):
        opened(base64.b64encode(bytes(stored)).decode())


@pytest.mark.parametrize("length", [0, 3, 4, 16, 20])
def test_a_text_that_was_cut_off_is_refused(length: int) -> None:
    stored = base64.b64decode(sealed({"cursor": "2026"}))[:length]

    with pytest.raises(UnusableKey):
        opened(base64.b64encode(stored).decode())


def test_nothing_can_be_read_in_what_is_stored() -> None:
    text = sealed({"cursor": "a marker to be found" * 100})

    stored = base64.b64decode(text)
    assert b"marker" not in stored
    assert b"cursor" not in stored
    assert KEY not in stored


def test_the_same_value_never_looks_the_same() -> None:
    serializer = vault.SealingSerializer([KEY], "account")

    assert len({serializer.serialize("value") for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "setting", ["", "too short", "x" * 15, f"{'x' * 40},short", "x" * 16 + ","]
)
def test_a_short_key_is_refused_with_the_name_of_the_setting(setting: str) -> None:
    with pytest.raises(UnusableKey, match="FIVETRAN_STATE_SECRET_KEY"):
        vault.keys_from_environment(setting)


def test_the_keys_of_the_setting_are_separated_by_commas_and_spaces_do_not_count() -> None:
    one, other = "one key of a good length", "another key of a good length"

    assert vault.keys_from_environment(f" {one} ,{other}") == [
        *vault.keys_from_environment(one),
        *vault.keys_from_environment(other),
    ]


def test_the_key_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    key = vault.key_from_file(tmp_path / "key")

    assert len(key) == 32
    assert vault.key_from_file(tmp_path / "key") == key
    assert vault.key_from_file(tmp_path / "another") != key
    if os.name == "posix":
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "c2hvcnQ=", "no base64!"])
def test_a_key_file_that_holds_no_key_is_refused_by_its_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    (tmp_path / "key").chmod(0o600)

    with pytest.raises(UnusableKey, match="key"):
        vault.key_from_file(tmp_path / "key")
