"""A training from recorded rows to a package's files; run in a child process.

Split by event time: the newest part is the hold-out and judges only; the newest
part of the rest chooses among the candidates; the chosen one is fitted again on
all but the hold-out, and where ``train.refit`` says so, on all. Nothing here draws
an unseeded number, and a clock decides only where ``train.search.minutes`` ends a
search, so that the same request gives the same files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.describe import stretch_in_words
from driftloop.contracts.events import (
    CandidateResult,
    Evaluation,
    FaultyStretch,
    LeftOut,
    Span,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.onnx_model import InputRefused, OnnxModel, OutputRefused
from driftloop.models.package import Package, read_package
from driftloop.models.signing import TrustedKeys
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.trainer import (
    choosing,
    core,
    fingerprint,
    judging,
    losses,
    refitting,
    search,
)
from driftloop.trainer.candidates import UNWATCHED, CandidateRefused
from driftloop.trainer.candidates.machine import Machine
from driftloop.trainer.choosing import MIN_JUDGING_ROWS, Chosen
from driftloop.trainer.dataset import labelled_span, read_rows
from driftloop.trainer.evaluation import fairness
from driftloop.trainer.evaluation.measuring import Measured, measure
from driftloop.trainer.evaluation.subject import Subject
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.folds import folds_of
from driftloop.trainer.inheriting import heritage_of
from driftloop.trainer.judging import Split
from driftloop.trainer.refitting import Served
from driftloop.trainer.request import JobRequest
from driftloop.trainer.workshop import Part, Progress, Workshop, made

READ, FIT, FINAL, EVALUATE, REFIT, PACKAGE = 0.0, 0.1, 0.6, 0.75, 0.85, 0.9
"""Done shares of a job at which its steps begin; the trials share FIT to FINAL."""


class TrainingRefused(Exception):  # noqa: N818 - says what happened
    """A request can never give a model, and why; it is not tried again."""


@dataclass(frozen=True)
class Environment:
    """What a training may use besides its request.

    Attributes
    ----------
    machine : what may be used of it; a number: so many threads of the CPU.
    allowed_imports : modules, each with all below it, that own candidates come from.
    """

    store: ArtifactStore
    trusted: TrustedKeys
    storage_options: Mapping[str, str] | None
    machine: Machine | int
    folder: Path
    allowed_imports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """What a training found out.

    Attributes
    ----------
    request : with the spans that the labelled rows have; see :func:`measured_spans`.
    chosen : the model that is served.
    judged : the one that was judged on the hold-out; the same, unless it was fitted
        anew on all rows.
    learned : rows of the chosen window that it was fitted on.
    state : files for a next training to go on from, by name.
    is_continued : whether this one went on from the champion's.
    left_out : what each fault took out of the rows; those that took some.
    """

    request: JobRequest
    chosen: Fitted
    split: Split
    learned: pa.Table
    tried: list[CandidateResult]
    evaluation: Evaluation
    measured: Measured
    state: Mapping[str, bytes]
    is_continued: bool
    judged: Fitted
    left_out: list[LeftOut]

    @cached_property
    def rows_sha256(self) -> str:
        """Digest of the labelled rows, in order of time."""
        parts = [self.split.training, self.split.holdout]
        return fingerprint.digest_of(pa.concat_tables(parts))

    @property
    def learned_span(self) -> Span | None:
        """All rows, where the hold-out was learned after it had judged."""
        if self.measured.measures.refit is None:
            return None
        request = self.request
        return Span(start=request.train_span.start, end=request.holdout_span.end)


def train(request: JobRequest, using: Environment, progress: Progress) -> Trained:
    """Train all candidates of a request and measure the best one.

    Raises
    ------
    TrainingRefused
        When the rows are too few or no candidate could be used.
    Retry
        When a table or the store is away.
    PackageRefused
        When the champion's package is not what it claims to be.
    """
    spec = request.spec
    progress("read", READ, "", None)
    request = measured_spans(request, using)
    span = Span(start=request.train_span.start, end=request.holdout_span.end)
    rows, left_out = read_rows(
        request.dataset, span, spec.data, using.storage_options, request.left_out
    )
    left_out = [each for each in left_out if each.row_count]
    _check_gate(spec, rows)
    champion = _champion_package(request, using)
    request = refitting.with_fair_holdout(request, rows, champion)
    split = split_rows(rows, request, left_out)
    progress("fit", FIT, f"{split.training.num_rows} training rows", None)
    allowed, again = using.allowed_imports, request.searched
    left = heritage_of(spec, split.training, request.champion, champion)
    shop = Workshop(
        spec, using.machine, using.folder, progress, allowed, again, heritage=left
    )
    part = Part("fit", FIT, FINAL, progress)
    if request.is_given:
        chosen, found = _given(request, split, using.store)
    else:
        chosen, found = _chosen(request, split, shop, part)
    progress("evaluate", EVALUATE, chosen.name, None)
    said = evaluate(chosen, found, split, request, using, champion)
    if spec.train.refit and not request.is_given:
        part = Part("refit", REFIT, PACKAGE, progress)
        served = _refitted(chosen, found, split, said, shop, part)
    else:
        served = Served(chosen, found.choice.rows(split.training), *said)
    return Trained(
        request, served.model, split, served.learned, found.tried,
        served.evaluation, served.measured,
        state=found.model.state,
        is_continued=any(r.heritage for r in found.choice.recipes),
        judged=chosen, left_out=left_out,
    )  # fmt: skip


def _refitted(
    judged: Fitted,
    found: Chosen,
    split: Split,
    said: tuple[Evaluation, Measured],
    shop: Workshop,
    part: Part,
) -> Served:
    try:
        return refitting.refitted(found.choice, split, judged, said, shop, part)
    except CandidateRefused as error:
        raise TrainingRefused(
            f"{found.choice.name} on all rows and the hold-out (train.refit): {error}"
        ) from error


def _chosen(
    request: JobRequest, split: Split, shop: Workshop, part: Part
) -> tuple[Fitted, Chosen]:
    """Return the best candidate, fitted on all training rows, and how it was chosen."""
    since = request.trigger.since
    folds = folds_of(split.training, request.spec.train.validation.folds)
    found = choosing.choose(folds, since, shop, part)
    if not isinstance(found, Chosen):
        raise TrainingRefused(
            "no candidate could be used: "
            + "; ".join(f"{result.name}: {result.detail}" for result in found)
        )
    part = Part("final fit", FINAL, EVALUATE, shop.progress)
    try:
        return choosing.final(found.choice, split.training, shop, part), found
    except CandidateRefused as error:
        raise TrainingRefused(f"{found.choice.name} on all rows: {error}") from error


def _given(
    request: JobRequest, split: Split, store: ArtifactStore
) -> tuple[Fitted, Chosen]:
    """Return a federation's model, or one that was registered; nothing is fitted."""
    from driftloop.trainer.federated import candidate as federated
    from driftloop.trainer.submitted import candidate as submitted

    spec, model = request.spec, request.submitted
    name = federated.NAME if model is None else submitted.NAME
    try:
        if model is not None:
            return submitted.candidate_of(model, split, spec, store)
        assert request.federated is not None  # noqa: S101 - the caller looked
        return federated.candidate_of(request.federated, split, spec)
    except CandidateRefused as error:
        raise TrainingRefused(f"{name}: {error}") from error


def _check_gate(spec: PipelineSpec, rows: pa.Table) -> None:
    """Refuse, before anything is fitted, what cannot be searched or measured."""
    if spec.train.search.trials and not search.is_available():
        raise TrainingRefused(search.MISSING)
    gate = spec.gate
    if gate.fairness.columns and not fairness.is_available():
        raise TrainingRefused(fairness.MISSING)
    for key, columns in (
        ("gate.slices", gate.slices or []),
        ("gate.fairness.columns", gate.fairness.columns),
    ):
        if unknown := sorted(set(columns) - set(rows.column_names)):
            raise TrainingRefused(
                f"{key} names {', '.join(unknown)}, which the rows do not have; "
                f"they have {', '.join(sorted(rows.column_names))}"
            )


def measured_spans(request: JobRequest, using: Environment) -> JobRequest:
    """Return the request with its spans as the labelled rows have them.

    The policy knows the times of labels; a label may come long after its row, and
    what is split is the time of rows. Nor does it know which sources there are, so
    whether a fault of some spoils the newest rows. Both depend on the dataset's
    versions and the request's faults only.
    """
    dataset, train, faults = request.dataset, request.spec.train, request.left_out
    if dataset.labels is None and not faults:
        return request
    labelled = labelled_span(dataset, request.spec.data, using.storage_options, faults)
    if labelled is None:
        without = f" without {_faults_in_words(faults)}" if faults else ""
        raise TrainingRefused(f"no row has a label{without}")
    train_span, holdout_span = core.plan(labelled, train, faults)
    return request.model_copy(
        update={"train_span": train_span, "holdout_span": holdout_span}
    )


def _faults_in_words(faults: Sequence[FaultyStretch]) -> str:
    said = ", ".join(stretch_in_words(each) for each in faults)
    return f"{said} (train.leave_out_faults; driftloop overrule gives them back)"


def split_rows(
    rows: pa.Table, request: JobRequest, left_out: Sequence[LeftOut] = ()
) -> Split:
    """Split by the request's spans.

    Raises
    ------
    TrainingRefused
        When a part has too few labelled rows.
    """
    cut = pa.scalar(request.train_span.end, pa.timestamp("us", tz="UTC"))
    training = rows.filter(pc.less_equal(rows["event_time"], cut))
    holdout = rows.filter(pc.greater(rows["event_time"], cut))
    train = request.spec.train
    without = f"; without {_faults_in_words(left_out)}" if left_out else ""
    if training.num_rows + holdout.num_rows < train.min_rows:
        raise TrainingRefused(
            f"{rows.num_rows} labelled rows between {request.train_span.start:%Y-%m-%d}"
            f" and {request.holdout_span.end:%Y-%m-%d}; train.min_rows is "
            f"{train.min_rows}: lengthen train.window_days or wait for more labels"
            f"{without}"
        )
    folds = folds_of(training, train.validation.folds)
    fewest = min(fold.validation.num_rows for fold in folds)
    where = "validation" if len(folds) == 1 else "smallest of train.validation.folds"
    for name, count in ((where, fewest), ("hold-out", holdout.num_rows)):
        if count < MIN_JUDGING_ROWS:
            raise TrainingRefused(
                f"the {name} has {count} labelled rows; at least "
                f"{MIN_JUDGING_ROWS} are needed{without}"
            )
    return Split(folds[-1].fitting, folds[-1].validation, training, holdout)


def evaluate(
    chosen: Fitted,
    found: Chosen,
    split: Split,
    request: JobRequest,
    using: Environment,
    package: Package | None,
) -> tuple[Evaluation, Measured]:
    """Measure the candidate, the champion and no skill on the hold-out.

    All three by what would be served: the answers of their ONNX graphs.

    Parameters
    ----------
    found : how it was chosen, and the same without the validation rows.
    package : the champion's.
    """
    spec, rows, served = request.spec, split.holdout, request.champion
    candidate = judging.subject_of(chosen.loaded(), list(chosen.classes), rows, spec)
    if candidate.predict().non_finite_count():
        raise TrainingRefused(f"{chosen.name}: not all answers are finite")
    champion = _champion(package, rows, spec)
    scene = judging.scene_of(
        candidate,
        champion,
        chosen.inputs,
        found.choice.rows(split.training),
        rows,
        spec,
    )
    mine, baseline = candidate.losses(), scene.baseline
    champions = None if champion is None else champion.losses()

    def refit(known: pa.Table) -> bytes:
        if request.is_given:
            return chosen.model
        recipes = found.choice.recipes
        again = [
            made(r, known, spec, using.machine, UNWATCHED, using.allowed_imports)
            for r in recipes
        ]
        return found.choice.of(again, known).model

    measured = measure(
        scene,
        spec.gate,
        judging.known_of(chosen, found.model, split, scene, spec, refit),
    )
    metric = spec.metric
    evaluation = Evaluation(
        metric=metric,
        holdout_span=request.holdout_span,
        holdout_row_count=rows.num_rows,
        candidate=losses.metric_value(metric, mine),
        champion=None if champions is None else losses.metric_value(metric, champions),
        champion_version=served.version if served else None,
        champion_knows_rows=0
        if champion is None or package is None
        else refitting.known_rows(rows, package),
        baseline=losses.metric_value(metric, baseline),
        comparison=losses.paired_comparison(
            mine, baseline if champions is None else champions
        ),
        measures=measured.measures,
    )
    return evaluation, measured


def _champion_package(request: JobRequest, using: Environment) -> Package | None:
    """Return the champion's package, with its state only where that is asked for."""
    if request.champion is None:
        return None
    return read_package(
        request.champion.package,
        using.store,
        using.trusted,
        is_served=not request.spec.train.continue_from_champion,
    )


def _champion(
    package: Package | None, rows: pa.Table, spec: PipelineSpec
) -> Subject | None:
    """Return the champion on the hold-out; None where it cannot answer its rows."""
    if package is None or package.manifest.task != spec.task:
        return None
    try:
        subject = judging.subject_of(
            OnnxModel.from_package(package), package.manifest.classes, rows, spec
        )
        predicted = subject.predict()
    except (InputRefused, OutputRefused):
        return None  # the pipeline's features changed since
    return None if predicted.non_finite_count() else subject
