"""Sessions at a terminal, as pages show them: commands, what they print, and what a person answers.

A block in the language `console` has commands after `$ `, each followed by what the terminal shows.
All blocks of a page are one session. A line `…` stands for any lines, and `…` in a line for any text.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.documentation.pages import blocks_of
from tests.support.terminal import Terminal, terminal
from tests.support.warm import warm_terminal

LANGUAGE = "console"
HOME = "/home/alice/.local/share/fivetran-state"
"""The data directory in the documentation."""
PERSON = {"LOGNAME": "alice", "NO_COLOR": "1", "EDITOR": "true"}
_COMMAND, _PROMPT, _PROGRESS = "$ ", "Type yes to agree", "· "
_ID = re.compile(r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}\b")
_ELSEWHERE = re.compile(r"[|;&<>$`]")
"""What only a shell understands."""
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?)?")
_VOLATILE = (
    (r"\bfst_[\w-]+", "TOKEN"),
    (r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}\b", "ID"),
    (r"\b\d+\.\d+\.\d+\b", "RELEASE"),
    (r"\b[\d.]+ GB\b", "SIZE"),
    (r"\bprocess \d+", "PROCESS"),
    (r"\b\d+(\.\d+)? s\b", "SECONDS"),
    (r"\b\d+\.\d{3}\b", "SECONDS"),
    (r" {2,}", "  "),
)


@dataclass
class Exchange:
    """One command, and the lines that the page shows after it."""

    command: str
    shown: list[str] = field(default_factory=list)

    @property
    def answers(self) -> Iterator[str]:
        """What a person types: the line after each prompt."""
        for line, following in zip(self.shown, self.shown[1:], strict=False):
            if line.startswith(_PROMPT):
                yield following


def exchanges(text: str) -> list[Exchange]:
    """The commands of a block."""
    found: list[Exchange] = []
    for line in text.splitlines():
        if line.startswith(_COMMAND):
            found.append(Exchange(line.removeprefix(_COMMAND)))
        else:
            found[-1].shown.append(line)
    return found


def session_of(page: Path) -> list[Exchange]:
    """The commands of all its blocks, in their order."""
    return [
        exchange
        for block in blocks_of(page)
        if block.language == LANGUAGE
        for exchange in exchanges(block.text)
    ]


def play(exchange: Exchange, environment: dict[str, str], folder: Path) -> list[str]:
    """The lines that the command shows, once a person has answered as the page says."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {"PATH": programs} | environment | PERSON
    program, *arguments = shlex.split(exchange.command)
    if program == "fivetran-state" and not _ELSEWHERE.search(exchange.command):
        opened = warm_terminal(arguments, variables, folder)
    else:
        opened = terminal(["bash", "-c", exchange.command], variables, folder)
    with opened as screen:
        _answer(screen, exchange)
        screen.wait()
    shown = screen.screen.replace("\r\n", "\n")
    home = environment["FIVETRAN_STATE_DATA_DIR"]
    return [line.rstrip().replace(home, HOME) for line in shown.splitlines()]


def renamed(documented: list[str], shown: list[str]) -> dict[str, str]:
    """The versions and ids that a page names, and those that stand in their places in this run."""
    there, here = (_ID.findall("\n".join(lines)) for lines in (documented, shown))
    return dict(zip(there, here, strict=False))


def with_ids(command: str, ids: dict[str, str]) -> str:
    """The command with the versions and ids of this run."""
    return _ID.sub(lambda found: ids.get(found[0], found[0]), command)


def _answer(screen: Terminal, exchange: Exchange) -> None:
    for number, answer in enumerate(exchange.answers, start=1):
        screen.wait_for(_PROMPT, times=number)
        screen.type(f"{answer}\n")


def agree(documented: list[str], shown: list[str], typed: str) -> bool:
    """True if a terminal may show one for the other.

    Versions, ids, durations, and times that nobody typed differ from run to run. How many of the
    steps are told depends on how quick the machine is.
    """
    pattern = "".join(
        r"(.*\n)*" if line == "…" else f"{re.escape(line).replace('…', '.*')}\n"
        for line in _stable(documented, typed)
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _stable(shown, typed))) is not None


def _stable(lines: list[str], typed: str) -> Iterator[str]:
    for line in lines:
        if not line.startswith(_PROGRESS):
            line = _TIME.sub(lambda found: found[0] if found[0] in typed else "TIME", line)
            for pattern, word in _VOLATILE:
                line = re.sub(pattern, word, line)
            yield line.rstrip()
