"""`scripts/release` builds and checks everything from a clean clone."""

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from fivetran_state import __version__
from tests.release import described
from tests.support.calls import ROOT

pytestmark = pytest.mark.slow


def test_a_release_is_built_checked_and_listed(tmp_path: Path) -> None:
    released = subprocess.run(
        [ROOT / "scripts" / "release", tmp_path / "dist"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout

    built = {path.name: path.read_bytes() for path in (tmp_path / "dist").iterdir()}
    assert built.keys() == {
        f"fivetran_state-{__version__}.tar.gz",
        f"fivetran_state-{__version__}-py3-none-any.whl",
        f"fivetran-state-{__version__}.mcpb",
        described.SERVER.name,
    }
    for name, content in built.items():
        digest = hashlib.sha256(content).hexdigest()
        assert re.search(rf"^{digest} +{len(content):,} {name}$", released, re.MULTILINE)
