"""Problems with a call's arguments, in plain English and with JSON's names of types."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any

from pydantic import ValidationError

from fivetran_state.text import shown

SHOWN_PROBLEMS = 5
MAX_UNKNOWN = 20
"""With more unknown arguments than this, pydantic is not asked: it makes an error of each."""
MAX_NAME_LENGTH = 100
"""Characters of an unknown argument's name that are compared with the known names."""

_TYPES = {
    "dict_type": "a JSON object",
    "model_type": "a JSON object",
    "model_attributes_type": "a JSON object",
    "list_type": "a JSON array",
    "string_type": "a JSON string",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
}
"""The types that an argument must have, by pydantic's types of errors."""

_RULES = {
    "missing": "is missing",
    "extra_forbidden": "is not an argument",
    "unexpected_keyword_argument": "is not an argument",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_too_long": "must have at most {max_length} characters",
    # An argument with a minimum length has a minimum of 1.
    "string_too_short": "must not be empty",
    "string_unicode": "is not valid Unicode: it holds half of a surrogate pair",
    "too_long": "must have at most {max_length} items",
    "too_short": "must not be empty",
}
"""Other problems of an argument, by pydantic's types of errors."""

_Place = tuple[str, ...]


def problems_of(error: ValidationError | Sequence[Mapping[str, Any]]) -> str:
    """The problems, each with its argument: `new_state must be a JSON object, not a string`.

    Takes pydantic's error, or the result of its `errors()`. The values of arguments are left out.
    Problems are separated by semicolons, without a full stop at the end.
    """
    found = error.errors(include_url=False) if isinstance(error, ValidationError) else error
    by_place: dict[_Place, list[Mapping[str, Any]]] = {}
    for each in found:
        by_place.setdefault(_place_of(each["loc"], each["type"]), []).append(each)
    # If an argument may have one of several types, pydantic reports a problem for each type. Keep
    # the problem furthest inside the argument: it is that of the type that fits best.
    outer = {place[:length] for place in by_place for length in range(len(place))}
    problems = [
        f"{_name_of(place)} {_problem(each)}"
        for place, each in by_place.items()
        if place not in outer
    ]
    more = len(problems) - SHOWN_PROBLEMS
    return "; ".join([*problems[:SHOWN_PROBLEMS], *([f"and {more} more"] if more > 0 else [])])


def too_many_unknown(given: Mapping[str, Any], known: Collection[str]) -> str | None:
    """The problems, if there are too many unknown arguments to check the others; else None."""
    if len(given) <= len(known) + MAX_UNKNOWN:
        return None
    unknown = (name for name in given if name not in known)
    problems = [f"{shown(name)} is not an argument" for name in islice(unknown, SHOWN_PROBLEMS)]
    more = sum(1 for _ in unknown)
    return "; ".join([*problems, f"and {more} more"])


def unknown_arguments(unknown: Sequence[str], known: Iterable[str]) -> str:
    """Each unknown argument, with the known argument that it resembles most."""
    names = list(known)
    problems = [_unknown(name, names) for name in unknown[:SHOWN_PROBLEMS]]
    more = len(unknown) - SHOWN_PROBLEMS
    return "; ".join([*problems, *([f"and {more} more"] if more > 0 else [])])


def _unknown(name: str, known: Sequence[str]) -> str:
    nearest = get_close_matches(name[:MAX_NAME_LENGTH], known, n=1)
    meant = f" (did you mean {nearest[0]}?)" if nearest else ""
    return f"{shown(name)} {_RULES['extra_forbidden']}{meant}"


def _place_of(location: Sequence[str | int], kind: str) -> _Place:
    """The argument's name, the indexes inside it, and the field there that is missing or unknown."""
    if not location:
        return ("an argument's name",)
    name, *inside = location
    # If several types are allowed, pydantic adds the name of the type that it tried.
    field = [f".{inside[-1]}"] if inside and kind in ("missing", "extra_forbidden") else []
    return str(name), *(str(index) for index in inside if isinstance(index, int)), *field


def _name_of(place: _Place) -> str:
    name, *indexes = place
    return shown(name) + "".join(
        shown(each) if each.startswith(".") else f"[{each}]" for each in indexes
    )


def _problem(errors: Sequence[Mapping[str, Any]]) -> str:
    types = list(dict.fromkeys(_TYPES[each["type"]] for each in errors if each["type"] in _TYPES))
    if types:
        instead = _instead(errors[0]["type"], errors[0].get("input"))
        return f"must be {' or '.join(types)}{instead}"
    rule = _RULES.get(errors[0]["type"], "is not valid")
    return rule.format(**errors[0].get("ctx", {}))


def _instead(kind: str, value: object) -> str:
    """The type of a value that has the wrong type."""
    return f", not {_type_of(value)}" if kind.endswith("_type") else ""


def _type_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    return "a string" if isinstance(value, str) else "a number"
