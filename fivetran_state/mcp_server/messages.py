"""JSON-RPC messages as they arrive, including malformed ones.

The SDK drops a line that it cannot parse, replaces bytes that are not UTF-8, and treats a request
with an unusable id as a notification. It also ignores an answer without a usable result, so that
its question waits forever.
"""

import json
from typing import Any

from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LARGE = 64 * 1024
"""From this size in bytes, a request is recognized without parsing it a second time."""


class Refused(Exception):
    """The text is not a message; `answer` is the error for its sender."""

    def __init__(self, code: int, problem: str, request_id: int | str | None) -> None:
        super().__init__(problem)
        self.answer = _error(request_id, code, f"{problem} Nothing was done.")


def message_in(text: bytes) -> JSONRPCMessage:
    """The message in this text; raises `Refused`.

    A malformed answer from the client becomes an error response.
    """
    text = text.removeprefix(BYTE_ORDER_MARK)
    try:
        message = jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValidationError as error:
        is_json = error.errors(include_url=False, include_input=False)[0]["type"] != "json_invalid"
    else:
        if not (isinstance(message, JSONRPCNotification) and "id" in json.loads(text)):
            return message
        is_json = True
    decoded = _leniently_decoded(text)
    request_id = _id_of(decoded)
    if request_id is not None and _is_answer(decoded):
        return _error(request_id, INVALID_REQUEST, "The answer has no usable result.")
    if isinstance(decoded, list):
        raise Refused(INVALID_REQUEST, "Batches are not supported: send one message a line.", None)
    if is_json:
        raise Refused(INVALID_REQUEST, "This is not a JSON-RPC 2.0 message.", request_id)
    raise Refused(PARSE_ERROR, "This is not JSON, or not valid Unicode.", request_id)


def answer_in(text: bytes) -> JSONRPCError | None:
    """The error for an answer without a usable result; None for any other text."""
    if len(text) > LARGE and b'"method"' in text:
        return None
    try:
        message = message_in(text)
    except Refused:
        return None
    return message if isinstance(message, JSONRPCError) else None


def _is_answer(decoded: Any) -> bool:
    return (
        isinstance(decoded, dict)
        and "method" not in decoded
        and not decoded.keys().isdisjoint({"result", "error"})
    )


def _leniently_decoded(text: bytes) -> Any:
    """The readable part of a malformed message, to find its id; None if nothing is readable."""
    try:
        return json.loads(text.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def _id_of(decoded: Any) -> int | str | None:
    request_id = decoded.get("id") if isinstance(decoded, dict) else None
    if isinstance(request_id, bool) or not isinstance(request_id, int | str):
        return None
    return None if isinstance(request_id, str) and _is_damaged(request_id) else request_id


def _is_damaged(text: str) -> bool:
    return "\ufffd" in text or any("\ud800" <= character <= "\udfff" for character in text)


def _error(request_id: int | str | None, code: int, message: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=ErrorData(code=code, message=message))
