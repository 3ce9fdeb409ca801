"""One mutant and the tests that run its line, in a process that is forked for it."""

import contextlib
import enum
import importlib
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.knowledge import Knowledge
from tests.mutants.mutations import Mutant
from tests.mutants.swapping import Swap, swapped

OPTIONS = ["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", ""]
# What this process has imported, pytest does not rewrite.
OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]


class Result(enum.Enum):
    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"
    UNTESTED = "no test runs it"


class Trials:
    def __init__(self, knowledge: Knowledge, seconds: float) -> None:
        """`seconds`: for how long the tests of one mutant take, if none fails."""
        self._knowledge = knowledge
        self._seconds = seconds
        self._kills: Counter[str] = Counter()
        self._broken: set[str] = set()
        self._whole: set[str] = set()
        self._changed = time.time()
        _import_what_tests_import()

    def of(self, mutant: Mutant) -> tuple[Result, str]:
        """The result, and the test that noticed."""
        while True:
            tests = self._chosen(mutant)
            if not tests:
                return Result.UNTESTED, ""
            unknown = [test for test in tests if test not in self._whole]
            if not unknown:
                break
            _, failed = self._run(unknown, 10 * self._seconds + 60)
            if failed:  # Also without a mutant.
                self._broken.add(failed)
            else:
                self._whole.update(unknown)
        before = mutant.path.read_bytes()
        swap = swap_of(mutant)
        if swap is not None:  # From here on, this process has what the mutants are made of.
            for test in tests:
                module = test.partition("::")[0].removesuffix(".py").replace("/", ".")
                importlib.import_module(module)
            importlib.import_module("tests.conftest")
        self._write(mutant.path, mutant.source.encode())
        try:
            result, failed = self._run(tests, 3 * self._seconds_of(tests) + 30, swap)
        finally:
            self._write(mutant.path, before)
        if failed:
            self._kills[failed] += 1
        return result, failed

    def _chosen(self, mutant: Mutant) -> list[str]:
        tests = self._knowledge.tests_of(mutant.path, mutant.line) - self._broken
        chosen: list[str] = []
        for test in sorted(
            tests, key=lambda test: (-self._kills[test], self._knowledge.seconds(test))
        ):
            if self._seconds_of([*chosen, test]) > self._seconds and chosen:
                break
            chosen.append(test)
        return chosen

    def _seconds_of(self, tests: list[str]) -> float:
        return sum(self._knowledge.seconds(test) for test in tests)

    def _write(self, path: Path, source: bytes) -> None:
        path.write_bytes(source)
        # Each change has a second of its own, or Python would take the last one's bytecode.
        self._changed += 2
        os.utime(path, (self._changed, self._changed))

    def _run(self, tests: list[str], limit: float, swap: Swap | None = None) -> tuple[Result, str]:
        found = Path("mutants-result")
        found.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            _test(tests, found, swap)
        deadline = time.monotonic() + limit
        status = None
        while status is None and time.monotonic() < deadline:
            ended, code = os.waitpid(child, os.WNOHANG)
            if ended:
                status = os.waitstatus_to_exitcode(code)
            else:
                time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if status is None:
            os.waitpid(child, 0)
        _end_left_processes()
        failed = found.read_text(encoding="utf-8") if found.exists() else ""
        if status is None:
            return Result.TIMED_OUT, failed
        return (Result.SURVIVED, "") if status == 0 else (Result.KILLED, failed or "the import")


def swap_of(mutant: Mutant) -> Swap | None:
    path = mutant.path.absolute()
    return swapped(path, path.read_text(encoding="utf-8"), mutant.source)


class _Failures:
    def __init__(self, found: Path) -> None:
        self._found = found.absolute()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._found.write_text(report.nodeid, encoding="utf-8")


def _test(tests: list[str], found: Path, swap: Swap | None) -> None:
    os.setsid()
    output = os.open("mutants-output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    code = 1
    try:
        if swap is not None:
            swap()
        code = pytest.main([*OPTIONS, *tests], plugins=[_Failures(found)])
    finally:
        sys.stdout.flush()
        os._exit(code)


def _import_what_tests_import() -> None:
    """Import what is not ours once, so that no mutant has to wait for it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        output = os.open(os.devnull, os.O_WRONLY)
        os.dup2(output, 1)
        pytest.main(
            [
                *OPTIONS,
                "--collect-only",
                "tests/unit/test_state_numbers.py",
                "tests/http/test_rest.py",
            ]
        )
        names = [
            name
            for name, module in sys.modules.items()
            if "site-packages" in (getattr(module, "__file__", None) or "")
        ]
        with os.fdopen(writing, "w") as pipe:
            json.dump(names, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        names = json.load(pipe)
    os.waitpid(child, 0)
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
        assert "fivetran_state" not in sys.modules, name  # Each child has to import the mutant.


def _end_left_processes() -> None:
    """End what the tests have started in sessions of its own; its interpreter is the copy's."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            command = (process / "cmdline").read_bytes().split(b"\0")[0].decode()
            if command.startswith(sys.prefix) and int(process.name) != os.getpid():
                os.kill(int(process.name), signal.SIGKILL)
