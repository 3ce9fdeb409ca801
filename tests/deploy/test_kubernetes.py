"""The Kubernetes manifests are valid, start nothing insecure, and their commands work."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import kubernetes_validate
import pytest
import yaml

from fivetran_state import __version__
from fivetran_state.config import Settings, unknown_variables
from fivetran_state.http_server.app import SHUTDOWN_TIMEOUT
from tests.support.calls import ROOT
from tests.support.commands import run
from tests.support.http_server import http_running

FOLDER = ROOT / "deploy/kubernetes"
KUBERNETES = "1.31"


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every resource that the kustomizations name, by its kind and name."""
    for kustomization in sorted(FOLDER.rglob("kustomization.yaml")):
        for name in yaml.safe_load(kustomization.read_text())["resources"]:
            for found in yaml.safe_load_all((kustomization.parent / name).read_text()):
                yield f"{found['kind']} {found['metadata']['name']}", found


RESOURCES = dict(documents())


def pods() -> Iterator[dict[str, Any]]:
    for found in RESOURCES.values():
        spec = found["spec"]
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield spec["template"]["spec"]


def container_of(resource: str) -> dict[str, Any]:
    spec = RESOURCES[resource]["spec"]
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    (container,) = spec["template"]["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize("resource", RESOURCES)
def test_every_resource_is_valid_by_the_schemas_of_kubernetes(resource: str) -> None:
    kubernetes_validate.validate(RESOURCES[resource], KUBERNETES, strict=True)


def test_every_file_is_part_of_a_kustomization_and_every_image_has_this_version() -> None:
    named = set()
    for file in FOLDER.rglob("kustomization.yaml"):
        found = yaml.safe_load(file.read_text())
        named |= {file, *(file.parent / each for each in found["resources"])}
        (image,) = found["images"]
        assert image == {"name": "fivetran-state", "newTag": __version__.partition(".dev")[0]}
    assert {each for each in FOLDER.rglob("*") if each.is_file()} == named


def test_nothing_runs_as_root_writes_outside_of_its_volumes_or_has_more_rights_than_it_needs() -> (
    None
):
    for pod in pods():
        assert pod["automountServiceAccountToken"] is False
        of_pod = pod["securityContext"]
        assert (of_pod["runAsNonRoot"], of_pod["runAsUser"]) == (True, 10001)
        assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"].keys() == {"memory"}
            mounted = {each["mountPath"] for each in container["volumeMounts"]}
            assert {"/data", "/tmp"} <= mounted


def test_every_variable_is_one_of_ours_and_no_secret_has_a_value() -> None:
    text = "".join(file.read_text() for file in FOLDER.rglob("*.yaml"))
    named = re.findall(r"FIVETRAN_\w+|DBOS_\w+", text)
    assert named
    assert unknown_variables(dict.fromkeys(named, "")) == {}
    assert not re.search(r"^ *[^#\n]*(API_SECRET|SECRET_KEY|DATABASE_URL|PASSWORD)", text, re.M)


def test_a_stopped_server_gets_the_time_that_its_updates_may_take() -> None:
    (pod,) = [each for each in pods() if "terminationGracePeriodSeconds" in each]
    (_, pause) = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    shutdown_wait = Settings.model_fields["shutdown_wait"].default

    assert (
        pod["terminationGracePeriodSeconds"] >= int(pause) + shutdown_wait + SHUTDOWN_TIMEOUT + 10
    )


@pytest.mark.slow
async def test_its_commands_serve_watch_and_finish_on_postgres(
    on_postgres: dict[str, str], tmp_path: Path
) -> None:
    server = container_of("Deployment fivetran-state")
    literals = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["configMapGenerator"][0]
    mapped = dict(each.split("=", 1) for each in literals["literals"])
    own = {each["name"]: each["value"] for each in server["env"]}
    environment = on_postgres | mapped | own
    environment["FIVETRAN_STATE_TOKENS_FILE"] = str(tmp_path / "tokens.json")
    created = await anyio.to_thread.run_sync(
        run, environment, tmp_path, "token", "create", "--scope", "write"
    )
    assert created.returncode == 0, created.stderr
    token = created.stdout.split()[-1]

    async def command(resource: str) -> "subprocess.CompletedProcess[str]":
        arguments = container_of(resource)["args"]
        return await anyio.to_thread.run_sync(run, environment, tmp_path, *arguments)

    # As `server.py --http`, but on every address.
    assert server["args"] == ["serve", "--http", "--host", "0.0.0.0", "--port", "8000"]
    async with http_running(environment, tmp_path) as running:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            answer = await running.client.get(server[probe]["httpGet"]["path"])
            assert answer.status_code == 200, answer.text
        refused = await running.client.get("/connections")
        listed = await running.client.get(
            "/connections", headers={"Authorization": f"Bearer {token}"}
        )
        looked = await command("CronJob fivetran-state-watch")
    finished = await command("Job fivetran-state-finish")

    assert (refused.status_code, listed.status_code) == (401, 200)
    assert looked.returncode == 0, looked.stderr
    assert finished.returncode == 0, finished.stderr
