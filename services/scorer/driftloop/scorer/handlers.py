"""What the scorer does at each event: score rows, report its figures, take jobs."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    BatchScored,
    BatchValidated,
    Role,
    ScorerReported,
    ServingDesired,
    place_of,
)
from driftloop.contracts.pipeline import PRODUCTION
from driftloop.contracts.scoring import ScoringCancelRequested, ScoringRequested
from driftloop.runtime.errors import Retry, Skip
from driftloop.runtime.handlers import Deps, EventHandler
from driftloop.runtime.state import StateView
from driftloop.scorer.core import Answers, Tally, differing, scored_rows
from driftloop.scorer.jobs.asking import ask, cancel
from driftloop.scorer.metrics import count_call
from driftloop.scorer.shelf import Shelf
from driftloop.scorer.tables import load_tally, save_tally
from sqlalchemy.event import listen


@dataclass(frozen=True)
class ScorerDeps(Deps):
    """What the scorer's handlers use.

    Attributes
    ----------
    wake : set once a new job is committed, for the loop that does it.
    recheck : set once a job is cancelled, for who works on it.
    """

    shelf: Shelf
    desired: StateView[ServingDesired]
    replica: str
    report_every: int
    environment: str = PRODUCTION
    wake: threading.Event = field(default_factory=threading.Event)
    recheck: threading.Event = field(default_factory=threading.Event)


def on_batch_validated(event: BatchValidated, deps: ScorerDeps) -> Iterator[Event]:
    if event.kind == "labels":
        raise Skip("labels")
    wish = deps.desired.get(place_of(event.pipeline, deps.environment))
    if wish is None or wish.champion is None:
        raise Skip("no_model")
    served = deps.shelf.get(event.pipeline)
    if served is None or served.champion is None:
        raise Retry(f"version {wish.champion.version} is not loaded yet")
    champion, candidate = served.champion, served.candidate
    said = champion.answer(event.rows)
    rival = candidate.answer(event.rows) if candidate else None
    answers: dict[int, tuple[Role, Answers]] = {champion.version: ("champion", said)}
    if candidate and rival:
        answers[candidate.version] = ("candidate", rival)
    for role, told in answers.values():
        count_call(
            event.pipeline, role, "stream", event.row_count, told.error_count,
            told.seconds,
        )  # fmt: skip
    rows = scored_rows(
        event.rows, said, rival, candidate.version if candidate else 0, served.share
    )
    yield BatchScored(
        pipeline=event.pipeline,
        shard=event.shard,
        environment=deps.environment,
        kind=event.kind,
        row_count=event.row_count,
        span=event.span,
        champion_version=champion.version,
        candidate_version=candidate.version if candidate else None,
        duration_seconds=said.seconds + (rival.seconds if rival else 0.0),
    ).with_rows(rows)
    applied = deps.pipelines.get(event.pipeline)
    tolerance = applied.spec.rollout.prediction_tolerance if applied else 0.0
    tally = load_tally(deps.session, deps.replica, event.pipeline)
    compared = differing(said, rival, tolerance) if rival else (0, 0)
    tally = tally.added(served.generation, answers, event.watermark, compared)
    if tally.is_due(deps.report_every):
        yield ScorerReported(
            pipeline=event.pipeline,
            replica=deps.replica,
            environment=deps.environment,
            generation=served.generation,
            versions=tally.report(),
            watermark=tally.watermark,
        )
        tally = Tally()
    save_tally(deps.session, deps.replica, event.pipeline, tally)


def on_scoring_requested(event: ScoringRequested, deps: ScorerDeps) -> Iterator[Event]:
    """Store the job; the background loop does it, and says so."""
    _check_production(deps)
    ask(deps.session, event)
    wake = deps.wake
    listen(deps.session, "after_commit", lambda _: wake.set())
    yield from ()


def on_scoring_cancel_requested(
    event: ScoringCancelRequested, deps: ScorerDeps
) -> Iterator[Event]:
    """Take the job from whoever works on it; the background loop ends it."""
    _check_production(deps)
    cancel(deps.session, event)
    wake, recheck = deps.wake, deps.recheck

    def tell(_: object) -> None:
        recheck.set()
        wake.set()

    listen(deps.session, "after_commit", tell)
    yield from ()


def _check_production(deps: ScorerDeps) -> None:
    """Leave jobs to the scorers of production: each is done once."""
    if deps.environment != PRODUCTION:
        raise Skip("not_in_production")


HANDLERS: list[EventHandler] = [
    on_batch_validated,
    on_scoring_requested,
    on_scoring_cancel_requested,
]
