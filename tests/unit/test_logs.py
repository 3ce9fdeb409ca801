"""No value gets into the log through a library, an exception, or Python itself."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import fivetran_state
from fivetran_state.logs import MAX_FILE_BYTES

MARK = "a-value-of-a-state"

BELOW = """
import logging
from fivetran_state import logs

logs.configure("ERROR")
logging.getLogger("dbos").warning("A task was cancelled")
logging.getLogger("fivetran_state.module").warning("Below")
logging.getLogger("a.library").error("At it")
"""

TALK = """
import asyncio, logging, sys, threading, warnings
from fivetran_state import logs
from fivetran_state.errors import FivetranUnavailable, InvalidChange

value = sys.argv[1]
logs.configure("DEBUG")
library, ours = logging.getLogger("a.library"), logging.getLogger("fivetran_state.module")
library.setLevel(logging.DEBUG)
library.debug("Below: %s", value)
library.warning("With arguments: %s", value)
library.warning(f"Formatted: {value}, and more")
library.log(
    logging.ERROR,
    "On several lines: "
    f"{value!r}",
)
library.error(value)
exec("library.error(value)")
logging.getLogger("dbos").error(f"Of a workflow: {value}", exc_info=InvalidChange(value))
try:
    try:
        raise KeyError(value)
    except KeyError as error:
        raise FivetranUnavailable(value) from error
except FivetranUnavailable as error:
    ours.exception("Ours: %s, %r", error, error)
warnings.warn(value)
thread = threading.Thread(target=lambda: int(value))
thread.start()
thread.join()

class Fails:
    def __del__(self):
        raise ValueError(value)

fails = Fails()
del fails

async def nobody_asks():
    async def fail():
        raise InvalidChange(value)
    task = asyncio.ensure_future(fail())
    await asyncio.wait([task])

asyncio.run(nobody_asks())
raise RuntimeError(value)
"""


def test_a_line_has_the_source_of_a_librarys_message_and_the_types_of_exceptions(
    tmp_path: Path,
) -> None:
    program = tmp_path / "talks.py"
    program.write_text(TALK)
    ended = subprocess.run(
        [sys.executable, str(program), MARK], capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in ended.stderr.splitlines()]

    assert MARK not in ended.stderr
    assert [line["message"] for line in lines if line["logger"] == "a.library"] == [
        "library.warning('With arguments: %s', value)",
        "library.warning(f'Formatted: {value}, and more')",
        "library.log(logging.ERROR, f'On several lines: {value!r}')",
        "library.error(value)",
        "A message at <string>:1",
    ]
    (ours,) = [line for line in lines if line["logger"] == "fivetran_state.module"]
    assert ours["message"] == ("Ours: fivetran_unavailable (KeyError), FivetranUnavailable()")
    assert ours["exception"].splitlines()[0] == "KeyError"
    # A warning, a thread, a finalizer, a task that is not awaited, and the program itself.
    ends = [line.get("exception", line["message"]) for line in lines[-5:]]
    kinds = ["UserWarning", "ValueError", "ValueError", "invalid_change", "RuntimeError"]
    assert [end.split()[0] for end in ends] == kinds
    assert lines[-1]["level"] == "critical"


def test_no_line_of_ours_is_given_the_message_of_an_error() -> None:
    calls = [
        (path.name, node.lineno)
        for path in Path(fivetran_state.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).startswith("logger.")
        and any(".message" in ast.unparse(argument) for argument in node.args)
    ]

    assert calls == []


def test_a_log_file_is_bounded_and_private(tmp_path: Path) -> None:
    file = tmp_path / "finish.log"
    program = (
        "import logging, sys, pathlib; from fivetran_state import logs\n"
        "logs.configure('INFO', pathlib.Path(sys.argv[1]))\n"
        "for number in range(3 * logs.MAX_FILE_BYTES // 1000):\n"
        "    logging.getLogger('fivetran_state.module').info('%s', 'x' * 1000)\n"
    )

    subprocess.run([sys.executable, "-c", program, str(file)], check=True)

    written = {path.name: path.stat() for path in tmp_path.iterdir()}
    assert set(written) == {"finish.log", "finish.log.1"}
    assert all(each.st_size <= MAX_FILE_BYTES for each in written.values())
    assert all(each.st_mode & 0o077 == 0 for each in written.values())


def test_below_the_level_libraries_are_not_heard_either() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", BELOW], capture_output=True, text=True, check=False
    )

    assert [json.loads(line)["logger"] for line in ended.stderr.splitlines()] == ["a.library"]
