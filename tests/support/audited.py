"""The events that servers have written to an audit file."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

AUDIT_FILE = "FIVETRAN_STATE_AUDIT_FILE"


def events_in(path: Path) -> list[dict[str, Any]]:
    """Every event, in the order of the file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def names_in(path: Path, workflow_id: str | None = None) -> list[str]:
    """The names of the events: all, or those of one workflow."""
    return [
        event["event"]
        for event in events_in(path)
        if workflow_id in (None, event.get("workflow_id"))
    ]


def told_twice_as_new(path: Path) -> dict[tuple[str, str], int]:
    """Events of workflows, by name and id, that were told more than once without `replayed`."""
    new = [
        (event["event"], event["workflow_id"])
        for event in events_in(path)
        if not event.get("replayed")
    ]
    return {event: count for event, count in Counter(new).items() if count > 1}
