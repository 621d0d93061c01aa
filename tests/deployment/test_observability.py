"""Rules and dashboards ask only for metrics that the services really have."""

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from driftloop.contracts.topics import SERVICES

KINDS = {"Counter": ("",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}
FROM_OTHERS = {"up", "process_resident_memory_bytes"}
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
    plain = expression.replace("$__rate_interval", "5m").replace("$service", ".*")
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


def expressions(root: Path) -> Iterator[tuple[str, str]]:
    """Return every expression of rules and dashboards with its place."""
    rules = yaml.safe_load((root / "infra/prometheus/rules.yml").read_text("utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for path in root.glob("infra/grafana/dashboards/*.json"):
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["expr"]


def test_expressions_ask_for_metrics_that_exist(root: Path) -> None:
    """A renamed metric cannot leave an empty panel or a mute alert behind."""
    known = defined_metrics(root) | FROM_OTHERS
    found = list(expressions(root))
    assert len(found) > 10
    for place, expression in found:
        assert asked_metrics(expression) <= known, place


def test_wrong_expressions_are_found(root: Path) -> None:
    """Negative control: a misspelt metric, deep inside, and no PromQL at all."""
    known = defined_metrics(root) | FROM_OTHERS
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


def test_prometheus_accepts_its_files(root: Path, tmp_path: Path) -> None:
    """promtool, where it is installed, reads configuration and rules."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here; expressions are parsed by the test above")

    def check(file: Path) -> int:
        command = [promtool, "check", "config", str(file)]
        return subprocess.run(
            command, capture_output=True, timeout=60, check=False
        ).returncode

    config = root / "infra/prometheus/prometheus.yml"
    assert check(config) == 0
    broken = tmp_path / "prometheus.yml"
    broken.write_text(config.read_text("utf-8").replace("static_", "statik_"), "utf-8")
    assert check(broken) != 0  # negative control


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
