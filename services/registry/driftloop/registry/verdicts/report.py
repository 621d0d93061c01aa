"""How often each cause was right, as far as people said. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from driftloop.contracts.events import Cause, DriftDetected
from driftloop.contracts.overruling import precisions, prior
from driftloop.registry.lineage.tables import RegistryDrift
from driftloop.registry.tables import utc
from driftloop.registry.verdicts.tables import RegistryOverruling
from pydantic import BaseModel, Field


class ShownOverruling(BaseModel):
    """What a person said of a verdict."""

    event_id: str
    at: datetime
    cause: Cause
    by: str = Field(examples=["ann"])
    reason: str


class ShownVerdict(BaseModel):
    """A verdict of the monitor, and what people said of it."""

    id: str = Field(description="of the drift-detected; what `overrule` names")
    at: datetime
    cause: Cause
    holds: Cause = Field(description="the last person's cause, else the verdict's")
    confidence: float | None
    alternatives: dict[Cause, float]
    retrain_advised: bool
    model_version: int | None
    since: datetime
    features: dict[str, float | None] = Field(description="what each carries of it")
    sources: dict[str, float]
    explanation: str
    overrulings: list[ShownOverruling] = Field(description="oldest first")


class CausePrecision(BaseModel):
    """How often a cause was right, as far as people said."""

    cause: Cause
    told: int
    overruled: int
    missed: int = Field(description="verdicts of other causes that people said were it")
    precision: float = Field(description="share not overruled; silence is consent")


class VerdictReport(BaseModel):
    """The verdicts of a pipeline, newest first, and what overrulings teach."""

    pipeline: str = Field(examples=["bike-demand"])
    verdicts: list[ShownVerdict]
    causes: list[CausePrecision] = Field(description="of all verdicts, not this page")
    prior: dict[Cause, float] = Field(
        description="what each cause's weight is multiplied by; bounded; others: 1"
    )


def report(
    pipeline: str,
    drifts: Sequence[RegistryDrift],
    said: Sequence[RegistryOverruling],
    limit: int,
) -> VerdictReport:
    """Return the newest verdicts, and what all of them and their overrulings teach."""
    newest = sorted(drifts, key=lambda row: utc(row.at), reverse=True)
    events = [DriftDetected.model_validate(row.told) for row in newest]
    pairs: list[tuple[Cause, Cause]] = [_pair(one) for one in said]
    return VerdictReport(
        pipeline=pipeline,
        verdicts=[
            shown(row, [one for one in said if one.verdict_id == row.event_id])
            for row in newest[:limit]
        ],
        causes=[
            CausePrecision.model_validate(each, from_attributes=True)
            for each in precisions([event.cause for event in events], pairs)
        ],
        prior=prior(pairs),
    )


def _pair(one: RegistryOverruling) -> tuple[Any, Any]:
    return one.verdict_cause, one.cause


def shown(row: RegistryDrift, said: Sequence[RegistryOverruling]) -> ShownVerdict:
    """Return a verdict with what people said of it."""
    event = DriftDetected.model_validate(row.told)
    overrulings = [
        ShownOverruling.model_validate(
            {
                "event_id": one.event_id,
                "at": utc(one.at),
                "cause": one.cause,
                "by": one.by,
                "reason": one.reason,
            }
        )
        for one in said
    ]
    return ShownVerdict(
        id=row.event_id,
        at=utc(row.at),
        cause=event.cause,
        holds=overrulings[-1].cause if overrulings else event.cause,
        confidence=event.confidence,
        alternatives=event.alternatives,
        retrain_advised=event.retrain_advised,
        model_version=event.model_version,
        since=event.since,
        features={name: event.shares.get(name) for name in event.features},
        sources=event.sources,
        explanation=event.explanation,
        overrulings=overrulings,
    )
