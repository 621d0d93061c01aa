"""Two years of a pipeline as events: first model, a fault, drifts, a rollback, a wait.

Published through the real envelope to look at the page with, and by its tests.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from driftloop.contracts import alerts as a
from driftloop.contracts import estimates as p
from driftloop.contracts import events as e
from driftloop.contracts.base import Chain, Event, Meta, derived_id
from driftloop.contracts.pipeline import PipelineSpec

NAME = "bike-demand"
FIRST_DAY = datetime(2011, 1, 1, tzinfo=UTC)
WALL_S_PER_DAY = 0.2
DAYS = 700
FAULT_DAYS = range(170, 177)
FIRST_MODEL_DAY = 45
WARNED_DAY = 400
WINDOW_DAYS = 7
FIRST_WINDOW_DAY = 532
LABEL_DAYS = 42
DEGRADING_DAYS = range(679, 699)
"""Windows that close then are estimated to be too bad; none is measured yet."""
LATE_DAYS = (560, 581)
"""Labels stop, and come again."""
DRIFTS = {330: 2, 432: 3, 520: 4, 655: 5}
"""Day of a verdict, and the version that comes of it; 4 is taken back, 5 waits."""


class Story:
    """Makes events with ids, causes and chains as the services would."""

    def __init__(self, wall: datetime) -> None:
        self._wall = wall
        self._moments = 0
        self._dice = random.Random(7)
        self.name = NAME

    def meta(self, event: Event, cause: Meta | None) -> Meta:
        self._moments += 1
        event_id = derived_id(
            cause.id if cause else "root", event.topic(), self._moments
        )
        return Meta(
            id=event_id,
            time=self._wall + timedelta(milliseconds=self._moments),
            source="/driftloop/story",
            chain=cause.chain if cause else Chain(event_id),
            causation_id=cause.id if cause else None,
        )

    def told(self, event: Event, cause: Event | None = None) -> Any:
        return event.with_meta(self.meta(event, cause.meta if cause else None))

    def events(self) -> Iterator[Event]:
        yield self.told(e.PipelineApplied(pipeline=NAME, spec=spec(), applied_by="ada"))
        champion: int | None = None
        for day in range(DAYS):
            self._wall += timedelta(seconds=WALL_S_PER_DAY)
            batch = yield from self._data(day, champion)
            if day == FIRST_MODEL_DAY:
                yield from self._version(day, batch, 1, "first_model", None)
                champion = 1
            if day == FAULT_DAYS.start + 2:
                yield from self._fault(day, batch)
            if day >= FIRST_WINDOW_DAY and day % WINDOW_DAYS == 0 and champion:
                yield from self._window(day, champion, batch)
            if day in LATE_DAYS:
                yield self._labels(day, batch)
            if day in DRIFTS:
                version = DRIFTS[day]
                drift = self._drift(day, batch, "concept_drift", True)
                yield drift
                yield from self._version(day, drift, version, "concept_drift", champion)
                if version < 4:
                    champion = version

    def _data(self, day: int, champion: int | None) -> Iterator[Event]:
        start = FIRST_DAY + timedelta(days=day)
        span = e.Span(start=start, end=start + timedelta(hours=23))
        common = {"pipeline": NAME, "shard": "city", "span": span}
        is_bad = day in FAULT_DAYS
        rows = pa.RecordBatch.from_pydict({"id": [f"{day}"]})
        ingested = self.told(
            e.BatchIngested(row_count=24, watermark=span.end, **common).with_rows(rows)
        )
        yield ingested
        validated = self.told(
            e.BatchValidated(
                row_count=2 if is_bad else 24,
                quarantined_count=22 if is_bad else 0,
                watermark=span.end,
                warnings=[stuck()] if day == WARNED_DAY else [],
                **common,
            ).with_rows(rows),
            ingested,
        )
        yield validated
        if is_bad:
            reason = e.RejectReason(
                check="range",
                field="temp",
                row_count=22,
                detail="values between 50 and 95, allowed -30 to 50",
                example="77",
            )
            yield self.told(
                e.BatchRejected(
                    row_count=22, batch_row_count=24, reasons=[reason], **common
                ).with_rows(rows),
                ingested,
            )
        if champion is None:
            return validated
        yield self.told(
            e.BatchScored(
                row_count=24,
                champion_version=champion,
                duration_seconds=0.002,
                **common,
            ).with_rows(rows),
            validated,
        )
        if day % 3 == 0 and not is_bad:
            yield self._measured(day, span, champion, validated)
        return validated

    def _measured(self, day: int, span: e.Span, champion: int, cause: Event) -> Event:
        trained = {1: 45, 2: 330, 3: 432, 4: 520, 5: 655}[champion]
        stale = (day - trained) / 100
        error = 38 + 26 * max(0.0, stale) ** 1.35 + self._dice.gauss(0, 5)
        measured = [
            e.Measurement(version=champion, role="champion", metric="mae", value=error)
        ]
        if 520 <= day < 534:
            measured.append(
                e.Measurement(
                    version=4, role="candidate", metric="mae", value=error * 1.3
                )
            )
        return self.told(
            e.PerformanceMeasured(
                pipeline=NAME, span=span, row_count=168, measurements=measured
            ),
            cause,
        )

    def _window(self, day: int, champion: int, cause: Event) -> Iterator[Event]:
        """A window closes: it is estimated, and an older one is measured."""
        estimated = self.told(estimate_of(day, champion), cause)
        yield estimated
        if day == DEGRADING_DAYS.start + WINDOW_DAYS:
            yield self.told(
                e.AlertRaised(
                    pipeline=NAME,
                    condition=f"estimate:v{champion}",
                    severity="warning",
                    title=f"Version {champion} seems to do worse; its labels are "
                    "awaited",
                    detail=f"{estimated.reason}, estimated for 2 windows in a row.",
                    owner="ops@example.org",
                    can_end=True,
                ),
                estimated,
            )
        before = day - LABEL_DAYS
        if before >= FIRST_WINDOW_DAY:
            thought = estimate_of(before, champion)
            guess = thought.estimates[0]
            real = guess.value + (6 if before == 588 else -1.2)
            yield self.told(
                p.PerformanceSettled(
                    pipeline=NAME,
                    version=champion,
                    window=thought.window,
                    span=thought.span,
                    row_count=168,
                    labelled_count=166,
                    kept_count=168,
                    metrics=[
                        p.SettledMetric(
                            metric="mae",
                            value=real,
                            low=real - 4,
                            high=real + 4,
                            estimate=guess,
                        )
                    ],
                    score=p.EstimatorScore(
                        window_count=thought.window,
                        mean_absolute_error=1.4,
                        level_error=2.6,
                        coverage=0.94,
                    ),
                ),
                cause,
            )

    def _labels(self, day: int, cause: Event) -> Event:
        if day == LATE_DAYS[0]:
            late = e.AlertRaised(
                pipeline=NAME,
                condition="labels_late",
                severity="warning",
                title="Labels have stopped coming",
                detail="Rows since 2012-06-01 00:00 (14 days) have none; labels of "
                "this pipeline used to land within 7 days.",
                can_end=True,
            )
            return self.told(late, cause)
        again = a.AlertResolved(
            pipeline=NAME,
            condition="labels_late",
            at=FIRST_DAY + timedelta(days=day),
            why="Labels of rows up to 2012-08-01 23:00 have landed.",
        )
        return self.told(again, cause)

    def _drift(self, day: int, cause: Event, why: str, retrain: bool) -> Event:
        at = FIRST_DAY + timedelta(days=day)
        return self.told(
            e.DriftDetected.model_validate(
                {
                    "pipeline": NAME,
                    "model_version": 1,
                    "cause": why,
                    "retrain_advised": retrain,
                    "since": at - timedelta(days=9),
                    "detected_at": at,
                    "features": ["temp"]
                    if why == "sensor_fault"
                    else ["hour", "workingday"],
                    "confidence": None if why == "sensor_fault" else 0.83,
                    "alternatives": {}
                    if why == "sensor_fault"
                    else {"population_shift": 0.11, "seasonality": 0.06},
                    "shares": {}
                    if why == "sensor_fault"
                    else {"hour": 0.64, "workingday": 0.21},
                    "evidence": [
                        {
                            "signal": "error",
                            "detector": "PageHinkley",
                            "statistic": 61.2,
                            "threshold": 50.0,
                            "row_count": 168,
                        },
                        {
                            "signal": "feature:hour",
                            "detector": "KS",
                            "statistic": 0.04,
                            "p_value": 0.41,
                            "row_count": 168,
                            "detail": "as in what the version learned from",
                        },
                    ],
                    "explanation": (
                        "92 % of the rows of the last days have temp out of range; the "
                        "other features are as before"
                        if why == "sensor_fault"
                        else "the error rose by 61 % while the inputs are as before: "
                        "demand answers differently to them"
                    ),
                }
            ),
            cause,
        )

    def _fault(self, day: int, cause: Event) -> Iterator[Event]:
        verdict = self._drift(day, cause, "sensor_fault", False)
        yield verdict
        yield self.told(
            e.AlertRaised(
                pipeline=NAME,
                condition="fault/temp",
                severity="critical",
                title="temp of bike-demand looks like another unit",
                detail="22 of 24 rows a day are in quarantine",
                owner="ops@example.org",
            ),
            verdict,
        )
        yield self.told(
            e.TrainingSkipped(
                pipeline=NAME,
                trigger=trigger(verdict, "sensor_fault"),
                reason="cause_not_cured_by_training",
                detail="a model that learns wrong values does not mend the sensor",
            ),
            verdict,
        )

    def _version(
        self, day: int, cause: Event, version: int, reason: str, champion: int | None
    ) -> Iterator[Event]:
        started, trained = self._training(day, cause, version, reason, champion)
        yield started
        for step, ratio in (("loading", 0.1), ("fitting", 0.5), ("judging", 0.9)):
            yield self.told(
                e.TrainingProgressed(
                    pipeline=NAME, job_id=f"job-{version}", step=step, done_ratio=ratio
                ),
                started,
            )
        yield trained
        yield self.told(
            e.ModelRegistered(
                pipeline=NAME,
                version=version,
                job_id=f"job-{version}",
                package=package(version),
                algorithm=trained.algorithm,
                evaluation=trained.evaluation,
                gate=[
                    e.GateCheck(name="package_verified", passed=True, detail="right"),
                    e.GateCheck(name="latency", passed=True, detail="within 50 ms"),
                    e.GateCheck(
                        name="significantly_better",
                        passed=True,
                        detail="loss a row -38.1, upper bound -33.0 at 95%",
                    ),
                ],
            ),
            trained,
        )
        if version == max(DRIFTS.values()):
            yield self.told(
                e.ApprovalRequested(
                    pipeline=NAME,
                    version=version,
                    package=package(version),
                    role="approver",
                    people=1,
                ),
                trained,
            )
            return
        approved = self.told(
            e.ModelApproved(
                pipeline=NAME,
                version=version,
                package=package(version),
                approved_by=["gate"],
            ),
            trained,
        )
        yield approved
        yield from self._rollout(approved, version, champion)

    def _training(
        self, day: int, cause: Event, version: int, reason: str, champion: int | None
    ) -> tuple[Any, Any]:
        at = FIRST_DAY + timedelta(days=day)
        train = e.Span(start=at - timedelta(days=90), end=at - timedelta(days=18))
        holdout = e.Span(start=at - timedelta(days=18), end=at)
        dataset = e.DatasetRef(
            observations=e.TableRef(
                uri="datasets/bike-demand/observations", version=day
            )
        )
        started = self.told(
            e.TrainingStarted(
                pipeline=NAME,
                job_id=f"job-{version}",
                trigger=trigger(cause, reason),
                dataset=dataset,
                train_span=train,
                holdout_span=holdout,
            ),
            cause,
        )
        trained = self.told(
            e.ModelTrained(
                pipeline=NAME,
                job_id=f"job-{version}",
                trigger=trigger(cause, reason),
                package=package(version),
                algorithm="gradient_boosting",
                dataset=dataset,
                train_span=train,
                tried=[],
                evaluation=e.Evaluation(
                    metric="mae",
                    holdout_span=holdout,
                    holdout_row_count=430,
                    candidate=36.0 + version,
                    champion=None if champion is None else 70.0 + 9 * version,
                    champion_version=champion,
                    baseline=138.9,
                    comparison=e.PairedComparison(
                        mean_difference=-38.1, standard_error=3.1, row_count=430
                    ),
                ),
            ),
            started,
        )
        return started, trained

    def _rollout(
        self, approved: Event, version: int, champion: int | None
    ) -> Iterator[Event]:
        rollout = f"rollout-{version}"

        def step(name: str, verdict: str, detail: str) -> Event:
            return self.told(
                e.RolloutAdvanced.model_validate(
                    {
                        "pipeline": NAME,
                        "rollout_id": rollout,
                        "version": version,
                        "step": name,
                        "verdict": verdict,
                        "detail": detail,
                    }
                ),
                approved,
            )

        if champion is not None:
            yield step(
                "shadow", "started", f"100 labelled rows against version {champion}"
            )
            if version == 4:
                yield step(
                    "shadow", "failed", "loss 1.31 of the champion's, 1.1 allowed"
                )
                yield self.told(
                    e.ModelRolledBack(
                        pipeline=NAME,
                        rollout_id=rollout,
                        version=version,
                        generation=version * 2,
                        restored=e.ServedModel(
                            version=champion, package=package(champion)
                        ),
                        reason="loss 1.31 of the champion's, 1.1 allowed",
                    ),
                    approved,
                )
                return
            yield step("shadow", "passed", "loss 0.52 of the champion's")
            yield step("canary 10 %", "passed", "loss 0.55 of the champion's")
            yield step("canary 50 %", "passed", "loss 0.53 of the champion's")
        yield self.told(
            e.ServingDesired(
                pipeline=NAME,
                generation=version * 2,
                champion=e.ServedModel(version=version, package=package(version)),
            ),
            approved,
        )
        yield self.told(
            e.ModelDeployed(
                pipeline=NAME,
                rollout_id=rollout,
                version=version,
                package=package(version),
                generation=version * 2,
                previous_version=champion,
            ),
            approved,
        )


def spec() -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": NAME,
            "task": "regression",
            "owner": "ops@example.org",
            "description": "Rentals of the next hour",
            "data": {"target": "cnt"},
        }
    )


def estimate_of(day: int, champion: int) -> p.PerformanceEstimated:
    """Return what is thought of the week before a day."""
    number = (day - FIRST_WINDOW_DAY) // WINDOW_DAYS + 1
    end = FIRST_DAY + timedelta(days=day, hours=-1)
    is_bad = day in DEGRADING_DAYS
    value = (78.0 if is_bad else 46.0) + 1.5 * math.sin(number)
    low, high = value - 8, value + (19 if is_bad else 8)
    text = f"mae of about {value:.4g} ({low:.4g} to {high:.4g})"
    return p.PerformanceEstimated(
        pipeline=NAME,
        version=champion,
        window=number,
        span=e.Span(start=end - timedelta(days=WINDOW_DAYS, hours=-1), end=end),
        row_count=168,
        verdict="degrading" if is_bad else "ok",
        reason=f"{text}, 1.8 times the hold-out's 42"
        if is_bad
        else f"{text}; the hold-out's is 42",
        estimates=[
            p.MetricEstimate(metric="mae", value=value, low=low, high=high, level=47.0)
        ],
        basis=p.Basis(row_count=1500, until=end, alike_count=412.0, expected=42.0),
        labels=p.LabelsAwaited(
            state="awaited",
            watermark=end,
            labelled_until=end - timedelta(days=LABEL_DAYS),
            awaited_since=end - timedelta(days=LABEL_DAYS),
            usual_days=45.0,
            labelled_ratio=0.98,
        ),
    )


def stuck() -> e.BatchWarning:
    return e.BatchWarning(
        check="stuck_sensor", field="hum", row_count=9, detail="9 rows have 0.5"
    )


def package(version: int) -> e.PackageRef:
    digest = f"{version}" * 64
    return e.PackageRef(
        uri=f"artifact:sha256/{digest}", digest=digest, signer="0f1e2d3c4b5a6978"
    )


def trigger(cause: Event, reason: str) -> e.Trigger:
    return e.Trigger(
        event_id=cause.meta.id, event_type=type(cause).type_name(), reason=reason
    )
