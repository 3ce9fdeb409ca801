"""Files that nobody else may read, write or replace: keys, tokens, locks, the database."""

import os
import stat
import tempfile
from pathlib import Path

from filelock import FileLock

_IS_POSIX = os.name == "posix"


class NotPrivate(OSError):
    """Others could have written the file. The text names it and the command that fixes it."""


def read(path: Path) -> bytes:
    """The file's content; raises `NotPrivate`, or another `OSError`.

    It may also be a file of root's that only a group can read: so Kubernetes mounts secrets.
    """
    with os.fdopen(_open(path, os.O_RDONLY, may_be_roots=True), "rb") as file:
        return file.read()


def create(path: Path, *, closed_to_others: bool = False) -> None:
    """Create the file if it does not exist; raises `NotPrivate`, or another `OSError`.

    `closed_to_others`: instead of refusing a file that others may use, close it to them.
    """
    descriptor = _open(path, os.O_RDWR | os.O_CREAT, closed_to_others=closed_to_others)
    os.close(descriptor)


def write(path: Path, content: str) -> None:
    """Replace the file's content atomically, because others may read it at any time."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def try_to_write(directory: Path, size: int) -> None:
    """Write a file of this size and delete it again; raises `OSError`."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(bytes(size))
        file.flush()
        os.fsync(file.fileno())


def make_directories(*directories: Path) -> None:
    """Make the directories, or close existing ones to others."""
    for directory in directories:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _IS_POSIX:
            directory.chmod(0o700)


def lock(path: Path) -> FileLock:
    """A lock on a private file, not taken yet; raises as `create` does."""
    create(path)
    return FileLock(path, mode=0o600, thread_local=False)


def _open(
    path: Path, flags: int, *, closed_to_others: bool = False, may_be_roots: bool = False
) -> int:
    if not _IS_POSIX:
        return os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)
    if path.is_symlink():
        raise NotPrivate(f"{path} is a symlink: replace it with the file itself.")
    # Do not block: the file may be a pipe without a writer.
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        if closed_to_others and os.fstat(descriptor).st_uid == os.geteuid():
            os.fchmod(descriptor, 0o600)
        found = os.fstat(descriptor)
        if not (may_be_roots and _is_roots(found)):
            _check(path, found)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _is_roots(found: os.stat_result) -> bool:
    """True for a file of root's, to another user, that others neither read nor change."""
    is_theirs = found.st_uid == 0 != os.geteuid()
    return stat.S_ISREG(found.st_mode) and is_theirs and not found.st_mode & 0o037


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotPrivate(f"{path} is not a file.")
    if found.st_uid != os.geteuid():
        raise NotPrivate(
            f"{path} belongs to another user, not to the user of this process: chown "
            f"{os.geteuid()} '{path}'"
        )
    if found.st_mode & 0o077:
        raise NotPrivate(f"{path} can be used by others: chmod 600 '{path}'")
