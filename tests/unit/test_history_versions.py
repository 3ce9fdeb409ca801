"""A version is opened where it was sealed, and by programs that know less of it."""

import pytest

from fivetran_state import vault
from fivetran_state.errors import Tampered
from fivetran_state.history.versions import Seals, SeenBy, Version

[KEY] = vault.keys_from_environment("a key that is long enough")
SEALER = vault.Sealer([KEY], "history of acme")
SEALS = Seals(SEALER, vault.SealingSerializer([KEY], "acme").digest, "acme")
VERSION = Version(
    owner="speak_inexpensive",
    ordinal=3,
    version="0" * 32,
    first_seen=100,
    last_seen=200,
    seen_by=SeenBy.UPDATE,
    workflow_id="speak_inexpensive:1",
    content_id="content",
    mark="mark",
    previous=None,
)


def test_a_version_comes_back_as_it_was() -> None:
    sealed = SEALS.sealed_version(VERSION)

    assert SEALS.opened_version("speak_inexpensive", 3, 100, sealed) == VERSION


@pytest.mark.parametrize(
    ("owner", "ordinal", "first_seen"),
    [("another", 3, 100), ("speak_inexpensive", 4, 100), ("speak_inexpensive", 3, 101)],
)
def test_a_version_is_opened_nowhere_else(owner: str, ordinal: int, first_seen: int) -> None:
    with pytest.raises(Tampered):
        SEALS.opened_version(owner, ordinal, first_seen, SEALS.sealed_version(VERSION))


def test_what_a_later_program_seals_besides_is_passed_over() -> None:
    bound = SEALER.deserialize(SEALS.sealed_version(VERSION))
    sealed = SEALER.serialize(vault.Bound(bound.place, bound.value | {"principal": "somebody"}))

    assert SEALS.opened_version("speak_inexpensive", 3, 100, sealed) == VERSION


def test_a_text_is_not_opened_as_a_version_nor_a_version_as_a_text() -> None:
    text = SEALS.sealed_content("speak_inexpensive", "content", "{}")

    assert SEALS.opened_content(VERSION, text) == "{}"
    with pytest.raises(Tampered):
        SEALS.opened_version("speak_inexpensive", 3, 100, text)
    with pytest.raises(Tampered):
        SEALS.opened_content(VERSION, SEALS.sealed_version(VERSION))


def test_equal_texts_have_equal_ids_within_a_connection_alone() -> None:
    assert SEALS.content_id("one", "{}") == SEALS.content_id("one", "{}")
    assert SEALS.content_id("one", "{}") != SEALS.content_id("two", "{}")
