"""Runs the official conformance suite against the server: every check of every scenario must pass.

The arguments are names of scenarios; without any, all scenarios run.
"""

import asyncio
import json
import os
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.conformance.server import serving
from tests.support import npm

BOTH = [
    "tools-list",
    "resources-list",
    "prompts-list",
    "completion-complete",
    "dns-rebinding-protection",
    "server-sse-multiple-streams",
]
# All scenarios that the suite can test: `tasks-status-notifications` only reports that it cannot.
TASKS = [
    "tasks-lifecycle",
    "tasks-capability-negotiation",
    "tasks-wire-fields",
    "tasks-request-state-removal",
    "tasks-mrtr-input",
    "tasks-request-headers",
    "tasks-dispatch-and-envelope",
    "tasks-required-task-error",
    "tasks-mrtr-composition",
]
SCENARIOS = {
    "2025-11-25": ["server-initialize", "server-session-lifecycle", "ping", *BOTH],
    "2026-07-28": [
        "server-stateless",
        *BOTH,
        "caching",
        "sep-2164-resource-not-found",
        "http-header-validation",
        "http-custom-header-server-validation",
        *TASKS,
    ],
}
AT_A_TIME = 2


@dataclass(frozen=True)
class Run:
    """One scenario in one revision of the protocol, and its result."""

    scenario: str
    revision: str
    checks: list[dict[str, Any]]
    is_accepted: bool
    said: str

    @property
    def passed(self) -> int:
        return sum(check["status"] == "SUCCESS" for check in self.checks)

    @property
    def failures(self) -> list[str]:
        """The reasons why the run has failed. A warning is a failure, and so is a skipped check."""
        wrong = [
            f"{check['id']}: {check['status']}: {check.get('errorMessage')}"
            for check in self.checks
            if check["status"] not in ("SUCCESS", "INFO")
        ]
        # The suite adds a check of the messages' form to the scenario's own checks.
        own = [check for check in self.checks if not check["id"].startswith("wire-schema")]
        if not any(check["status"] == "SUCCESS" for check in own):
            wrong.append(f"nothing was checked: {self.said}")
        return wrong if wrong or self.is_accepted else [self.said]


async def run(url: str, scenario: str, revision: str, folder: Path) -> Run:
    """Runs one scenario; the suite writes its findings into the folder."""
    suite = await asyncio.create_subprocess_exec(
        *("conformance", "server", "--url", url, "--scenario", scenario),
        *("--spec-version", revision, "--output-dir", str(folder)),
        # An extension belongs to no revision, so the suite would skip it.
        *(["--force"] if scenario in TASKS else []),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await suite.communicate()
    return Run(scenario, revision, _findings(folder), suite.returncode == 0, said.decode())


def _findings(folder: Path) -> list[dict[str, Any]]:
    return [check for file in folder.rglob("checks.json") for check in json.loads(file.read_text())]


async def run_all(names: list[str]) -> list[Run]:
    turns = asyncio.Semaphore(AT_A_TIME)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        async with serving(folder / "data") as url:

            async def in_turn(scenario: str, revision: str) -> Run:
                async with turns:
                    return await run(url, scenario, revision, folder / revision / scenario)

            return await asyncio.gather(
                *(
                    in_turn(scenario, revision)
                    for revision, scenarios in SCENARIOS.items()
                    for scenario in scenarios
                    if not names or scenario in names
                )
            )


def report(runs: list[Run]) -> None:
    table = Table("scenario", "revision", "checks passed", "")
    for each in runs:
        verdict = "[red]failed[/]" if each.failures else "[green]ok[/]"
        table.add_row(each.scenario, each.revision, f"{each.passed}/{len(each.checks)}", verdict)
    console = Console(width=100)
    console.print(table)
    for each in runs:
        for failure in each.failures:
            console.print(f"{each.scenario}, {each.revision}: {failure}", markup=False)


def main() -> int:
    # One of the fixtures is a tool that logs, because the suite looks for logs.
    warnings.filterwarnings("ignore", message="The logging capability is deprecated")
    os.environ["PATH"] = npm.path_with(npm.SUITE)
    runs = asyncio.run(run_all(sys.argv[1:]))
    report(runs)
    return int(not runs or any(each.failures for each in runs))


if __name__ == "__main__":
    sys.exit(main())
