"""A plan: its description of the change."""

from dataclasses import replace
from typing import Any

import pytest

from fivetran_state import state
from fivetran_state.errors import InvalidChange
from fivetran_state.fivetran_answers import Connection
from fivetran_state.plan import NAMED_PATHS, Plan, Wanted

RUNNING = Connection(
    id="bullion_shutdown",
    service="connector_sdk",
    schema="orders",
    group_id="projected_sickle",
    paused=False,
    sync_state="scheduled",
    setup_state="connected",
    succeeded_at=None,
    failed_at=None,
)
PAUSED = replace(RUNNING, paused=True, sync_state="paused")
BEFORE: dict[str, Any] = {"cursor": "2026", "count": 1}


def planned(
    change: state.JsonValue = None,
    *,
    connection: Connection = RUNNING,
    before: state.Document = BEFORE,
    exact: bool = True,
    wanted: Wanted | None = None,
    **more: Any,
) -> Plan:
    """The plan of a merge patch, unless `wanted` is given."""
    patch = {"cursor": "2020"} if change is None else change
    wanted = wanted or Wanted(state.Change("merge_patch", patch, exact))
    return Plan.of(connection, before, wanted, **more)


def said(plan: Plan) -> str:
    return " ".join(plan.consequences)


# The answer


def test_a_plan_has_both_versions_and_every_change() -> None:
    update = planned({"cursor": "2020", "count": None, "new": [1]}).to_update()

    assert update.status == "planned"
    assert update.version_before == state.version(BEFORE)
    assert update.version_after == state.version({"cursor": "2020", "new": [1]})
    assert [(change.op, change.path) for change in update.changes or []] == [
        ("replace", "/cursor"),
        ("remove", "/count"),
        ("add", "/new"),
    ]
    assert update.changes_total == 3
    assert update.was_paused is False


def test_a_plan_says_how_to_carry_it_out_and_that_nothing_was_written() -> None:
    update = planned(group_name="Warehouse").to_update()

    assert update.message.startswith("Nothing was written.")
    assert f"expected_version '{update.version_before}'" in update.message
    for name in ("bullion_shutdown", "connector_sdk", "orders", "Warehouse", "projected_sickle"):
        assert name in update.message
    assert "paused for a moment and resumed" in update.message


@pytest.mark.parametrize(("then_sync", "said"), [(True, "No sync was started."), (False, "")])
def test_a_change_that_changes_nothing_says_so(then_sync: bool, said: str) -> None:
    update = planned({"cursor": "2026"}, then_sync=then_sync).to_update()

    assert update.message == " ".join(
        [
            "The change would leave the state as it is. Nothing was written.",
            *([said] if said else []),
        ]
    )
    assert update.version_before == update.version_after
    assert update.changes_total == 0


@pytest.mark.parametrize("change", ["text", [], {}])
def test_a_change_that_cannot_be_made_writes_nothing(change: state.JsonValue) -> None:
    with pytest.raises(InvalidChange) as error:
        planned(change)

    assert error.value.message.endswith("; nothing was written.")


# The consequences


@pytest.mark.parametrize(
    ("paused", "sync_state", "says"),
    [
        (False, "scheduled", "The connection is paused for a moment and resumed."),
        (False, "syncing", "A sync is running: Fivetran is asked to stop it"),
        (True, "paused", "The connection is paused and stays paused."),
        (True, "syncing", "stays paused; its last sync is still stopping."),
    ],
)
def test_the_first_consequence_is_about_the_pause(paused: bool, sync_state: str, says: str) -> None:
    connection = replace(RUNNING, paused=paused, sync_state=sync_state)

    assert says in planned(connection=connection).consequences[0]


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(600, "10 min"), (90, "90 s"), (60, "1 min"), (0.4, "0 s"), (59.6, "1 min"), (3600, "60 min")],
)
def test_a_running_sync_is_waited_for_as_long_as_it_says(seconds: float, says: str) -> None:
    connection = replace(RUNNING, sync_state="syncing")

    assert f"may take up to {says}." in said(planned(connection=connection, sync_wait=seconds))


@pytest.mark.parametrize(
    ("connection", "then_sync", "is_started"),
    [(RUNNING, True, True), (RUNNING, False, False), (PAUSED, True, False)],
)
def test_a_sync_is_started_only_of_a_connection_that_is_resumed(
    connection: Connection, then_sync: bool, is_started: bool
) -> None:
    plan = planned(connection=connection, then_sync=then_sync)

    assert ("Then a sync is started." in plan.consequences) is is_started


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ({"is_historical_sync": True}, "a historical re-sync is pending or running"),
        ({"setup_state": "broken"}, "Its set-up is broken"),
        ({"schedule_type": "manual"}, "Its schedule is manual"),
    ],
)
def test_what_is_odd_about_a_connection_is_said_of_it_alone(odd: dict[str, Any], says: str) -> None:
    assert says in said(planned(connection=replace(RUNNING, **odd)))
    assert says not in said(planned())


def test_a_manual_schedule_does_not_matter_when_a_sync_is_started() -> None:
    connection = replace(RUNNING, schedule_type="manual")

    assert "manual" not in said(planned(connection=connection, then_sync=True))


@pytest.mark.parametrize(("before", "is_warned"), [(BEFORE, True), ({}, False)])
def test_an_empty_state_is_warned_of_if_it_was_not_empty(
    before: state.State, is_warned: bool
) -> None:
    empty = Wanted(state.Change("new_state", {}))

    plan = planned(before=before, wanted=empty)

    assert ("starts over from the beginning" in said(plan)) is is_warned


def test_a_document_that_is_not_a_state_is_named() -> None:
    raw = state.RawDocument("[1]", "it is an array, not an object")

    plan = planned(before=raw, wanted=Wanted(state.Change("new_state", {"cursor": "2020"})))

    assert "The current state is not usable." in plan.consequences


def test_numbers_that_look_rounded_stay_and_are_named() -> None:
    numbers = {f"id_{number}": 9007199254740993 + number * 2 for number in range(NAMED_PATHS + 2)}
    rounded = {name: int(float(number)) for name, number in numbers.items()}

    plan = planned(rounded | {"cursor": "2020"}, before={**numbers, "cursor": "2026"}, exact=False)

    assert plan.changes_total == 1
    assert "The numbers stay exactly as they are at /id_0, " in said(plan)
    assert f"/id_{NAMED_PATHS - 1} and 2 more," in said(plan)
    assert len(plan.to_update().kept_numbers or []) == NAMED_PATHS + 2


def test_a_part_that_is_in_neither_state_is_said_to_be_absent() -> None:
    removal = Wanted(state.Change("part", {"path": "/gone"}))

    update = planned(wanted=removal).to_update()

    assert "nothing at /gone in either state" in update.message


# Where the change comes from


def undoing(after: state.State, *changed: str) -> Wanted:
    change = state.Change("new_state", after)
    return Wanted(change, undoes="bullion_shutdown:1", undone_paths=frozenset(changed))


def test_an_undo_names_what_moved_since() -> None:
    plan = planned(wanted=undoing({"cursor": "2019", "count": 0}, "/cursor"))

    assert "Careful: bullion_shutdown:1 did not change all of this. 1 value moved" in said(plan)
    assert "would move back too: /count. " in said(plan)


def test_an_undo_of_what_nobody_moved_needs_no_care() -> None:
    plan = planned(wanted=undoing({"cursor": "2019", "count": 0}, "/cursor", "/count"))

    assert "Careful" not in said(plan)


def test_an_undo_names_the_first_of_many() -> None:
    many = {f"key_{number}": number for number in range(1000, 2200)}

    plan = planned(before={}, wanted=undoing(many))

    assert "1,200 values moved since then" in said(plan)
    assert f"/key_{1000 + NAMED_PATHS - 1} and 1,195 more." in said(plan)


@pytest.mark.parametrize(
    ("service", "says"),
    [
        ("connector_sdk", "This state comes from other, a connection of the same service."),
        (
            "aws_lambda",
            "Careful: this state comes from other, a connection of the service aws_lambda. ",
        ),
    ],
)
def test_a_copy_tells_where_it_comes_from(service: str, says: str) -> None:
    other = replace(RUNNING, id="other", service=service)
    copy = Wanted(state.Change("new_state", {"cursor": "2020"}), copied_from=other)

    assert says in said(planned(wanted=copy))


# The connection's names


@pytest.mark.parametrize(
    ("group_name", "says"),
    [
        ("Warehouse", "in the group Warehouse (projected_sickle)"),
        ("projected_sickle", "in the group projected_sickle"),
        (None, "in the group projected_sickle"),
    ],
)
def test_a_group_is_named_once(group_name: str | None, says: str) -> None:
    assert planned(group_name=group_name).described_connection.endswith(says)
