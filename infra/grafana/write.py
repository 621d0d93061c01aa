"""Writes the dashboards: ``make dashboards``.

Each panel is a title, what it tells, a unit, and queries with their legends. What the
metrics mean is in docs/metrics.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.dashboard import Threshold as Step

FOLDER = Path(__file__).parent / "dashboards"
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
RATE = "[$__rate_interval]"
OF_PIPELINES = 'pipeline=~"$pipeline"'
OF_SERVICES = 'service=~"$service"'
Query = tuple[str, str]
"""An expression, and the legend of its lines."""


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes
    ----------
    says : what it tells, or what to do when it looks bad.
    unit : one of Grafana's, such as ``s``, ``bytes``, ``percentunit``, ``reqps``.
    limits : lower ends of green, orange and red for a number; None: colourless.
    """

    title: str
    says: str
    unit: str
    queries: Sequence[Query]
    width: int = 8
    height: int = 7
    limits: tuple[float | None, float, float] | None = None
    stacked: bool = False
    bars: bool = False


@dataclass(frozen=True)
class Number(Panel):
    """A panel of one figure."""

    width: int = 4
    height: int = 4


@dataclass(frozen=True)
class Listing(Panel):
    """A panel of one line a series."""

    width: int = 12


Rows = Mapping[str, Sequence[Panel]]
"""Panels by the row's title."""


def quantile(share: float, metric: str, by: str, where: str = "") -> str:
    """Return a quantile of a histogram over the panel's interval."""
    rate = f"rate({metric}_bucket{{{where}}}{RATE})"
    return f"histogram_quantile({share}, sum by ({by}, le) ({rate}))"


def rate(metric: str, by: str, where: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}{RATE}))"


OVERVIEW: Rows = {
    "Now": [
        Number("Services up", "of eight", "none",
               [('sum(up{job="driftloop"})', "")]),
        Number("Lag", "messages that wait, over all services", "short",
               [("sum(driftloop_consumer_lag)", "")], limits=(0, 1_000, 10_000)),
        Number("Dead letters, 1 h", "messages that could not be handled", "short",
               [('sum(increase(driftloop_events_consumed_total{outcome="dead_lettered"}'
                 "[1h])) or vector(0)", "")], limits=(0, 1, 10)),
        Number("Events not published", "stored, not yet with the broker", "short",
               [("sum(driftloop_outbox_unsent)", "")], limits=(0, 1, 100)),
        Number("Open alerts", "that nobody has acknowledged", "short",
               [("sum(driftloop_alerts_open) or vector(0)", "")], limits=(0, 1, 5)),
        Number("Columns with a fault", "whose values are wrong now", "short",
               [("sum(driftloop_monitor_open_faults) or vector(0)", "")],
               limits=(0, 1, 5)),
    ],
    "Objectives: share that was bad, and what is allowed (docs/operations.md)": [
        Panel("Requests for predictions that failed", "allowed: 0.1 %", "percentunit",
              [("slo:scorer_errors:ratio_rate1h", "1 h"),
               ("slo:scorer_errors:ratio_rate3d", "3 d"), ("vector(0.001)", "allowed")],
              width=6),
        Panel("Requests for predictions over 50 ms", "allowed: 1 %", "percentunit",
              [("slo:scorer_latency:ratio_rate1h", "1 h"),
               ("slo:scorer_latency:ratio_rate3d", "3 d"), ("vector(0.01)", "allowed")],
              width=6),
        Panel("Events older than 30 s when handled", "allowed: 1 %", "percentunit",
              [("slo:freshness:ratio_rate1h", "1 h"),
               ("slo:freshness:ratio_rate3d", "3 d"), ("vector(0.01)", "allowed")],
              width=6),
        Panel("Rollouts over an hour after their trigger",
              "without the wait for people; allowed: 10 %", "percentunit",
              [("slo:rollout_time:ratio_rate3d", "3 d"), ("vector(0.1)", "allowed")],
              width=6),
    ],
    "Pipelines": [
        Listing("In service", "version, and for how long", "s",
                [("time() - driftloop_model_deployed_timestamp_seconds",
                  "{{pipeline}} {{version}}")]),
        Listing("Loss of the champion", "in the unit of the pipeline's metric", "none",
                [('driftloop_monitor_loss{role="champion"}', "{{pipeline}}")]),
        Panel("Story", "verdicts, trainings, decisions and rollouts, a hour", "short",
              [('sum by (event) (increase(driftloop_story_events_total{'
                f'{OF_PIPELINES},event!~"alert-.*|pipeline-applied"}}[1h]))',
                "{{event}}")], width=24, bars=True, stacked=True),
    ],
}  # fmt: skip

CHAIN: Rows = {
    "Flow": [
        Panel("Events handled", "by service and topic", "cps",
              [(rate("driftloop_events_consumed_total", "service, topic", OF_SERVICES),
                "{{service}} {{topic}}")]),
        Panel("Events published", "acknowledged by the broker", "cps",
              [(rate("driftloop_events_produced_total", "service, topic", OF_SERVICES),
                "{{service}} {{topic}}")]),
        Panel("Lag", "messages behind the end of the topics", "short",
              [(f"driftloop_consumer_lag{{{OF_SERVICES}}}", "{{service}}")]),
    ],
    "Latency": [
        Panel("Age of events when handled, p95", "since they were told", "s",
              [(quantile(0.95, "driftloop_event_age_seconds", "service", OF_SERVICES),
                "{{service}}")]),
        Panel("Time to handle a message, p99", "to the committed transaction", "s",
              [(quantile(0.99, "driftloop_handler_duration_seconds", "service, topic",
                         OF_SERVICES), "{{service}} {{topic}}")]),
        Panel("Trigger to result, p90", "of chains of the last day, without the time "
              "that people took; an example leads to its trace", "s",
              [("histogram_quantile(0.9, sum by (result, le) (increase("
                f"driftloop_chain_duration_seconds_bucket{{{OF_PIPELINES}}}[1d])))",
                "{{result}}")]),
        Panel("People decide, p90", "from asking for approval, last week", "s",
              [("histogram_quantile(0.9, sum by (pipeline, le) (increase("
                f"driftloop_approval_wait_seconds_bucket{{{OF_PIPELINES}}}[7d])))",
                "{{pipeline}}")]),
        Panel("HTTP answers, p99", "of each service's own API", "s",
              [(quantile(0.99, "driftloop_http_request_duration_seconds", "service",
                         OF_SERVICES), "{{service}}")]),
    ],
    "Faults": [
        Panel("How messages ended", "but for handled", "cps",
              [(rate("driftloop_events_consumed_total", "service, outcome",
                     f'{OF_SERVICES},outcome!="handled"'), "{{service}} {{outcome}}")]),
        Panel("Retries after a passing fault", "/readyz of the service says what is "
              "away", "cps",
              [(rate("driftloop_retries_total", "service, topic", OF_SERVICES),
                "{{service}} {{topic}}")]),
        Panel("Events not published", "the broker is away or slow", "short",
              [(f"driftloop_outbox_unsent{{{OF_SERVICES}}}", "{{service}}")]),
        Panel("HTTP answers from 500 on", "by service and route", "reqps",
              [(rate("driftloop_http_request_duration_seconds_count", "service, route",
                     f'{OF_SERVICES},status=~"5.."'), "{{service}} {{route}}")]),
        Panel("Notices of alerts", "by what became of them", "short",
              [("sum by (outcome) (increase(driftloop_alert_notices_total"
                f"{{{OF_PIPELINES}}}[1h]))", "{{outcome}}")]),
        Panel("Calls of channels that failed", "tried again", "cps",
              [(rate("driftloop_alert_failures_total", "pipeline, channel",
                     OF_PIPELINES), "{{pipeline}} {{channel}}")]),
    ],
}  # fmt: skip

QUALITY: Rows = {
    "Rows": [
        Panel("Rows that arrived", "new and duplicate", "rowsps",
              [(rate("driftloop_ingest_rows_total", "pipeline, kind, outcome",
                     OF_PIPELINES), "{{pipeline}} {{kind}} {{outcome}}")]),
        Panel("Rows checked", "validated and quarantined", "rowsps",
              [(rate("driftloop_validator_rows_total", "pipeline, outcome",
                     OF_PIPELINES), "{{pipeline}} {{outcome}}")]),
        Panel("Quarantined", "share of checked rows", "percentunit",
              [(rate("driftloop_validator_rows_total", "pipeline",
                     f'{OF_PIPELINES},outcome="quarantined"') + " / "
                + rate("driftloop_validator_rows_total", "pipeline", OF_PIPELINES),
                "{{pipeline}}")]),
    ],
    "What is odd": [
        Panel("Warnings of checks", "that took no rows out, an hour", "short",
              [("sum by (pipeline, check) (increase(driftloop_validator_warnings_total"
                f"{{{OF_PIPELINES}}}[1h]))", "{{pipeline}} {{check}}")]),
        Panel("Late, out of order, revised", "rows", "rowsps",
              [(rate("driftloop_ingest_noted_rows_total", "pipeline, note",
                     OF_PIPELINES), "{{pipeline}} {{note}}")]),
        Panel("Sources that fail", "looks that failed, files that cannot be read, an "
              "hour", "short",
              [("sum by (pipeline, source) (increase("
                f"driftloop_ingest_pull_problems_total{{{OF_PIPELINES}}}[1h]))",
                "{{pipeline}} {{source}}")]),
    ],
    "Dataset": [
        Panel("Age of the newest row", "now less its event time", "s",
              [("time() - driftloop_dataset_newest_row_timestamp_seconds"
                f"{{{OF_PIPELINES}}}", "{{pipeline}}")]),
        Panel("Rows of the dataset", "and those with a label", "short",
              [(f"driftloop_dataset_rows{{{OF_PIPELINES}}}", "{{pipeline}} {{kind}}")]),
        Panel("Time of a batch by step, p95", "ids, checks, dataset", "s",
              [(quantile(0.95, "driftloop_validator_step_seconds", "step"),
                "{{step}}")]),
    ],
}  # fmt: skip

DRIFT: Rows = {
    "Why": [
        Panel("Verdicts", "by cause, an hour", "short",
              [("sum by (pipeline, cause) (increase(driftloop_monitor_verdicts_total"
                f"{{{OF_PIPELINES}}}[1h]))", "{{pipeline}} {{cause}}")], bars=True),
        Panel("Columns with a fault", "whose values are wrong now", "short",
              [(f"driftloop_monitor_open_faults{{{OF_PIPELINES}}}", "{{pipeline}}")]),
        Panel("How far columns moved", "statistic of the newest window over what "
              "chance allows; from 1 on it has moved", "none",
              [(f"driftloop_monitor_feature_drift_ratio{{{OF_PIPELINES}}}",
                "{{pipeline}} {{feature}}")]),
    ],
    "How good": [
        Panel("Loss", "over the newest labelled rows, champion and candidate", "none",
              [(f"driftloop_monitor_loss{{{OF_PIPELINES}}}", "{{pipeline}} {{role}}")]),
        Panel("Estimate before labels", "of the newest window", "none",
              [(f"driftloop_monitor_estimate{{{OF_PIPELINES}}}",
                "{{pipeline}} {{metric}}")]),
        Panel("How far estimates were off", "mean, of windows whose labels have landed",
              "none", [(f"driftloop_monitor_estimate_error{{{OF_PIPELINES}}}",
                        "{{pipeline}} {{metric}}")]),
        Panel("Intervals that held the truth", "share; 95 % is meant", "percentunit",
              [(f"driftloop_monitor_estimate_coverage{{{OF_PIPELINES}}}",
                "{{pipeline}}")]),
        Panel("Business metrics", "of the pipeline file's own", "none",
              [(f"driftloop_monitor_business{{{OF_PIPELINES}}}",
                "{{pipeline}} {{metric}}")]),
    ],
    "Labels": [
        Panel("Predictions that met their label", "", "rowsps",
              [(rate("driftloop_monitor_labelled_rows_total", "pipeline", OF_PIPELINES),
                "{{pipeline}}")]),
        Panel("Wait for labels", "event time of the oldest rows without one", "d",
              [(f"driftloop_monitor_label_wait_days{{{OF_PIPELINES}}}",
                "{{pipeline}}")]),
        Panel("Labels too late, labels asked for", "an hour", "short",
              [("sum by (pipeline) (increase(driftloop_monitor_late_labels_total"
                f"{{{OF_PIPELINES}}}[1h]))", "{{pipeline}} too late"),
               ("sum by (pipeline) (increase(driftloop_monitor_wanted_labels_total"
                f"{{{OF_PIPELINES}}}[1h]))", "{{pipeline}} asked for")]),
    ],
}  # fmt: skip

OF_SCORERS = 'service="scorer"'
SERVING: Rows = {
    "Requests": [
        Panel("Answers", "by route and status", "reqps",
              [(rate("driftloop_http_request_duration_seconds_count", "route, status",
                     OF_SCORERS), "{{route}} {{status}}")]),
        Panel("Until the answer begins", "over all routes", "s",
              [(quantile(share, "driftloop_http_request_duration_seconds", "service",
                         OF_SCORERS), f"p{share * 100:g}")
               for share in (0.5, 0.95, 0.99)]),
        Panel("Answers from 500 on", "share", "percentunit",
              [(rate("driftloop_http_request_duration_seconds_count", "service",
                     f'{OF_SCORERS},status=~"5.."') + " / "
                + rate("driftloop_http_request_duration_seconds_count", "service",
                       OF_SCORERS), "failed")]),
    ],
    "Models": [
        Panel("Rows answered", "by role and door", "rowsps",
              [(rate("driftloop_scorer_rows_total", "pipeline, role, door, outcome",
                     OF_PIPELINES), "{{pipeline}} {{role}} {{door}} {{outcome}}")]),
        Panel("One call of a model, p99", "whatever its number of rows", "s",
              [(quantile(0.99, "driftloop_scorer_call_duration_seconds",
                         "pipeline, role, door", OF_PIPELINES),
                "{{pipeline}} {{role}} {{door}}")]),
        Listing("In memory", "versions that answer or are compared", "none",
                [(f"driftloop_model_serving_info{{{OF_PIPELINES}}}",
                  "{{pipeline}} {{version}} {{role}} {{instance}}")], width=8),
        Panel("Values that no version learned from", "requests", "reqps",
              [(rate("driftloop_scorer_unfamiliar_requests_total", "pipeline",
                     OF_PIPELINES), "{{pipeline}}")]),
        Panel("Explanations", "by what came of them", "reqps",
              [(rate("driftloop_scorer_explanations_total", "pipeline, outcome",
                     OF_PIPELINES), "{{pipeline}} {{outcome}}")]),
        Panel("Requests answered together", "while a version was busy", "reqps",
              [(rate("driftloop_scorer_joined_requests_total", "pipeline",
                     OF_PIPELINES), "{{pipeline}}")]),
    ],
    "Log of answers and jobs": [
        Panel("Rows told", "to requests-answered, and left out by reason", "rowsps",
              [(rate("driftloop_scorer_logged_rows_total", "pipeline", OF_PIPELINES),
                "{{pipeline}} told"),
               (rate("driftloop_scorer_left_out_rows_total", "pipeline, reason",
                     OF_PIPELINES), "{{pipeline}} {{reason}}")]),
        Panel("Datasets scored as a whole", "an hour, by outcome", "short",
              [("sum by (pipeline, outcome) (increase(driftloop_scorer_jobs_total"
                f"{{{OF_PIPELINES}}}[1h]))", "{{pipeline}} {{outcome}}")]),
        Panel("Memory of the scorers", "", "bytes",
              [('process_resident_memory_bytes{instance=~".*scorer.*"}',
                "{{instance}}")]),
    ],
}  # fmt: skip

TRAINING: Rows = {
    "Trainings": [
        Panel("Jobs", "by how they ended, an hour", "short",
              [("sum by (pipeline, outcome) (increase(driftloop_trainer_jobs_total"
                f"{{{OF_PIPELINES}}}[1h]))", "{{pipeline}} {{outcome}}")], bars=True),
        Panel("Time of a job", "of one try, last hour", "s",
              [("histogram_quantile(0.5, sum by (le) (increase("
                "driftloop_trainer_job_duration_seconds_bucket[1h])))", "p50"),
               ("histogram_quantile(0.95, sum by (le) (increase("
                "driftloop_trainer_job_duration_seconds_bucket[1h])))", "p95")]),
        Number("Warm process", "1: the next training need not load its libraries",
               "none", [("sum(driftloop_trainer_warm_child)", "")], width=8, height=7),
    ],
    "What became of them": [
        Panel("Trigger to result, mean", "last day, by reason", "s",
              [("sum by (reason, result) (increase("
                f"driftloop_chain_duration_seconds_sum{{{OF_PIPELINES}}}[1d])) / "
                "sum by (reason, result) (increase("
                f"driftloop_chain_duration_seconds_count{{{OF_PIPELINES}}}[1d]))",
                "{{reason}} {{result}}")]),
        Panel("Results", "last day, by reason", "short",
              [("sum by (reason, result) (increase("
                f"driftloop_chain_duration_seconds_count{{{OF_PIPELINES}}}[1d]))",
                "{{reason}} {{result}}")], bars=True),
        Panel("Decisions", "last day", "short",
              [("sum by (pipeline, event) (increase(driftloop_story_events_total{"
                f'{OF_PIPELINES},event=~"model-.*|training-.*|approval-.*"}}[1d]))',
                "{{pipeline}} {{event}}")]),
    ],
}  # fmt: skip

COST: Rows = {
    "Processors": [
        Panel("By process", "processors in use", "none",
              [(f'sum by (instance) (rate(process_cpu_seconds_total{{job="driftloop"}}'
                f"{RATE}))", "{{instance}}")], width=12, stacked=True),
        Panel("Trainings and scoring jobs", "processor time by pipeline, last day", "s",
              [("sum by (pipeline, work) (increase(driftloop_work_cpu_seconds_total"
                f"{{{OF_PIPELINES}}}[1d]))", "{{pipeline}} {{work}}")], width=12,
              bars=True, stacked=True),
        Panel("Per million rows checked", "processor time of all processes, last hour",
              "s",
              [('sum(increase(process_cpu_seconds_total{job="driftloop"}[1h])) / '
                "sum(increase(driftloop_validator_rows_total[1h])) * 1e6",
                "processor seconds")], width=12),
        Panel("Time in models", "by pipeline and role: what answers cost", "none",
              [(rate("driftloop_scorer_call_duration_seconds_sum", "pipeline, role",
                     OF_PIPELINES), "{{pipeline}} {{role}}")], width=12, stacked=True),
    ],
    "Memory and storage": [
        Panel("Memory by process", "", "bytes",
              [('process_resident_memory_bytes{job="driftloop"}', "{{instance}}")],
              width=8, stacked=True),
        Panel("Written to the artifact store", "last day, by process", "bytes",
              [("sum by (instance) (increase(driftloop_artifact_written_bytes_total"
                "[1d]))", "{{instance}}")]),
        Panel("Rows kept", "in the newest version of each dataset", "short",
              [(f"driftloop_dataset_rows{{{OF_PIPELINES}}}", "{{pipeline}} {{kind}}")]),
    ],
}  # fmt: skip

ALL: Mapping[str, tuple[str, str, Rows]] = {
    "driftloop": ("driftloop", "What goes on, and whether it is well.", OVERVIEW),
    "driftloop-chain": ("Chain", "Events: flow, lag, latency, faults.", CHAIN),
    "driftloop-quality": ("Data quality", "Rows, what is odd, datasets.", QUALITY),
    "driftloop-drift": ("Drift", "Verdicts, performance, labels.", DRIFT),
    "driftloop-serving": ("Serving", "Requests, models, log of answers.", SERVING),
    "driftloop-training": ("Training", "Jobs and what became of them.", TRAINING),
    "driftloop-cost": ("Cost", "Processors, memory, storage.", COST),
}


def _panel(of: Panel) -> Any:
    built: Any
    if isinstance(of, Number):
        built = stat.Panel().graph_mode("none")
    elif isinstance(of, Listing):
        built = table.Panel()
    else:
        built = timeseries.Panel().tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI)
        )
        built = built.legend(
            common.VizLegendOptions().display_mode(LegendDisplayMode.LIST)
        )
        if of.bars:
            built = built.draw_style(GraphDrawStyle.BARS).fill_opacity(60)
        if of.stacked:
            stack = common.StackingConfig().mode(StackingMode.NORMAL)
            built = built.stacking(stack).fill_opacity(30)
    built = built.title(of.title).description(of.says).unit(of.unit)
    built = built.datasource(PROMETHEUS).span(of.width).height(of.height)
    if of.limits is not None:
        colours = zip(of.limits, ("green", "orange", "red"), strict=True)
        steps = [Step(value=low or None, color=colour) for low, colour in colours]
        built = built.thresholds(
            dashboards.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
        )
    for number, (expression, legend) in enumerate(of.queries):
        query = prometheus.Dataquery().expr(expression).legend_format(legend)
        query = query.ref_id("ABCDEFGH"[number]).datasource(PROMETHEUS)
        if isinstance(of, Listing):
            query = query.instant().format("table")
        elif not isinstance(of, Number):
            query = query.exemplar(True)
        built = built.with_target(query)
    return built


def _variable(name: str, metric: str) -> Any:
    found = dashboards.QueryVariable(name).label(name).datasource(PROMETHEUS)
    found = found.query(f"label_values({metric}, {name})").multi(True)
    return found.include_all(True).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)


def written(uid: str) -> str:
    """Return a dashboard as JSON."""
    title, says, rows = ALL[uid]
    found = dashboards.Dashboard(title).uid(uid).description(says).tags(["driftloop"])
    found = found.readonly().timezone("utc").refresh("10s").time("now-1h", "now")
    found = found.tooltip(DashboardCursorSync.CROSSHAIR)
    links = dashboards.DashboardLink("driftloop").type("dashboards").tags(["driftloop"])
    found = found.link(links.as_dropdown(False).keep_time(True))
    found = found.with_variable(
        _variable("pipeline", "driftloop_ingest_rows_total")
    ).with_variable(_variable("service", "driftloop_events_consumed_total"))
    for name, panels in rows.items():
        found = found.with_row(dashboards.Row(name))
        for panel in panels:
            found = found.with_panel(_panel(panel))
    built = found.build()
    for number, one in enumerate(built.panels, start=1):
        one.id_val = number
    text: str = JSONEncoder(sort_keys=True, indent=1).encode(built)
    return text + "\n"


def main() -> None:
    """Write each dashboard's file, and remove those of dashboards that went."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        if old.stem not in ALL:
            old.unlink()
    for uid in ALL:
        (FOLDER / f"{uid}.json").write_text(written(uid), "utf-8")
        print(FOLDER / f"{uid}.json")


if __name__ == "__main__":
    main()
