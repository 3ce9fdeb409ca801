"""Builds the source distribution, the wheel and the bundle, checks and lists them.

They are built from the last commit: changes that are not committed are not in them.
"""

import argparse
import hashlib
import shutil
import tempfile
from pathlib import Path

from rich.console import Console

from tests.release import building, checking, described
from tests.support.calls import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/release", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "dist", help="dist")
    into: Path = parser.parse_args().folder.resolve()
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="fivetran-state-release-") as temporary:
        _release(console, Path(temporary), into)
    console.print("\nSHA-256, bytes, file")
    for path in sorted(into.iterdir()):
        content = path.read_bytes()
        console.print(f"{hashlib.sha256(content).hexdigest()} {len(content):>11,} {path.name}")


def _release(console: Console, work: Path, into: Path) -> None:
    console.print("Building from a clone of the last commit")
    source = building.clone(work / "source")
    sdist, wheel = building.distributions(source, work / "built")
    bundle = building.bundle(source, wheel, work, work / "built")
    console.print("Checking metadata and contents")
    checking.metadata(sdist, wheel)
    described.server()
    interpreters = checking.interpreters()
    for version, interpreter in interpreters.items():
        console.print(f"Running the demo from the wheel alone, on Python {version}")
        checking.installed(wheel, interpreter, work / version)
    for minor in checking.MINORS:
        if f"3.{minor}" not in interpreters:
            console.print(f"Not tried: Python 3.{minor}, which is not on this machine")
    console.print("Running the wheel by uvx")
    checking.run_by_uvx(wheel)
    console.print("Starting the bundle as a host does")
    checking.bundled(bundle, work)
    for built in (sdist, wheel, bundle, source / described.SERVER.name):
        shutil.copy(built, into)


if __name__ == "__main__":
    main()
