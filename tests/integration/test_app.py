"""The MCP App as a client sees it."""

import json
from typing import Any

import pytest
from mcp.client.extension import ClientExtension, advertise
from mcp_types import TextResourceContents

from tests.conftest import ERAS, Connect
from tests.support.calls import IDLE

URI = "ui://fivetran-state/app"
MIME_TYPE = "text/html;profile=mcp-app"
EXTENSION = "io.modelcontextprotocol/ui"


def shows(*mime_types: str) -> ClientExtension:
    return advertise(EXTENSION, {"mimeTypes": list(mime_types)})


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("extensions", [[], [shows(MIME_TYPE)]], ids=["silent", "declared"])
async def test_the_tools_whose_results_it_shows_name_it_to_every_client(
    connect: Connect, era: str, extensions: list[ClientExtension]
) -> None:
    """Hosts need not declare that they show Apps: the specification's own example does not."""
    async with connect(era, extensions=extensions) as client:
        tools = (await client.list_tools()).tools
        resources = (await client.list_resources()).resources

    assert {tool.name: tool.meta for tool in tools if tool.meta} == {
        name: {"ui": {"resourceUri": URI}}
        for name in ("update_state", "update_states", "workflow_status", "state_history")
    }
    assert [(each.uri, each.mime_type) for each in resources] == [(URI, MIME_TYPE)]


@pytest.mark.parametrize("era", ERAS)
async def test_the_document_names_no_domain_and_allows_only_its_own_script(
    connect: Connect, era: str
) -> None:
    async with connect(era, extensions=[shows(MIME_TYPE)]) as client:
        (document,) = (await client.read_resource(URI)).contents

    assert document.mime_type == MIME_TYPE
    assert document.meta == {"ui": {"csp": {"connectDomains": [], "resourceDomains": []}}}
    assert isinstance(document, TextResourceContents)
    assert "default-src &#39;none&#39;; script-src &#39;sha256-" in document.text
    assert "http://" not in document.text
    assert "https://" not in document.text


CALLS: dict[str, dict[str, Any]] = {
    "update_state": {"connection_id": IDLE, "merge_patch": {"a": 1}, "dry_run": True},
    "state_history": {"connection_id": IDLE, "until": "2020-01-01T00:00:00Z"},
    "workflow_status": {"workflow_id": f"{IDLE}:1"},
}


@pytest.mark.parametrize("tool", CALLS)
async def test_the_result_says_the_same_in_text_with_it_and_without(
    connect: Connect, tool: str
) -> None:
    results = []
    for extensions in ([], [shows(MIME_TYPE)]):
        async with connect(extensions=extensions) as client:
            results.append(await client.call_tool(tool, CALLS[tool]))

    without, with_it = results
    assert without.content == with_it.content
    assert without.structured_content == with_it.structured_content
    (text,) = with_it.content
    assert text.type == "text"
    assert with_it.is_error or json.loads(text.text) == with_it.structured_content
