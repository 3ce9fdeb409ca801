"""Text, states and names that attack whoever looks at them."""

from typing import Any

from fivetran_state.sandbox import Sandbox

ELSEWHERE = "http://elsewhere.example/seen"
MARKUP = (
    "</title></textarea></pre></bdo><script>alert(1)</script><img src=x onerror=alert(2)>"
    f"<img src={ELSEWHERE}><link rel=stylesheet href={ELSEWHERE}><style>*{{display:none}}</style>"
    f"<iframe src={ELSEWHERE}></iframe><meta http-equiv=refresh content='0;url={ELSEWHERE}'>"
    f"<base href={ELSEWHERE}><svg onload=alert(3)><form action={ELSEWHERE}>\"'"
)
HIDDEN = "\u202egnp.exe\u2066\u2067\u200b\x1b[31m\x00"
TALL = "\n" * 50 + "Z\u0351\u036b\u0343\u036a" * 40
STATE: dict[str, Any] = {
    MARKUP: HIDDEN + MARKUP,
    HIDDEN: TALL,
    "onclick": "alert(1)",
    "form_token": "x",
    "__proto__": {"expected_version": "0"},
    "Approve exactly this": "javascript:alert(1)",
    'data-events="': f"data-events={ELSEWHERE}",
    "{{ 7 * 7 }}{% raw %}": "x" * 5_000,
    "a/b~c": [{MARKUP: "\u05d0" * 300}],
}


def hostile_connection(sandbox: Sandbox, connection_id: str, state: str) -> None:
    sandbox.add_group("evil", MARKUP + HIDDEN)
    sandbox.add_connection(
        connection_id, service="connector_sdk", schema=MARKUP + TALL, group_id="evil", state=state
    )
