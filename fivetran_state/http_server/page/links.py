"""The addresses of the pages, and of the REST routes that they link to."""

from dataclasses import dataclass
from urllib.parse import quote, urlencode


@dataclass(frozen=True)
class Links:
    """Addresses below `prefix`, the path of the public URL. Every id and value is quoted."""

    prefix: str

    def now(self) -> str:
        return self._to("/")

    def documentation(self) -> str:
        return self._to("/docs")

    def errors(self) -> str:
        return self._to("/docs/errors")

    def openapi(self) -> str:
        return self._to("/openapi.json")

    def asset(self, path: str, digest: str) -> str:
        return self._to(path, v=digest)

    def connections(self, **query: str | None) -> str:
        return self._to("/page/connections", **query)

    def connection(self, connection_id: str, **query: str | None) -> str:
        return self._to("/page/connections", connection_id, **query)

    def state(self, connection_id: str, **query: str | None) -> str:
        return self._to("/page/connections", connection_id, "state", **query)

    def compare(self, connection_id: str, **query: str | None) -> str:
        # `from` cannot be the name of an argument.
        query = {name.removesuffix("_"): value for name, value in query.items()}
        return self._to("/page/connections", connection_id, "compare", **query)

    def updates(self, **query: str | None) -> str:
        return self._to("/page/updates", **query)

    def update(self, workflow_id: str, **query: str | None) -> str:
        return self._to("/page/updates", workflow_id, **query)

    def proposals(self) -> str:
        return self._to("/page/proposals")

    def proposal(self, workflow_id: str, *action: str, **query: str | None) -> str:
        return self._to("/page/proposals", workflow_id, *action, **query)

    def workflow(self, workflow_id: str) -> str:
        """Of a proposal, an update or a group."""
        is_proposal = workflow_id.startswith("proposal:")
        return self.proposal(workflow_id) if is_proposal else self.update(workflow_id)

    def change(self, connection_id: str) -> str:
        return self._to("/page/connections", connection_id, "change")

    def plan(self, connection_id: str, **query: str | None) -> str:
        return self._to("/page/connections", connection_id, "plan", **query)

    def make(self, connection_id: str) -> str:
        return self._to("/page/connections", connection_id, "make")

    def cancel(self, workflow_id: str) -> str:
        return self._to("/page/updates", workflow_id, "cancel")

    def sign_in(self) -> str:
        return self._to("/sign-in")

    def sign_in_at_issuer(self) -> str:
        return self._to("/sign-in/issuer")

    def sign_out(self) -> str:
        return self._to("/sign-out")

    def events(self, workflow_id: str) -> str:
        return self._to("/page/updates", workflow_id, "events")

    def download(self, connection_id: str, **query: str | None) -> str:
        """REST's answer with the state, exactly and whole."""
        return self._to("/connections", connection_id, "state", **query)

    def _to(self, path: str, /, *parts: str, **query: str | None) -> str:
        address = "/".join([f"{self.prefix}{path}", *(quote(part, safe="") for part in parts)])
        given = {name: value for name, value in query.items() if value is not None}
        return f"{address}?{urlencode(given)}" if given else address
