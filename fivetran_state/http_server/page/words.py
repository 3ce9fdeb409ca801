"""The phases in which an update waits, and the words of the page for what tools are named for."""

import re

from fivetran_state.http_server.problems import ROUTES

WAITING = ("drain", "hold", "wait")
"""Phases in which an update waits for something."""

_PLACES = {
    "list_connections": "the page Connections",
    "get_state": "the page of the state",
    "workflow_status": "the update's page",
    "state_history": "the connection's time line",
}
_NAMES = {ROUTES[tool]: place for tool, place in _PLACES.items()} | _PLACES
_NAME = re.compile("|".join(re.escape(name) for name in _NAMES))
# A message may also quote external text, such as a path or a connection's id.
_NAME_IN_MESSAGE = re.compile(rf"(?<= with )({_NAME.pattern})(?=[ .,;])")
_FOLLOW = " Follow it with workflow_status."


def message(text: str) -> str:
    """A message of the service. It names pages in place of tools and routes."""
    return _NAME_IN_MESSAGE.sub(lambda found: _NAMES[found[0]], text.replace(_FOLLOW, "", 1))


def hint(text: str) -> str:
    """A hint, which quotes nothing. It names pages in place of tools and routes."""
    return _NAME.sub(lambda found: _NAMES[found[0]], text)
