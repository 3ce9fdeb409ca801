"""What a page shows at a terminal is what a person sees there."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fivetran_state.sandbox import Sandbox
from tests.documentation import sessions
from tests.documentation.pages import DOCS, name_of
from tests.documentation.situations import begin
from tests.support.calls import ROOT

SESSIONS = [page for page in DOCS if sessions.session_of(page)]
STEP = re.compile(r"· (?!\d+ connections: )(?:[\w:]+: )?([^.,]+)")
"""Up to its first figures; not the counts of a group."""
SENTENCES = "".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "fivetran_state").rglob("*.py")
)


@pytest.mark.slow
@pytest.mark.parametrize("page", SESSIONS, ids=name_of)
def test_a_session_shows_what_the_page_shows(
    page: Path, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    session = sessions.session_of(page)
    typed = "\n".join(exchange.command for exchange in session)
    begin(name_of(page), sandbox, environment, tmp_path)

    ids: dict[str, str] = {}
    for exchange in session:
        command = sessions.with_ids(exchange.command, ids)
        shown = sessions.play(replace(exchange, command=command), environment, tmp_path)
        ids |= sessions.renamed(exchange.shown, shown)
        assert sessions.agree(exchange.shown, shown, typed), "\n".join([exchange.command, *shown])


@pytest.mark.parametrize("page", SESSIONS, ids=name_of)
def test_every_step_that_a_page_shows_is_one_that_the_program_tells(page: Path) -> None:
    for exchange in sessions.session_of(page):
        for line in exchange.shown:
            told = STEP.match(line)
            if told is not None:
                assert told[1] in SENTENCES, line
