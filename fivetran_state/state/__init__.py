"""Pure functions on a state document: a JSON object of cursors.

Python's own JSON turns 1.10 into 1.1 and rounds a 40-digit decimal, and its ``==`` treats 1, 1.0
and True as equal. A cursor must come back exactly as Fivetran had it. So this package
parses, writes, versions, changes and compares states, and changes a number only if the caller asks
for it.
"""

from fivetran_state.state.changing import (
    MAX_KEPT,
    Applied,
    Change,
    applied,
    apply,
    check,
    parse_change,
    part_of,
)
from fivetran_state.state.comparing import Diff, DiffEntry, diff, differences
from fivetran_state.state.doubles import hides, inexact, plain
from fivetran_state.state.json_patch import MAX_COPIED, MAX_OPERATIONS
from fivetran_state.state.limits import MAX_BYTES, MAX_DEPTH, MAX_VALUES
from fivetran_state.state.listing import (
    MAX_PREVIEW,
    Listing,
    OutlineEntry,
    matches,
    outline,
    search,
)
from fivetran_state.state.numbers import is_number, number
from fivetran_state.state.pointers import MAX_PATH_LENGTH, NotThere, at, shown_path
from fivetran_state.state.reading import (
    MAX_ANSWER_BYTES,
    adopt,
    document,
    has_too_many_values,
    parse,
    parse_answer,
    parse_envelope,
    parse_value,
)
from fivetran_state.state.values import (
    Document,
    InvalidChange,
    InvalidState,
    JsonValue,
    RawDocument,
    State,
    has_more_values,
)
from fivetran_state.state.writing import dump, indented, is_version, preview, same, version

__all__ = [
    "MAX_ANSWER_BYTES",
    "MAX_BYTES",
    "MAX_COPIED",
    "MAX_DEPTH",
    "MAX_KEPT",
    "MAX_OPERATIONS",
    "MAX_PATH_LENGTH",
    "MAX_PREVIEW",
    "MAX_VALUES",
    "Applied",
    "Change",
    "Diff",
    "DiffEntry",
    "Document",
    "InvalidChange",
    "InvalidState",
    "JsonValue",
    "Listing",
    "NotThere",
    "OutlineEntry",
    "RawDocument",
    "State",
    "adopt",
    "applied",
    "apply",
    "at",
    "check",
    "diff",
    "differences",
    "document",
    "dump",
    "has_more_values",
    "has_too_many_values",
    "hides",
    "indented",
    "inexact",
    "is_number",
    "is_version",
    "matches",
    "number",
    "outline",
    "parse",
    "parse_answer",
    "parse_change",
    "parse_envelope",
    "parse_value",
    "part_of",
    "plain",
    "preview",
    "same",
    "search",
    "shown_path",
    "version",
]
