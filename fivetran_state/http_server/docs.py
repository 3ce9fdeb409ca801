"""`/docs`: the REST routes to look at and to try, under a policy that lets nothing else run."""

import base64
import hashlib
import re
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html

from fivetran_state.http_server.gate import Authority
from fivetran_state.http_server.problems import Problem

_SOURCE = "https://cdn.jsdelivr.net"


def router() -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    page = get_swagger_ui_html(
        openapi_url="openapi.json", title="Fivetran state", swagger_favicon_url="data:,"
    )
    scripts = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{hash_}'" for hash_ in hashes)
    page.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src {_SOURCE} {allowed}; "
        f"style-src {_SOURCE} 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @routes.get("/docs")
    async def docs() -> Response:
        return page

    return routes


def describe(app: FastAPI, authority: Authority) -> None:
    """Complete the OpenAPI document: what problems look like, and whether tokens are asked for."""
    plain = app.openapi

    def complete() -> dict[str, Any]:
        described = plain()
        components = described["components"]
        components["schemas"]["Problem"] = Problem.model_json_schema()
        components["securitySchemes"] = {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "Of `fivetran-state token create`, or of the OAuth issuer.",
            }
        }
        return described | {"security": [{"token": []}] if authority.is_required() else []}

    app.openapi = complete  # type: ignore[method-assign]
