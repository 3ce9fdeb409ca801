"""What updates are compared with: a tool as one writes it first, on DBOS as it is installed.

    python -m benchmarks.original STATE CONNECTION ...

One workflow of five steps: read the state, pause, write the state, read it again, resume. It gives
the connections this state, one after the other, and prints the seconds that all of them took. Nothing is planned,
nobody is asked, and no sync is waited for. The database is a SQLite file in the current directory.
"""

import json
import os
import sys
import time
from typing import Any

import httpx
from dbos import DBOS

http = httpx.Client(
    base_url=os.environ["FIVETRAN_API_URL"],
    auth=(os.environ["FIVETRAN_API_KEY"], os.environ["FIVETRAN_API_SECRET"]),
    headers={"Accept": "application/json"},
)


@DBOS.step()
def read_state(connection_id: str) -> Any:
    answer = http.get(f"/v1/connections/{connection_id}/state").raise_for_status()
    return answer.json()["data"]["state"]


@DBOS.step()
def set_paused(connection_id: str, paused: bool) -> None:
    body = {"paused": paused, "run_setup_tests": False}
    http.patch(f"/v1/connections/{connection_id}", json=body).raise_for_status()


@DBOS.step()
def write_state(connection_id: str, state: Any) -> None:
    body = {"state": state}
    http.patch(f"/v1/connections/{connection_id}/state", json=body).raise_for_status()


@DBOS.workflow()
def update_state(connection_id: str, new_state: Any) -> dict[str, Any]:
    before = read_state(connection_id)
    set_paused(connection_id, True)
    write_state(connection_id, new_state)
    after = read_state(connection_id)
    set_paused(connection_id, False)
    return {"before": before, "after": after, "verified": after == new_state}


def main() -> None:
    new_state, *connection_ids = sys.argv[1:]
    DBOS(config={"name": "original", "log_level": "ERROR"})
    DBOS.launch()
    start = time.perf_counter()
    for connection_id in connection_ids:
        assert update_state(connection_id, json.loads(new_state))["verified"]
    print(time.perf_counter() - start)
    DBOS.destroy()


if __name__ == "__main__":
    main()
