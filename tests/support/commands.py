"""The program's commands, run as a person runs them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def finish(environment: dict[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """`fivetran-state finish`, by hand."""
    return subprocess.run(
        [sys.executable, "-m", "fivetran_state", "finish"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        cwd=folder,
    )


@contextmanager
def finishing(
    environment: dict[str, str], folder: Path, *arguments: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """`fivetran-state finish`, while it runs; its stderr goes to a file."""
    with (
        (folder / "finish.txt").open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "fivetran_state", "finish", *arguments],
            stderr=stderr,
            env=environment,
            cwd=folder,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def doctor(
    environment: dict[str, str], folder: Path, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "fivetran_state", "doctor", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        cwd=folder,
    )
