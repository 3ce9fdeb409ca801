"""The policy: which rule decides, and which line of its file is wrong."""

from datetime import datetime, timezone
from typing import Any

import pytest

from fivetran_state import state
from fivetran_state.access import SCOPES, WITHOUT_TOKEN, Principal
from fivetran_state.policy import Judged, NameUnknown, Policy, Ruling
from fivetran_state.policy_file import parse
from tests.support.calls import ROOT

WRITER = Principal("token:ab12cd34", WITHOUT_TOKEN)
APPROVER = Principal("oauth:alice", SCOPES)
CONNECTION = Judged("speak_inexpensive", "orders_eu", "group_one", "Production")
MONDAY_NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)

FORBIDDEN = 'approval = "forbidden"'
REQUIRED = 'approval = "required"'
NOT_REQUIRED = 'approval = "not required"'


def rules(*texts: str) -> Policy:
    """Rules with the names `0`, `1` and so on."""
    return parse("".join(f'[[rule]]\nname = "{at}"\n{text}\n' for at, text in enumerate(texts)))


def judge(
    policy: Policy,
    before: Any,
    after: Any,
    caller: Principal = WRITER,
    *,
    connection: Judged = CONNECTION,
    now: datetime = MONDAY_NOON,
    otherwise: bool = False,
) -> Ruling:
    return policy.judge(
        connection, document(before), document(after), caller, now, otherwise=otherwise
    )


def document(value: Any) -> state.Document:
    return state.parse(state.dump(state.adopt(value)))


# The rule that decides


def test_the_first_rule_that_fits_decides() -> None:
    policy = rules(f'connections = ["other_*"]\n{FORBIDDEN}', REQUIRED, FORBIDDEN)
    ruling = judge(policy, {"a": 1}, {"a": 2})

    assert ruling.approval == 'The rule "1" asks for approval to change /a.'
    assert ruling.forbidden is None


@pytest.mark.parametrize("otherwise", [False, True])
def test_where_no_rule_fits_it_is_as_without_a_policy(otherwise: bool) -> None:
    policy = rules(f'connections = ["other_*"]\n{FORBIDDEN}', f'paths = ["/b"]\n{NOT_REQUIRED}')
    ruling = judge(policy, {"a": 1}, {"a": 2}, otherwise=otherwise)

    assert (ruling.needs_approval, ruling.sentences) == (otherwise, [])


def test_a_rule_can_waive_the_approval_that_everything_needs() -> None:
    policy = rules(f'paths = ["/a"]\n{NOT_REQUIRED}')

    assert not judge(policy, {"a": 1}, {"a": 2}, otherwise=True).needs_approval
    assert judge(policy, {"a": 1, "b": 1}, {"a": 2, "b": 2}, otherwise=True).needs_approval


def test_of_several_values_the_strictest_answer_counts() -> None:
    policy = rules(f'paths = ["/a"]\n{NOT_REQUIRED}', f'paths = ["/b"]\n{FORBIDDEN}', REQUIRED)
    old = {"a": 1, "b": 1, "c": 1}

    assert not judge(policy, old, old | {"a": 2}).needs_approval
    assert judge(policy, old, old | {"a": 2, "c": 2}).needs_approval
    assert judge(policy, old, {"a": 2, "b": 2, "c": 2}).forbidden is not None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"orders": {"cursor": 1}}, {"orders": {"cursor": 2}}),
        ({"orders": {"cursor": 1}}, {}),
        ({}, {"orders": {"cursor": {"page": 1}}}),
        ({"orders": {"cursor": 1}}, {"orders": []}),
        ({"orders": "none"}, {"orders": {"cursor": 1}}),
        ({"orders": {"cursor": [1, 2]}}, {"orders": {"cursor": [1]}}),
    ],
)
def test_a_rule_about_a_part_sees_every_change_of_it(before: Any, after: Any) -> None:
    policy = rules(f'paths = ["/orders/cursor"]\n{FORBIDDEN}')

    assert judge(policy, before, after).forbidden is not None
    assert judge(policy, before | {"x": 1}, before | {"x": 2}).forbidden is None


def test_a_path_is_a_pointer_and_not_a_prefix() -> None:
    policy = rules(f'paths = ["/a~1b"]\n{FORBIDDEN}')

    assert judge(policy, {"a/b": 1}, {"a/b": 2}).forbidden is not None
    assert judge(policy, {"a/bc": 1}, {"a/bc": 2}).forbidden is None


@pytest.mark.parametrize(
    ("key", "fitting", "other"),
    [
        ("connections", "speak_*", "spoke_*"),
        ("connections", "Orders_??", "orders_"),
        ("groups", "group_one", "group_two"),
        ("groups", "prod*", "test*"),
        ("who", "write", "approve"),
        ("who", "token:ab*", "token:cd*"),
    ],
)
def test_a_rule_fits_by_its_globs(key: str, fitting: str, other: str) -> None:
    for glob, fits in ((fitting, True), (other, False)):
        ruling = judge(rules(f'{key} = ["{glob}"]\n{FORBIDDEN}'), {}, {"a": 1})
        assert (ruling.forbidden is not None) == fits, glob


def test_a_group_without_a_known_name_is_not_passed_over() -> None:
    unnamed = Judged("speak_inexpensive", "orders_eu", "group_one", None)
    policy = rules(f'groups = ["Production"]\n{FORBIDDEN}')

    with pytest.raises(NameUnknown, match='the rule "0" needs the name'):
        judge(policy, {}, {"a": 1}, connection=unnamed)


# What a rule says


def test_whoever_may_approve_is_asked_only_by_a_rule_that_names_them() -> None:
    assert not judge(rules(REQUIRED), {}, {"a": 1}, APPROVER).needs_approval
    for who in ("approve", "oauth:alice"):
        named = rules(f'who = ["{who}"]\n{REQUIRED}')
        assert judge(named, {}, {"a": 1}, APPROVER).needs_approval
    assert not judge(rules(f'who = ["write"]\n{REQUIRED}'), {}, {"a": 1}, APPROVER).needs_approval


def test_what_is_forbidden_nobody_may() -> None:
    assert judge(rules(FORBIDDEN), {}, {"a": 1}, APPROVER).refusal is not None


@pytest.mark.parametrize(
    ("limit", "before", "after", "why"),
    [
        ('max_back = "2d"', "2026-01-10T00:00:00Z", "2026-01-08T00:00:00Z", None),
        ('max_back = "2d"', "2026-01-10T00:00:00Z", "2026-01-07T23:59:59Z", "more than 2d"),
        ('max_back = "2d"', "2026-01-10", "2026-02-10", None),
        ('max_back = "2d"', "2026-01-10T00:00:00Z", "2026-01-08T01:00:00+02:00", "more than 2d"),
        ('max_back = "12h"', 1767225600, 1767225600 - 12 * 3600, None),
        ('max_back = "12h"', 1767225600000, 1767225600000 - 13 * 3600000, "more than 12h"),
        ('max_back = "2d"', "2026-01-10T00:00:00Z", "2026-01-10", "is not a time before and after"),
        ('max_back = "2d"', "2026-01-10", None, "is removed"),
        ('max_back = "2d"', None, "2026-01-10", None),
        ('max_back = "2d"', 500, 400, "is not a time before and after"),
        ("max_back_number = 100", 500, 400, None),
        ("max_back_number = 100", 500, 399, "more than 100"),
        ("max_back_number = 100", "500", "399", "more than 100"),
        ("max_back_number = 100", 500, 10**30, None),
        ("max_back_number = 100", 500, "page-2", "is not a number before and after"),
        ('max_back = "2d"\nmax_back_number = 100', 500, 399, "more than 100"),
        ('max_back = "2d"\nmax_back_number = 100', True, False, "is not a time or a number"),
    ],
)
def test_a_cursor_goes_back_only_so_far_without_approval(
    limit: str, before: Any, after: Any, why: str | None
) -> None:
    ruling = judge(rules(limit), {"cursor": before}, {"cursor": after})

    assert ruling.needs_approval == (why is not None)
    assert (why or "") in (ruling.approval or "")


def test_a_removed_cursor_goes_back_to_the_beginning() -> None:
    ruling = judge(rules('max_back = "2d"'), {"orders": {"cursor": "2026-01-10"}}, {})

    assert ruling.approval == ('The rule "0" asks for approval because /orders/cursor is removed.')


@pytest.mark.parametrize(
    ("window", "now", "is_open"),
    [
        ("Mon-Fri 08:00-18:00 UTC", "2026-11-23T08:00", True),
        ("Mon-Fri 08:00-18:00 UTC", "2026-11-23T18:00", False),
        ("Mon-Fri 08:00-18:00 UTC", "2026-11-22T12:00", False),
        ("Mon-Fri 08:00-18:00 Europe/Berlin", "2026-11-23T07:00", True),
        ("Mon-Fri 08:00-18:00 Europe/Berlin", "2026-07-06T06:00", True),
        ("Fri 22:00-04:00 UTC", "2026-11-28T03:59", True),
        ("Fri 22:00-04:00 UTC", "2026-11-27T03:59", False),
        ("Sat-Mon 00:00-24:00 UTC", "2026-11-22T23:59", True),
        ("Sat-Mon 00:00-24:00 UTC", "2026-11-24T00:00", False),
    ],
)
def test_a_window_is_open_by_its_own_clock(window: str, now: str, is_open: bool) -> None:
    policy = rules(f'windows = ["{window}"]')
    at = datetime.fromisoformat(f"{now}:00+00:00")

    assert (judge(policy, {}, {"a": 1}, APPROVER, now=at).closed is None) == is_open


def test_one_of_several_windows_is_enough() -> None:
    policy = rules('windows = ["Sun 00:00-24:00 UTC", "Mon 11:00-13:00 UTC"]')
    late = MONDAY_NOON.replace(hour=13)

    assert judge(policy, {}, {"a": 1}).closed is None
    assert judge(policy, {}, {"a": 1}, now=late).closed == (
        'The rule "0" lets /a be changed only at Sun 00:00-24:00 UTC or Mon 11:00-13:00 UTC.'
    )


def test_a_state_that_is_not_usable_is_judged_as_a_whole() -> None:
    raw = state.RawDocument("[1", "it is not an object")
    policy = rules(f'paths = ["/a"]\n{NOT_REQUIRED}', REQUIRED)
    ruling = policy.judge(CONNECTION, raw, document({"a": 1}), WRITER, MONDAY_NOON)

    assert ruling.approval == 'The rule "1" asks for approval to change the whole state.'


def test_the_example_of_the_documentation_says_what_is_written_there() -> None:
    text = (ROOT / "docs/how-to/policy.md").read_text()
    example = parse(text.partition("```toml\n")[2].partition("```")[0])
    billing = Judged("billing_eu", "x", "g", "Test")
    invoices = {"invoices": "2026-01-10"}, {"invoices": "2026-01-01"}
    orders = {"orders": {"cursor": "2026-01-10"}}, {"orders": {"cursor": "2026-01-01"}}
    both = orders[0] | invoices[0], orders[1] | invoices[1]
    job, other = WRITER, Principal("stdio", WITHOUT_TOKEN)

    assert judge(example, *invoices, job, connection=billing, otherwise=True) == Ruling()
    assert judge(example, *both, other, connection=billing).forbidden is not None
    assert judge(example, *orders, other).approval == (
        'The rule "production" asks for approval because /orders/cursor goes back by more than 2d.'
    )


# What is wrong with a file

GOOD = '[[rule]]\nname = "first"\napproval = "required"\n'
WRONG = {
    "no rule": ("# nothing\n", 1, "begin one with [[rule]]"),
    "not TOML": (f"{GOOD}windows = \n", 4, "is not TOML"),
    "not closed": (f'{GOOD}windows = ["Mon\n', 4, "is not TOML"),
    "another table": (f"{GOOD}[rules]\n", 4, "'rules' is not known; is 'rule' meant?"),
    "one bracket": ('[rule]\nname = "a"\n', 1, "[[rule]]"),
    "unknown key": (f'{GOOD}conections = ["a"]\n', 4, "is 'connections' meant?"),
    "no name": (f'{GOOD}\n[[rule]]\napproval = "required"\n', 5, "name: is missing"),
    "empty name": ('[[rule]]\napproval = "required"\nname = ""\n', 3, "is empty"),
    "same name": (f"{GOOD}{GOOD}", 5, "an earlier rule has this name"),
    "says nothing": ('[[rule]]\nname = "a"\n', 2, "says nothing; add approval"),
    "approval": ('[[rule]]\nname = "a"\napproval = "yes"\n', 3, '"not required"'),
    "not a list": (f'{GOOD}connections = "orders_*"\n', 4, 'such as ["orders_*"]'),
    "empty list": (f"{GOOD}who = []\n", 4, "leave it out"),
    "glob": (f'{GOOD}connections = ["a", "b[0-9"]\n', 4, "has a [ without its ]"),
    "blank": (f'{GOOD}groups = [" a"]\n', 4, "blanks around it"),
    "pointer": (f'{GOOD}paths = [\n  "/a",\n  "orders",\n]\n', 6, "begin it with /"),
    "escape": (f'{GOOD}paths = ["/~2"]\n', 4, "~ as ~0"),
    "who": (f'{GOOD}who = ["alice"]\n', 4, '"oauth:alice"'),
    "reader": (f'{GOOD}who = ["read"]\n', 4, "is not a caller"),
    "duration": ('[[rule]]\nname = "a"\nmax_back = "2 days"\n', 3, '"2d"'),
    "number": ('[[rule]]\nname = "a"\nmax_back_number = "2"\n', 3, "a whole number"),
    "negative": ('[[rule]]\nname = "a"\nmax_back_number = -1\n', 3, "0 or more"),
    "window": (f'{GOOD}windows = [\n "Mon-Fri 9-17 UTC"]\n', 5, "Mon-Fri 08:00-18:00"),
    "clock": (f'{GOOD}windows = ["Mon 08:00-24:01 UTC"]\n', 4, "24:01 is not a time of day"),
    "no length": (f'{GOOD}windows = ["Mon 08:00-08:00 UTC"]\n', 4, "00:00-24:00"),
    "zone": (f'{GOOD}windows = ["Mon 08:00-09:00 Mars"]\n', 4, "Europe/Berlin"),
    "zone outside": (f'{GOOD}windows = ["Mon 08:00-09:00 ../x"]\n', 4, "not a time zone"),
    "forbidden within": (
        '[[rule]]\nname = "a"\napproval = "forbidden"\nwindows = ["Mon 08:00-09:00 UTC"]\n',
        4,
        'contradicts approval = "forbidden"',
    ),
    "required and a limit": (
        f'# Rules\n\n{GOOD}\nmax_back = "2d"\n',
        7,
        'contradicts approval = "required"',
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_file_is_told_by_its_line_and_what_to_write(wrong: str) -> None:
    text, line, hint = WRONG[wrong]
    with pytest.raises(ValueError, match=r"line") as refused:
        parse(text)

    said = str(refused.value)
    assert said.startswith(f"line {line}: "), said
    assert hint in said


def test_everything_that_is_wrong_is_told_in_the_order_of_the_lines() -> None:
    with pytest.raises(
        ValueError, match=r"^line 2: approval.*; line 3: who.*; line 4: name"
    ) as all_:
        parse('[[rule]]\napproval = 1\nwho = ["x"]\nname = 2\n')

    assert str(all_.value).count("line ") == 3
