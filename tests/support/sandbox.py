"""Requests to the sandbox, as httpx makes them."""

from typing import Any

import httpx

from fivetran_state.sandbox.server import SandboxServer

HEADERS = {"Accept": "application/json;version=2"}
JSON = {"Content-Type": "application/json"}
CONNECTION = "/v1/connections/bold_heron"
STATE = f"{CONNECTION}/state"
PAUSE = {"paused": True, "run_setup_tests": False}
EXACT = '{"big":9007199254740993,"price":1.10,"far":1e400,"zero":-0,"pi":3.14159265358979323846264}'


def a_client(server: SandboxServer) -> httpx.Client:
    auth = ("sandbox", "sandbox")
    return httpx.Client(base_url=server.url, auth=auth, headers=HEADERS, timeout=10)


def details(client: httpx.Client, connection_id: str = "bold_heron") -> Any:
    return client.get(f"/v1/connections/{connection_id}").json()["data"]


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert response.json()["message"]
    return response.status_code, response.json()["code"]
