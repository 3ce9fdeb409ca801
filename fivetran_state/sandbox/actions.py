"""Fivetran's API calls on one connection, each as a function of the connection."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fivetran_state.sandbox.connection import Connection, iso
from fivetran_state.sandbox.refusal import Refusal
from fivetran_state.sandbox.spelling import members

_SCHEDULE_TYPES = ("auto", "manual")
_SYNC_FREQUENCIES = (1, 5, 15, 30, 60, 120, 180, 360, 480, 720, 1440)
_MAX_STATE_BYTES = 10_000_000


@dataclass(frozen=True)
class Outcome:
    """The connection after a call, and the `data` of the answer as JSON text."""

    connection: Connection
    data: str
    delay: float = 0.0
    """Seconds before the answer is ready."""


Action = Callable[[Connection, bytes, float], Outcome]
"""Takes the connection, the request's body and the time; returns the outcome or raises `Refusal`.
"""


def show(connection: Connection, body: bytes, now: float) -> Outcome:
    """`GET /v1/connections/{id}`"""
    return Outcome(connection, json.dumps(details(connection)))


def update(connection: Connection, body: bytes, now: float) -> Outcome:
    """`PATCH /v1/connections/{id}`; runs the setup tests unless told not to."""
    fields = _fields(body)
    run_setup_tests = fields.get("run_setup_tests", True)
    if not isinstance(run_setup_tests, bool):
        raise Refusal(400, "'run_setup_tests' must be a boolean")
    changes = {
        name: fields[name]
        for name in ("paused", "schedule_type", "sync_frequency")
        if fields.get(name) is not None
    }
    if not changes:
        raise Refusal(400, "At least one persistent field is required")
    updated = connection.with_setup_tests() if run_setup_tests else connection
    for name, value in changes.items():
        updated = _with_field(updated, name, value, now)
    answer = details(updated)
    if not run_setup_tests:
        return Outcome(updated, json.dumps(answer))
    answer["setup_tests"] = [_setup_test(updated)]
    return Outcome(updated, json.dumps(answer), connection.setup_test_seconds)


def _with_field(connection: Connection, name: str, value: object, now: float) -> Connection:
    match name, value:
        case "paused", bool():
            return connection.with_paused(value, now)
        case "schedule_type", str() if value in _SCHEDULE_TYPES:
            return connection.with_schedule(value, now)
        case "sync_frequency", int() if value in _SYNC_FREQUENCIES and value is not True:
            return replace(connection, sync_frequency=value)
    raise Refusal(400, f"'{name}' has an invalid value")


def _setup_test(connection: Connection) -> dict[str, str]:
    failed = connection.setup_tests_fail
    return {
        "title": "Connecting to the source",
        "status": "FAILED" if failed else "PASSED",
        "message": "The source refused the connection" if failed else "",
    }


def show_state(connection: Connection, body: bytes, now: float) -> Outcome:
    """`GET /v1/connections/{id}/state`"""
    if not connection.keeps_state:
        raise Refusal(400, f"Service '{connection.service}' does not support state")
    if connection.state is None:
        raise Refusal(400, "No state has been written for this connection yet")
    return Outcome(connection, _state(connection))


def write_state(connection: Connection, body: bytes, now: float) -> Outcome:
    """`PATCH /v1/connections/{id}/state`, for a connection that keeps a state."""
    document = _members(body).get("state", "null")
    if document == "null":
        return Outcome(connection, _state(connection))
    if not document.startswith("{"):
        raise Refusal(400, "'state' must be a JSON object")
    if connection.state is None:
        raise Refusal(400, "The state of this connection does not exist yet")
    if connection.syncing:
        raise Refusal(409, "Connection cannot be updated because the sync is in progress")
    # An escape has six bytes and stands for one to three.
    if len(document.encode()) - 5 * document.count("\\u") >= _MAX_STATE_BYTES:
        raise Refusal(400, "The state must be smaller than 10 MB")
    written = replace(connection, state=document)
    return Outcome(written, _state(written))


def sync(connection: Connection, body: bytes, now: float) -> Outcome:
    """`POST /v1/connections/{id}/sync`"""
    force = _fields(body).get("force", False) if body else False
    if not isinstance(force, bool):
        raise Refusal(400, "'force' must be a boolean")
    if connection.paused:
        raise Refusal(400, "The connection is paused; resume it to start a sync")
    if not force:
        return Outcome(connection.started(now), "{}")
    _check_stoppable(connection)
    return Outcome(connection.stopped(now, then_restart=True), "{}")


def resync(connection: Connection, body: bytes, now: float) -> Outcome:
    """`POST /v1/connections/{id}/resync`: a historical re-sync of everything."""
    if not connection.paused:
        _check_stoppable(connection)
    return Outcome(connection.resynced(now), "{}")


def _check_stoppable(connection: Connection) -> None:
    if connection.syncing and connection.unstoppable_sync:
        raise Refusal(409, "Failed to stop in-progress sync after trying for 60 seconds")


def _state(connection: Connection) -> str:
    # Answer the text itself, not a parsed copy, so that numbers stay exact.
    return f'{{"state":{connection.state or "null"}}}'


def _members(body: bytes) -> dict[str, str]:
    try:
        return members(body)
    except ValueError as error:
        raise Refusal(400, f"The request body is malformed: {error}") from error


def _fields(body: bytes) -> dict[str, Any]:
    return {name: json.loads(text) for name, text in _members(body).items()}


def details(connection: Connection) -> dict[str, Any]:
    """The connection as Fivetran describes it, secrets masked."""
    return {
        "id": connection.id,
        "service": connection.service,
        "service_version": 1,
        "schema": connection.schema,
        "group_id": connection.group_id,
        "paused": connection.paused,
        "connected_by": "sandbox_user",
        "created_at": iso(connection.created_at),
        "succeeded_at": connection.succeeded_at and iso(connection.succeeded_at),
        "failed_at": connection.failed_at and iso(connection.failed_at),
        "sync_frequency": connection.sync_frequency,
        "schedule_type": connection.schedule_type,
        "pause_after_trial": False,
        "data_delay_sensitivity": "NORMAL",
        "daily_sync_time": None,
        "networking_method": "Directly",
        "proxy_agent_id": None,
        "private_link_id": None,
        "hybrid_deployment_agent_id": None,
        "source_sync_details": {},
        # Fivetran's documentation does not have this field: clients must ignore unknown fields.
        "undocumented": {"schema": None, "paused": "no"},
        "config": {"secrets": "******"},
        "setup_tests": [],
        "status": _status(connection),
    }


def _status(connection: Connection) -> dict[str, Any]:
    status: dict[str, Any] = {
        "setup_state": connection.setup_state,
        "schema_status": "ready",
        "sync_state": connection.sync_state,
        "update_state": "delayed" if connection.rescheduled else "on_schedule",
        "is_historical_sync": connection.is_historical_sync,
        "tasks": [],
        "warnings": [],
    }
    if connection.sync_state == "rescheduled":
        starts_at = connection.rescheduled_for
        status["rescheduled_for"] = None if starts_at is None else iso(starts_at)
    return status
