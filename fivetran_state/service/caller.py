"""One account, and what the operator allows it to do."""

import time
from collections import OrderedDict
from datetime import datetime, timezone

from fivetran_state import access, large, state
from fivetran_state.config import Settings
from fivetran_state.errors import (
    FivetranUnavailable,
    InvalidRequest,
    NoStateYet,
    NotAllowed,
    WorkflowNotFound,
)
from fivetran_state.events import Events
from fivetran_state.fivetran import Fivetran
from fivetran_state.fivetran_answers import Connection
from fivetran_state.ids import UpdateId, is_connection_id
from fivetran_state.plan import Plan
from fivetran_state.policy import NO_RULING, Judged, NameUnknown, Ruling
from fivetran_state.runtime.accounts import Account
from fivetran_state.runtime.engine import Engine
from fivetran_state.text import shown
from fivetran_state.updates.proposal import Asked, is_group
from fivetran_state.updates.records import GroupRequest, UpdateRequest
from fivetran_state.updates.refusals import state_not_kept
from fivetran_state.updates.updates import Updates

MAX_SEEN = 10_000
"""Connections of which a process remembers whether they were paused."""


class SeenPaused:
    """Remembers which connections were paused: a hint in which order an update should read."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, bool] = OrderedDict()

    def note(self, owner: str, paused: bool) -> None:
        self._seen[owner] = paused
        self._seen.move_to_end(owner)
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)

    def was_paused(self, owner: str) -> bool:
        return self._seen.get(owner, False)


class Caller:
    """One account. Every method raises only `FivetranStateError`s."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        seen_paused: SeenPaused,
        events: Events,
        guest: Account | None = None,
    ) -> None:
        self.settings = settings
        self.seen_paused = seen_paused
        self._engine = engine
        self.events = events
        self._guest = guest

    async def updates(self) -> Updates:
        """The updates, once workflows can run."""
        return (await self._engine.up()).updates

    def check(self, connection_id: str, what: str = "connection_id") -> None:
        """Raise unless the id is one and the operator allows the connection."""
        if not is_connection_id(connection_id):
            raise InvalidRequest(
                f"{what} '{shown(connection_id)}' is not a connection's id. An id looks like "
                "speak_inexpensive: letters, digits, '_' and '-'. Find it with list_connections."
            )
        if not self.settings.allows(connection_id):
            raise NotAllowed(f"This server is not allowed to use the connection {connection_id}.")

    def check_writable(self) -> None:
        if self.settings.read_only:
            raise NotAllowed("This server is read-only.")

    async def refuse_guests(self) -> None:
        """Raise `NotAllowed` for an account that the request itself brings the credentials of."""
        if (await self.account()).id is not None:
            raise NotAllowed(
                "A change with credentials of its own cannot be proposed: nobody here could judge it."
            )

    async def must_propose(self) -> bool:
        """True if all changes of this caller need somebody else's approval. Raises `NotAllowed` for guests."""
        if not self.settings.proposes_all(access.principal().scopes):
            return False
        await self.refuse_guests()
        return True

    @property
    def has_policy(self) -> bool:
        """True if an update may start only after its plan was judged."""
        return bool(self.settings.policy.rule)

    async def judge(self, plan: Plan, asked_by: str | None = None) -> Ruling:
        """What the policy says of this plan by the present caller; and by whoever proposed it, if named.

        Raises `FivetranUnavailable` if a rule needs the name of a group that Fivetran does not tell.
        """
        if not self.has_policy:
            return NO_RULING
        callers = [access.principal()]
        if asked_by is not None:
            # Only the name is recorded. Whoever proposed it could at least write.
            callers.append(access.Principal(asked_by, access.WITHOUT_TOKEN))
        connection, now, ruling = plan.connection, datetime.now(timezone.utc), NO_RULING
        judged = Judged(connection.id, connection.schema, connection.group_id, plan.group_name)
        for caller in callers:
            try:
                found = await large.run_if(
                    plan.is_large,
                    self.settings.policy.judge,
                    judged,
                    plan.before,
                    plan.applied.after,
                    caller,
                    now,
                    otherwise=self.settings.needs_approval(caller.scopes),
                )
            except NameUnknown as error:
                raise FivetranUnavailable(
                    f"Fivetran did not tell the name of the group {shown(connection.group_id)}, and "
                    f"{error}. Nothing was written."
                ) from None
            ruling = ruling.and_also(found)
        return ruling

    def asked(self, change: UpdateRequest | GroupRequest) -> Asked:
        """A proposal of this change by the present caller, from now on."""
        now = time.time()
        return Asked(
            change=change,
            asked_by=access.principal().name,
            asked_at=now,
            expires_at=now + self.settings.approval_hours * 3600,
            reason=(change["members"][0] if is_group(change) else change)["reason"],
        )

    async def fivetran_for(self, connection_id: str, what: str = "connection_id") -> Fivetran:
        """The account's client, after `check`."""
        account = await self.account()
        self.check(connection_id, what)
        return account.fivetran

    async def check_update(self, workflow_id: str) -> None:
        """Raise unless it is an update of this account, and of a connection that is allowed."""
        account = await self.account()
        update = UpdateId.parse(workflow_id)
        if update.account != account.id:
            raise WorkflowNotFound(f"There is no update '{shown(workflow_id)}'.")
        self.check(update.connection_id)

    async def check_group(self, workflow_id: str) -> None:
        """Raise unless the group is this account's and all its connections are allowed, also those
        that have not started."""
        updates = await self.updates()
        for connection_id in await updates.groups.connections_of(
            workflow_id, (await self.account()).id
        ):
            self.check(connection_id)

    async def account(self) -> Account:
        return self._guest or (await self._engine.up()).accounts.own()

    async def owner(self, connection_id: str) -> str:
        """The prefix of the ids of a connection's updates."""
        account = (await self.account()).id
        return connection_id if account is None else f"{account}/{connection_id}"

    async def read(
        self, fivetran: Fivetran, connection_id: str
    ) -> tuple[Connection, state.Document, str]:
        """The connection, its state and the state's version, requested at the same time.

        Raises `StateNotKept` or `NoStateYet` if there is none.
        """
        connection, document = await fivetran.get_connection_and_state(connection_id)
        at = time.time_ns() // 1_000_000
        owner = await self.owner(connection_id)
        self.seen_paused.note(owner, connection.paused)
        if not connection.keeps_state:
            raise state_not_kept(connection)
        if document is None:
            raise NoStateYet(
                f"{connection_id} ({connection.service}, {connection.schema}) has no state yet."
            )
        version = await large.run(state.version, document)
        recorder = (await self.updates()).runtime.recorder
        await recorder.read(owner, document, version, at, connection)
        return connection, document, version

    def may_see(self, update: UpdateId, account: str | None) -> bool:
        return update.account == account and self.settings.allows(update.connection_id)
