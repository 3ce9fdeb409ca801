"""The page: what the service knows, for people with a browser, to read and to act on."""

from fivetran_state.http_server.page.asked import PagesOf
from fivetran_state.http_server.page.problems import ProblemPages
from fivetran_state.http_server.page.rendering import Pages
from fivetran_state.http_server.page.routes import front, router

__all__ = ["Pages", "PagesOf", "ProblemPages", "front", "router"]
