"""The test modules themselves."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.calls import ROOT

MODULES = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]


def imported(module: Path) -> Iterator[str]:
    """The dotted names that a module imports."""
    package = module.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Each dot after the first is one package up.
            start = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*start, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{each.name}" for each in node.names)


def test_no_module_imports_a_test_module() -> None:
    tests = {
        ".".join(module.relative_to(ROOT).with_suffix("").parts)
        for module in MODULES
        if module.name.startswith("test_")
    }

    found = [
        f"{module.relative_to(ROOT)} imports {name}"
        for module in MODULES
        for name in imported(module)
        if name in tests
    ]

    assert tests
    assert found == [], "what tests share belongs to tests/support/"
