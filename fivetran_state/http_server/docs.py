"""`/docs`: the REST routes to read and to try, under a policy that allows no other script.

Everything comes from this server and needs no token: a browser has no token until its user enters
one on this page, and the page contains only what is in this project's source.
"""

import base64
import hashlib
import re
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from fivetran_state.http_server.authority import Authority
from fivetran_state.http_server.gate import PAGE
from fivetran_state.http_server.problems import Problem, with_routes


def routes() -> list[BaseRoute]:
    """The page, and the files of Swagger UI that it loads."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Fivetran state",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    scripts = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{hash_}'" for hash_ in hashes)
    page.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self' {allowed}; style-src 'self' 'unsafe-inline'; "
        "img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    async def show(_: Request) -> Response:
        return page

    assets = StaticFiles(packages=[("fastapi_swagger", "resources")])
    return [Route(PAGE, show), Mount(PAGE, assets)]


def describe(app: FastAPI, authority: Authority) -> None:
    """Add the problems and the authentication to the OpenAPI document."""
    plain = app.openapi

    def complete() -> dict[str, Any]:
        described: dict[str, Any] = _with_routes(plain())
        components = described["components"]
        components["schemas"]["Problem"] = Problem.model_json_schema()
        components["securitySchemes"] = {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": (
                    "A token from `fivetran-state token create`, or from the OAuth issuer."
                ),
            }
        }
        return described | {"security": [{"token": []}] if authority.is_required() else []}

    app.openapi = complete  # type: ignore[method-assign]


def _with_routes(described: Any) -> Any:
    """The OpenAPI document. Descriptions of the models name routes in place of tools."""
    if isinstance(described, list):
        return [_with_routes(item) for item in described]
    if not isinstance(described, dict):
        return described
    return {
        name: with_routes(value)
        if name == "description" and isinstance(value, str)
        else _with_routes(value)
        for name, value in described.items()
    }
