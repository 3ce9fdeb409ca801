"""Answers other than 200."""

import json

_CODES = {
    400: "InvalidInput",
    401: "AuthFailed",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    415: "UnsupportedMediaType",
    429: "TooManyRequests",
}


class Refusal(Exception):
    """An answer other than 200: status, message and, if Fivetran has a special one, code."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = json.dumps({"code": code or code_of(status), "message": message})


def code_of(status: int) -> str:
    """The `code` that goes with an HTTP status."""
    return _CODES.get(status, "InternalServerError")
