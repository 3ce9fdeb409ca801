"""The examples of answers in the OpenAPI document, as a server gives them.

`python -m tests.examples` writes them again.
"""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fivetran_state import state
from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, PAUSED, until
from tests.support.http_server import WRONG_TOKEN, HttpServer, authorization
from tests.support.people import Person, person
from tests.support.rest import ANY

ONE = ANY | {"connection_id": IDLE}
BOTH = ANY | {"connection_ids": [IDLE, PAUSED]}
OTHER = "twin_harvest"
CHANGE = "/state/update"
CHANGE_MULTIPLE = "/state/update-multiple"
CHANGE_MANY = "/states/update"
AT_ONCE = {"Prefer": "respond-async"}

Answers = dict[str, dict[str, Any]]
"""The answer of each operation by status; under `problems`, a problem of each status."""


async def recorded(server: HttpServer, sandbox: Sandbox) -> Answers:
    """The answers of a new server."""
    for connection_id in (IDLE, PAUSED):
        sandbox.set_state(connection_id, '{"cursor":"2026-11-25T20:20:20Z"}')
    async with person(server, "write") as asker, person(server, "approve") as approver:
        recorder = _Recorder(sandbox, asker, approver)
        await recorder.reads()
        await recorder.cancels()
        await recorder.changes_one()
        await recorder.changes_several()
        await recorder.proposes()
        await recorder.is_refused()
    return recorder.answers


def _to(day: str) -> dict[str, Any]:
    return {"merge_patch": {"cursor": f"{day}T00:00:00Z"}}


class _Recorder:
    """Calls the operations, and keeps their answers."""

    def __init__(self, sandbox: Sandbox, asker: Person, approver: Person) -> None:
        self.answers: Answers = {}
        self._sandbox = sandbox
        self._asker = asker
        self._approver = approver

    async def reads(self) -> None:
        await self._get("list_connections", "/connections", name="payments")
        await self._post("get_state", "/state/get", {"connection_id": IDLE})
        await self._post("get_states", "/state/get-multiple", {"connection_ids": [IDLE, "unknown"]})
        await self._get("get_connection_state", f"/connections/{IDLE}/state")

    async def cancels(self) -> None:
        change = ONE | {"connection_id": OTHER} | _to("2026-01-01")
        async with self._running("update_state", CHANGE, change, f"/{OTHER}$") as update:
            cancel = f"/workflows/{update}/cancel"
            await self._post("cancel_workflow", cancel, status=202, **AT_ONCE)
        await self._post("cancel_workflow", cancel)

    async def changes_one(self) -> None:
        version = (await self._asker.get(f"/connections/{IDLE}/state"))["version"]
        named = {"expected_version": version, "reason": "A bad deploy on Monday."}
        made = await self._post("update_state", CHANGE, ONE | _to("2026-01-01") | named)
        await self._get("get_workflow", f"/workflows/{made['workflow_id']}")
        await self._get("list_workflows", "/workflows", connection_id=IDLE)
        since = {"from": version}
        await self._get("get_state_difference", f"/connections/{IDLE}/diff", **since)

        async def is_remembered() -> bool:
            history = f"/connections/{IDLE}/history"
            page = await self._get("get_state_history", history)
            return made["version_after"] in [each.get("version") for each in page["entries"]]

        await until(is_remembered)

    async def changes_several(self) -> None:
        kind = "update_multiple_states"
        async with self._running(kind, CHANGE_MULTIPLE, BOTH | _to("2026-02-01"), "/state$", 2):
            pass
        await self._post(kind, CHANGE_MULTIPLE, BOTH | _to("2026-03-01"))
        plan = {"dry_run": True} | _to("2026-04-01")
        await self._post("update_states", CHANGE_MANY, BOTH | plan)

    async def proposes(self) -> None:
        proposal = await self._asker.propose(IDLE, **_to("2026-04-01"), reason="As of April.")
        await self._get("list_proposals", "/proposals")
        await self._get("get_proposal", f"/proposals/{proposal}")
        version = {"expected_version": await self._approver.version_of(proposal)}
        async with self._running("approve_proposal", f"/proposals/{proposal}/approve", version):
            pass
        await self._post("approve_proposal", f"/proposals/{proposal}/approve", version)
        proposal = await self._asker.propose(IDLE, **_to("2026-05-01"))
        why = {"reason": "Wait for the backfill of orders."}
        await self._post("reject_proposal", f"/proposals/{proposal}/reject", why)
        many = {"propose": True} | _to("2026-05-01")
        asked = await self._post("update_states", CHANGE_MANY, BOTH | many, status=202)
        await self._post("withdraw_proposal", f"/proposals/{asked['workflow_id']}/withdraw")

    async def is_refused(self) -> None:
        moved = ONE | _to("2026-06-01") | {"expected_version": "0" * 32}
        await self._problem(400, CHANGE, moved, If_Match="no entity tag")
        await self._problem(401, CHANGE, moved, **authorization(WRONG_TOKEN))
        await self._problem(403, "/proposals/proposal:1/approve", {})
        await self._problem(404, "/state/get", {"connection_id": "unknown"})
        await self._problem(409, CHANGE, moved)
        await self._problem(412, CHANGE, moved, If_Match=f'"{"0" * 32}"')
        await self._problem(415, CHANGE, moved, Content_Type="text/plain")
        await self._problem(421, CHANGE, moved, Host="elsewhere.example.com")
        await self._problem(422, CHANGE, ONE)
        await self._problem(428, CHANGE, {"connection_id": IDLE} | _to("2026-06-01"))

    def _keep(self, operation: str, status: int, answer: dict[str, Any]) -> dict[str, Any]:
        self.answers.setdefault(operation, {})[str(status)] = state.plain(answer)
        return answer

    async def _get(self, operation: str, path: str, **query: Any) -> dict[str, Any]:
        return self._keep(operation, 200, await self._asker.get(path, **query))

    async def _post(
        self, operation: str, path: str, body: Any = None, status: int = 200, **headers: str
    ) -> dict[str, Any]:
        decides = operation in ("approve_proposal", "reject_proposal")
        caller = self._approver if decides else self._asker
        answer = await caller.post(path, body, status=status, **headers)
        return self._keep(operation, status, answer)

    async def _problem(self, status: int, path: str, body: Any, **headers: str) -> None:
        self._keep("problems", status, await self._asker.post(path, body, status=status, **headers))

    @asynccontextmanager
    async def _running(
        self, operation: str, path: str, body: Any, at: str = f"/{IDLE}$", times: int = 1
    ) -> AsyncIterator[str]:
        """Keeps the answer while the change runs; within the block, Fivetran does not answer `at`."""
        since = len(self._sandbox.log)
        held = self._sandbox.fault("hang", method="PATCH", path=at, times=times)
        await self._post(operation, path, body, 202, **AT_ONCE)

        async def has_come() -> bool:
            return [each.fault for each in self._sandbox.log[since:]].count("hang") == times

        await until(has_come)
        running = await self._post(operation, path, body, 202, **AT_ONCE)
        yield running["workflow_id"]
        held.release()
        await self._asker.get(f"/workflows/{running['workflow_id']}", wait=60)


_VARIES = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"\b[0-9a-f]{8,}\b", "HEX"),
]


def blurred(answers: Answers) -> Any:
    """The answers without what differs from one server to the next: times, ids, versions, seconds."""
    text = json.dumps(answers)
    for pattern, name in _VARIES:
        text = re.sub(pattern, name, text)
    return json.loads(text, parse_float=lambda _: 0.5)
