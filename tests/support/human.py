"""A person who answers the server's questions."""

from collections.abc import Callable, Iterator
from typing import Any

from mcp_types import ElicitRequestParams, ElicitResult, ErrorData

ACCEPT = ElicitResult(action="accept", content={})


class Human:
    """Answers questions with `answers`, in order; an answer may first wait for an event."""

    def __init__(self, *answers: ElicitResult | ErrorData | Callable[[], ElicitResult]) -> None:
        self.questions: list[str] = []
        self._answers: Iterator[Any] = iter(answers)

    async def __call__(self, _: Any, params: ElicitRequestParams) -> Any:
        self.questions.append(params.message)
        answer = next(self._answers)
        return answer() if callable(answer) else answer
