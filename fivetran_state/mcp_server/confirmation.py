"""Asking the human: within the call where the protocol allows it, otherwise between two rounds.

Since 2026-07-28 a server does not call its client. Instead, it answers the tool call with a
question, and the client repeats the call with the human's answer and with a state that the server
gave it. This state is sealed, bound to the call's arguments and its principal, and valid for
`VALID_SECONDS`.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mcp.server.context import CallNext, HandlerResult
from mcp.server.mcpserver import Context
from mcp.server.request_state import (
    AESGCMRequestStateCodec,
    InvalidRequestState,
    RequestStateSecurity,
)
from mcp.shared.exceptions import MCPError
from mcp_types import (
    ClientCapabilities,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestURLParams,
    ElicitResult,
    InputRequiredResult,
)
from mcp_types.version import is_version_at_least
from pydantic import ValidationError

from fivetran_state import large, vault
from fivetran_state.config import Settings
from fivetran_state.errors import FivetranStateError, NotConfirmed
from fivetran_state.mcp_server.scopes import RequestContext
from fivetran_state.question import of_plan

if TYPE_CHECKING:
    from fivetran_state.plan import Plan
    from fivetran_state.service.group_plan import GroupPlan

VALID_SECONDS = 3600.0
"""The time for an answer. The version in the question limits what the answer can do."""

_QUESTION = "confirm"
_TO_DECIDE = (
    "A change of a Fivetran connection's state waits for approval. Open its page to decide."
)
_RESPONSES = "inputResponses"
_NOTHING_TO_FILL_IN: dict[str, Any] = {"type": "object", "properties": {}}
_ASKS_BETWEEN_ROUNDS = "2026-07-28"


def can_ask(context: Context[Any, Any]) -> bool:
    """True if this client declares that it can ask its user."""
    capabilities = context.client_capabilities
    elicitation = None if capabilities is None else capabilities.elicitation
    # Before there were other kinds than forms, clients declared an empty capability.
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return False
    return _asks_between_rounds(context) or context.session.can_send_request


async def lead_to_page(context: Context[Any, Any], address: str) -> None:
    """Let the client open the page where a person can approve, if it can, once.

    Raises `Asking` where the protocol asks between two rounds. Whatever the person does there, the
    proposal waits.
    """
    if not can_open(context.client_capabilities) or context.request_state is not None:
        return
    if _asks_between_rounds(context):
        raise Asking(
            InputRequiredResult(
                input_requests={_QUESTION: asking_to_open(address)},
                request_state=json.dumps({"page": address}),
            )
        )
    if context.session.can_send_request:
        with suppress(MCPError, ValidationError):  # It goes on without the page.
            await context.session.elicit_url(
                _TO_DECIDE, address, uuid.uuid4().hex, context.request_id
            )


def can_open(capabilities: ClientCapabilities | None) -> bool:
    """True if this client can open a page for its user."""
    elicitation = None if capabilities is None else capabilities.elicitation
    return elicitation is not None and elicitation.url is not None


def asking_to_open(address: str) -> ElicitRequest:
    """Asks a client to open the page of a proposal."""
    return ElicitRequest(params=ElicitRequestURLParams(message=_TO_DECIDE, url=address))


class Asking(Exception):
    """The call ends here with a question; `question` is its result."""

    def __init__(self, question: InputRequiredResult) -> None:
        super().__init__()
        self.question = question


@dataclass(frozen=True)
class _Answered:
    """The confirmed change. `latest` was the number of the connection's newest update then, or the
    sum of a group's: an old confirmation does not allow the change again after other updates."""

    version_before: str
    version_after: str
    latest: int


class _Elicited:
    """The human behind one tool call, and what they have agreed to."""

    def __init__(self, context: Context[Any, Any]) -> None:
        self._context = context
        self._answered: _Answered | None = None
        if context.request_state is not None:
            answer = (context.input_responses or {}).get(_QUESTION)
            _check(answer if isinstance(answer, ElicitResult) else None)
            self._answered = _Answered(**json.loads(context.request_state))

    @property
    def version(self) -> str | None:
        return None if self._answered is None else self._answered.version_before

    def _was_answered(self, asked: _Answered) -> bool:
        return asked == self._answered

    async def _ask(self, asked: _Answered, text: str) -> None:
        """Ask within the call; raises `Asking` where the protocol asks between two rounds."""
        if _asks_between_rounds(self._context):
            parameters = ElicitRequestFormParams(message=text, requested_schema=_NOTHING_TO_FILL_IN)
            raise Asking(
                InputRequiredResult(
                    input_requests={_QUESTION: ElicitRequest(params=parameters)},
                    request_state=json.dumps(vars(asked)),
                )
            )
        try:
            answer = await self._context.session.elicit_form(
                text, _NOTHING_TO_FILL_IN, self._context.request_id
            )
        except MCPError as error:
            raise NotConfirmed("The client did not ask the user; nothing was written.") from error
        except ValidationError:
            answer = None
        _check(answer)
        self._answered = asked


class ElicitedConfirmation(_Elicited):
    """A `plan.Confirmation` by the human behind one tool call.

    Raises `NotConfirmed`, `TooLargeToConfirm`, and `Asking`.
    """

    async def covers(self, plan: "Plan", latest: int) -> bool:
        asked = _Answered(plan.version_before, plan.version_after, latest)
        if self._was_answered(asked):
            return True
        await self._ask(asked, await large.run_if(plan.is_large, of_plan, plan))
        return False


class ElicitedGroupConfirmation(_Elicited):
    """A `groups.GroupConfirmation`, likewise."""

    async def covers(self, plan: "GroupPlan") -> bool:
        # The plan's version is of the states before and after.
        asked = _Answered(plan.version, plan.version, plan.numbers)
        if self._was_answered(asked):
            return True
        await self._ask(asked, plan.question())
        return False


def _check(answer: ElicitResult | None) -> None:
    """Raise `NotConfirmed` unless this is exactly a yes. None means a malformed answer."""
    if answer is not None and answer.action == "decline":
        raise NotConfirmed("The user declined; nothing was written.")
    if answer is not None and answer.action == "cancel":
        raise NotConfirmed("The user dismissed the question; nothing was written.")
    if answer is None or answer.content:  # Clients may omit the empty content.
        raise NotConfirmed(
            "The client's answer to the question is malformed (yes is "
            '{"action":"accept","content":{}}); nothing was written.'
        )


async def drop_odd_answers(ctx: RequestContext, call_next: CallNext) -> HandlerResult:
    """Middleware: remove malformed answers, because the SDK would refuse the whole call.

    `ElicitedConfirmation` then finds the question unanswered.
    """
    if ctx.method == "tools/call" and ctx.params is not None and _RESPONSES in ctx.params:
        responses = ctx.params[_RESPONSES]
        kept = {
            name: answer
            for name, answer in (responses.items() if isinstance(responses, Mapping) else ())
            if (_is_answer(answer) if name == _QUESTION else isinstance(answer, Mapping) and answer)
        }
        ctx = replace(ctx, params={**ctx.params, _RESPONSES: kept})
    return await call_next(ctx)


def _is_answer(answer: object) -> bool:
    return (
        isinstance(answer, Mapping)
        and answer.get("action") in ("accept", "decline", "cancel")
        and answer.get("content") in ({}, None)
    )


def _asks_between_rounds(context: Context[Any, Any]) -> bool:
    version = context.protocol_version
    return version is not None and is_version_at_least(version, _ASKS_BETWEEN_ROUNDS)


def security(settings: Settings) -> RequestStateSecurity:
    """Seal the state that a client keeps between rounds with keys that outlive this process."""
    return RequestStateSecurity(codec=_Codec(settings), ttl=VALID_SECONDS)


class _Codec:
    """The SDK's codec, but the keys need not exist before the first question."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def seal(self, payload: bytes) -> str:
        return AESGCMRequestStateCodec(self._keys()).seal(payload)

    def unseal(self, token: str) -> bytes:
        return AESGCMRequestStateCodec(self._keys()).unseal(token)

    def _keys(self) -> Sequence[bytes]:
        try:
            keys = vault.keys(self._settings)
        except FivetranStateError as error:
            raise InvalidRequestState(error.code) from error
        if not keys:
            raise InvalidRequestState("there is no key yet")
        return keys
