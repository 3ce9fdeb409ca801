"""The package keeps its shape: no circles among its modules, and whatever it imports is declared."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from tests.support.calls import ROOT

PACKAGE = "fivetran_state"
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / PACKAGE).rglob("*.py")
}


def imported_by(path: Path) -> Iterator[str]:
    """Within functions too, since that would only hide a circle."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "no relative imports"
            for name in node.names:
                full = f"{node.module}.{name.name}"
                yield full if full in SOURCES else node.module


def test_no_module_imports_itself_in_a_circle() -> None:
    order = TopologicalSorter(
        {
            name: {each for each in imported_by(path) if each in SOURCES} - {name}
            for name, path in SOURCES.items()
        }
    )
    order.prepare()  # Raises CycleError, which names the circle.


def test_what_is_imported_is_declared() -> None:
    imported = {each.split(".")[0] for path in SOURCES.values() for each in imported_by(path)}
    declared = {
        re.split(r"[\[<>=; ]", each)[0].lower() for each in requires("fivetran-state") or ()
    }
    part_of_another = {"mcp_types": "mcp", "pydantic_core": "pydantic"}
    distributions = packages_distributions()

    for name in imported - set(sys.stdlib_module_names) - {PACKAGE}:
        found = part_of_another.get(name) or distributions[name][0]
        assert found.lower().replace("_", "-") in declared, name
