"""Draws the pictures for the documentation from real updates: `scripts/pictures`."""

import tempfile
from pathlib import Path

import anyio

from tests.pictures import page
from tests.pictures.drawing import Paragraph, svg
from tests.pictures.story import CONNECTION, Story, tell

PICTURES = Path(__file__).parent.parent.parent / "docs/pictures"


def drawn(story: Story) -> dict[str, str]:
    """Each picture, by its file name."""
    question = [
        Paragraph(line.strip(), "change" if line.startswith("(") else "plain")
        for line in story.question.split("\n")
    ]
    *steps, end = story.progress
    return {
        "question.svg": svg(
            "fivetran-state asks before an update",
            f"The question to the user, with the answers Accept and Decline: {' '.join(story.question.split())}",
            [*question, Paragraph(""), Paragraph("[Accept] [Decline]", "dim")],
        ),
        "update.svg": svg(
            f"Progress of the update of {CONNECTION}",
            f"The messages while the update runs: {' '.join(story.progress)}",
            [*(Paragraph(step) for step in steps), Paragraph(end, "done")],
        ),
    }


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        story = anyio.run(tell, Path(folder) / "data")
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(page.draw, Path(folder), PICTURES)
    for name, picture in drawn(story).items():
        (PICTURES / name).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
