"""What `scripts/coverage` has found: the tests that run each line, and how long they take."""

import ast
from pathlib import Path
from xml.etree import ElementTree

from coverage import CoverageData


class Knowledge:
    def __init__(self, folder: Path) -> None:
        self._data = CoverageData(str(folder / "data"))
        self._data.read()
        self._seconds: dict[str, float] = {}
        for case in ElementTree.parse(folder / "times.xml").iter("testcase"):
            module = case.attrib["classname"].replace(".", "/") + ".py"
            self._seconds[f"{module}::{case.attrib['name']}"] = float(case.attrib["time"])
        self._files: dict[str, str] = {
            Path(name).as_posix(): name for name in self._data.measured_files()
        }

    def seconds(self, test: str) -> float:
        return self._seconds[test]

    def tests_of(self, path: Path, line: int) -> set[str]:
        """The tests that run the statement on this line; of one that is run at the import, all of the module."""
        by_line = self._data.contexts_by_lineno(self._name(path))
        found = self._tests(by_line, _statement(path, line))
        return found or self._tests(by_line, range(1, 1_000_000))

    def _tests(self, by_line: dict[int, list[str]], lines: range) -> set[str]:
        names = {name for line in by_line.keys() & set(lines) for name in by_line[line]}
        tests = {name.partition("|")[0] for name in names if name.endswith("|run")}
        return tests & self._seconds.keys()

    def _name(self, path: Path) -> str:
        return next(self._files[name] for name in self._files if name.endswith(path.as_posix()))


def _statement(path: Path, line: int) -> range:
    """The lines of the statement; of one that has a body, those of its head."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            end = max(body[0].lineno - 1, node.lineno) if body else node.end_lineno or line
            if node.lineno <= line <= end:
                found = range(node.lineno, end + 1)
    return found
