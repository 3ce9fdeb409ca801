"""A real Prometheus, found or downloaded, that scrapes a server, and our rules and dashboard for it."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from filelock import FileLock

from tests.support.calls import ROOT
from tests.support.http_server import NO_TLS
from tests.support.postgres import free_port

ALERTS = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/fivetran-state.json"
JOB = "fivetran-state"
WHAT_TO_DO = "This test needs Prometheus. Install it (Debian: apt-get install prometheus)."
_PROGRAMS = ("prometheus", "promtool")
_KEPT = Path(tempfile.gettempdir()) / "fivetran-state-prometheus"
_START_SECONDS = 60


def text_of(path: Path) -> str:
    return path.read_text()


def programs() -> tuple[str, str]:
    """The paths of prometheus and promtool: the system's own, or Debian's, which are kept.

    Raises `RuntimeError` if there are none.
    """
    with FileLock(f"{_KEPT}.lock"):
        found = _on(os.environ["PATH"]) or _on(str(_KEPT / "usr/bin"))
        if found is None and shutil.which("apt-get"):
            _KEPT.mkdir(exist_ok=True)
            with suppress(subprocess.CalledProcessError):
                _unpack_package()
            found = _on(str(_KEPT / "usr/bin"))
    if found is None:
        raise RuntimeError(WHAT_TO_DO)
    return found


def _on(path: str) -> tuple[str, str] | None:
    prometheus, promtool = (shutil.which(name, path=path) for name in _PROGRAMS)
    return None if prometheus is None or promtool is None else (prometheus, promtool)


def _unpack_package() -> None:
    """Unpack it without installing it, which would start a service."""
    with suppress(subprocess.CalledProcessError):  # The lists may be there already.
        _run("apt-get", "update", "--quiet")
    _run("apt-get", "download", "--quiet", "prometheus")
    (package,) = _KEPT.glob("prometheus_*.deb")
    _run("dpkg-deb", "--extract", str(package), str(_KEPT))


def _run(*command: str) -> None:
    subprocess.run(command, cwd=_KEPT, stdin=subprocess.DEVNULL, check=True, timeout=300)


def rules_with(**thresholds: tuple[str, str]) -> dict[str, Any]:
    """Our rules, all without their waiting time; those of the named alerts with another threshold."""
    rules: dict[str, Any] = yaml.safe_load(ALERTS.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
            old, new = thresholds.get(rule["alert"], ("", ""))
            assert old in rule["expr"]
            rule["expr"] = rule["expr"].replace(old, new)
    return rules


def expressions() -> dict[str, list[str]]:
    """The queries of the dashboard, by the title of their panel, for every job."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        panel["title"]: [target["expr"].replace("$job", ".*") for target in panel["targets"]]
        for panel in panels
    }


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    client: httpx.Client

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that the expression finds now."""
        answer = self.client.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts = self.client.get("/api/v1/alerts").json()["data"]["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}


@contextmanager
def running(folder: Path, port: int, token: str, rules: dict[str, Any]) -> Iterator[Prometheus]:
    """One that scrapes the server at this port of this machine each second, with this token."""
    (folder / "alerts.yml").write_text(yaml.safe_dump(rules))
    (folder / "token").write_text(token)
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [
            {
                "job_name": JOB,
                "authorization": {"credentials_file": str(folder / "token")},
                "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    address = f"127.0.0.1:{free_port()}"
    command = [
        programs()[0],
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=30, verify=NO_TLS) as client:
            _wait_until_ready(client, lambda: process.poll() is None)
            yield Prometheus(client)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _wait_until_ready(client: httpx.Client, is_alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and is_alive():
        with suppress(httpx.TransportError):
            if client.get("/-/ready").status_code == 200:
                return
        time.sleep(0.05)
    raise RuntimeError("Prometheus did not start.")
