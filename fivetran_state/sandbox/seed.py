"""The connections of a new sandbox: one for each kind of behaviour."""

import json
from functools import cache
from typing import Any

from fivetran_state.sandbox.connection import Connection, iso
from fivetran_state.sandbox.world import HOUR, World

_DAY = 24 * HOUR

_EXACT_NUMBERS = (
    '{"largest_exact_double_and_one":9007199254740993,"price":1.10,'
    '"forty_digits":3.141592653589793238462643383279502884197,'
    '"beyond_doubles":1e400,"negative_zero":-0}'
)


def seed(world: World) -> None:
    """Fills an empty world; a world with connections is left as it is."""
    with world.transaction():
        if world.connections():
            return
        world.add_group("warehouse", "Production warehouse")
        world.add_group("projected_sickle", "Staging warehouse")
        for connection in _connections(world.now()):
            world.put(connection)


def _connections(now: float) -> list[Connection]:
    hour_ago, yesterday = iso(now - HOUR), iso(now - _DAY)
    orders = {
        "orders": {"cursor": hour_ago, "page_token": "eyJwYWdlIjo0Mn0"},
        "customers": {"cursor": yesterday},
        "schema_version": 3,
    }

    def connection(
        connection_id: str, service: str, schema: str, state: object = None, **more: Any
    ) -> Connection:
        text = state if isinstance(state, str) or state is None else _compact(state)
        times = {"created_at": now - 90 * _DAY, "succeeded_at": now - HOUR}
        return Connection(connection_id, service, schema, state=text, **times | more)

    return [
        connection(
            "speak_inexpensive",
            "connector_sdk",
            "orders_api",
            orders,
            sync_seconds=20,
            sync_every=300,
            drain_seconds=3,
            stopped_sync_counts=False,
            sync_on_resume=True,
        ).started(now - 5),
        connection("bullion_shutdown", "aws_lambda", "payments_lambda", {"cursor": hour_ago}),
        connection(
            "gentle_harbour",
            "azure_function",
            "crm_function",
            {"last_sync": yesterday},
            paused=True,
        ),
        connection("quiet_meadow", "google_cloud_function", "events_function", succeeded_at=None),
        connection("vast_library", "connector_sdk", "library_api", _vast_state()),
        connection("exact_ledger", "connector_sdk", "ledger_api", _EXACT_NUMBERS),
        connection(
            "late_ferry", "connector_sdk", "ferry_api", {"cursor": yesterday}, rescheduled=True
        ),
        connection(
            "idle_turbine",
            "connector_sdk",
            "turbine_api",
            {"cursor": yesterday},
            rescheduled=True,
            schedule_type="manual",
        ),
        connection(
            "severed_cable",
            "aws_lambda",
            "cable_lambda",
            {"cursor": yesterday},
            paused=True,
            setup_state="broken",
            setup_tests_fail=True,
            shows_scheduled_when_paused=True,
            failed_at=now - HOUR / 2,
        ),
        connection(
            "patient_archive",
            "connector_sdk",
            "archive_api",
            {"cursor": yesterday},
            paused=True,
            is_historical_sync=True,
        ),
        connection(
            "twin_harvest",
            "connector_sdk",
            "orders_api",
            {"orders": {"cursor": yesterday}},
            group_id="projected_sickle",
        ),
        connection("postgres_mirror", "postgres", "mirror"),
    ]


@cache
def _vast_state() -> str:
    """About 2 MB: the cursors of 15,000 tables. Built as text, because every start waits for it."""
    tables = (
        f'"library_{table:05}":{{"cursor":"2026-01-01T00:00:00.000000Z","offset":{table * 100},'
        f'"page_token":"{table * 2_654_435_761:020x}","schema_version":1}}'
        for table in range(15_000)
    )
    return f'{{"tables":{{{",".join(tables)}}}}}'


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
