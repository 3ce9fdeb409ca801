"""Somebody else has written rows to the database: the server neither runs nor trusts them."""

import base64
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import IDLE, call, refused, state_of, version_of
from tests.support.outside import opened

COLUMNS = {
    "workflow_status": ["inputs", "output", "error"],
    "workflow_input": ["inputs"],
    "workflow_output": ["output", "error"],
    "operation_outputs": ["output", "error"],
    "workflow_events": ["value"],
    "notifications": ["message"],
}
"""The places where DBOS keeps values. A column of the workflow or of the same row says how to read
each."""


class Payload:
    """A pickle that creates a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[Path], Any], tuple[Path]]:
        return Path.touch, (self._path,)


@pytest.mark.parametrize(
    ("serialization", "is_pickle"), [("py_pickle", True), ("portable_json", False)]
)
async def test_a_value_that_was_not_sealed_is_not_read(
    connect: Connect,
    sandbox: Sandbox,
    on_both: dict[str, str],
    tmp_path: Path,
    serialization: str,
    is_pickle: bool,
) -> None:
    made = tmp_path / "made by a pickle"
    text = base64.b64encode(pickle.dumps(Payload(made))).decode() if is_pickle else '{"args":[]}'
    async with connect(**on_both) as client:
        version = await version_of(client, IDLE)
        done = await call(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"cursor": "2020"},
            expected_version=version,
        )
    with opened(on_both) as database:
        schema = "" if database.dialect.name == "sqlite" else "dbos."
        for table, columns in COLUMNS.items():
            values = dict.fromkeys(columns, ":text")
            if table not in ("workflow_input", "workflow_output"):
                values["serialization"] = ":by"
            changes = ", ".join(f"{column} = {value}" for column, value in values.items())
            database.execute(
                sa.text(f"UPDATE {schema}{table} SET {changes}"),
                {"text": text, "by": serialization},
            )
        # The row looks as if its server had died: the next server to start takes it over.
        database.execute(
            sa.text(
                f"UPDATE {schema}workflow_status SET status = 'PENDING' WHERE workflow_uuid = :id"
            ),
            {"id": done["workflow_id"]},
        )
    before = state_of(sandbox, IDLE)

    async with connect(**on_both) as client:
        error = await refused(client, "workflow_status", workflow_id=done["workflow_id"])
        await refused(client, "state_history", connection_id=IDLE)

    assert error["code"] == "unusable_key"
    assert not made.exists()
    assert state_of(sandbox, IDLE) == before


def test_the_payload_would_work(tmp_path: Path) -> None:
    made = tmp_path / "made"

    pickle.loads(pickle.dumps(Payload(made)))

    assert made.exists()
