"""The client of Fivetran's API, over a transport that answers from a script."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import stamina

from fivetran_state import state
from fivetran_state.errors import FivetranError, FivetranUnavailable, InvalidRequest, RateLimited
from fivetran_state.fivetran import Fivetran
from fivetran_state.fivetran_answers import RateLimit

ID = "bullion_shutdown"
CONNECTION: dict[str, Any] = {
    "id": ID,
    "service": "connector_sdk",
    "schema": "orders",
    "group_id": "group",
    "paused": False,
    "status": {"sync_state": "scheduled", "setup_state": "connected"},
}
NOT_SENT = [httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError]
CUT_OFF = [httpx.ReadError, httpx.ReadTimeout, httpx.WriteError, httpx.RemoteProtocolError]
UNCLEAR = [408, 425, 500, 502, 503, 504]
ATTEMPTS = 4

Answer = httpx.Response | type[httpx.TransportError]
Call = Callable[[Fivetran], Awaitable[object]]
CHANGES: dict[str, Call] = {
    "pause": lambda fivetran: fivetran.set_paused(ID, True),
    "write": lambda fivetran: fivetran.set_state(ID, {"cursor": 1}),
    "sync": lambda fivetran: fivetran.start_sync(ID),
}
READS: dict[str, Call] = {
    "connection": lambda fivetran: fivetran.get_connection(ID),
    "state": lambda fivetran: fivetran.get_state(ID),
    "account": lambda fivetran: fivetran.get_account_id(),
    "connections": lambda fivetran: fivetran.list_connections(),
}
DATA: dict[str, Any] = {
    "connection": CONNECTION,
    "state": {"state": {"cursor": 1}},
    "account": {"account_id": "account"},
    "connections": {"items": [CONNECTION]},
    "pause": CONNECTION,
    "write": {"state": {"cursor": 1}},
    "sync": {},
}


@pytest.fixture(autouse=True)
def _retries_do_not_wait() -> Iterator[None]:
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        yield


class Script(httpx.AsyncBaseTransport):
    """Gives these answers in order, and keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = iter(answers)
        self.requests: list[httpx.Request] = []
        self.fivetran = Fivetran("https://api.test", "key", "secret", transport=self)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        await anyio.lowlevel.checkpoint()  # As on a network, others run meanwhile.
        answer = next(self._answers)
        if isinstance(answer, httpx.Response):
            return answer
        raise answer("by the script", request=request)

    async def error_of(self, call: Call) -> dict[str, Any]:
        """The error at the end of the call, as callers get it."""
        with pytest.raises(FivetranError) as error:
            await call(self.fivetran)
        return error.value.to_json()


def data(found: Any) -> httpx.Response:
    return httpx.Response(200, text=state.dump({"code": "Success", "data": found}))


def status(number: int, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(number, headers=names, json={"code": "Odd", "message": "It is odd."})


# Limits


@pytest.mark.parametrize("name", ["X_Rate_Limit", "X_Rate_Limit_Limit"])
async def test_the_limit_is_what_the_last_answer_said(name: str) -> None:
    last = status(404, **{name: "20000", "X_Rate_Limit_Remaining": "1999"})
    script = Script(data({"state": {}}), last, data({"state": {}}))
    assert script.fivetran.limit is None

    await script.fivetran.get_state(ID)
    assert script.fivetran.limit is None
    await script.error_of(READS["connection"])
    await script.fivetran.get_state(ID)

    assert script.fivetran.limit == RateLimit(20000, 1999)


@pytest.mark.parametrize(("remaining", "is_low"), [(1999, True), (2000, False)])
def test_a_limit_is_low_when_less_than_a_tenth_is_left(remaining: int, is_low: bool) -> None:
    assert RateLimit(20000, remaining).is_low is is_low


@pytest.mark.parametrize("nonsense", ["", "-1", "many", "1e3", "9" * 40, "٣"])
async def test_a_limit_that_makes_no_sense_is_ignored(nonsense: str) -> None:
    # httpx refuses a header that is not ASCII unless it is bytes.
    headers = [(b"X-Rate-Limit", nonsense.encode()), (b"X-Rate-Limit-Remaining", b"1")]
    script = Script(httpx.Response(200, headers=headers, text='{"data":{"state":{}}}'))

    await script.fivetran.get_state(ID)

    assert script.fivetran.limit is None


# Retries


@pytest.mark.parametrize("fault", [*NOT_SENT, *CUT_OFF, *UNCLEAR, 429])
async def test_a_read_is_repeated_after_a_short_fault(
    fault: type[httpx.TransportError] | int,
) -> None:
    broken = status(fault) if isinstance(fault, int) else fault
    script = Script(broken, broken, data({"state": {"cursor": 1}}))

    assert await script.fivetran.get_state(ID) == {"cursor": 1}

    assert len(script.requests) == 3


@pytest.mark.parametrize("read", READS)
async def test_a_read_that_fails_again_and_again_is_given_up(read: str) -> None:
    script = Script(*[status(503)] * ATTEMPTS)

    error = await script.error_of(READS[read])

    assert error["code"] == "fivetran_unavailable"
    assert "maybe_applied" not in error
    assert len(script.requests) == ATTEMPTS


@pytest.mark.parametrize("fault", [*NOT_SENT, 429])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_that_had_no_effect_is_repeated(
    change: str, fault: type[httpx.TransportError] | int
) -> None:
    broken = status(fault) if isinstance(fault, int) else fault
    script = Script(broken, data(DATA[change]))

    await CHANGES[change](script.fivetran)

    first, second = script.requests
    assert (first.method, first.url, first.content) == (second.method, second.url, second.content)


@pytest.mark.parametrize("fault", NOT_SENT)
async def test_a_change_that_never_left_is_not_maybe_applied(
    fault: type[httpx.TransportError],
) -> None:
    script = Script(*[fault] * ATTEMPTS)

    error = await script.error_of(CHANGES["write"])

    assert error["code"] == "fivetran_unavailable"
    assert "maybe_applied" not in error
    assert len(script.requests) == ATTEMPTS


@pytest.mark.parametrize("fault", [*CUT_OFF, *UNCLEAR, "garbage", "not JSON"])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_that_may_have_had_an_effect_is_not_repeated(
    change: str, fault: type[httpx.TransportError] | int | str
) -> None:
    answers: dict[object, Answer] = {
        "garbage": httpx.Response(200, content=b"\xff\x00"),
        "not JSON": httpx.Response(200, text="<html>"),
        **{each: each for each in CUT_OFF},
        **{each: status(each) for each in UNCLEAR},
    }
    script = Script(answers[fault])

    error = await script.error_of(CHANGES[change])

    assert (error["code"], error["maybe_applied"]) == ("fivetran_unavailable", True)
    assert len(script.requests) == 1


async def test_a_pause_that_is_answered_with_no_connection_is_maybe_applied() -> None:
    script = Script(data({"id": ID}))

    error = await script.error_of(CHANGES["pause"])

    assert (error["code"], error["maybe_applied"]) == ("fivetran_unavailable", True)


# Retry-After


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("6", 6), ("3600", 3600), ("inf", 86_400), ("1e9", 86_400), ("7.5", 7.5)],
)
@pytest.mark.parametrize("call", [*READS, *CHANGES])
async def test_a_long_rate_limit_is_the_callers_to_wait_for(
    call: str, header: str, seconds: float
) -> None:
    script = Script(status(429, Retry_After=header))

    error = await script.error_of((READS | CHANGES)[call])

    assert (error["code"], error["retry_after"]) == ("rate_limited", seconds)
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"), [("0", 0), ("-5", 0), ("5", 5), ("nan", 1), ("soon", 1), (None, 1)]
)
async def test_a_short_rate_limit_is_sat_out(header: str | None, seconds: float) -> None:
    headers = {} if header is None else {"Retry_After": header}
    script = Script(*[status(429, **headers)] * ATTEMPTS)

    with pytest.raises(RateLimited) as error:
        await script.fivetran.set_state(ID, {})

    assert error.value.to_json()["retry_after"] == seconds
    assert len(script.requests) == ATTEMPTS


async def test_the_wait_is_as_long_as_fivetran_asks_for(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(status(429, Retry_After="0.1"), data({"state": {}}))

    with stamina.set_testing(False):
        await script.fivetran.get_state(ID)

    (record,) = caplog.records
    # Its own first wait would be at least 0.2 seconds.
    assert record.getMessage().startswith("Trying again in 0.1 s: ")


# Refusals

REFUSALS = {
    "connection": {
        400: "fivetran_error",
        401: "unauthorized",
        403: "forbidden",
        404: "connection_not_found",
        405: "fivetran_error",
        409: "fivetran_error",
        418: "fivetran_error",
    },
    "state": {400: "no_state_yet", 404: "connection_not_found", 405: "state_not_kept"},
    "write": {
        400: "fivetran_error",
        401: "unauthorized",
        403: "forbidden",
        404: "connection_not_found",
        405: "state_not_kept",
        409: "sync_running",
    },
    "pause": {400: "fivetran_error", 405: "fivetran_error", 409: "sync_running"},
}


@pytest.mark.parametrize(
    ("call", "number", "code"),
    [(call, *refusal) for call, refusals in REFUSALS.items() for refusal in refusals.items()],
)
async def test_a_refusal_has_its_type_and_quotes_fivetran(
    call: str, number: int, code: str
) -> None:
    script = Script(status(number))

    error = await script.error_of((READS | CHANGES)[call])

    assert error["code"] == code
    assert error["message"].endswith(": It is odd.")
    assert (error["status"], error["fivetran_code"]) == (number, "Odd")
    assert "maybe_applied" not in error
    assert len(script.requests) == 1


@pytest.mark.parametrize("body", [b"", b"\xff", b"[1]", b'"text"', b"[" * 100_000])
async def test_a_refusal_without_a_readable_body_names_its_status(body: bytes) -> None:
    script = Script(httpx.Response(404, content=body))

    error = await script.error_of(READS["connection"])

    assert error["code"] == "connection_not_found"
    assert error["message"].endswith(": HTTP 404")


# Reads


@pytest.mark.parametrize(
    ("read", "found"),
    [
        ("account", {}),
        ("account", {"account_id": 7}),
        ("account", {"account_id": ""}),
        ("connections", {}),
        ("connections", {"items": {}}),
        ("connections", {"items": [CONNECTION | {"paused": "no"}]}),
        ("connections", {"items": [], "next_cursor": 7}),
        ("connections", {"items": [], "next_cursor": "a\nb"}),
        ("connection", {}),
        ("connection", CONNECTION | {"id": None}),
        ("connection", CONNECTION | {"status": None}),
        ("state", {}),
    ],
)
async def test_an_answer_that_is_not_as_documented_is_an_error(read: str, found: Any) -> None:
    script = Script(data(found))

    error = await script.error_of(READS[read])

    assert error["code"] == "fivetran_unavailable"


async def test_a_page_has_its_connections_and_the_next_cursor() -> None:
    script = Script(data({"items": [CONNECTION], "next_cursor": "more"}))

    (connection,), following = await script.fivetran.list_connections(cursor="first", limit=7)

    assert (connection.id, connection.keeps_state, following) == (ID, True, "more")
    assert dict(script.requests[0].url.params) == {"limit": "7", "cursor": "first"}


async def test_a_number_is_read_and_written_as_it_is_spelt() -> None:
    exact = '{"id":9007199254740993,"rate":1.10}'
    answer = httpx.Response(200, text=f'{{"data":{{"state":{exact}}}}}')
    script = Script(answer, data({}))

    found = await script.fivetran.get_state(ID)
    assert isinstance(found, dict)
    await script.fivetran.set_state(ID, found)

    assert script.requests[1].content.decode() == f'{{"state":{exact}}}'


@pytest.mark.parametrize("is_missing", [True, False])
async def test_a_connection_without_a_state_has_none(is_missing: bool) -> None:
    none = status(400) if is_missing else data({"state": None})
    script = Script(data(CONNECTION), none)

    connection, found = await script.fivetran.get_connection_and_state(ID)

    assert (connection.id, found) == (ID, None)


async def test_a_service_that_keeps_no_state_has_none_whatever_fivetran_answers() -> None:
    script = Script(data(CONNECTION | {"service": "postgres"}), status(403))

    connection, found = await script.fivetran.get_connection_and_state(ID)

    assert (connection.keeps_state, found) == (False, None)


async def test_of_two_refusals_that_of_the_connection_is_told() -> None:
    script = Script(status(404), status(403))

    error = await script.error_of(lambda fivetran: fivetran.get_connection_and_state(ID))

    assert error["code"] == "connection_not_found"


@pytest.mark.parametrize(
    ("answer", "is_accepted"),
    [(status(401), False), (status(403), True), (status(500), True), (httpx.ReadError, True)],
)
async def test_only_fivetran_can_say_that_a_key_is_not_accepted(
    answer: Answer, is_accepted: bool
) -> None:
    script = Script(answer)

    assert await script.fivetran.accepts_key() is is_accepted

    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("paused", "sync_state", "is_drained"),
    [
        (True, "paused", True),
        (True, "rescheduled", True),
        (True, "scheduled", True),
        (True, "syncing", False),
        (True, "a word of tomorrow", False),
        (False, "scheduled", False),
        (False, "rescheduled", False),
    ],
)
async def test_a_connection_is_drained_once_it_is_paused_and_no_sync_runs(
    paused: bool, sync_state: str, is_drained: bool
) -> None:
    found = CONNECTION | {"paused": paused, "status": {"sync_state": sync_state}}
    script = Script(data(found))

    assert (await script.fivetran.get_connection(ID)).is_drained is is_drained


# The groups' names


async def test_the_groups_names_are_asked_for_once() -> None:
    script = Script(data({"items": [{"id": "group", "name": "Warehouse"}]}))

    names = [await script.fivetran.group_names() for _ in range(2)]

    assert names == [{"group": "Warehouse"}] * 2


async def test_who_asks_for_the_groups_names_at_the_same_time_gets_them_too() -> None:
    script = Script(data({"items": [{"id": "group", "name": "Warehouse"}]}))

    names = await asyncio.gather(*(script.fivetran.group_names() for _ in range(3)))

    assert names == [{"group": "Warehouse"}] * 3
    assert len(script.requests) == 1


@pytest.mark.parametrize("answer", [httpx.ReadError, status(500), data({}), data({"items": [7]})])
async def test_without_the_groups_names_there_are_none(answer: Answer) -> None:
    script = Script(answer)

    assert await script.fivetran.group_names() == {}

    assert len(script.requests) == 1


# Requests


async def test_every_request_names_the_version_of_the_api_and_the_key() -> None:
    script = Script(*(data(DATA[call]) for call in READS | CHANGES))

    for call in (READS | CHANGES).values():
        await call(script.fivetran)

    for request in script.requests:
        assert request.headers["Accept"] == "application/json;version=2"
        assert request.headers["Authorization"] == "Basic a2V5OnNlY3JldA=="
        assert request.headers["User-Agent"].startswith("fivetran-state/")


async def test_a_change_says_what_it_wants_and_no_more() -> None:
    script = Script(*(data(DATA[change]) for change in CHANGES))

    for change in CHANGES.values():
        await change(script.fivetran)

    sent = [(each.method, each.url.path, json.loads(each.content)) for each in script.requests]
    assert sent == [
        ("PATCH", f"/v1/connections/{ID}", {"paused": True, "run_setup_tests": False}),
        ("PATCH", f"/v1/connections/{ID}/state", {"state": {"cursor": 1}}),
        ("POST", f"/v1/connections/{ID}/sync", {"force": False}),
    ]


@pytest.mark.parametrize("odd", ["", ".", "..", "a/b", "a?b", "a\nb", "ä", "a" * 1000])
async def test_what_is_not_an_id_is_not_sent(odd: str) -> None:
    script = Script()

    with pytest.raises(InvalidRequest):
        await script.fivetran.get_connection(odd)

    assert script.requests == []


# The end


async def test_a_client_that_is_closed_may_still_be_used() -> None:
    script = Script(data(CONNECTION), httpx.ReadError)

    await script.fivetran.aclose()

    assert (await script.fivetran.get_connection(ID)).id == ID
    with pytest.raises(FivetranUnavailable):
        await script.fivetran.set_paused(ID, True)
