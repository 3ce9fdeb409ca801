"""The image, built and started as far as this is possible without Docker."""

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.deploy.image import Image
from tests.support.calls import IDLE, ROOT, call
from tests.support.http_server import mcp_client
from tests.support.postgres import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    image = Image(ROOT, tmp_path_factory.mktemp("image"))
    yield image
    image.remove()


def said(image: Image, command: list[str], variables: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    process = image.popen(command, variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


def wait_until_healthy(image: Image, port: int) -> None:
    command = [part.replace("8000", str(port)) for part in image.health_check]
    deadline = time.monotonic() + 30
    while said(image, command, {})[0]:
        assert time.monotonic() < deadline, "never became healthy"


async def test_the_image_starts_only_with_a_token_is_healthy_serves_and_ends_with_all_but_its_volume_read_only(
    image: Image, environment: dict[str, str], tmp_path: Path
) -> None:
    variables = {key: environment[key] for key in environment if "DATA_DIR" not in key}
    code, _, complaint = said(image, ["touch", "file"], {})
    assert (code, "Permission denied" in complaint) == (1, True)

    code, _, complaint = said(image, image.start, variables)
    assert code == 64
    assert "token create" in complaint

    create = [*image.entrypoint, "token", "create", "--scope", "write"]
    code, token, _ = said(image, create, variables)
    assert code == 0

    port = free_port()
    # If an option is given twice, the last one counts.
    here = ["--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        server = image.popen([*image.start, *here], variables, stderr=log)
        try:
            wait_until_healthy(image, port)
            async with mcp_client(f"http://127.0.0.1:{port}", token=token.strip()) as client:
                seen = await call(client, "get_state", connection_id=IDLE)
            assert "cursor" in seen["state"]
        finally:
            server.send_signal(signal.Signals[image.settings["STOPSIGNAL"]])
            code = server.wait(30)
    assert code in (0, -signal.SIGTERM)
    assert "Traceback" not in (tmp_path / "log").read_text()
