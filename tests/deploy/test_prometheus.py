"""A real Prometheus scrapes a server: the alerts fire when they should, and the dashboard shows it."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
import yaml

from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support import prometheus
from tests.support.calls import state_of, until
from tests.support.prometheus import JOB, Prometheus
from tests.support.updates import SLOW

pytestmark = pytest.mark.slow

METRICS_TOKEN = "FIVETRAN_STATE_METRICS_TOKEN"
TOKEN = "a-token-for-prometheus-alone"
STUCK = {"FivetranStatePausedTooLong": ("> 3600", "> 1")}
WAITS = 120.0
"""Seconds to wait for what takes Prometheus a few."""
NEEDS_HISTORY = {
    "Phases, 95th percentile",
    "Time paused",
    "Failed steps and refusals an hour",
    "Recoveries an hour",
    "Updates an hour, by outcome",
}
"""Panels that are empty until several updates have ended, or something has gone wrong."""

WELL = {
    'fivetran_state_ready{job="fivetran-state", instance="a"}': "1x20",
    'fivetran_state_connections_paused_longest_seconds{job="fivetran-state", instance="a"}': "0x20",
    'fivetran_state_connections_left_paused{job="fivetran-state", instance="a"}': "0x20",
    'fivetran_state_watcher_lag_seconds{job="fivetran-state", instance="a"}': "900x20",
    'fivetran_state_fivetran_remaining{job="fivetran-state", instance="a"}': "9000x20",
    'fivetran_state_fivetran_limit{job="fivetran-state", instance="a"}': "10000x20",
    'fivetran_state_updates_total{job="fivetran-state", outcome="failed", error="conflict"}': (
        "0+1x20"
    ),
    'fivetran_state_updates_total{job="fivetran-state", outcome="updated", error=""}': "0+9x20",
    'fivetran_state_audit_lost_total{job="fivetran-state", instance="a"}': "0x20",
}
"""Series of a server that is well, a sample each minute."""
ILL = {
    "FivetranStateNotReady": {
        'fivetran_state_ready{job="fivetran-state", instance="a"}': "0x20",
    },
    "FivetranStatePausedTooLong": {
        'fivetran_state_connections_paused_longest_seconds{job="fivetran-state", instance="a"}': (
            "3300+60x20"
        ),
    },
    "FivetranStateLeftPaused": {
        'fivetran_state_connections_left_paused{job="fivetran-state", instance="a"}': "0x9 1x10",
    },
    "FivetranStateUpdateWentWrong": {
        'fivetran_state_updates_total{job="fivetran-state", error="rollback_failed"}': "0x10 1x9",
    },
    "FivetranStateUpdatesFail": {
        'fivetran_state_updates_total{job="fivetran-state", outcome="failed", error="forbidden"}': (
            "0+1x20"
        ),
    },
    "FivetranStateWatcherBehind": {
        'fivetran_state_watcher_lag_seconds{job="fivetran-state", instance="a"}': "3000+60x20",
    },
    "FivetranStateCallsRunLow": {
        'fivetran_state_fivetran_remaining{job="fivetran-state", instance="a"}': "900x20",
    },
    "FivetranStateAuditIncomplete": {
        'fivetran_state_audit_lost_total{job="fivetran-state", instance="a"}': "0x10 1x9",
    },
}
"""What each alert is for, in place of the same series of `WELL`."""
FIRES = 'count by (alertname) (ALERTS{alertstate="firing"})'


def test_each_alert_fires_for_what_it_is_for_and_none_while_all_is_well(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, str], str | None]] = [(WELL, None)]
    cases += [(WELL | series, alert) for alert, series in ILL.items()]
    tests = {
        "rule_files": [str(prometheus.ALERTS)],
        "evaluation_interval": "1m",
        "tests": [_promtool_test(series, alert) for series, alert in cases],
    }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))

    checked = subprocess.run(
        [prometheus.programs()[1], "test", "rules", str(tmp_path / "tests.yml")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
    rules = yaml.safe_load(prometheus.text_of(prometheus.ALERTS))["groups"][0]["rules"]
    assert [rule["alert"] for rule in rules] == list(ILL)


def _promtool_test(series: dict[str, str], alert: str | None) -> dict[str, object]:
    fires = [] if alert is None else [{"labels": f'{{alertname="{alert}"}}', "value": 1}]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": FIRES, "eval_time": "18m", "exp_samples": fires}],
    }


async def test_the_alert_of_a_stuck_update_fires_and_ends_with_it(
    http: Serve, sandbox: Sandbox, tmp_path: Path, slow: dict[str, Any]
) -> None:
    environment = {METRICS_TOKEN: TOKEN, "FIVETRAN_STATE_WATCH_INTERVAL": "3600"}
    async with http(**environment) as server:
        token = server.new_token("write")
        rules = prometheus.rules_with(**STUCK)
        with prometheus.running(tmp_path, server.port, TOKEN, rules) as running:
            await until(lambda: _is(running, _is_scraped), WAITS)
            assert running.firing() == set()

            await server.client.post(
                "/state/update",
                json={
                    "connection_id": SLOW,
                    "merge_patch": {"cursor": "2020"},
                    "expected_version": "*",
                },
                headers={"Authorization": f"Bearer {token}", "Prefer": "respond-async"},
            )
            await until(lambda: _is(running, _is_stuck), WAITS)
            shown = await anyio.to_thread.run_sync(_shown, running)
            sandbox.finish_sync(SLOW)
            await until(lambda: _is(running, _is_well), WAITS)

    assert [title for title, found in shown.items() if not found] == []
    assert state_of(sandbox, SLOW) == slow | {"cursor": "2020"}


async def _is(running: Prometheus, what: Callable[[Prometheus], bool]) -> bool:
    return await anyio.to_thread.run_sync(what, running)


def _is_stuck(running: Prometheus) -> bool:
    return running.firing() == {"FivetranStatePausedTooLong"}


def _is_well(running: Prometheus) -> bool:
    return not running.firing()


def _is_scraped(running: Prometheus) -> bool:
    """True once the server has been scraped, with the token."""
    up = running.query(f'up{{job="{JOB}"}}')
    return [series["value"][1] for series in up] == ["1"]


def _shown(running: Prometheus) -> dict[str, bool]:
    """Whether each panel of the dashboard shows something; every query has to be valid."""
    found = {
        title: [running.query(expression) for expression in expressions]
        for title, expressions in prometheus.expressions().items()
    }
    return {title: any(series) or title in NEEDS_HISTORY for title, series in found.items()}
