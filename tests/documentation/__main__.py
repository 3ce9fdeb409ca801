"""Plays the sessions of pages and writes down what their commands show: `python -m tests.documentation [PAGE …]`.

A page needs only the commands, the prompts and the answers. Blocks with `…` are printed, not written.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.documentation import sessions
from tests.documentation.pages import DOCS, Block, blocks_of, name_of, text_of
from tests.documentation.situations import begin
from tests.support.calls import API_KEY, API_SECRET, ROOT


def write(page: Path) -> None:
    """Replaces what the page shows by what its commands show now."""
    blocks = [block for block in blocks_of(page) if block.language == sessions.LANGUAGE]
    if not blocks:
        return
    sandbox = Sandbox(api_key=API_KEY, api_secret=API_SECRET)
    with tempfile.TemporaryDirectory() as temporary, SandboxServer(sandbox) as fivetran:
        folder = Path(temporary)
        environment = {
            "FIVETRAN_API_KEY": API_KEY,
            "FIVETRAN_API_SECRET": API_SECRET,
            "FIVETRAN_API_URL": fivetran.url,
            "FIVETRAN_STATE_DATA_DIR": str(folder / "data"),
            "FIVETRAN_STATE_WATCH_INTERVAL": "0",
        }
        begin(name_of(page), sandbox, environment, folder)
        text = text_of(page)
        ids: dict[str, str] = {}
        for block in blocks:
            text = text.replace(block.text, _played(block, environment, folder, ids))
    sandbox.close()
    page.write_text(text, encoding="utf-8")


def _played(block: Block, environment: dict[str, str], folder: Path, ids: dict[str, str]) -> str:
    lines = []
    for exchange in sessions.exchanges(block.text):
        command = sessions.with_ids(exchange.command, ids)
        shown = sessions.play(replace(exchange, command=command), environment, folder)
        ids |= sessions.renamed(exchange.shown, shown)
        lines += [f"$ {command}", *shown]
    written = "".join(f"{line}\n" for line in lines)
    if "…" in block.text:
        print(f"{block}\n{written}")  # noqa: T201
        return block.text
    return written


for each in [ROOT / name for name in sys.argv[1:]] or DOCS:
    write(each)
