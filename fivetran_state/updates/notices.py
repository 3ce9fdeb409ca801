"""Notices to people elsewhere: each is a durable workflow that tries to send it for up to a day.

The id of a notice is made of the id of the proposal or the update that it is about. So, of all the
processes that want to start it, the database's primary key lets one.
"""

import logging
import time

from dbos import DBOS, SetWorkflowID
from dbos import error as dbos_error

from fivetran_state import database
from fivetran_state.notices import ConnectionLeftPaused, Notice, ProposalCreated, connections_of
from fivetran_state.updates import binding, statuses
from fivetran_state.updates.background import Background
from fivetran_state.updates.proposal import Asked, is_group
from fivetran_state.updates.reader import Reader
from fivetran_state.updates.records import NOTICE
from fivetran_state.vault import Bound
from fivetran_state.webhook import Webhook

logger = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
"""Seconds until the second try. Each further pause is twice as long."""
LONGEST_PAUSE = 3600.0
PATIENCE = 24 * 3600.0
"""Seconds of pauses after which a notice is given up."""


def is_notice(workflow_id: str) -> bool:
    return workflow_id.startswith(f"{NOTICE}:")


def notice_of(workflow_id: str) -> str:
    """The id of the notice about a proposal or an update."""
    return f"{NOTICE}:{workflow_id}"


class Notices:
    """The notices of one account. A process without an address for them starts none."""

    def __init__(
        self, reader: Reader, webhook: Webhook, background: Background, is_wanted: bool
    ) -> None:
        """Register the workflow with DBOS, which must not have been launched."""
        self._reader = reader
        self._webhook = webhook
        self.is_wanted = is_wanted

        @DBOS.workflow(name=NOTICE, max_recovery_attempts=None)
        async def notice(told: Bound) -> Bound:
            workflow_id = DBOS.workflow_id or ""
            place = binding.output_of(workflow_id)
            with background.here(workflow_id), binding.bound_errors(place):
                opened: Notice = binding.opened(told, binding.input_of(workflow_id, NOTICE))
                return Bound(place, await self._deliver(workflow_id, opened))

        self._workflow = notice

    async def tell_of_proposal(self, workflow_id: str, asked: Asked) -> None:
        """Start the notice of a proposal, unless it has been started before."""
        change = asked["change"]
        requests = change["members"] if is_group(change) else [change]
        notice = ProposalCreated(
            type="proposal.created",
            time=asked["asked_at"],
            workflow_id=workflow_id,
            connection_ids=[each["connection_id"] for each in requests],
            asked_by=asked["asked_by"],
            reason=asked["reason"],
            expires_at=asked["expires_at"],
        )
        await self._start(notice)

    async def tell_of_pause(self, workflow_id: str, since: float, hint: str) -> None:
        """Start the notice of an update that holds its connection paused, unless it has been started.

        `since`: in seconds since the epoch; `hint`: what to do.
        """
        notice = ConnectionLeftPaused(
            type="connection.left_paused",
            time=time.time(),
            workflow_id=workflow_id,
            paused_since=since,
            hint=hint,
        )
        await self._start(notice)

    def connections_of(self, workflow_id: str) -> list[str]:
        """The connections that a notice is about; empty if its row was deleted. It blocks."""
        rows = self._reader.find_now(workflow_ids=[workflow_id], name=NOTICE, load_input=True)
        return [id_ for row in rows for id_ in connections_of(statuses.input_of(row))]

    async def _start(self, notice: Notice) -> None:
        if not self.is_wanted:
            return
        id_ = notice_of(notice["workflow_id"])
        try:
            with (
                database.answering(),
                SetWorkflowID(id_, workflow_id_reuse_policy="reject"),
            ):
                place = binding.input_of(id_, NOTICE)
                await DBOS.start_workflow_async(self._workflow, Bound(place, dict(notice)))
        except dbos_error.DBOSWorkflowIDInUseError:
            pass  # This process or another one has started it.

    async def _deliver(self, workflow_id: str, notice: Notice) -> str:
        """Try until the receiver has accepted or refused it; returns how it ended."""
        pause, waited = FIRST_PAUSE, 0.0
        while True:
            how = await self._try(workflow_id, notice)
            if how != "failed":
                return how
            if waited >= PATIENCE:
                fields = {"workflow_id": workflow_id}
                logger.error("The notice could not be sent for a day: giving up", extra=fields)
                return how
            await DBOS.sleep_async(pause)
            waited += pause
            pause = min(2 * pause, LONGEST_PAUSE)

    @binding.step("deliver")
    async def _try(self, workflow_id: str, notice: Notice) -> str:
        tried = await self._webhook.send(notice, workflow_id)
        fields = {"workflow_id": workflow_id}
        match tried.how:
            case "accepted":
                logger.info("The notice is sent", extra=fields)
            case "refused":
                logger.error("The receiver refuses the notice (%s)", tried.why, extra=fields)
            case "failed":
                logger.warning("The notice could not be sent (%s)", tried.why, extra=fields)
        return tried.how
