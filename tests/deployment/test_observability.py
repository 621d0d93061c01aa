"""Rules and dashboards ask only for metrics that the services really have."""

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from driftloop.contracts.topics import SERVICES

from tests.prometheus import NEEDED, PROMTOOL

OF_HISTOGRAMS = ("_bucket", "_sum", "_count")
KINDS = {
    "Counter": ("",),
    "Gauge": ("",),
    "Histogram": OF_HISTOGRAMS,
    "CounterMetricFamily": ("_total",),
    "GaugeMetricFamily": ("",),
    "HistogramMetricFamily": OF_HISTOGRAMS,
}
FROM_OTHERS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}
"""Made by Prometheus itself, and by prometheus_client in every process."""


def defined_metrics(root: Path) -> set[str]:
    """Return the series that the sources define (name by literal)."""
    names = set()
    for folder in ("libs", "services"):
        for path in root.glob(f"{folder}/*/driftloop/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(node, ast.Call) or not node.args:
                    continue
                kind = getattr(node.func, "id", getattr(node.func, "attr", ""))
                name = getattr(node.args[0], "value", None)
                if kind in KINDS and isinstance(name, str):
                    names |= {name + suffix for suffix in KINDS[kind]}
    return names


def asked_metrics(expression: str) -> set[str]:
    """Return the metric names in a PromQL expression; raise when it is none."""
    plain = expression.replace("$__rate_interval", "5m")
    plain = plain.replace("$service", ".*").replace("$pipeline", ".*")
    names: set[str] = set()
    todo: list[Any] = [promql_parser.parse(plain)]
    while todo:
        node = todo.pop()
        if isinstance(node, promql_parser.VectorSelector):
            names.add(node.name)
        elif isinstance(node, promql_parser.MatrixSelector):
            names.add(node.vector_selector.name)
        else:
            parts = [getattr(node, n, None) for n in ("expr", "lhs", "rhs", "param")]
            parts += getattr(node, "args", None) or []
            todo += [part for part in parts if part is not None]
    return names


def rules(root: Path) -> list[dict[str, Any]]:
    """Return every rule of the files that Prometheus reads."""
    config = yaml.safe_load((root / "infra/prometheus/prometheus.yml").read_text())
    return [
        rule
        for name in config["rule_files"]
        for group in yaml.safe_load((root / "infra/prometheus" / name).read_text())[
            "groups"
        ]
        for rule in group["rules"]
    ]


def known_metrics(root: Path) -> set[str]:
    recorded = {rule["record"] for rule in rules(root) if "record" in rule}
    return defined_metrics(root) | recorded | FROM_OTHERS


def expressions(root: Path) -> Iterator[tuple[str, str]]:
    """Return every expression of rules and dashboards with its place."""
    for rule in rules(root):
        yield rule.get("alert") or rule["record"], rule["expr"]
    for path in root.glob("infra/grafana/dashboards/*.json"):
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.name}: {panel['title']}", target["expr"]


def test_expressions_ask_for_metrics_that_exist(root: Path) -> None:
    """A renamed metric cannot leave an empty panel or a mute alert behind."""
    known = known_metrics(root)
    found = list(expressions(root))
    assert len(found) > 100
    for place, expression in found:
        assert asked_metrics(expression) <= known, place


def test_wrong_expressions_are_found(root: Path) -> None:
    """Negative control: a misspelt metric, deep inside, and no PromQL at all."""
    known = known_metrics(root)
    deep = (
        "histogram_quantile(0.9, sum by (le) (rate(driftloop_handlr_bucket[5m]))) > 1"
    )
    assert asked_metrics(deep) - known == {"driftloop_handlr_bucket"}
    assert asked_metrics("up or vector(0)") <= known
    with pytest.raises(ValueError, match="."):
        asked_metrics("sum by (service (up)")


def test_prometheus_reads_every_service(root: Path) -> None:
    """The targets are the compose file's services and their port."""
    config = yaml.safe_load((root / "infra/prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    targets = jobs["driftloop"]["static_configs"][0]["targets"]
    [names] = jobs["driftloop"]["dns_sd_configs"]  # there may be several of a name
    assert names["type"] == "A"
    targets += [f"{name}:{names['port']}" for name in names["names"]]
    assert sorted(targets) == sorted(f"{service}:8000" for service in SERVICES)
    assert jobs["scorer-door"]["static_configs"] == [{"targets": ["scorer-door:8404"]}]
    for file in config["rule_files"]:
        assert (root / "infra/prometheus" / file).is_file()


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROMTOOL), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(PROMTOOL is None, reason=NEEDED)
def test_prometheus_accepts_its_files(root: Path, tmp_path: Path) -> None:
    """promtool reads configuration and rules; a misspelt key is found."""
    config = root / "infra/prometheus/prometheus.yml"
    assert promtool("check", "config", str(config)).returncode == 0
    broken = tmp_path / "prometheus.yml"
    broken.write_text(config.read_text("utf-8").replace("static_", "statik_"), "utf-8")
    assert promtool("check", "config", str(broken)).returncode != 0


@pytest.mark.skipif(PROMTOOL is None, reason=NEEDED)
def test_alerts_come_when_they_should_and_only_then(root: Path, tmp_path: Path) -> None:
    """Each alert has a story in which it comes, and one in which it does not."""
    file = root / "infra/prometheus/rules_test.yml"
    result = promtool("test", "rules", str(file))
    assert result.returncode == 0, result.stdout + result.stderr
    tests = yaml.safe_load(file.read_text())["tests"]
    told: dict[str, set[bool]] = {}
    for case in (case for test in tests for case in test["alert_rule_test"]):
        told.setdefault(case["alertname"], set()).add(bool(case.get("exp_alerts")))
    names = {rule["alert"] for rule in rules(root) if "alert" in rule}
    assert told == {name: {True, False} for name in names}
    for name in ("rules.yml", "slos.yml"):
        text = (root / "infra/prometheus" / name).read_text()
        (tmp_path / name).write_text(text.replace("> 0.0144", "> 0.9").replace(
            "for: 1m", "for: 90m"))  # fmt: skip
    (tmp_path / file.name).write_text(file.read_text())
    spoilt = promtool("test", "rules", str(tmp_path / file.name))
    assert spoilt.returncode != 0
    assert "ScorerErrorsBurns" in spoilt.stderr
    assert "ServiceDown" in spoilt.stderr


def test_runbook_has_an_entry_for_each_alert(root: Path) -> None:
    """The link of an alert leads somewhere."""
    text = (root / "docs/operations.md").read_text("utf-8")
    titles = re.findall(r"^#+ (.*)$", text.lower(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", t).replace(" ", "-") for t in titles}
    for rule in rules(root):
        if "alert" in rule:
            page, _, anchor = rule["annotations"]["runbook"].partition("#")
            assert page == "docs/operations.md"
            assert anchor in anchors, rule["alert"]
    assert "no-such-entry" not in anchors


def test_page_of_metrics_is_what_the_services_have(root: Path) -> None:
    """docs/metrics.md names each metric once: `make dashboards` was not forgotten."""
    text = (root / "docs/metrics.md").read_text("utf-8")
    told = re.findall(r"^\| `(driftloop_\w+)` \| (\w+)", text, re.MULTILINE)
    ends = {"histogram": OF_HISTOGRAMS}
    series = [name + end for name, kind in told for end in ends.get(kind, ("",))]
    assert sorted(series) == sorted(defined_metrics(root))


def test_dashboard_is_provisioned(root: Path, compose: dict[str, Any]) -> None:
    """Grafana finds data source, provider and dashboards where they are mounted."""
    source = yaml.safe_load(
        (root / "infra/grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"][0]
    for path in root.glob("infra/grafana/dashboards/*.json"):
        text = path.read_text("utf-8")
        used = set(re.findall(r'"type": "prometheus",\s*"uid": "(\w+)"', text))
        assert used == {source["uid"]}
        ids = [panel["id"] for panel in json.loads(text)["panels"]]
        assert len(ids) == len(set(ids))
        assert json.loads(text)["uid"] == path.stem
    mounts = [v.split(":")[1] for v in compose["services"]["grafana"]["volumes"]]
    provider = yaml.safe_load(
        (root / "infra/grafana/provisioning/dashboards/driftloop.yml").read_text()
    )["providers"][0]
    assert provider["options"]["path"] in mounts


def undefined_parts(config: dict[str, Any]) -> set[str]:
    """Return what a collector's pipelines use and nobody defines."""
    return {
        f"{kind}/{name}"
        for pipeline in config["service"]["pipelines"].values()
        for kind in ("receivers", "processors", "exporters")
        for name in pipeline[kind]
        if name not in config[kind]
    }


def test_collector_takes_what_services_send(
    root: Path, compose: dict[str, Any]
) -> None:
    """Its port is the one in the services' address; its pipelines are whole."""
    config = yaml.safe_load((root / "infra/otel/collector.yaml").read_text("utf-8"))
    assert undefined_parts(config) == set()
    endpoint = config["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    address = compose["services"]["ingest"]["environment"]["DRIFTLOOP_TRACES_URL"]
    assert address == f"http://collector:{endpoint.rsplit(':', 1)[1]}/v1/traces"
    config["service"]["pipelines"]["traces"]["exporters"].append("jaeger")
    assert undefined_parts(config) == {"exporters/jaeger"}  # negative control
