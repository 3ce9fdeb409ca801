"""Notices to people elsewhere: what they say, as JSON and as Slack's text.

A notice holds no state, no value of one, and no credential.
"""

from datetime import datetime, timezone
from typing import Any, Literal

from typing_extensions import TypedDict

from fivetran_state.ids import UpdateId
from fivetran_state.pages import Pages
from fivetran_state.text import caller, quoted, shown

MAX_CONNECTIONS = 20
"""Connections that a notice names. It counts all."""
MAX_REASON_LENGTH = 500


class ProposalCreated(TypedDict):
    """A change waits for approval. Times are seconds since the epoch."""

    type: Literal["proposal.created"]
    time: float
    workflow_id: str
    connection_ids: list[str]
    """All of them."""
    asked_by: str
    reason: str | None
    expires_at: float


class ConnectionLeftPaused(TypedDict):
    """An update has held a connection paused for longer than the operator allows."""

    type: Literal["connection.left_paused"]
    time: float
    workflow_id: str
    paused_since: float
    hint: str
    """What to do."""


Notice = ProposalCreated | ConnectionLeftPaused


def connections_of(notice: Notice) -> list[str]:
    """The ids of all connections that the notice is about."""
    if notice["type"] == "proposal.created":
        return notice["connection_ids"]
    return [UpdateId.parse(notice["workflow_id"]).connection_id]


def as_json(notice: Notice, id_: str, pages: Pages) -> dict[str, Any]:
    """The notice for programs. `page` is left out if the address is not known."""
    common = {"type": notice["type"], "id": id_, "time": _time(notice["time"])}
    if notice["type"] == "proposal.created":
        ids, reason = notice["connection_ids"], notice["reason"]
        told = {
            "workflow_id": notice["workflow_id"],
            "connection_ids": ids[:MAX_CONNECTIONS],
            "total": len(ids),
            "asked_by": notice["asked_by"],
            "reason": None if reason is None else shown(reason, MAX_REASON_LENGTH),
            "expires_at": _time(notice["expires_at"]),
        }
    else:
        told = {
            "connection_id": UpdateId.parse(notice["workflow_id"]).owner,
            "workflow_id": notice["workflow_id"],
            "paused_since": _time(notice["paused_since"]),
            "hint": notice["hint"],
        }
    page = _page(notice, pages)
    return common | told | ({} if page is None else {"page": page})


def as_slack(notice: Notice, pages: Pages) -> dict[str, Any]:
    """The notice for people in Slack. What others have written can neither mention nor link."""
    if notice["type"] == "proposal.created":
        ids, reason = notice["connection_ids"], notice["reason"]
        named = ", ".join(ids[:MAX_CONNECTIONS])
        more = f" and {len(ids) - MAX_CONNECTIONS} more" if len(ids) > MAX_CONNECTIONS else ""
        lines = [
            f"{caller(shown(notice['asked_by'], MAX_REASON_LENGTH))} asks for a change of {named}{more}.",
            f"A person with the scope approve has until {_time(notice['expires_at'])} to agree: "
            f"{notice['workflow_id']}",
        ]
        if reason is not None:
            lines.insert(1, f"Reason: {quoted(shown(reason, MAX_REASON_LENGTH))}")
    else:
        update = UpdateId.parse(notice["workflow_id"])
        lines = [
            f"{update.owner} has been paused since {_time(notice['paused_since'])} by the update "
            f"{update}, and does not sync.",
            notice["hint"],
        ]
    text = "\n".join(map(_escaped, lines))
    page = _page(notice, pages)
    return {"text": text if page is None else f"{text}\n<{_escaped(page)}>"}


def _page(notice: Notice, pages: Pages) -> str | None:
    if notice["type"] == "proposal.created":
        return pages.proposal(notice["workflow_id"])
    # The pages show this server's own account, not those of guests.
    is_guests = UpdateId.parse(notice["workflow_id"]).account is not None
    return None if is_guests else pages.update(notice["workflow_id"])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), timezone.utc).isoformat().replace("+00:00", "Z")
