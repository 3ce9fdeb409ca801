"""The answers of routes, with exact numbers."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response

from fivetran_state import large, state
from fivetran_state.http_server.problems import described, for_rest
from fivetran_state.http_server.rest.requests import Preference, entity_tag, is_known
from fivetran_state.models import Model, Update, UpdatesView


async def text_of(model: Model) -> str:
    values = for_rest(model.to_json(exactly=True))
    return await large.run(state.dump, values)


async def answer_unless_known(
    model: Model, version: str | None, if_none_match: str | None
) -> Response:
    """The answer with this version as ETag, without a body if If-None-Match names it."""
    if version is None:
        return await answer(model)
    tag = entity_tag(version)
    if is_known(version, if_none_match):
        return Response(status_code=304, headers={"ETag": tag})
    return await answer(model, ETag=tag)


async def answer(
    content: Model | Mapping[str, Model],
    prefer: Preference | None = None,
    status: int = 200,
    **headers: str,
) -> Response:
    if prefer is not None and prefer.applied:
        headers["Preference-Applied"] = prefer.applied
    if isinstance(content, Model):
        text = await text_of(content)
    else:
        values = {name: for_rest(view.to_json(exactly=True)) for name, view in content.items()}
        text = await large.run(state.dump, values)
    return Response(text, status, media_type="application/json", headers=headers)


async def running(update: Update | UpdatesView, prefer: Preference, request: Request) -> Response:
    """The answer while the update runs, or waits for approval, with where to follow it."""
    location = f"{request.app.state.prefix}/workflows/{update.workflow_id}"
    return await answer(update, prefer, 202, Location=location)


def ok(model: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model}}


def ok_or_known(model: Any, thing: str) -> dict[int | str, dict[str, Any]]:
    """The answer with a `thing` that has a version, or without it if the caller has it."""
    headers = described(ETag=f"The version of the {thing}, in double quotes.")
    return {
        200: {"model": model, "headers": headers},
        304: {"description": f"The {thing} is still the one of If-None-Match.", "headers": headers},
    }


def accepted(model: Any) -> dict[int | str, dict[str, Any]]:
    headers = described(
        Location="The URL at which to follow the update.",
        **{"Preference-Applied": "The parts of Prefer that were honoured."},
    )
    return {
        202: {"model": model, "description": "The update goes on by itself.", "headers": headers}
    }
