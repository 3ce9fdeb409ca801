"""Files of policies."""

from datetime import datetime, timedelta, timezone
from pathlib import Path


def policy(directory: Path, *rules: str) -> dict[str, str]:
    """The environment of a server with these rules, each the lines after its `[[rule]]`."""
    path = directory / "policy.toml"
    path.write_text("".join(f"[[rule]]\n{rule}\n" for rule in rules))
    return {"FIVETRAN_STATE_POLICY": str(path)}


def window(*, is_open: bool) -> str:
    """A change window that is open now, or opens in three days; for longer than any test."""
    day = datetime.now(timezone.utc) + timedelta(days=0 if is_open else 3)
    names = [f"{day + timedelta(days=days):%a}" for days in (-1, 1)]
    return f"{'-'.join(names)} 00:00-24:00 UTC"
