"""A Chromium, found or downloaded, and one process of it that the tests drive."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock
from playwright.sync_api import sync_playwright

from tests.support import npm

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ELSEWHERE = "elsewhere.example"
"""The name of another site, which the browser finds on this machine."""
WHAT_TO_DO = (
    "The browser tests need Chromium, and none can be found or downloaded. Install it "
    "(Debian: apt-get install chromium), so that one of these is on the PATH: "
)
_INSTALL_SECONDS = 600
_START_SECONDS = 60
_UNPACK = "console.log(await (await import(process.argv[1])).default.executablePath())"
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--remote-debugging-port=0",
    # Root has no sandbox, and the pages are our own.
    "--no-sandbox",
    # Whatever leaves this machine fails at once.
    f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


def executable() -> str:
    """The path of a Chromium: the system's own, or one that is installed now and kept.

    Raises `RuntimeError` with what has been tried, and what to do.
    """
    # Several test processes ask at once, and only one may install.
    with FileLock(Path(tempfile.gettempdir()) / "fivetran-state-chromium.lock"):
        return _found_or_installed()


def _found_or_installed() -> str:
    tried = []
    for find in (_system, _distribution, _playwright, _npm):
        try:
            found = find()
        except (OSError, subprocess.SubprocessError, SystemExit, StopIteration) as error:
            tried.append(f"{find.__name__.strip('_')}: {error}")
            continue
        if found:
            return found
    raise RuntimeError(f"{WHAT_TO_DO}{', '.join(NAMES)}. Tried: {'; '.join(tried)}")


def _system() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def _distribution() -> str | None:
    """Debian's or Ubuntu's package. Ubuntu's is a snap, which may bring no program."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    _run("apt-get", "update", "--quiet")
    _run("apt-get", "install", "--quiet", "--yes", "--no-install-recommends", "chromium")
    return _system()


def _playwright() -> str | None:
    """Playwright's own, in its cache in the user's home."""
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    if not Path(path).exists():
        _run(sys.executable, "-m", "playwright", "install", "chromium")
    return path if _starts(path) else None


def _npm() -> str | None:
    """The one in an npm package, unpacked beside it."""
    module = npm.folder_of(npm.CHROMIUM) / "build/index.js"
    path = npm.path_with(npm.CHROMIUM)
    node = shutil.which("node", path=path) or "node"
    unpacked = _run(
        node, "--input-type=module", "-e", _UNPACK, str(module), TMPDIR=str(module.parent)
    )
    return unpacked if _starts(unpacked) else None


def _starts(path: str) -> bool:
    """False if it lacks a library of the system."""
    return subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0


def _run(*command: str, **environment: str) -> str:
    run = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=_INSTALL_SECONDS,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"} | environment,
    )
    return run.stdout.strip()


@contextmanager
def running(path: str, folder: Path) -> Iterator[str]:
    """The address at which Playwright drives this Chromium; its profile is in `folder`."""
    command = [path, *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
    with (folder / "stderr.txt").open("wb") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)
    try:
        yield _address(folder / "DevToolsActivePort", lambda: process.poll() is None)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _address(file: Path, is_alive: Callable[[], bool]) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and is_alive():
        if file.exists() and len(lines := file.read_text().splitlines()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.02)
    raise RuntimeError(f"Chromium did not start: {file.with_name('stderr.txt').read_text()}")
