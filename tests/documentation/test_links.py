"""Every link in the documentation leads somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.documentation.pages import DOCS, PAGES, name_of, prose_of
from tests.support.calls import ROOT


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link, target, anchor in relative(page):
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_to_elsewhere_is_an_address(page: Path) -> None:
    for link in links(page):
        if is_elsewhere(link):
            address = urlsplit(link)
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", address.netloc), link
            assert re.fullmatch(r"[!-~]*", link), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_two_headings_of_a_page_have_the_same_target(page: Path) -> None:
    found = anchors(page)

    # The changelog has the same headings in each version.
    assert len(found) == len(set(found)) or page.name == "CHANGELOG.md"


def test_every_page_can_be_reached_from_the_one_about_all() -> None:
    start = ROOT / "docs/README.md"
    reached, waiting = {start}, [start]
    while waiting:
        for _, target, _ in relative(waiting.pop()):
            if target in PAGES and target not in reached:
                reached.add(target)
                waiting.append(target)

    assert start in {target for _, target, _ in relative(ROOT / "README.md")}
    assert [page for page in DOCS if page not in reached] == []


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs/README.md"
    named = {target for _, target, _ in relative(index)}

    assert [page for page in DOCS if page not in named | {index}] == []


def links(page: Path) -> list[str]:
    """What its links, in Markdown and HTML, and its pictures lead to."""
    text = prose_of(page)
    found = re.findall(r"\]\(([^)\s]*(?: [^)]*)?)\)", text)
    found += re.findall(r"<https?://[^>]*>", text)
    return [*found, *re.findall(r'(?:src|srcset|href)="([^"]*)"', text)]


def is_elsewhere(link: str) -> bool:
    return link.startswith("https://")


def relative(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Each link within the repository: its text in the page, the file, and the heading in it."""
    for link in links(page):
        if not is_elsewhere(link):
            path, _, anchor = link.partition("#")
            yield link, (page.parent / path).resolve() if path else page, anchor


def anchors(page: Path) -> list[str]:
    """The link targets of its headings."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
