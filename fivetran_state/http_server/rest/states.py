"""Handlers that read and change states."""

import asyncio
from collections.abc import Mapping

from fastapi import Request, Response

from fivetran_state import changes, state
from fivetran_state.access import WRITE
from fivetran_state.errors import FivetranStateError, InvalidRequest
from fivetran_state.http_server.gate import demand
from fivetran_state.http_server.rest.answers import answer, running, text_of
from fivetran_state.http_server.rest.bodies import (
    ChangeStates,
    GetState,
    GetStates,
    NotRead,
    Unchanged,
    Updated,
    UpdateState,
    UpdateStates,
)
from fivetran_state.http_server.rest.requests import (
    Headers,
    IdempotencyKey,
    IfMatch,
    OwnService,
    Prefer,
    agreed,
    expected,
    service_in,
)
from fivetran_state.models import Failure, GroupPlanView, StateView

READ_AT_ONCE = 4
MAX_RESPONSE_BYTES = 20_000_000
"""Maximum size in bytes of all the states in one answer."""


async def get_state(body: GetState, headers: Headers, own: OwnService) -> Response:
    """A connection's state, its version, and whether it is paused or syncing."""
    service = await service_in(own, agreed(headers, body))
    view = await service.states.get_state(body.connection_id, path=body.path, exact=True)
    return await answer(view)


async def get_states(body: GetStates, headers: Headers, own: OwnService) -> Response:
    """The states of several connections, by id; an error for each that cannot be read.

    If none can be read, the first error is the answer.
    """
    service = await service_in(own, agreed(headers, body))
    few = asyncio.Semaphore(READ_AT_ONCE)
    left = MAX_RESPONSE_BYTES

    async def read(connection_id: str) -> str | FivetranStateError:
        nonlocal left
        async with few:
            try:
                view = await service.states.get_state(connection_id, exact=True)
            except FivetranStateError as error:
                return error
            text = await text_of(view)
        if len(text) > left:
            return InvalidRequest(
                f"These states have more than {MAX_RESPONSE_BYTES:,} bytes in total: "
                "request fewer at a time."
            )
        left -= len(text)
        return text

    wanted = list(dict.fromkeys(body.connection_ids))
    found = dict(zip(wanted, await asyncio.gather(*map(read, wanted)), strict=True))
    errors = [each for each in found.values() if isinstance(each, FivetranStateError)]
    if len(errors) == len(found):
        raise errors[0]
    texts = {
        connection_id: each if isinstance(each, str) else await _not_read(connection_id, each)
        for connection_id, each in found.items()
    }
    content = ",".join(f"{state.dump(name)}:{text}" for name, text in texts.items())
    return Response("{" + content + "}", media_type="application/json")


async def _not_read(connection_id: str, error: FivetranStateError) -> str:
    failure = Failure(code=error.code, message=error.message, hint=error.hint)
    return await text_of(NotRead(connection_id=connection_id, error=failure))


async def update_state(
    body: UpdateState,
    request: Request,
    headers: Headers,
    own: OwnService,
    prefer: Prefer,
    key: IdempotencyKey,
    if_match: IfMatch,
) -> Response:
    """Change a state safely: pause, stop a running sync, write, verify, resume.

    Give one of new_state, merge_patch, json_patch, restore_from, copy_from. A body with nothing
    but connection_id returns the current state. The answer comes when the update has ended,
    unless Prefer says otherwise. The update goes on if the caller leaves.
    """
    if not body.dry_run:
        demand(WRITE, request)
    service = await service_in(own, agreed(headers, body))
    given = await body.change()
    if not any(value is not None for value in given.values()):
        if body.says_more or key is not None or if_match is not None:
            raise _change_is_missing(given)
        view = await service.states.get_state(body.connection_id, exact=True)
        return await answer(_unchanged(view))
    version = expected(body.expected_version, if_match, may_lack=body.dry_run or body.is_original)
    if body.dry_run:
        plan = await service.plans.plan_update(
            body.connection_id,
            await changes.parse(given, body.only),
            expected_version=version,
            then_sync=body.then_sync,
        )
        return await answer(plan)
    update = await service.changes.update_state(
        body.connection_id,
        await changes.parse(given, body.only),
        expected_version=version,
        then_sync=body.then_sync,
        allow_resync=body.allow_resync,
        reason=body.reason,
        idempotency_key=key,
        wait_seconds=prefer.seconds,
        propose=body.propose,
    )
    if update.status in ("running", "proposed"):
        return await running(update, prefer, request)
    if update.workflow_id is None or service.proposals.is_proposal(update.workflow_id):
        return await answer(update, prefer)  # What was proposed changes nothing, or has ended.
    before, after = await service.changes.states_of(update.workflow_id)
    fields = {name: value for name, value in update if value is not None}
    if isinstance(before, state.RawDocument):
        fields["current_state_json"] = before.text
    else:
        fields["current_state"] = before
    return await answer(Updated(**fields, verified_state=after), prefer)


async def update_multiple_states(
    body: UpdateStates,
    request: Request,
    headers: Headers,
    own: OwnService,
    prefer: Prefer,
    key: IdempotencyKey,
) -> Response:
    """Make one change to several connections: to all of them, or to none.

    All are looked at before any is paused. They stay paused until all are written and verified.
    After a failure each state is put back before its connection is resumed.
    """
    service = await service_in(own, agreed(headers, body))
    given = await body.change()
    if not any(value is not None for value in given.values()):
        raise _change_is_missing(given)
    expected(body.expected_version, may_lack=body.is_original)
    change = await changes.parse(given)
    view = await service.groups.update_states(
        changes.for_each(body.connection_ids, change),
        changes.GroupOptions(
            then_sync=body.then_sync, allow_resync=body.allow_resync, reason=body.reason
        ),
        idempotency_key=key,
        wait_seconds=prefer.seconds,
    )
    if view.status in ("running", "proposed"):
        return await running(view, prefer, request)
    if isinstance(view, GroupPlanView):
        return await answer(view, prefer)  # What was to be proposed changes nothing.
    return await answer({update.connection_id: update for update in view.updates}, prefer)


async def update_states(
    body: ChangeStates,
    request: Request,
    headers: Headers,
    own: OwnService,
    prefer: Prefer,
    key: IdempotencyKey,
    if_match: IfMatch,
) -> Response:
    """Change the states of many connections together: all or nothing, or each by itself.

    Choose them by one of connection_ids, filter, changes, undo. The first two need one change for
    all of them: new_state, merge_patch, json_patch, restore_from or copy_from. All are looked at
    before any is paused. dry_run returns the plan; its version, given as expected_version, pins
    every state and which connections they are.
    """
    if not body.dry_run:
        demand(WRITE, request)
    service = await service_in(own, agreed(headers, body))
    options = changes.GroupOptions(
        mode=body.mode,
        expected_version=expected(body.expected_version, if_match, may_lack=body.dry_run),
        waits=body.if_busy == "wait",
        then_sync=body.then_sync,
        allow_resync=body.allow_resync,
        reason=body.reason,
    )
    wanted = await service.selection.resolved(await body.chosen())
    if body.dry_run:
        return await answer(await service.groups.plan_updates(wanted, options, cursor=body.cursor))
    changes.refuse_cursor(body.cursor)
    view = await service.groups.update_states(
        wanted,
        options,
        idempotency_key=key,
        wait_seconds=prefer.seconds,
        propose=body.propose,
    )
    if view.status in ("running", "proposed"):
        return await running(view, prefer, request)
    return await answer(view, prefer)


def _change_is_missing(change: Mapping[str, object]) -> InvalidRequest:
    return InvalidRequest(f"The change is missing: give exactly one of {', '.join(change)}.")


def _unchanged(view: StateView) -> Unchanged:
    return Unchanged(
        connection_id=view.connection_id,
        message="No change was given; nothing was written.",
        version=view.version,
        current_state=view.state,
        current_state_json=view.state_json,
        problem=view.problem,
    )
