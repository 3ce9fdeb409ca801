"""What a change of one connection would do, and the request that asks for it."""

import asyncio
from dataclasses import replace
from typing import Any, cast

from fivetran_state import access, changes, large, state
from fivetran_state.errors import InvalidRequest
from fivetran_state.models import Update
from fivetran_state.plan import Plan, Wanted
from fivetran_state.service.caller import Caller
from fivetran_state.service.history import History
from fivetran_state.service.requests import Options, derived_key
from fivetran_state.service.sources import Sources
from fivetran_state.text import shown
from fivetran_state.updates.records import UpdateRequest
from fivetran_state.updates.refusals import (
    conflict,
    refuse_impossible_sync,
    refuse_pending_resync,
)


class Plans:
    """Plans changes of one account's connections. Nothing is written."""

    def __init__(self, caller: Caller, sources: Sources, history: History) -> None:
        self._caller = caller
        self._sources = sources
        self._history = history

    async def plan_update(
        self,
        connection_id: str,
        change: changes.Change,
        *,
        expected_version: str | None = None,
        then_sync: bool = False,
    ) -> Update:
        """The effect of the change on the present state; nothing is written."""
        plan = await self.plan(
            connection_id, change, expected_version=expected_version, then_sync=then_sync
        )
        return await large.run_if(plan.is_large, plan.to_update)

    async def plan(
        self,
        connection_id: str,
        change: changes.Change,
        *,
        expected_version: str | None = None,
        then_sync: bool = False,
        allow_resync: bool = True,
        asked_by: str | None = None,
    ) -> Plan:
        """Like `plan_update`, with both states in full. `asked_by`: who proposed the change.

        Raises `ResyncPending` without `allow_resync`, as the update itself would.
        """
        check_version(expected_version)
        wanted = await self._sources.read(connection_id, change)
        plan = await self.plan_of(
            connection_id, wanted, expected_version, then_sync=then_sync, asked_by=asked_by
        )
        if not allow_resync:
            refuse_pending_resync(plan.connection)
        return await self.with_warnings(plan)

    async def plan_of(
        self,
        connection_id: str,
        wanted: Wanted,
        expected_version: str | None,
        *,
        then_sync: bool = False,
        asked_by: str | None = None,
    ) -> Plan:
        """Plan the change and judge it; raise the errors of an update, except for a re-sync, of which the
        plan warns."""
        fivetran = await self._caller.fivetran_for(connection_id)
        (connection, before, _), group_names = await asyncio.gather(
            self._caller.read(fivetran, connection_id), fivetran.group_names()
        )
        plan = await large.run_if(
            large.is_any(before, wanted.change),
            Plan.of,
            connection,
            before,
            wanted,
            group_name=group_names.get(connection.group_id),
            then_sync=then_sync,
            sync_wait=self._caller.settings.sync_wait,
        )
        if expected_version is not None and expected_version != plan.version_before:
            raise conflict(expected_version, plan.version_before)
        if then_sync:
            refuse_impossible_sync(connection)
        return replace(plan, ruling=await self._caller.judge(plan, asked_by))

    async def with_warnings(self, plan: Plan) -> Plan:
        """The plan, with what is unusual about it by the state history."""
        warnings = await self._history.warnings(plan.connection.id, plan.before, plan.applied.after)
        return replace(plan, warnings=warnings)

    async def request(
        self, connection_id: str, wanted: Wanted, options: Options, text: str | None = None
    ) -> UpdateRequest:
        """The request for one connection; `text` is the change, if it is known already."""
        if text is None:
            text = await large.run(state.dump, wanted.change.value)
        request = UpdateRequest(
            connection_id=connection_id,
            change_kind=wanted.change.kind,
            change=text,
            change_is_exact=wanted.change.exact,
            source=wanted.source,
            expected_version=options.expected_version,
            reason=options.reason,
            idempotency_key=options.idempotency_key or derived_key(options, wanted, text),
            key_was_given=options.idempotency_key is not None,
            sync_wait=self._caller.settings.sync_wait,
            asked_by=access.principal().name,
        )
        if options.then_sync:
            request["then_sync"] = True
        if options.allow_resync:
            request["allow_resync"] = True
        if self._caller.seen_paused.was_paused(await self._caller.owner(connection_id)):
            request["seen_paused"] = True
        request.update(cast(Any, (await self._caller.account()).in_request()))
        return request


def check_version(version: str | None) -> None:
    if version is not None and not state.is_version(version):
        raise InvalidRequest(
            f"expected_version '{shown(version)}' is not a version. A version has 32 hexadecimal "
            "digits; plans and get_state return it."
        )
