"""The pinned versions, which `scripts/lock` writes."""

import re
import sys
from itertools import chain

from tests.support.calls import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = (ROOT / "constraints.txt").read_text(encoding="utf-8")
ENTRIES = re.sub(r" \\\n +", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()


def test_every_package_has_an_exact_version_and_hashes() -> None:
    assert ENTRIES
    for entry in ENTRIES:
        assert re.fullmatch(
            r"[\w.-]+==[\w.+!-]+( ; [^-]+)?( --hash=sha256:[0-9a-f]{64})+", entry
        ), entry


def test_no_host_is_named() -> None:
    assert "://" not in TEXT
    assert "--index" not in TEXT


def test_what_is_asked_for_is_pinned() -> None:
    """pip would take any version of the others."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, groups = content["project"], content["dependency-groups"]
    extras = project.get("optional-dependencies", {})
    asked = chain(project["dependencies"], *extras.values(), *groups.values())
    names = {re.split(r"[\[<>=~!;\s]", each)[0].lower() for each in asked}

    assert names <= {entry.partition("==")[0] for entry in ENTRIES}
