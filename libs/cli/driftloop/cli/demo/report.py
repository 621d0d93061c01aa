"""The end of the demo: what happened, what it was worth, and whether it holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
from driftloop.cli.demo.scenario import FAULT_END, FAULT_START, Board, Scenario
from driftloop.cli.describe import STYLES, describe
from driftloop.cli.options import plain_table
from driftloop.contracts import events as e
from driftloop.models.onnx_model import OnnxModel
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative absolute error, sum of |error| over sum of the target.

    Attributes
    ----------
    loop : of what was served.
    never : of the first version, never retrained, on the same rows.
    """

    label: str
    row_count: int
    loop: float
    never: float


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the demo must show."""

    text: str
    holds: bool


def served_rows(board: Board) -> pl.DataFrame:
    """Return id and prediction of each scored row, as it was served."""
    frames = []
    for entry in board.of(e.BatchScored):
        frame = pl.from_arrow(entry.event.rows)
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a batch is a frame
        served = pl.col("champion_prediction")
        if {"served_by", "candidate_prediction"} <= set(frame.columns):
            served = (
                pl.when(pl.col("served_by") == "candidate")
                .then(pl.col("candidate_prediction"))
                .otherwise(served)
            )
        frames.append(frame.select("id", served.alias("served")))
    if not frames:
        return pl.DataFrame(schema={"id": pl.String, "served": pl.Float64})
    return pl.concat(frames).unique("id", keep="first", maintain_order=True)


def errors_by_month(scenario: Scenario, board: Board, first: OnnxModel) -> list[Errors]:
    """Compare what was served with the first version on the same rows, by month.

    The first element is the whole time.
    """
    spec = scenario.spec
    rows = scenario.rows.join(
        served_rows(board), left_on=spec.data.id, right_on="id", how="inner"
    ).sort(spec.data.time)
    if rows.is_empty():
        return []
    batch = rows.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    never = np.asarray(first.predict(batch.to_batches()[0]).prediction)
    target = rows[spec.data.target].to_numpy().astype(float)
    frame = pl.DataFrame(
        {
            "month": rows[spec.data.time].cast(pl.String).str.slice(0, 7),
            "loop": np.abs(rows["served"].to_numpy() - target),
            "never": np.abs(never - target),
            "target": np.abs(target),
        }
    )

    def total(part: pl.DataFrame, label: str) -> Errors:
        size = float(part["target"].sum()) or 1.0
        return Errors(
            label,
            part.height,
            float(part["loop"].sum()) / size,
            float(part["never"].sum()) / size,
        )

    months = frame.partition_by("month", maintain_order=True)
    return [total(frame, "all")] + [total(m, m["month"][0]) for m in months]


def checks(board: Board, errors: Sequence[Errors]) -> list[Check]:
    """Return what the demo promises, and whether this run kept it."""
    by_drift = _deployed_by_drift(board)
    faults = [
        entry
        for entry in board.of(e.DriftDetected)
        if isinstance(entry.event, e.DriftDetected)
        and entry.event.cause == "sensor_fault"
    ]
    fault_ids = {entry.meta.id for entry in faults}
    started = [
        entry.event
        for entry in board.of(e.TrainingStarted)
        if isinstance(entry.event, e.TrainingStarted)
    ]
    by_fault = [event for event in started if event.trigger.event_id in fault_ids]
    loop, never = (errors[0].loop, errors[0].never) if errors else (1.0, 0.0)
    return [
        Check(
            f"a later version went into service because of a drift ({by_drift} did)",
            by_drift > 0,
        ),
        Check("the fault was found and called a sensor fault", bool(faults)),
        Check(
            "the fault started no training",
            bool(faults) and not by_fault,
        ),
        Check(
            f"the loop's error is lower than without retraining "
            f"({loop:.3f} against {never:.3f})",
            loop < never,
        ),
    ]


def _deployed_by_drift(board: Board) -> int:
    drift_jobs = {
        entry.event.job_id
        for entry in board.of(e.ModelTrained)
        if isinstance(entry.event, e.ModelTrained)
        and entry.event.trigger.event_type == "drift-detected"
    }
    versions = {
        entry.event.version
        for entry in board.of(e.ModelRegistered)
        if isinstance(entry.event, e.ModelRegistered)
        and entry.event.job_id in drift_jobs
    }
    deployed = {
        entry.event.version
        for entry in board.of(e.ModelDeployed)
        if isinstance(entry.event, e.ModelDeployed)
    }
    return len(versions & deployed)


STORY = (
    e.DriftDetected,
    e.TrainingStarted,
    e.TrainingSkipped,
    e.ModelTrained,
    e.ModelRejected,
    e.ModelDeployed,
    e.ModelRolledBack,
)


def story_table(board: Board) -> Table:
    """Each decision with its event time and its wall-clock time."""
    table = plain_table("What happened", expand=True)
    table.add_column("wall clock", style="dim", no_wrap=True)
    table.add_column("event", no_wrap=True)
    table.add_column("what", ratio=1)
    for entry in board.of(*STORY):
        table.add_row(
            f"{entry.meta.time:%H:%M:%S}",
            Text(entry.topic, style=STYLES.get(entry.topic, "")),
            describe(entry.event),
        )
    return table


def error_table(errors: Sequence[Errors]) -> Table:
    """Relative absolute error by month beside a model never retrained."""
    table = plain_table("Error of what was served (sum of |error| / sum of rentals)")
    table.add_column("month")
    table.add_column("rows", justify="right")
    table.add_column("never retrained", justify="right")
    table.add_column("driftloop", justify="right")
    table.add_column("")
    for item in (*errors[1:], *errors[:1]):
        better = item.loop < item.never
        bar = "█" * round(item.loop * 30)
        rest = "░" * max(0, round(item.never * 30) - len(bar))
        table.add_row(
            "whole time" if item.label == "all" else item.label,
            f"{item.row_count:,}",
            f"{item.never:.3f}",
            Text(f"{item.loop:.3f}", style="green" if better else "yellow"),
            Text(bar, style="green") + Text(rest, style="red"),
            style="bold" if item.label == "all" else "",
        )
    return table


def version_table(board: Board) -> Table:
    """List the versions and why each is there."""
    table = plain_table(
        "Versions and why each is there (hold-out: its loss to the champion's)"
    )
    for name in ("", "algorithm", "because of", "hold-out", "outcome"):
        table.add_column(name, no_wrap=True)
    trained = {
        entry.event.job_id: entry.event
        for entry in board.of(e.ModelTrained)
        if isinstance(entry.event, e.ModelTrained)
    }
    outcome: dict[int, str] = {}
    ends = (e.ModelRejected, e.RolloutAdvanced, e.ModelDeployed, e.ModelRolledBack)
    for entry in board.of(*ends):
        match entry.event:
            case e.RolloutAdvanced(version=version, step="waiting", verdict="failed"):
                outcome[version] = "superseded"
            case e.ModelRejected(version=version):
                outcome[version] = "rejected"
            case e.ModelDeployed(version=version):
                outcome[version] = "served"
            case e.ModelRolledBack(version=version):
                outcome[version] = "rolled back"
            case _:
                pass
    for entry in board.of(e.ModelRegistered):
        event = entry.event
        if not isinstance(event, e.ModelRegistered):
            continue
        job = trained.get(event.job_id)
        why = job.trigger.reason.replace("_", " ") if job else ""
        scores = event.evaluation
        against = (
            f"{scores.candidate:.1f} to {scores.champion:.1f}"
            if scores.champion is not None
            else f"{scores.candidate:.1f} to {scores.baseline:.1f} no skill"
        )
        state = outcome.get(event.version, "in rollout")
        if event.version == board.champion:
            state = "in service"
        table.add_row(
            f"v{event.version}",
            event.algorithm.replace("gradient_boosting", "boosting").replace("_", " "),
            why,
            f"{scores.metric} {against}",
            Text(state, style="bold green" if state == "in service" else ""),
        )
    return table


def final_screen(
    board: Board, errors: Sequence[Errors], found: Sequence[Check]
) -> RenderableType:
    """Everything a reader should take home, on one screen or two."""
    verdict = Text()
    for check in found:
        mark, style = ("✓", "green") if check.holds else ("✗", "bold red")
        verdict.append(f"{mark} ", style=style).append(f"{check.text}\n")
    fault = f"{FAULT_START:%Y-%m-%d} to {FAULT_END - timedelta(days=1):%Y-%m-%d}"
    verdict.append(f"  (the staged fault: temp in °C from {fault})", style="dim")
    return Group(
        story_table(board),
        Text(),
        error_table(errors),
        Text(),
        version_table(board),
        Text(),
        Panel(verdict, title="The demo's promises", title_align="left"),
    )
