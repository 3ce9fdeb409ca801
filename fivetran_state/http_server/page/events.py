"""An update's progress as server-sent events, until its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from fivetran_state.errors import FivetranStateError
from fivetran_state.models import UpdatesView, WorkflowView
from fivetran_state.service import Service

HEARTBEAT = 15.0
"""Seconds after which a silent stream sends a comment, so that proxies keep it open."""
FOR_EVER = 24 * 3600.0

View = TypeVar("View", WorkflowView, UpdatesView)
OnNews = Callable[[Any], Awaitable[None]]


async def stream(
    service: Service,
    workflow_id: str,
    rendered: Callable[[WorkflowView | UpdatesView], str],
) -> AsyncIterator[str]:
    """An event `progress` with HTML at each change, and `end` once the update has ended.

    If the database does not answer, the stream ends without `end`, and the browser connects again.
    """
    news = asyncio.Event()

    async def tell(_: object) -> None:
        news.set()

    following = asyncio.create_task(_follow(service, workflow_id, tell))
    try:
        with suppress(FivetranStateError):
            sent = None
            while True:
                news.clear()
                view = await service.by_id.status(workflow_id)
                text = rendered(view)
                yield ": still running\n\n" if text == sent else _event("progress", text)
                sent = text
                if view.status != "running":
                    yield _event("end", view.status)
                    return
                if following.done():
                    return
                await _either(following, news)
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError, FivetranStateError):
            await following


async def _follow(service: Service, workflow_id: str, tell: OnNews) -> None:
    await service.by_id.status(workflow_id, wait_seconds=FOR_EVER, on_progress=tell, on_look=tell)


async def _either(following: "asyncio.Task[None]", news: asyncio.Event) -> None:
    """Wait for the end, for news, or for the time of a heartbeat."""
    told = asyncio.ensure_future(news.wait())
    try:
        await asyncio.wait(
            {following, told}, timeout=HEARTBEAT, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        told.cancel()


def _event(name: str, text: str) -> str:
    lines = "".join(f"data: {line}\n" for line in text.splitlines() if line)
    return f"event: {name}\n{lines}\n"
