"""What real Prometheus answers to each panel once the demo's load has passed."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from driftloop.contracts.events import ModelDeployed
from driftloop.local import stack

from tests.e2e.loop import Run
from tests.prometheus import NEEDED, PROMETHEUS, ROOT, SCRAPE_S, Prometheus

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.broker,
    pytest.mark.skipif(PROMETHEUS is None, reason=NEEDED),
]
ONLY_IN_TROUBLE = {
    "HTTP answers from 500 on",
    "Answers from 500 on",
    "Retries after a passing fault",
    "Calls of channels that failed",
    "Sources that fail",
    "Labels too late, labels asked for",
}
NOT_USED_BY_THE_DEMO = {
    "Business metrics",
    "Explanations",
    "Datasets scored as a whole",
    "Requests answered together",
    "People decide, p90",
    "Values that no version learned from",
    "Notices of alerts",
    "Late, out of order, revised",
    "Warnings of checks",
}


def panels() -> list[tuple[str, str, str]]:
    """Dashboard, title and expression of each query."""
    return [
        (path.stem, panel["title"], target["expr"])
        for path in sorted(ROOT.glob("infra/grafana/dashboards/*.json"))
        for panel in json.loads(path.read_text("utf-8"))["panels"]
        for target in panel.get("targets", [])
    ]


@pytest.fixture(scope="module")
def asked(run: Run, home: Path, prometheus: Prometheus) -> Prometheus:
    """Prometheus after the run, and after some requests for predictions."""
    scorer = stack.status(home)["urls"]["scorer"]
    spec = run.scenario.spec
    row = run.scenario.rows.row(0, named=True)
    asked = {"dataframe_records": [{name: row[name] for name in spec.data.features}]}
    token = {"Authorization": f"Bearer {run.installation.token}"}
    with httpx.Client(base_url=scorer, headers=token) as client:
        for _ in range(20):
            answer = client.post(f"/pipelines/{spec.name}/invocations", json=asked)
            assert answer.is_success, answer.text
            time.sleep(0.2)
    time.sleep(4 * SCRAPE_S)
    return prometheus


def test_each_panel_has_data(run: Run, asked: Prometheus) -> None:
    points: Counter[tuple[str, str]] = Counter()
    now = time.time()
    for dashboard, title, expression in panels():
        plain = expression.replace("$__rate_interval", "30s")
        plain = plain.replace("$pipeline", ".*").replace("$service", ".*")
        points[dashboard, title] += asked.points(plain, run.began, now)
    empty = sorted(panel for panel, count in points.items() if not count)
    titles = {title for _, title in empty}
    assert titles <= ONLY_IN_TROUBLE | NOT_USED_BY_THE_DEMO, empty
    assert not asked.points("driftloop_no_such_metric", run.began, now)


def test_all_targets_are_read(asked: Prometheus) -> None:
    targets = asked.ask("targets")["activeTargets"]
    assert {t["health"] for t in targets} == {"up"}, targets
    assert len(targets) == 8


def test_rules_are_evaluated_without_errors(asked: Prometheus) -> None:
    groups = asked.ask("rules")["groups"]
    assert len(groups) == 5
    found = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in found} == {"ok"}, found


def test_a_slow_bucket_leads_to_the_trace_of_the_rollout(
    run: Run, asked: Prometheus
) -> None:
    """The example of a chain's duration is the trace that `why` tells of."""
    found = asked.ask(
        "query_exemplars",
        query="driftloop_chain_duration_seconds_bucket",
        start=run.began,
        end=time.time() + 60,
    )
    of_rollouts = {
        example["labels"]["trace_id"]
        for line in found
        if line["seriesLabels"]["result"] == "deployed"
        for example in line["exemplars"]
    }
    assert of_rollouts
    told = {
        entry.meta.chain.traceparent.split("-")[1]
        for entry in run.board.of(ModelDeployed)
    }
    assert of_rollouts <= told
