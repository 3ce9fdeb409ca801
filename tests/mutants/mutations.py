"""The mutants of a module: its source with one thing wrong."""

import ast
import difflib
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider

LEFT_OUT = ("ReplaceBinaryOperator_BitOr", "Variable")
"""Most | are in types. What replaces variables needs to be told which ones."""
OF_ONE_PLACE = 2
"""The most mutants of one place. Some operators have a dozen, which are noticed alike."""


@dataclass(frozen=True)
class Part:
    """A statement of a module, and what is around it: parsing a whole module takes a second."""

    path: Path
    line: int
    before: str
    source: str
    after: str


@dataclass(frozen=True)
class Place:
    part: Part
    line: int
    operator: Operator
    occurrence: int


@dataclass(frozen=True)
class Mutant:
    path: Path
    line: int
    source: str

    def difference(self) -> str:
        before = self.path.read_text(encoding="utf-8")
        lines = difflib.unified_diff(
            before.splitlines(), self.source.splitlines(), n=0, lineterm=""
        )
        changed = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
        return "\n".join([f"{self.path}:{self.line}", *changed])


class RemoveStatement(Operator):  # type: ignore[misc]
    """Replaces a call whose result nobody uses, a raise, or an assignment to an attribute, by pass."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        if node.type == "simple_stmt" and _has_only_an_effect(node.children[0]):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.children[0] = parso.parse(node.children[0].get_first_leaf().prefix + "pass")
        return node

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        return ()


def _has_only_an_effect(node: Any) -> bool:
    if node.type == "expr_stmt":
        return bool(node.children[0].type == "atom_expr")
    return node.type in ("atom_expr", "raise_stmt")


def _operators() -> dict[str, Operator]:
    known = OperatorProvider()
    found = {name: known[name]() for name in known if not name.startswith(LEFT_OUT)}
    return {**found, "RemoveStatement": RemoveStatement()}


def places(paths: list[Path]) -> list[Place]:
    """Where these modules can be changed, and how; at most `OF_ONE_PLACE` ways each."""
    found: list[Place] = []
    chance = random.Random(0)
    for path in paths:
        alike: dict[Any, list[Place]] = defaultdict(list)
        for part in _parts(path):
            nodes = list(ast_nodes(get_ast(part.source)))
            for operator in _operators().values():
                positions = (where for node in nodes for where in operator.mutation_positions(node))
                for occurrence, (start, end) in enumerate(positions):
                    alike[part.line, start, end].append(
                        Place(part, part.line + start[0] - 1, operator, occurrence)
                    )
        for each in alike.values():
            found += chance.sample(each, min(len(each), OF_ONE_PLACE))
    return found


def mutants(places: list[Place], seed: int) -> Iterator[Mutant]:
    """A mutant of each place, in an order by chance, without those that are no Python."""
    for place in random.Random(seed).sample(places, len(places)):
        part = place.part
        changed = mutate_code(part.source, place.operator, place.occurrence)
        if changed is not None and _is_valid(source := part.before + changed + part.after):
            yield Mutant(part.path, place.line, source)


def _parts(path: Path) -> Iterator[Part]:
    """The functions, classes and other statements of a module."""
    text = path.read_text(encoding="utf-8")
    end = 0
    for node in get_ast(text).children:
        source = node.get_code()
        start, end = end, end + len(source)
        yield Part(path, text[:start].count("\n") + 1, text[:start], source, text[end:])


def _is_valid(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True
