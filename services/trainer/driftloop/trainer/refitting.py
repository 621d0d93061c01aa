"""The served model once more: what it learns after the hold-out has judged it.

The rows that judge a model are the newest, so a model that never learns them is older
than it need be. ``train.refit`` fits the chosen recipe again on all rows. What the
hold-out said stays what it said about the recipe; the fitted model itself is compared
with the champion in the rollout, on rows that neither knows.

Source: the usual last step after a model has been assessed; Hastie, Tibshirani and
Friedman (2009), The Elements of Statistical Learning, section 7.10.
"""

from dataclasses import dataclass, replace
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.events import Evaluation, Span
from driftloop.contracts.measures import Parity, Refit
from driftloop.models.package import Package
from driftloop.trainer import choosing, judging, losses
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.evaluation.measuring import Measured
from driftloop.trainer.evaluation.subject import rounded
from driftloop.trainer.fitting import PARITY_TOLERANCE, Fitted
from driftloop.trainer.judging import Split
from driftloop.trainer.request import JobRequest
from driftloop.trainer.trials import Choice
from driftloop.trainer.workshop import Part, Workshop

MIN_FAIR_ROWS = 100
"""Fewer that the champion does not know would decide nothing."""


@dataclass(frozen=True)
class Served:
    """What goes into the package.

    Attributes
    ----------
    learned : rows of the chosen window that it was fitted on.
    """

    model: Fitted
    learned: pa.Table
    evaluation: Evaluation
    measured: Measured


def with_fair_holdout(
    request: JobRequest, rows: pa.Table, champion: Package | None
) -> JobRequest:
    """Return the request with a hold-out of rows that the champion does not know.

    What it knows is learned by the candidate instead, so that both know the same.
    Where too few rows would be left to judge, the spans stay: the champion is
    favoured then, and :func:`known_rows` says by how many rows.
    """
    if champion is None or champion.manifest.learned_until <= request.train_span.end:
        return request
    until = champion.manifest.learned_until
    newer = rows.filter(pc.greater(rows["event_time"], _moment(until)))
    if newer.num_rows < MIN_FAIR_ROWS:
        return request
    training = request.train_span.model_copy(update={"end": until})
    holdout = Span(start=newer["event_time"][0].as_py(), end=request.holdout_span.end)
    return request.model_copy(update={"train_span": training, "holdout_span": holdout})


def known_rows(holdout: pa.Table, champion: Package) -> int:
    """Return how many rows of the hold-out a champion may have learned."""
    until = _moment(champion.manifest.learned_until)
    known = holdout.filter(pc.less_equal(holdout["event_time"], until))
    return len(known)


def refitted(
    choice: Choice,
    split: Split,
    judged: Fitted,
    said: tuple[Evaluation, Measured],
    shop: Workshop,
    part: Part,
) -> Served:
    """Fit the choice on all rows, and see that nothing went wrong with it.

    Raises
    ------
    CandidateRefused
        When it cannot be fitted on all rows, or its answers are no numbers.
    """
    rows = pa.concat_tables([split.training, split.holdout])
    model = choosing.final(choice, rows, shop, part, "refit")
    evaluation, measured = said
    before, after = (_losses(m, split.holdout, shop) for m in (judged, model))
    compared = losses.paired_comparison(after, before)
    metric = shop.spec.metric
    refit = Refit(
        row_count=model.row_count,
        loss=rounded(losses.metric_value(metric, after)),
        mean_difference=rounded(compared.mean_difference),
        standard_error=rounded(compared.standard_error),
    )
    parity = measured.measures.parity
    if model.parity is not None:
        greatest = max(model.parity, parity.difference if parity else 0.0)
        parity = Parity(difference=rounded(greatest), tolerance=PARITY_TOLERANCE)
    measures = measured.measures.model_copy(update={"refit": refit, "parity": parity})
    told = {"refit": refit, "parity": parity}
    report = measured.report | {
        name: None if value is None else value.model_dump(mode="json")
        for name, value in told.items()
    }
    return Served(
        model,
        choice.rows(rows),
        evaluation.model_copy(update={"measures": measures}),
        replace(measured, measures=measures, report=report),
    )


def _losses(model: Fitted, rows: pa.Table, shop: Workshop) -> losses.Floats:
    predicted = model.loaded().predict(rows)
    if predicted.non_finite_count():
        raise CandidateRefused("its answers on the hold-out are not finite")
    return judging.row_losses(shop.spec, rows, predicted, model.classes)


def _moment(time: datetime) -> pa.Scalar:
    return pa.scalar(time, pa.timestamp("us", tz="UTC"))
