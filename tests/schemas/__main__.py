"""Writes the tools' schemas again."""

import json

import anyio
from mcp import Client

from fivetran_state.config import Settings
from fivetran_state.mcp_server import build
from tests.schemas import FOLDER, listed


async def main() -> None:
    async with Client(build(Settings())) as client:
        tools = await listed(client)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for name, tool in tools.items():
        text = json.dumps(tool, indent=2, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(f"{text}\n")


anyio.run(main)
