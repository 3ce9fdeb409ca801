"""A program with the Python client that is generated from the OpenAPI document.

Arguments: the server's address and a connection. It changes the state, follows the update to its
end, and prints the status and the new state. It runs in an environment of its own, beside the
generated package.
"""

import json
import sys
from http import HTTPStatus

from fivetran_state_client import Client  # type: ignore[import-not-found]
from fivetran_state_client.api.state import (  # type: ignore[import-not-found]
    get_connection_state,
    update_state,
)
from fivetran_state_client.api.workflows import get_workflow  # type: ignore[import-not-found]
from fivetran_state_client.models import (  # type: ignore[import-not-found]
    Problem,
    StateView,
    Update,
    UpdateState,
    WorkflowView,
)


def main(url: str, connection_id: str) -> None:
    change = {"connection_id": connection_id, "merge_patch": {"cursor": "2020"}}
    with Client(base_url=url) as client:
        state = get_connection_state.sync(connection_id, client=client)
        assert isinstance(state, StateView)
        body = UpdateState.from_dict(change | {"expected_version": "0" * 32})
        refused = update_state.sync_detailed(client=client, body=body)
        assert refused.status_code == HTTPStatus.CONFLICT
        assert isinstance(refused.parsed, Problem)
        assert refused.parsed.code == "conflict"
        body = UpdateState.from_dict(change | {"expected_version": state.version})
        begun = update_state.sync(client=client, body=body, prefer="respond-async")
        assert isinstance(begun, Update)
        ended = get_workflow.sync(begun.workflow_id, client=client, wait=50)
        assert isinstance(ended, WorkflowView)
        after = get_connection_state.sync(connection_id, client=client)
        assert isinstance(after, StateView)
    sys.stdout.write(json.dumps([ended.status, after.to_dict()["state"]]))


if __name__ == "__main__":
    main(*sys.argv[1:])
