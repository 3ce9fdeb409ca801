"""The compose file is valid, and starts nothing insecure."""

import os
import re
import subprocess

import pytest
import yaml
from filelock import FileLock

from fivetran_state.config import Settings
from fivetran_state.http_server.app import SHUTDOWN_TIMEOUT
from tests.support import npm
from tests.support.calls import ROOT

TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)


@pytest.mark.slow
def test_it_is_a_valid_compose_file_by_the_specification(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with FileLock(tmp_path_factory.getbasetemp().parent / "npm.lock"):
        path = npm.path_with(npm.COMPOSE_LINTER)

    linted = subprocess.run(
        ["dclint", "--max-warnings=0", "compose.yaml"],
        env=os.environ | {"PATH": path},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )

    assert linted.returncode == 0, linted.stdout


def test_no_password_key_or_token_has_a_default() -> None:
    optional = set(re.findall(r"\$\{(\w+)(?!:\?|\w)", TEXT))
    oauth = {"ISSUER", "CLIENT_ID", "CLIENT_SECRET"}
    assert optional == {f"FIVETRAN_STATE_OAUTH_{name}" for name in oauth}
    for service in COMPOSE["services"].values():
        for name, value in service["environment"].items():
            if re.search("PASSWORD|SECRET|KEY|URL", name):
                assert "${" in value, name


def test_a_stopped_server_gets_the_time_that_its_updates_may_take() -> None:
    patience = int(COMPOSE["services"]["server"]["stop_grace_period"].removesuffix("s"))
    shutdown_wait = Settings.model_fields["shutdown_wait"].default

    assert patience >= shutdown_wait + SHUTDOWN_TIMEOUT + 10


def test_images_are_named_by_digest() -> None:
    based = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    pulled = [each["image"] for each in COMPOSE["services"].values() if "image" in each]

    for image in {*based, *pulled} - {"base"}:
        assert re.fullmatch(r"[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image


def test_no_service_can_take_all_of_the_machine() -> None:
    for name, service in COMPOSE["services"].items():
        assert {"memory", "pids"} <= service["deploy"]["resources"]["limits"].keys(), name
