"""The policy, by REST: by scope, and when a proposal is approved."""

from pathlib import Path

from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import IDLE, PAUSED, Watch, api_calls
from tests.support.people import person
from tests.support.policies import policy, window
from tests.support.rest import ANY

UPDATE = "/state/update"
PATCH = ANY | {"connection_id": IDLE, "merge_patch": {"cursor": "2020"}}
ASKS = 'name = "rewinds"\nmax_back = "2d"'
FORBIDS = 'name = "frozen"\napproval = "forbidden"'


def was_left_alone(sandbox: Sandbox) -> bool:
    return not any("PATCH" in api_calls(sandbox, each) for each in (IDLE, PAUSED))


async def test_whoever_may_approve_makes_what_others_only_propose(
    http: Serve, sandbox: Sandbox, tmp_path: Path
) -> None:
    watch = Watch(sandbox, IDLE)
    async with (
        http(**policy(tmp_path, ASKS)) as server,
        person(server, "write") as writer,
        person(server, "approve") as approver,
    ):
        asked = await writer.post(UPDATE, PATCH, status=202)
        assert was_left_alone(sandbox)
        made = await approver.post(UPDATE, PATCH)

    assert asked["status"] == "proposed"
    assert made["status"] == "updated"
    watch.ended_with(watch.old | PATCH["merge_patch"])


async def test_whoever_may_approve_is_asked_by_a_rule_that_names_them(
    http: Serve, sandbox: Sandbox, tmp_path: Path
) -> None:
    rule = f'{ASKS}\nwho = ["approve"]'
    async with (
        http(**policy(tmp_path, rule)) as server,
        person(server, "approve") as one,
        person(server, "approve") as other,
    ):
        asked = await one.post(UPDATE, PATCH, status=202)
        own = await one.approve(asked["workflow_id"], status=403)
        assert was_left_alone(sandbox)
        made = await other.approve(asked["workflow_id"])

    assert "another person" in own["detail"]
    assert made["status"] == "updated"


async def test_a_request_without_a_version_is_pinned_to_what_was_judged(
    http: Serve, tmp_path: Path
) -> None:
    """And a repeated key finds its update."""
    rule = f'{ASKS}\npaths = ["/other"]'
    async with http(**policy(tmp_path, rule)) as server, person(server, "write") as writer:
        read = await writer.post("/state/get", {"connection_id": IDLE})
        made = await writer.post(UPDATE, PATCH, Idempotency_Key="mine")
        again = await writer.post(UPDATE, PATCH, Idempotency_Key="mine")
        other = await writer.post(
            UPDATE, PATCH | {"merge_patch": {"b": 1}}, status=422, Idempotency_Key="mine"
        )

    assert made["version_before"] == read["version"]
    assert again["workflow_id"] == made["workflow_id"] == f"{IDLE}:1"
    assert other["code"] == "idempotency_key_reused"


async def test_the_windows_count_when_it_is_approved(
    http: Serve, sandbox: Sandbox, tmp_path: Path
) -> None:
    rule = 'name = "office hours"\nwindows = ["{}"]'
    async with (
        http(**policy(tmp_path, rule.format(window(is_open=False)))) as server,
        person(server, "write") as writer,
        person(server, "approve") as approver,
    ):
        one = await writer.propose(IDLE, merge_patch=PATCH["merge_patch"])
        several = await writer.post(
            "/states/update",
            {
                "connection_ids": [IDLE, PAUSED],
                "merge_patch": PATCH["merge_patch"],
                "propose": True,
                "expected_version": "*",
            },
            status=202,
        )
        for proposal in (one, several["workflow_id"]):
            refused = await approver.approve(proposal, status=403)
            assert 'The rule "office hours"' in refused["detail"]
        assert was_left_alone(sandbox)
    async with (
        http(**policy(tmp_path, rule.format(window(is_open=True)))) as server,
        person(server, "approve") as approver,
    ):
        made = await approver.approve(one)

    assert made["status"] == "updated"


async def test_what_has_become_forbidden_is_not_approved(
    http: Serve, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with http(**policy(tmp_path, ASKS)) as server, person(server, "write") as writer:
        proposal = (await writer.post(UPDATE, PATCH, status=202))["workflow_id"]
    by_name = f'{FORBIDS}\nwho = ["{writer.name}"]'
    async with (
        http(**policy(tmp_path, by_name)) as server,
        person(server, "approve") as approver,
    ):
        refused = await approver.approve(proposal, status=403)
        waiting = await approver.get(f"/proposals/{proposal}")

    assert refused["code"] == "not_allowed"
    assert 'The rule "frozen" forbids to change /cursor.' in refused["detail"]
    assert waiting["status"] == "proposed"
    assert was_left_alone(sandbox)


async def test_a_group_is_proposed_and_approved_as_one(
    http: Serve, sandbox: Sandbox, tmp_path: Path
) -> None:
    body = {"connection_ids": [IDLE, PAUSED], "merge_patch": PATCH["merge_patch"]}
    async with (
        http(**policy(tmp_path, f'{ASKS}\nconnections = ["{IDLE}"]')) as server,
        person(server, "write") as writer,
        person(server, "approve") as approver,
    ):
        asked = await writer.post("/states/update", ANY | body, status=202, Idempotency_Key="mine")
        again = await writer.post("/states/update", ANY | body, status=202, Idempotency_Key="mine")
        assert was_left_alone(sandbox)
        made = await approver.approve(asked["workflow_id"])

    assert asked["workflow_id"] == again["workflow_id"]
    assert made["counts"] == {"updated": 2}


async def test_a_group_is_told_apart_by_its_name(
    http: Serve, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.add_group(sandbox.connection(IDLE).group_id, "Production")
    rule = f'{FORBIDS}\ngroups = ["production"]'
    async with http(**policy(tmp_path, rule)) as server, person(server, "write") as writer:
        refused = await writer.post(UPDATE, PATCH, status=403)

    assert refused["code"] == "not_allowed"
