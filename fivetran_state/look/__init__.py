"""What the page and the MCP App share: the stylesheet, the templates of changes and errors, and words.

The templates are in `templates`, for jinja2's `PackageLoader`.
"""

from importlib import resources

STEPS = {
    "inspect": "Look at the connection and its state",
    "pause": "Pause the connection",
    "drain": "Wait until the running sync has ended",
    "snapshot": "Keep the state as it is",
    "write": "Write the new state",
    "verify": "Read the state back",
    "hold": "Wait for the other connections of the group",
    "roll_back": "Put the old state back",
    "undo": "Put the old state back with the group",
    "resume": "Resume the connection",
    "sync": "Start a sync",
    "wait": "Wait before trying again",
}
"""By name of a phase or a step."""

KINDS = {
    "sync": "a sync",
    "update": "an update",
    "others": "somebody else",
    "first look": "unknown: first look",
}
"""What moved a state, by `HistoryKind`."""


def style() -> bytes:
    """The stylesheet. Its colours go by the element's `color-scheme`."""
    return (resources.files(__package__) / "style.css").read_bytes()
