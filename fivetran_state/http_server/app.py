"""The FastAPI application: its routes and mounts, and how it starts and stops."""

import logging
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.transport_security import TransportSecuritySettings
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fivetran_state import __version__, mcp_server
from fivetran_state.access import READ
from fivetran_state.config import WATCH_INTERVAL, Settings, is_loopback, listed
from fivetran_state.ending import heeds_hang_up
from fivetran_state.errors import FivetranStateError, InsufficientScope, InvalidRequest
from fivetran_state.http_server import docs, health, metrics, page, rest
from fivetran_state.http_server.authority import HEALTH, Authority
from fivetran_state.http_server.code_flow import CodeFlow
from fivetran_state.http_server.connections import BoundedProtocol, Listener
from fivetran_state.http_server.gate import Gate, requires
from fivetran_state.http_server.guard import REQUEST_ID, HostCheck, RequestLog, WholeBody
from fivetran_state.http_server.issuer_sign_in import IssuerSignIn
from fivetran_state.http_server.mcp_endpoint import FewSessions, WholeAnswers
from fivetran_state.http_server.negotiation import prefers_html
from fivetran_state.http_server.paths import METRICS
from fivetran_state.http_server.problems import problem_of, problem_of_http
from fivetran_state.http_server.sessions import Sessions
from fivetran_state.http_server.sign_in import SignIn
from fivetran_state.startup import Backend
from fivetran_state.validation import problems_of

logger = logging.getLogger(__name__)

MCP_PATH = "/mcp"
MCP_PATHS = (MCP_PATH, f"{MCP_PATH}/")
MAX_HEAD_BYTES = 32 * 1024
"""Maximum size of a request's head in bytes; a token with many groups takes several thousand."""
KEEP_ALIVE = 75
"""Seconds that an idle connection is kept. A load balancer must close its connections first:
otherwise it sends a request while we close the connection."""
SWITCH_INTERVAL = 0.0002
"""Seconds that a computing thread keeps the interpreter while others want it. With Python's default
of 5 ms, one large state delays each of a small update's many short turns by that time."""
SHUTDOWN_TIMEOUT = 5
"""Seconds that open connections get to end when the server stops."""


def build(settings: Settings, host: str = "127.0.0.1") -> FastAPI:
    """The application for these settings, to be bound to `host`; it serves one event loop.

    Raises `CannotServe` if other machines could reach it and neither tokens nor an issuer are set.
    """
    authority = Authority(settings, host)
    sessions = Sessions(settings, authority)
    prefix = urlsplit(settings.public_url or "").path.rstrip("/")
    pages = page.Pages(prefix)
    counted = metrics.Metrics()
    backend = Backend(
        settings,
        patience=settings.shutdown_wait,
        watch_interval=WATCH_INTERVAL,
        listeners=[counted],
    )
    mcp = mcp_server.build(settings, backend)
    mcp.streamable_http_app(  # Only its session manager is used.
        # `HostCheck` checks Host and Origin of every route.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with mcp.session_manager.run():  # This also runs the backend.
            yield

    app = FastAPI(
        title="Fivetran state",
        version=__version__,
        description="Reads and safely changes the state of Fivetran connections.",
        servers=[{"url": prefix or "/"}],
        lifespan=lifespan,
        # It would export a second span of each request, and the texts of exceptions.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        docs_url=None,
        redoc_url=None,
        # Redirects would name our own host, which is wrong behind a proxy.
        redirect_slashes=False,
        middleware=[
            Middleware(page.ProblemPages, pages=pages),
            Middleware(RequestLog, quiet=(*HEALTH, METRICS), metrics=counted),
            *_guards(settings, authority, sessions),
        ],
        exception_handlers=dict.fromkeys(
            (FivetranStateError, RequestValidationError, HTTPException), _refusal_by(authority)
        ),
    )
    app.state.backend, app.state.events, app.state.prefix = backend, backend.events, prefix
    app.state.pages, app.state.sessions, app.state.authority = pages, sessions, authority
    routers = [
        health.router(backend),
        metrics.router(backend, counted),
        rest.router(),
        page.router(),
        _front(),
    ]
    # `include_router` would build each of their routes a second time.
    app.router.routes.extend(route for router in routers for route in router.routes)
    sessions_of_mcp = FewSessions(mcp.session_manager.handle_request)
    counted.count_sessions(sessions_of_mcp.count)
    answers = WholeAnswers(sessions_of_mcp)
    endpoint = [Route(path, answers) for path in MCP_PATHS]
    signing_in, app.state.issuer_host = _signing_in(settings, authority, sessions, prefix)
    plain = [*docs.routes(app, pages), *signing_in, *authority.routes, *endpoint]
    counted.know_paths({route.path for route in plain if isinstance(route, Route)})
    app.router.routes.extend(plain)
    docs.describe(app, authority)
    return app


def _refusal_by(authority: Authority) -> Callable[[Request, Any], Coroutine[Any, Any, Response]]:
    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, InsufficientScope):
            return authority.insufficient_scope(error)
        if isinstance(error, FivetranStateError):
            return problem_of(error, is_conditional="If-Match" in request.headers)
        if isinstance(error, RequestValidationError):
            return problem_of(InvalidRequest(f"{problems_of(_named(error))}."))
        assert isinstance(error, HTTPException)
        return problem_of_http(error)

    return refuse


def _guards(settings: Settings, authority: Authority, sessions: Sessions) -> list[Middleware]:
    """What a request passes before its route, in this order."""
    return [
        Middleware(
            HostCheck,
            names=_names(settings),
            pages=_pages(settings),
            public=authority.public_paths,
            origins=settings.origins,
        ),
        *_cors(settings.origins),
        Middleware(
            Gate,
            authority=authority,
            sessions=sessions,
            per_minute=settings.rate_limit,
            bearer_only=MCP_PATHS,
        ),
        Middleware(AuthContextMiddleware),
        Middleware(WholeBody),
    ]


def _signing_in(
    settings: Settings, authority: Authority, sessions: Sessions, prefix: str
) -> tuple[list[Route], str | None]:
    """The routes by which people sign in, and the host of the issuer that they are sent to, if any."""
    routes = SignIn(sessions, authority, prefix).routes()
    if authority.issuer is None or settings.oauth_client_id is None:
        return routes, None
    flow = CodeFlow(authority.issuer, settings.oauth_client_id, settings)
    routes += IssuerSignIn(flow, sessions, authority, prefix, settings).routes()
    return routes, flow.issuer.host


def _cors(origins: re.Pattern[str] | None) -> list[Middleware]:
    """Middleware that lets pages of these origins read the answers in their browser."""
    if origins is None:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origin_regex=origins.pattern,
            allow_methods="*",
            allow_headers="*",
            allow_private_network=True,
            expose_headers=(
                "ETag",
                "Mcp-Session-Id",
                "WWW-Authenticate",
                "Retry-After",
                REQUEST_ID,
            ),
        )
    ]


def _front() -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/", dependencies=[requires(READ)])
    async def front(request: Request, pages: page.PagesOf) -> Response:
        if prefers_html(request.headers):
            backend: Backend = request.app.state.backend
            return await page.front(await backend.service(), pages)
        addresses = {
            "service": "fivetran-state",
            "version": __version__,
            "what": "Reads and safely changes the state of Fivetran connections.",
            "mcp": MCP_PATH,
            "rest": "/docs",
            "openapi": "/openapi.json",
            "health": "/healthz",
            "metrics": METRICS,
        }
        return JSONResponse(addresses, headers={"Vary": "Accept"})

    return routes


def _named(error: RequestValidationError) -> list[dict[str, Any]]:
    """The problems of a request, with the arguments' names as the caller knows them."""
    return [{**each, "loc": _name(*each["loc"])} for each in error.errors()]


def _name(place: str, *location: str | int) -> tuple[str | int, ...]:
    if not location:
        return (f"The {place}",)
    # Starlette has header names in lower case.
    return (str(location[0]).title(), *location[1:]) if place == "header" else location


def _names(settings: Settings) -> list[str]:
    """The host names, besides this machine's own, by which clients may address this server."""
    public = urlsplit(settings.public_url or "").hostname
    return [*([public] if public else []), *listed(settings.allowed_hosts)]


def _pages(settings: Settings) -> list[str]:
    """The hosts whose pages may call this server, besides its own."""
    public = urlsplit(settings.public_url or "")
    port = public.port or (443 if public.scheme == "https" else 80)
    own = [f"{public.hostname}:{port}"] if public.hostname else []
    return [*own, *listed(settings.allowed_hosts)]


def run(settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP. Port 0 takes a free port, which is logged."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    server, listener = bind(settings, host=host, port=port)
    # uvicorn ignores SIGHUP, so a closed terminal would end the updates too.
    if heeds_hang_up():
        signal.signal(signal.SIGHUP, server.handle_exit)
    server.run(sockets=[listener])


def bind(settings: Settings, *, host: str, port: int) -> tuple[uvicorn.Server, socket.socket]:
    """The server, and the socket that it must run with; raises `CannotServe`."""
    config = uvicorn.Config(
        build(settings, host),
        host=host,
        port=port,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # A proxy that may set a caller's address can get round the rate limit.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=listed(settings.trusted_proxies),
        http=BoundedProtocol,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
    )
    server = uvicorn.Server(config)
    listener = Listener(config.bind_socket(), server.server_state.connections)
    # uvicorn does not name the protocol. Without it, asyncio does not set TCP_NODELAY, and answers
    # are 40 ms late.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.listen(config.backlog)  # Listen before logging the port.
    if not is_loopback(host) and not _names(settings):
        logger.warning(
            "The server has no public name, so it answers only calls from this "
            "machine: set FIVETRAN_STATE_PUBLIC_URL or FIVETRAN_STATE_ALLOWED_HOSTS"
        )
    logger.info("Serving MCP and REST on http://%s:%d", host, listener.getsockname()[1])
    return server, listener
