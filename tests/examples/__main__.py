"""Writes the examples of answers again."""

import json
import os
from tempfile import TemporaryDirectory

import anyio

from fivetran_state import http_server
from fivetran_state.http_server.docs import EXAMPLES
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from fivetran_state.startup import read_settings
from tests.examples import Answers, recorded
from tests.support.calls import API_KEY, API_SECRET
from tests.support.http_server import HttpServer


async def record(sandbox: Sandbox) -> Answers:
    settings = read_settings(False, False)
    server, listener = http_server.bind(settings, host="127.0.0.1", port=0)
    async with HttpServer(settings, server, listener).running() as running:
        return await recorded(running, sandbox)


def main() -> None:
    sandbox = Sandbox(api_key=API_KEY, api_secret=API_SECRET)
    with TemporaryDirectory() as folder, SandboxServer(sandbox) as fivetran:
        os.environ |= {
            "FIVETRAN_API_KEY": API_KEY,
            "FIVETRAN_API_SECRET": API_SECRET,
            "FIVETRAN_API_URL": fivetran.url,
            "FIVETRAN_STATE_DATA_DIR": folder,
            "FIVETRAN_STATE_WATCH_INTERVAL": "0",
        }
        answers = anyio.run(record, sandbox)
    EXAMPLES.write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n")


main()
