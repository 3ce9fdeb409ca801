"""The audit file shows what somebody has changed in it, and outlives the death of its writers."""

import subprocess
import sys
from pathlib import Path

import pytest

from fivetran_state import private
from fivetran_state.audit import NOTHING, AuditFile, verify

WRITERS, LINES_EACH = 3, 40
WRITE = """
import sys
from pathlib import Path
from fivetran_state.audit import AuditFile

audit = AuditFile(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    audit.append({"event": "update.started", "number": number})
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of three lines."""
    path = tmp_path / "audit.jsonl"
    audit = AuditFile(path)
    for name in ("asked", "written", "ended"):
        audit.append({"event": name})
    return path


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_a_file_that_nobody_has_changed_is_as_it_was_written(path: Path) -> None:
    verdict = verify(path)

    assert (verdict.lines, verdict.incomplete, verdict.wrong) == (3, [], [])
    assert verdict.last != NOTHING


def test_a_changed_line_is_named(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"written", b"dropped"))

    assert verify(path).wrong == [2]


def test_a_removed_line_is_noticed_at_the_one_before(path: Path) -> None:
    first, _, third = lines_of(path)
    path.write_bytes(first + third)

    assert verify(path).wrong == [1]


def test_a_removed_beginning_is_noticed(path: Path) -> None:
    path.write_bytes(b"".join(lines_of(path)[1:]))

    assert verify(path).wrong == [0]


def test_an_inserted_line_is_noticed(path: Path) -> None:
    first, second, third = lines_of(path)
    path.write_bytes(first + second + second + third)

    assert verify(path).wrong == [2]


def test_a_line_that_a_crash_cut_off_is_reported_and_the_next_one_is_written(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])

    AuditFile(path).append({"event": "asked again"})

    verdict = verify(path)
    assert (verdict.lines, verdict.incomplete, verdict.wrong) == (4, [3], [])


def test_a_cut_off_line_that_somebody_changes_is_named(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])
    AuditFile(path).append({"event": "asked again"})
    path.write_bytes(path.read_bytes().replace(b"ended", b"ENDED"))

    assert verify(path).wrong == [3]


def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    command = [sys.executable, "-c", WRITE, str(path), str(LINES_EACH)]

    writers = [subprocess.Popen(command) for _ in range(WRITERS)]

    assert [writer.wait(60) for writer in writers] == [0] * WRITERS
    verdict = verify(path)
    assert (verdict.lines, verdict.wrong) == (WRITERS * LINES_EACH, [])


def test_a_suspended_writer_keeps_nobody_from_going_on(path: Path) -> None:
    lock = private.lock(path.with_name("audit.jsonl.lock"))

    with lock.acquire(), pytest.raises(TimeoutError):
        AuditFile(path).append({"event": "ended"})

    AuditFile(path).append({"event": "ended again"})
    assert verify(path).lines == 4


def test_a_line_may_be_long(path: Path) -> None:
    audit = AuditFile(path)
    audit.append({"event": "x" * 20_000})
    AuditFile(path).append({"event": "ended"})

    assert verify(path).wrong == []


def test_the_file_is_nobody_elses(path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0
