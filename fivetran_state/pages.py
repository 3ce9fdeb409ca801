"""The public addresses of pages, for messages to people who are elsewhere."""

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class Pages:
    """Every address is None if the operator has not said where the HTTP server is."""

    public_url: str | None

    def proposal(self, workflow_id: str) -> str | None:
        return self._address("proposals", workflow_id)

    def update(self, workflow_id: str) -> str | None:
        return self._address("updates", workflow_id)

    def _address(self, kind: str, workflow_id: str) -> str | None:
        if self.public_url is None:
            return None
        return f"{self.public_url.rstrip('/')}/page/{kind}/{quote(workflow_id, safe='')}"
