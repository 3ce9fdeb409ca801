"""Changes modules at random places and runs the tests that ought to notice: `scripts/mutants`.

Works on a copy of the checkout, with an interpreter whose processes import the copy too.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path

from tests.mutants.knowledge import Knowledge
from tests.mutants.mutations import mutants, places
from tests.mutants.trial import Result, Trials, swap_of

ROOT = Path(__file__).parents[2]
MEASURING = ROOT / ".venv" / "measuring"
COPY = "MUTANTS_OF"
"""The variable that tells the copy where the measurements are."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, help="modules, or folders of modules")
    parser.add_argument("--sample", type=int, default=60, help="how many mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60, help="of tests for one mutant")
    arguments = parser.parse_args()
    if COPY in os.environ:
        measure(arguments)
    else:
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            sys.exit(_in_copy(Path(folder) / "copy"))


def _in_copy(copy: Path) -> int:
    ignored = shutil.ignore_patterns(".venv", ".runtime", ".git", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    environment = copy / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = f"lib/python{sysconfig.get_python_version()}/site-packages"
    (environment / packages / "mutants.pth").write_text(
        f"{copy}\n{MEASURING / packages}\nimport site; site.addsitedir({str(ROOT / '.venv' / packages)!r})\n"
    )
    command = [str(environment / "bin" / "python"), "-m", "tests.mutants", *sys.argv[1:]]
    return subprocess.run(command, cwd=copy, env=os.environ | {COPY: str(MEASURING)}).returncode


def measure(arguments: argparse.Namespace) -> None:
    paths = [
        path
        for given in arguments.paths
        for path in (sorted(given.rglob("*.py")) if given.is_dir() else [given])
    ]
    found = places(paths)
    knowledge = Knowledge(Path(os.environ[COPY]))
    trials = Trials(knowledge, arguments.seconds)
    print(f"{arguments.sample} of about {len(found)} mutants", flush=True)
    results: Counter[Result] = Counter()
    chosen = islice(mutants(found, arguments.seed), arguments.sample)
    # Those that need a new import come first, as long as this process has imported nothing of ours.
    for mutant in sorted(chosen, key=lambda mutant: swap_of(mutant) is not None):
        began = time.monotonic()
        result, test = trials.of(mutant)
        results[result] += 1
        print(f"\n{result.value} in {time.monotonic() - began:.0f} s {test}", flush=True)
        print(mutant.difference(), flush=True)
    print("\n" + ", ".join(f"{count} {result.value}" for result, count in results.items()))


if __name__ == "__main__":
    main()
