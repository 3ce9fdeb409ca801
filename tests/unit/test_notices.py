"""What a notice says."""

import json

import pytest

from fivetran_state.http_server.page.links import Links
from fivetran_state.notices import (
    ConnectionLeftPaused,
    Notice,
    ProposalCreated,
    as_json,
    as_slack,
)
from fivetran_state.pages import Pages
from fivetran_state.webhook import signature

ID = "proposal:0123456789abcdef0123456789abcdef"
PAGES = Pages("https://state.example.com/fivetran/")
PROPOSAL = ProposalCreated(
    type="proposal.created",
    time=1_790_000_000.5,
    workflow_id=ID,
    connection_ids=["speak_inexpensive"],
    asked_by="token:1a2b3c4d",
    reason="A bad deploy.",
    expires_at=1_790_086_400,
)
PAUSED = ConnectionLeftPaused(
    type="connection.left_paused",
    time=1_790_000_000,
    workflow_id="late_ferry:3",
    paused_since=1_789_990_000,
    hint="Resume the connection in Fivetran.",
)


def test_a_proposal_as_json() -> None:
    assert as_json(PROPOSAL, f"notice:{ID}", PAGES) == {
        "type": "proposal.created",
        "id": f"notice:{ID}",
        "time": "2026-09-21T14:13:20Z",
        "workflow_id": ID,
        "connection_ids": ["speak_inexpensive"],
        "total": 1,
        "asked_by": "token:1a2b3c4d",
        "reason": "A bad deploy.",
        "expires_at": "2026-09-22T14:13:20Z",
        "page": "https://state.example.com/fivetran/page/proposals/proposal%3A0123456789abcdef0123456789abcdef",
    }


def test_a_paused_connection_as_json() -> None:
    assert as_json(PAUSED, "notice:late_ferry:3", PAGES) == {
        "type": "connection.left_paused",
        "id": "notice:late_ferry:3",
        "time": "2026-09-21T14:13:20Z",
        "connection_id": "late_ferry",
        "workflow_id": "late_ferry:3",
        "paused_since": "2026-09-21T11:26:40Z",
        "hint": "Resume the connection in Fivetran.",
        "page": "https://state.example.com/fivetran/page/updates/late_ferry%3A3",
    }


def test_of_many_connections_some_are_named_and_all_are_counted() -> None:
    many = ProposalCreated(**{**PROPOSAL, "connection_ids": [f"number_{n}" for n in range(1000)]})

    told = as_json(many, "some id", PAGES)

    assert (len(told["connection_ids"]), told["total"]) == (20, 1000)
    assert "number_19 and 980 more" in as_slack(many, PAGES)["text"]


@pytest.mark.parametrize("notice", [PROPOSAL, PAUSED])
def test_without_a_public_address_no_page_is_named(notice: Notice) -> None:
    nowhere = Pages(None)

    assert "page" not in as_json(notice, "some id", nowhere)
    assert "<" not in as_slack(notice, nowhere)["text"]


def test_a_guest_has_no_page() -> None:
    guests = ConnectionLeftPaused(**{**PAUSED, "workflow_id": "other_account/late_ferry:3"})

    told = as_json(guests, "some id", PAGES)

    assert told["connection_id"] == "other_account/late_ferry"
    assert "page" not in told


def test_the_addresses_are_those_of_the_pages() -> None:
    links = Links("https://state.example.com/fivetran")

    assert PAGES.proposal(ID) == links.proposal(ID)
    assert PAGES.update("late_ferry:3") == links.update("late_ferry:3")


def test_slack_gets_a_text_with_one_link() -> None:
    text = as_slack(PROPOSAL, PAGES)["text"]

    assert text == (
        "token:1a2b3c4d asks for a change of speak_inexpensive.\n"
        'Reason: "A bad deploy."\n'
        f"A person with the scope approve has until 2026-09-22T14:13:20Z to agree: {ID}\n"
        f"<{PAGES.proposal(ID)}>"
    )


@pytest.mark.parametrize(
    "reason",
    [
        "<!channel> look",
        "<https://evil.example/|the plan>",
        "<@U0123456>",
        "&lt;!here&gt;",
        "see https://evil.example",
        "www.evil.example",
        "*bold* `code` :rotating_light:",
        "\n<!everyone>\u202e",
    ],
)
def test_in_slack_the_words_of_others_neither_mention_nor_link(reason: str) -> None:
    hostile = ProposalCreated(**{**PROPOSAL, "reason": reason, "asked_by": reason})
    text = as_slack(hostile, PAGES)["text"]
    theirs = text.rpartition("\n")[0]

    assert text.count("\n") == 3
    assert not set(theirs) & set("<>*`@\u202e")
    assert "//" not in theirs
    assert "evil.example" not in theirs
    assert "&lt;" not in theirs


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # The example of its own libraries.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    id_, at, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'

    assert signature(secret, id_, at, body) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_long_reason_is_cut() -> None:
    long = ProposalCreated(**{**PROPOSAL, "reason": "x" * 100_000})

    assert len(json.dumps(as_json(long, "some id", PAGES))) < 2000
    assert len(as_slack(long, PAGES)["text"]) < 2000
