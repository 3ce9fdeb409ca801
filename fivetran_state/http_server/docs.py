"""`/docs`: the REST routes to look at and to try, under a policy that lets nothing else run."""

import base64
import hashlib
import re

from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html

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
