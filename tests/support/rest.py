"""Requests by REST."""

from typing import Any

import httpx

from fivetran_state import state

ANY = {"expected_version": "*"}
"""For a change that is for whatever version is there."""


async def post(
    client: httpx.AsyncClient, path: str, body: Any, *, status: int = 200, **headers: str
) -> dict[str, Any]:
    """The answer, with exact numbers; a text body is sent unchanged."""
    content = body if isinstance(body, str) else state.dump(state.adopt(body))
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.post(
        path, content=content, headers={"Content-Type": "application/json"} | names
    )
    return parsed(answer, status)


async def get(
    client: httpx.AsyncClient, path: str, *, status: int = 200, **query: Any
) -> dict[str, Any]:
    """The answer, with exact numbers."""
    return parsed(await client.get(path, params=query), status)


def parsed(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The body of an answer with that status; for an error, a problem."""
    assert answer.status_code == status, answer.text
    kind = "application/json" if status < 400 else "application/problem+json"
    assert answer.headers["Content-Type"] == kind
    found = state.parse(answer.content)
    if status >= 400:
        assert (found["status"], bool(found["code"] and found["detail"])) == (status, True)
    return found
