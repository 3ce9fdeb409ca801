"""Puts a mutant's functions in the place of those that were imported: importing all again takes seconds."""

import gc
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import TypeAlias

Swap: TypeAlias = Callable[[], None]


def swapped(path: Path, before: str, after: str) -> Swap | None:
    """Does that in the process that calls it. None if more than the bodies of functions differs."""
    old_codes = list(_codes(compile(before, str(path), "exec")))
    new_codes = list(_codes(compile(after, str(path), "exec")))
    if len(old_codes) != len(new_codes):
        return None
    pairs = list(zip(old_codes, new_codes, strict=True))
    if any(old.co_name != new.co_name or old.co_freevars != new.co_freevars for old, new in pairs):
        return None
    if any(_is_run_once(old) and _itself(old) != _itself(new) for old, new in pairs):
        return None
    instead = {_key(old): new for old, new in pairs}

    def swap() -> None:
        for each in gc.get_objects():
            if isinstance(each, FunctionType) and each.__code__.co_filename == str(path):
                each.__code__ = instead[_key(each.__code__)]

    return swap


def _key(code: CodeType) -> tuple[str, int, bytes]:
    return code.co_name, code.co_firstlineno, code.co_code


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _is_run_once(code: CodeType) -> bool:
    """True for the code of a module or class."""
    return not code.co_flags & inspect.CO_OPTIMIZED


def _itself(code: CodeType) -> tuple[object, ...]:
    constants = [each for each in code.co_consts if not isinstance(each, CodeType)]
    return code.co_code, code.co_names, repr(constants)
