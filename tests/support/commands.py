"""Runs the program's commands as a person does."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import warm


def run(
    environment: dict[str, str], folder: Path, *arguments: str, timeout: float = 60
) -> "subprocess.CompletedProcess[str]":
    """Runs `fivetran-state ...` to its end."""
    return warm.run(arguments, environment, folder, timeout)


def doctor(
    environment: dict[str, str], folder: Path, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """`fivetran-state doctor`"""
    return run(environment, folder, "doctor", *arguments)


def finish(
    environment: dict[str, str], folder: Path, timeout: float = 60
) -> "subprocess.CompletedProcess[str]":
    """`fivetran-state finish`"""
    return run(environment, folder, "finish", timeout=timeout)


@contextmanager
def background(
    environment: dict[str, str], folder: Path, *arguments: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """`python -m ...`, which is killed at the end if it still runs; its stderr is added to a file."""
    with (
        (folder / "background.txt").open("ab") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            cwd=folder,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()
