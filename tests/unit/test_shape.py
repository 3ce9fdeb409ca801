"""The package keeps its shape: imports point down and are declared, and no module holds state."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import files, packages_distributions, requires
from pathlib import Path

from tests.support.calls import ROOT

PACKAGE = "fivetran_state"
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / PACKAGE).rglob("*.py")
}


def imports_in(path: Path) -> Iterator[tuple[str, str]]:
    """Modules, each with the full name of what is imported from it. Within functions too, since that
    would only hide a circle."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((name.name, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "no relative imports"
            yield from ((node.module, f"{node.module}.{name.name}") for name in node.names)


def imported_by(path: Path) -> Iterator[str]:
    return (full if full in SOURCES else module for module, full in imports_in(path))


def test_no_module_imports_itself_in_a_circle() -> None:
    order = TopologicalSorter(
        {
            name: {each for each in imported_by(path) if each in SOURCES} - {name}
            for name, path in SOURCES.items()
        }
    )
    order.prepare()  # Raises CycleError, which names the circle.


LAYERS = (
    ("cli", "main"),
    ("http_server", "stdio_server"),
    ("mcp_server",),
    ("startup",),
    ("service",),
    ("runtime",),
    ("watch",),
    ("updates",),
    ("history",),
)
"""From the top. What is not named is below them all."""
ONLY_THEY_KNOW_DBOS = {"updates", "runtime", "watch", "dbos_internals"}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def test_imports_point_down() -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    up = [
        (module, imported)
        for module, path in SOURCES.items()
        for imported in imported_by(path)
        if imported.startswith(f"{PACKAGE}.") and module != f"{PACKAGE}.__main__"
        if level.get(part_of(imported), len(LAYERS)) < level.get(part_of(module), len(LAYERS))
    ]
    assert up == []


def test_only_updates_and_runtime_know_dbos() -> None:
    know = {
        part_of(module)
        for module, path in SOURCES.items()
        if any(imported.split(".")[0] == "dbos" for imported in imported_by(path))
    }
    assert know == ONLY_THEY_KNOW_DBOS


def test_no_module_changes_after_its_import() -> None:
    changed = [
        (module, node.lineno)
        for module, path in SOURCES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Global)
        or (isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.modules")
    ]
    assert changed == []


EMPTY_CONTAINERS = ("{}", "[]", "set()", "dict()", "list()", "OrderedDict()", "deque()")


def test_no_module_holds_a_container_that_is_filled_later() -> None:
    held = [
        (module, ast.unparse(node))
        for module, path in SOURCES.items()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        if ast.unparse(node.value) in EMPTY_CONTAINERS
    ]
    assert held == []


def owner_of(name: str, distributions: list[str]) -> str:
    """The one that has this module, or the module that it is a part of."""
    if len({*distributions}) == 1:
        return distributions[0]
    assert name, f"none of {distributions} has it"
    path = name.replace(".", "/")
    for distribution in distributions:
        there = {str(file) for file in files(distribution) or ()}
        if there & {f"{path}.py", f"{path}/__init__.py"}:
            return distribution
    return owner_of(name.rpartition(".")[0], distributions)


def test_what_is_imported_is_declared() -> None:
    imported = {full for path in SOURCES.values() for _, full in imports_in(path)}
    declared = {
        re.split(r"[\[<>=; ]", each)[0].lower() for each in requires("fivetran-state") or ()
    }
    distributions = packages_distributions()

    for name in imported:
        package = name.split(".")[0]
        # tomli is installed only where Python has no tomllib.
        if package not in {*sys.stdlib_module_names, PACKAGE, "tomllib"}:
            distribution = owner_of(name, distributions.get(package, [package]))
            assert distribution.lower().replace("_", "-") in declared, name


def test_each_dependency_has_its_reason() -> None:
    page = (ROOT / "docs/explanation/dependencies.md").read_text(encoding="utf-8")
    declared = {re.split(r"[\[<>=; ]", each)[0] for each in requires("fivetran-state") or ()}

    assert set(re.findall(r"^\| `([\w-]+)`", page, re.MULTILINE)) == declared
