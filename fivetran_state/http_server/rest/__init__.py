"""REST, for programs: the service's capabilities as routes, with exact numbers both ways."""

from fivetran_state.http_server.rest.routes import router

__all__ = ["router"]
