"""Two servers on one Postgres, behind a load balancer: which requests need the same server."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from mcp import MCPError
from mcp.client.context import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

from benchmarks.balancer import Balancer
from fivetran_state.sandbox import Sandbox
from tests.support.calls import (
    IDLE,
    SYNCING,
    Watch,
    arrival,
    call,
    is_pause,
    sync_runs_on,
    version_of,
)
from tests.support.http_server import ForkedServer, http_forked, mcp_client
from tests.support.rest import ANY
from tests.support.tasks import FollowsTasks, ask, ended_task, task_of

CURSOR = {"cursor": "2026-02-02T00:00:00Z"}
NAMES = {"one", "two"}


@dataclass(frozen=True)
class Balanced:
    """The servers by name, and the balancer in front of them."""

    url: str
    balancer: Balancer
    servers: dict[str, ForkedServer]

    def served_since(self, start: int) -> set[str]:
        return set(self.balancer.served[start:])


@asynccontextmanager
async def balanced(environment: dict[str, str], folder: Path) -> AsyncIterator[Balanced]:
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(http_forked(environment, folder))
            for name in sorted(NAMES)
        }
        balancer = Balancer(
            {name: str(server.client.base_url).rstrip("/") for name, server in servers.items()}
        )
        url = await stack.enter_async_context(balancer.running())
        yield Balanced(url, balancer, servers)


async def accept(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    return ElicitResult(action="accept", content={})


@pytest.mark.slow
async def test_a_client_of_2026_may_meet_another_server_with_each_request(
    on_postgres: dict[str, str], tmp_path: Path, sandbox: Sandbox
) -> None:
    sync_runs_on(sandbox)
    idle, syncing = Watch(sandbox, IDLE), Watch(sandbox, SYNCING)
    async with balanced(on_postgres, tmp_path) as both:
        async with mcp_client(both.url, ask=accept) as client:
            version = await version_of(client, IDLE)
            asked = len(both.balancer.served)
            confirmed = await call(
                client,
                "update_state",
                connection_id=IDLE,
                new_state=CURSOR,
                expected_version=version,
                wait_seconds=50,
            )
            # One server asked the question; the other got the answer.
            assert both.served_since(asked) == NAMES
        async with mcp_client(both.url, extensions=[FollowsTasks()]) as client:
            version = await version_of(client, SYNCING)
            task = await task_of(
                client,
                connection_id=SYNCING,
                new_state=CURSOR,
                expected_version=version,
            )
            made = len(both.balancer.served)
            seen = [await ask(client, "tasks/get", task["taskId"]) for _ in NAMES]
            assert both.served_since(made) == NAMES
            sandbox.finish_sync(SYNCING)
            ended = await ended_task(client, task["taskId"])

    assert confirmed["status"] == "updated"
    assert [each["status"] for each in seen] == ["working", "working"]
    assert ended["result"]["structuredContent"]["status"] == "updated"
    idle.ended_with(CURSOR)
    syncing.ended_with(CURSOR)


@pytest.mark.slow
async def test_rest_may_meet_another_server_with_each_request(
    on_postgres: dict[str, str], tmp_path: Path, sandbox: Sandbox
) -> None:
    sync_runs_on(sandbox)
    watch = Watch(sandbox, SYNCING)
    async with (
        balanced(on_postgres, tmp_path) as both,
        httpx.AsyncClient(base_url=both.url, timeout=60) as client,
    ):
        body = {"connection_id": SYNCING, "new_state": CURSOR}
        headers = {"Idempotency-Key": "once", "Prefer": "respond-async"}
        started = await client.post("/state/update", json=ANY | body, headers=headers)
        again = await client.post("/state/update", json=ANY | body, headers=headers)
        cancelled = await client.post(f"{started.headers['Location']}/cancel", json={})
        ended = [(await client.get(started.headers["Location"])).json() for _ in NAMES]
        assert both.balancer.served == ["one", "two"] * 2 + ["one"]

    assert (started.status_code, again.status_code) == (202, 202)
    assert again.json()["workflow_id"] == started.json()["workflow_id"]
    assert cancelled.json()["status"] == "cancelled"
    assert [each["status"] for each in ended] == ["cancelled", "cancelled"]
    watch.ended_with(watch.old)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Connections whose other end was killed.
async def test_a_session_of_before_2026_stays_with_its_server_and_a_new_one_goes_on_after_its_death(
    on_postgres: dict[str, str], tmp_path: Path, sandbox: Sandbox
) -> None:
    sync_runs_on(sandbox)
    watch = Watch(sandbox, SYNCING)
    async with balanced(on_postgres, tmp_path) as both:
        async with mcp_client(both.url, "legacy", ask=accept) as client:
            version = await version_of(client, SYNCING)
            (name,) = both.served_since(0)
            started = await call(
                client,
                "update_state",
                connection_id=SYNCING,
                new_state=CURSOR,
                expected_version=version,
                wait_seconds=0,
            )
            assert both.served_since(0) == {name}
            await arrival(sandbox, lambda each: is_pause(each) and each.applied)
            await both.servers[name].kill()
            with pytest.raises(MCPError):
                await version_of(client, SYNCING)
        sandbox.finish_sync(SYNCING)
        async with mcp_client(both.url, "legacy") as client:
            ended = await call(
                client, "workflow_status", workflow_id=started["workflow_id"], wait_seconds=50
            )
        assert both.balancer.served[-1] in NAMES - {name}

    assert ended["status"] == "updated"
    watch.ended_with(CURSOR)
