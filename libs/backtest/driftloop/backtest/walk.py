"""One policy from the first row to the last, in simulated time.

The monitor's and the trainer's own handlers, the training itself, the registry's gate
and the deployer's core, on the recorded rows; every row is answered by what would have
been in service, and nothing knows a label before it came. What is left out is Kafka,
people (who say yes at once) and the time that trainings take.
"""

import hashlib
import json
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from driftloop.backtest.answers import Desk, Floats, answers_of
from driftloop.backtest.inprocess import InProcess, applied, caused, meta_of
from driftloop.backtest.policies import Policy
from driftloop.backtest.serving import Answered, ServingSide
from driftloop.backtest.stream import (
    Part,
    Rhythm,
    Stream,
    only_batch,
    parts_of,
)
from driftloop.backtest.trainings import Learned, Refused, Shelf
from driftloop.contracts import events as e
from driftloop.contracts.base import Event, Meta, derived_id
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.pairing import as_time
from driftloop.monitor import handlers as monitor
from driftloop.monitor.tables import TABLES as MONITOR_TABLES
from driftloop.monitor.turn import MonitorDeps
from driftloop.registry.gate import PackageFinding, judge, passes
from driftloop.scorer.core import is_candidates, scored_rows
from driftloop.trainer import core
from driftloop.trainer import handlers as trainer
from driftloop.trainer.tables import TABLES as TRAINER_TABLES
from driftloop.trainer.tables import TrainerJob, pipeline_row, state_of

Entry = dict[str, Any]
Progress = Callable[[int], None]
"""Called with how many rows have been answered or passed by."""
RECORDED = e.TableRef(uri="recorded", version=0)


@dataclass(frozen=True)
class Walked:
    """What became of a stream under a policy.

    Attributes
    ----------
    losses : (n_rows,) of what was answered, in the unit whose mean decides; NaN where
        nothing answered yet, or the target is not known.
    timeline : what happened, in order; see :meth:`Walk.run`.
    trained : each training, with the number of the row after which it was made.
    """

    losses: Floats
    timeline: list[Entry]
    counts: dict[str, int]
    cpu_seconds: float
    trained: list[tuple[int, Learned]]

    @property
    def digest(self) -> str:
        """Of all decisions and losses: two equal runs have the same."""
        told = json.dumps(self.timeline, sort_keys=True).encode()
        return hashlib.sha256(told + self.losses.tobytes()).hexdigest()


def simulated(spec: PipelineSpec) -> PipelineSpec:
    """Return the pipeline without what decides nothing here.

    Environments before production take no time; estimates of performance, metrics of
    one's own and wanted labels are for people.
    """
    rollout = spec.rollout.model_copy(update={"environments": []})
    monitor = spec.monitor.model_copy(update={"estimate": False, "metrics": []})
    labelling = spec.labelling.model_copy(update={"budget_rows": None})
    return spec.model_copy(
        update={"rollout": rollout, "monitor": monitor, "labelling": labelling}
    )


class Walk:
    """A policy's way through a stream; :meth:`run` is called once."""

    def __init__(
        self, policy: Policy, stream: Stream, shelf: Shelf, desk: Desk, rhythm: Rhythm
    ) -> None:
        self._spec, self._stream = simulated(policy.spec), stream
        self._shelf, self._desk, self._rhythm = shelf, desk, rhythm
        pipelines = applied(self._spec)
        self._models: dict[str, Learned] = {}
        self._monitor = InProcess(
            monitor.HANDLERS,
            MONITOR_TABLES,
            lambda session: MonitorDeps(
                session, pipelines, lambda ref: self._models[ref.digest].packaged
            ),
        )
        self._trainer = InProcess(
            trainer.HANDLERS,
            TRAINER_TABLES,
            lambda session: trainer.Deps(
                session, pipelines, threading.Event(), threading.Event()
            ),
        )
        self._serving = ServingSide(self._spec)
        count = stream.rows.num_rows
        self._losses = np.full(count, np.nan)
        self._labelled, self._arrived = np.zeros((2, count), dtype=bool)
        horizon = timedelta(days=self._spec.data.label_horizon_days)
        self._timely = stream.is_timely(horizon // timedelta(microseconds=1))
        self._seen = 0
        self._jobs: deque[e.TrainingStarted] = deque()
        self._versions = 0
        self._timeline: list[Entry] = []
        self._counts: Counter[str] = Counter()
        self._cpu_seconds = 0.0
        self._trained: list[tuple[int, Learned]] = []

    def run(self, progress: Progress = lambda _: None) -> Walked:
        """Send all rows through.

        The timeline's entries have ``at`` (ISO 8601) and ``what``: ``drift``,
        ``training``, ``skip``, ``trained``, ``failed``, ``refused`` (by the gate),
        ``deployed``, ``taken_back``; with ``row``, how many rows had come by then, and
        a ``detail`` for people.
        """
        try:
            window = self._spec.monitor.window_rows
            for part in parts_of(self._stream, self._rhythm, window):
                self._take(part)
                progress(self._seen)
        finally:
            self._monitor.close()
            self._trainer.close()
        return Walked(
            self._losses, self._timeline, dict(self._counts),
            round(self._cpu_seconds, 3), self._trained,
        )  # fmt: skip

    # ── what comes ──────────────────────────────────────────────────────────

    def _take(self, part: Part) -> None:
        """Let a part have all its consequences.

        In the order that services have them in: what is in service answers, the
        trainer knows of a dataset version before the monitor speaks of its rows, and
        the monitor has rows before their answers. A training ends after all that.
        """
        rows = self._stream.sent(part)
        meta = meta_of(derived_id("part", part.kind, part.number), part.due)
        first, last = self._stream.span_us(part)
        span = e.Span(start=as_time(first), end=as_time(last))
        base: dict[str, Any] = {
            "pipeline": self._spec.name, "shard": part.shard, "kind": part.kind,
            "row_count": rows.num_rows, "span": span,
        }  # fmt: skip
        answered = None
        if part.kind == "observations":
            answered = self._answer(part, base, meta)
            self._seen += len(part.rows)
            self._arrived[part.rows] = True
        self._labelled[part.labelled] = self._stream.is_labelled[part.labelled]
        validated = e.BatchValidated(**base, watermark=span.start)
        validated = validated.with_rows(only_batch(rows)).with_meta(meta)
        self._follow(self._trainer.take(self._versioned(part, span, meta)))
        self._follow(self._monitor.take(validated))
        if answered is not None:
            self._follow(self._monitor.take(answered.event))
            self._follow(self._serving.scored(answered, meta))
        while self._jobs:
            self._follow(self._train(self._jobs.popleft()))

    def _versioned(self, part: Part, span: e.Span, meta: Meta) -> Event:
        event = e.DatasetVersioned(
            pipeline=self._spec.name,
            kind=part.kind,
            dataset=e.DatasetRef(observations=RECORDED),
            added_count=len(part.rows),
            observation_count=self._seen,
            label_count=int(self._labelled.sum()),
            span=span,
        )
        (told,) = caused([event], meta)
        return told

    # ── answering ───────────────────────────────────────────────────────────

    def _answer(self, part: Part, base: dict[str, Any], meta: Meta) -> Answered | None:
        """Answer a batch with what is in service; None: nothing is."""
        wanted = self._serving.wanted
        if wanted.champion is None:
            return None
        champion = self._models[wanted.champion.package.digest]
        said = self._desk.said(champion, part.rows)
        losses, other, version = said.losses, None, None
        answers = answers_of(said, champion.classes)
        if wanted.candidate is not None:
            version = wanted.candidate.version
            candidate = self._models[wanted.candidate.package.digest]
            its = self._desk.said(candidate, part.rows)
            other = answers_of(its, candidate.classes)
        batch = only_batch(self._stream.taken(part.rows).select(["id", "event_time"]))
        rows = scored_rows(batch, answers, other, version or 0, wanted.share)
        if other is not None and version is not None and wanted.share > 0:
            drawn = np.array(
                [is_candidates(i, version, wanted.share)
                 for i in batch.column("id").to_pylist()]
            )  # fmt: skip
            losses = np.where(
                drawn & other.prediction.is_valid().to_numpy(zero_copy_only=False),
                its.losses,
                losses,
            )
        self._losses[part.rows] = losses
        scored = e.BatchScored(
            **base,
            duration_seconds=0.0,
            champion_version=wanted.champion.version,
            candidate_version=version,
        )
        (event,) = caused([scored.with_rows(rows)], meta)
        assert isinstance(event, e.BatchScored)  # noqa: S101 - it was one
        return Answered(event, self._serving.generation, answers, other)

    # ── what follows ────────────────────────────────────────────────────────

    def _follow(self, told: list[Event]) -> None:
        """Let each event have its consequences, in order."""
        todo = deque(told)
        while todo:
            todo.extend(self._consequences(todo.popleft()))

    def _consequences(self, event: Event) -> list[Event]:
        taken: list[Event] = []
        match event:
            case e.DriftDetected():
                self._note(event, "drift", event.explanation, cause=event.cause,
                           advised=event.retrain_advised,
                           detected_at=event.detected_at.isoformat())  # fmt: skip
                taken = self._trainer.take(event)
            case e.PerformanceMeasured():
                taken = [*self._trainer.take(event), *self._serving.measured(event)]
            case e.TrainingSkipped():
                self._note(event, "skip", event.detail, reason=event.reason,
                           cause=event.trigger.reason)  # fmt: skip
            case e.TrainingStarted():
                spans = [_ends(event.train_span), _ends(event.holdout_span)]
                self._note(event, "training", _on(event), spans=spans,
                           reason=event.trigger.reason)  # fmt: skip
                self._jobs.append(event)
            case e.ModelDeployed():
                self._note(event, "deployed", "", version=event.version)
                taken = [*self._monitor.take(event), *self._trainer.take(event)]
            case e.ModelRolledBack():
                self._note(event, "taken_back", event.reason, version=event.version)
                taken = [*self._monitor.take(event), *self._trainer.take(event)]
            case _:  # whatever else the two may listen to
                taken = [*self._monitor.take(event), *self._trainer.take(event)]
        return taken

    def _note(self, event: Event, what: str, detail: str, **more: Any) -> None:
        self._entry(event.meta.time, what, detail, **more)

    def _entry(self, at: datetime, what: str, detail: str, **more: Any) -> None:
        self._counts[what] += 1
        self._timeline.append(
            {"at": at.isoformat(), "row": self._seen, "what": what, "detail": detail}
            | more
        )

    # ── learning ────────────────────────────────────────────────────────────

    def _train(self, started: e.TrainingStarted) -> list[Event]:
        session = self._trainer.session
        job = session.get(TrainerJob, started.job_id)
        assert job is not None  # noqa: S101 - the handler has just stored it
        known = self._labelled & self._arrived & self._timely
        found = self._shelf.train(job.asked(), np.flatnonzero(known))
        self._cpu_seconds += found.cpu_seconds
        follow_up = self._ended(job, found, started.meta)
        if isinstance(found, Refused):
            self._note(started, "failed", found.why)
            return follow_up
        return [*self._registered(found, started.meta), *follow_up]

    def _ended(
        self, job: TrainerJob, found: Learned | Refused, cause: Meta
    ) -> list[Event]:
        """End the job as the trainer's loop does, with what waited for it."""
        session = self._trainer.session
        is_refused = isinstance(found, Refused)
        job.state = "failed" if is_refused else "done"
        job.failure_count += int(is_refused)
        job.cpu_seconds += found.cpu_seconds
        session.flush()
        row = pipeline_row(session, self._spec.name)
        view = state_of(session, row, self._spec)
        following = core.after_job(view, self._spec)
        told = []
        if following is not None:
            accepted = trainer.accept(session, row, following, self._spec, cause)
            end = meta_of(derived_id(job.id, "end", 0), cause.time, cause)
            told = caused([accepted], end)
        session.commit()
        return told

    def _registered(self, model: Learned, cause: Meta) -> list[Event]:
        """Judge a model at the gate, and let a good one begin its rollout."""
        self._versions += 1
        version = self._versions
        self._trained.append((self._seen, model))
        self._models[model.package.digest] = model
        checks = judge(model.evaluation, self._spec.gate, PackageFinding())
        failed = [c for c in checks if not c.passed and c.severity != "warn"]
        said = f"{model.evaluation.metric} {model.evaluation.candidate:.4g}"
        if model.evaluation.champion is not None:
            said += f" against the champion's {model.evaluation.champion:.4g}"
        self._entry(
            cause.time, "trained", said, version=version,
            loss=model.evaluation.candidate,
            holdout_rows=model.evaluation.holdout_row_count,
            failed_checks=[check.name for check in failed],
        )  # fmt: skip
        if not passes(checks):
            why = "; ".join(f"{check.name}: {check.detail}" for check in failed)
            self._entry(cause.time, "refused", why, version=version)
            return []
        meta = meta_of(derived_id(cause.id, "approved", version), cause.time, cause)
        return self._serving.approve(version, model.package, meta)


def _on(started: e.TrainingStarted) -> str:
    return (
        f"on {started.train_span.start:%Y-%m-%d} to "
        f"{started.train_span.end:%Y-%m-%d}, judged up to "
        f"{started.holdout_span.end:%Y-%m-%d}"
    )


def _ends(span: e.Span) -> list[str]:
    return [span.start.isoformat(), span.end.isoformat()]
