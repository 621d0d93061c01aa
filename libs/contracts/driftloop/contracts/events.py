"""Every event of the chain, in the order in which the chain meets them.

The class name is the topic: ``BatchIngested`` travels on ``batch-ingested`` and
is handled by ``on_batch_ingested``. Times are event time in UTC unless a name
says otherwise; ratios are 0 to 1.
"""

from statistics import NormalDist
from typing import Annotated, Any, ClassVar, Literal, get_args

from driftloop.contracts.base import Event, PipelineName, UtcTime, Value
from driftloop.contracts.edge import EdgeReport
from driftloop.contracts.federated import (
    FederatedEncoding,
    FederationRules,
    RefusedUpdate,
    SiteName,
    SiteShare,
    Weights,
)
from driftloop.contracts.labelling import MAX_BUDGET_ROWS, Strategy
from driftloop.contracts.measures import Measures
from driftloop.contracts.pipeline import PRODUCTION, EnvironmentName, PipelineSpec
from driftloop.contracts.profile import DoorCost, VersionProfile
from driftloop.contracts.schema import SchemaChange, SchemaColumn
from driftloop.contracts.tracking import Change
from pydantic import Field

RowKind = Literal["observations", "labels"]
Role = Literal["champion", "candidate"]
TRACKING = "mlflow"
"""In place of a pipeline's name where clients of MLflow write: these belong to none."""
Cause = Literal[
    "concept_drift",  # the relation of inputs to target changed
    "population_shift",  # the inputs changed and the error with them
    "sensor_fault",  # values are wrong, the world is not
    "schema_change",  # columns or codes are other ones than they were
    "label_fault",  # labels are wrong or stay away
    "seasonality",  # a season that the version has learned
    "traffic_mix",  # other shares of the same slices
    "not_enough_data",
]
CAUSES: tuple[Cause, ...] = get_args(Cause)
CURED_BY_TRAINING: frozenset[Cause] = frozenset({"concept_drift", "population_shift"})
FAULTS: frozenset[Cause] = frozenset({"sensor_fault", "schema_change", "label_fault"})
"""Causes that are not the world's: training would learn what is wrong."""
Faulty = Literal["rows", "labels"]
"""What a fault has spoilt: whole rows, or their labels alone."""


OfEnvironment = Annotated[
    EnvironmentName, Field(description="whose scorers it is about")
]


class BlobRef(Value):
    """An object in the artifact store: claim check."""

    uri: str = Field(examples=["artifact:sha256/abcd…"])
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class PackageRef(Value):
    """A model package; ``digest`` is the sha256 of its signed manifest."""

    uri: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    signer: str = Field(description="id of the Ed25519 key that signed it")


class TableRef(Value):
    """A Delta Lake table at one version."""

    uri: str
    version: int = Field(ge=0)


class DatasetRef(Value):
    """Observations and the labels that came later, each at one version."""

    observations: TableRef
    labels: TableRef | None = None


class Span(Value):
    """A closed stretch of event time."""

    start: UtcTime
    end: UtcTime


# ── pipeline ────────────────────────────────────────────────────────────────


class PipelineApplied(Event):
    """A person applied a pipeline file; the last one of a name holds."""

    spec: PipelineSpec
    applied_by: str


# ── data ────────────────────────────────────────────────────────────────────


class ObservationArrived(Event):
    """Rows from an upstream system, in whatever form it writes them.

    The value may be one JSON object, a JSON array, NDJSON, CSV, Parquet or Arrow
    (by ``content-type``). The pipeline is the CloudEvents subject or, without
    one, the record's key; see docs/events.md.
    """

    source: str = "upstream"
    rows_json: list[dict[str, Any]] = Field(default_factory=list)


class LabelArrived(Event):
    """Targets for rows known by ``id``; the same forms as observations."""

    source: str = "upstream"
    rows_json: list[dict[str, Any]] = Field(default_factory=list)


class RowsEvent(Event):
    """An event that carries rows of one shard, as an Arrow record batch."""

    key_fields: ClassVar[tuple[str, ...]] = ("pipeline", "shard")
    has_rows: ClassVar[bool] = True

    shard: str = Field(description="what keeps its order: the source")
    kind: RowKind = "observations"
    row_count: int = Field(ge=0)
    span: Span


class BatchIngested(RowsEvent):
    """Rows with id, event time and source; each id once."""

    duplicate_count: int = Field(default=0, ge=0)
    late_count: int = Field(
        default=0, ge=0, description="behind the watermark by more than max_lateness"
    )
    out_of_order_count: int = Field(
        default=0, ge=0, description="behind the watermark, by no more than that"
    )
    revised_count: int = Field(
        default=0, ge=0, description="id known, content changed: corrections"
    )
    watermark: UtcTime = Field(description="newest event time of the shard so far")


class BatchWarning(Value):
    """What a check found in a batch without taking rows out of it."""

    check: str = Field(examples=["unit_slip"])
    field: str = Field(description="column, or what else the check looks at")
    verdict: Literal["failed", "not_enough_data"] = "failed"
    row_count: int = Field(ge=0, description="rows that it is about")
    detail: str
    example: str | None = Field(default=None, description="one such value")


class BatchValidated(RowsEvent):
    """Rows that keep the pipeline's contract."""

    quarantined_count: int = Field(default=0, ge=0)
    watermark: UtcTime
    warnings: list[BatchWarning] = Field(default_factory=list)


class RejectReason(Value):
    """Why rows failed, for one check on one field."""

    check: str = Field(examples=["range"])
    field: str
    row_count: int = Field(ge=1)
    detail: str
    example: str | None = Field(default=None, description="one offending value")
    severity: Literal["quarantine", "reject"] = Field(
        default="quarantine", description="reject: because of it all rows are here"
    )


class BatchRejected(RowsEvent):
    """Quarantined rows (with a ``reason`` column); the good ones went on."""

    batch_row_count: int = Field(ge=1, description="rows in the whole batch")
    reasons: list[RejectReason] = Field(min_length=1)
    warnings: list[BatchWarning] = Field(
        default_factory=list, description="where no row went on; else with those"
    )


class DatasetVersioned(Event):
    """Validated rows were appended; the dataset has a new version."""

    kind: RowKind
    dataset: DatasetRef
    added_count: int = Field(ge=0)
    observation_count: int = Field(ge=0)
    label_count: int = Field(ge=0, description="rows whose target is known")
    early_label_count: int = Field(
        default=0, ge=0, description="of the added labels: their row is not there yet"
    )
    met_label_count: int = Field(
        default=0, ge=0, description="of the added rows: their label was there before"
    )
    span: Span
    source: str | None = Field(
        default=None, description="who sent the batch; its shard"
    )
    quarantined_count: int = Field(
        default=0, ge=0, description="of the batch, that did not go on"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="of the added rows, with Arrow's types"
    )


class MaintenanceRequested(Event):
    """A person asks that a dataset is tidied up now, by its pipeline's policy."""

    requested_by: str


VacuumOutcome = Literal["done", "not_due", "not_wanted", "references_unknown", "failed"]


class TableMaintained(Value):
    """What became of one table."""

    version: int = Field(ge=0, description="after it")
    dropped_count: int = Field(
        default=0, ge=0, description="rows that the newest version no longer has"
    )
    file_count: int = Field(ge=0, description="of the newest version, after it")
    vacuumed_count: int = Field(default=0, ge=0, description="files deleted")
    freed_bytes: int = Field(default=0, ge=0)
    kept_from: int = Field(
        default=0, ge=0, description="this version and all later ones are kept"
    )
    kept: list[int] = Field(
        default_factory=list, description="older versions that a training refers to"
    )


class DatasetMaintained(Event):
    """Old rows or files of a dataset went, by the pipeline's ``data.retention``."""

    observations: TableMaintained
    labels: TableMaintained | None = None
    cutoff: UtcTime | None = Field(
        default=None, description="rows of an earlier event time were dropped"
    )
    vacuum: VacuumOutcome = Field(
        description="not_wanted: the pipeline keeps every version; references_unknown: "
        "trainings not read yet may refer to versions; failed: the service's log says "
        "why. It is tried again"
    )
    requested_by: str | None = Field(default=None, description="None: by the policy")


class SchemaProposed(Event):
    """The data ask for a schema: the first one, or another than holds now.

    Rows go on by the schema that holds until a person, or the pipeline's
    ``data.evolution``, accepts this one.
    """

    version: int = Field(ge=1, description="of the pipeline's proposals")
    columns: dict[str, SchemaColumn]
    changes: list[SchemaChange] = Field(
        description="against the schema that holds; empty: inferred from first data"
    )
    row_count: int = Field(ge=1, description="rows that it was inferred from")


class SchemaAccepted(Event):
    """A schema is in force; the last one of a pipeline holds.

    For pipelines whose file names no features; for others the file is the schema.
    """

    version: int = Field(ge=1, description="of the proposal")
    columns: dict[str, SchemaColumn] = Field(min_length=1)
    accepted_by: str


class BatchScored(RowsEvent):
    """Predictions of the served model, and of a candidate in rollout.

    Row columns: ``id``, ``event_time``, ``champion_prediction``; during a rollout
    ``candidate_prediction`` and ``served_by`` (``champion`` or ``candidate``); for
    classification also ``champion_score`` / ``candidate_score``, whose field carries
    the labels in the score's order (metadata ``classes``, a JSON list). A prediction
    is null where the version gave no finite answer.
    """

    environment: OfEnvironment = PRODUCTION
    champion_version: int
    candidate_version: int | None = None
    duration_seconds: float = Field(ge=0)


class RequestsAnswered(RowsEvent):
    """What was asked at a scorer's doors, as the model got it, and its answers.

    Row columns: ``id`` (null: the caller named none), ``event_time`` (when it was
    answered), ``request_id``, the features, ``prediction`` and for classification
    ``score``, with the labels in its order as in ``batch-scored``. Columns with a rule
    under ``data.privacy`` are left out. All requests, or a sample, or none, by
    ``serving.log`` of the pipeline.
    """

    environment: OfEnvironment = PRODUCTION
    version: int
    role: Role = Field(default="champion", description="in which the version answered")
    asked_count: int = Field(
        ge=1,
        description="rows answered since the last event of this version and replica; "
        "row_count of them are here",
    )


# ── privacy ─────────────────────────────────────────────────────────────────

MAX_ERASED_TOKENS = 1000

SubjectId = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-f]{32}$",
        description="keyed hash of the person's id; the id itself is in no event",
    ),
]


ErasureSide = Literal["data_engineer", "approver"]


class ErasureProposed(Event):
    """A person proposes an erasure; nothing is destroyed until another confirms it."""

    subject: SubjectId
    proposed_by: str
    sides: list[ErasureSide] = Field(
        min_length=1, description="roles of theirs; who confirms it has the other one"
    )
    reason: str
    expires_at: UtcTime


class ErasureRequested(Event):
    """Two people asked that what is known of a subject become unreadable."""

    subject: SubjectId
    requested_by: str
    reason: str
    proposal_id: str | None = Field(
        default=None, description="of the erasure-proposed; null: before there were any"
    )
    confirmed_by: str | None = None
    confirmation_reason: str | None = None


class SubjectErased(Event):
    """A subject's key and tokens are gone, and with them what they covered."""

    subject: SubjectId
    key_count: int = Field(ge=0, description="0: there was none, or it was gone")
    token_count: int = Field(ge=0)
    payload_count: int = Field(
        default=0, ge=0, description="deleted, as they were nobody else's"
    )
    requested_by: str
    tokens: list[str] = Field(
        default_factory=list,
        max_length=MAX_ERASED_TOKENS,
        description="that stood for this very id; nobody can say any more for what",
    )


class TracedVersion(Value):
    """A version of a table that has rows of an erased subject."""

    kind: RowKind
    version: int = Field(ge=0)
    row_count: int = Field(ge=1)
    span: Span = Field(description="event time of these rows")


class TracedJob(Value):
    """A training that refers to versions with rows of an erased subject."""

    job_id: str
    observations: int = Field(ge=0, description="version of the table")
    labels: int | None = Field(default=None, ge=0)


class ErasureTraced(Event):
    """Where rows of an erased subject are: what was destroyed, and what had it.

    The rows stay, as far as nobody can read them; these versions were made from them.
    """

    erasure_id: str = Field(description="id of the erasure-requested")
    subject: SubjectId
    requested_by: str
    erased_at: UtcTime
    key_count: int = Field(ge=0)
    token_count: int = Field(ge=0)
    payload_count: int = Field(default=0, ge=0)
    versions: list[TracedVersion] = Field(
        description="that can still be read: of trainings, and the newest"
    )
    jobs: list[TracedJob] = Field(description="trainings that did not fail, also open")


class SettlementRequested(Event):
    """Models have seen an erased subject's rows; a person says what becomes of each."""

    erasure_id: str
    subject: SubjectId
    versions: list[int] = Field(min_length=1, description="of the model")


class ErasureSettled(Event):
    """A person decided about models that have seen an erased subject's rows."""

    erasure_id: str
    versions: list[int] = Field(min_length=1, description="of the model")
    decision: Literal["retrain", "waive"]
    by: str
    reason: str


Settlement = Literal["waived", "retrained", "not_in_use"]


class SettledModel(Value):
    """How one model of an erasure was settled."""

    version: int = Field(ge=1)
    settlement: Settlement = Field(
        description="not_in_use: the gate or a person refused it"
    )
    by: str | None = None
    reason: str = ""
    replaced_by: int | None = Field(
        default=None, ge=1, description="retrained: the version that came of it"
    )


class ErasureCompleted(Event):
    """The proof: what was destroyed, when, what it affected, how each was settled."""

    erasure_id: str
    subject: SubjectId
    requested_by: str
    erased_at: UtcTime
    key_count: int = Field(ge=0)
    token_count: int = Field(ge=0)
    payload_count: int = Field(default=0, ge=0)
    versions: list[TracedVersion]
    models: list[SettledModel]


class ValueRevealed(Event):
    """A person read one token or encrypted value; what it was is not said."""

    field: str
    subject: SubjectId | None = Field(default=None, description="None: of a token")
    revealed_to: str
    reason: str


# ── watching ────────────────────────────────────────────────────────────────


class Evidence(Value):
    """One measurement behind a verdict."""

    signal: str = Field(examples=["error", "feature:temp", "prediction", "quality"])
    detector: str = Field(examples=["PageHinkley", "KS", "range"])
    statistic: float
    threshold: float | None = None
    p_value: float | None = None
    row_count: int = Field(ge=0)
    detail: str = ""


class DriftDetected(Event):
    """A verdict: something changed, its cause, and whether training is the cure."""

    model_version: int | None = None
    cause: Cause
    retrain_advised: bool
    since: UtcTime = Field(description="estimated start of the change")
    detected_at: UtcTime
    features: list[str] = Field(default_factory=list)
    evidence: list[Evidence] = Field(min_length=1)
    explanation: str
    confidence: float | None = Field(
        default=None, ge=0, le=1, description="that it is this cause; None: not weighed"
    )
    alternatives: dict[Cause, float] = Field(
        default_factory=dict,
        description="confidence of other causes, the largest first",
    )
    shares: dict[str, float] = Field(
        default_factory=dict, description="what each of the features carries of it"
    )
    sources: dict[str, float] = Field(
        default_factory=dict, description="what each source carries; empty: all alike"
    )
    faulty: Faulty | None = Field(
        default=None,
        description="of a fault: what is wrong from `since` on until `drift-ended`, of "
        "`sources` where there are any; trainings leave it out. None: nothing is, or "
        "it is only inferred, and counts once a person confirms it",
    )


class VerdictOverruled(Event):
    """A person says that the cause of a verdict is another one.

    It holds for what follows from the verdict: a training that the person's cause asks
    for is started, one that only the verdict's cause asked for is cancelled.
    """

    verdict_id: str = Field(description="of the drift-detected")
    verdict_cause: Cause
    cause: Cause = Field(description="that it is, by the person")
    overruled_by: str
    reason: str
    since: UtcTime = Field(description="of the verdict")
    detected_at: UtcTime = Field(description="of the verdict")
    model_version: int | None = Field(default=None, description="of the verdict")
    mended: bool = Field(
        default=False,
        description="of a fault: what was wrong is right in the dataset now; once the "
        "fault is over, trainings read it again",
    )


class DriftEnded(Event):
    """What a verdict said of columns is over: their values are right again.

    Of verdicts on the error there is no end but a newer one, or another version.
    """

    cause: Cause
    features: list[str] = Field(min_length=1)
    since: UtcTime = Field(description="start of what is over")
    until: UtcTime = Field(description="its end, estimated")
    detected_at: UtcTime | None = Field(
        default=None, description="of the verdict; None: from before this was said"
    )


class FaultyStretch(Value):
    """Event time whose rows, or labels, trainings leave out because of a verdict."""

    verdict_id: str = Field(description="of the drift-detected")
    cause: Cause
    faulty: Faulty
    start: UtcTime
    end: UtcTime | None = Field(default=None, description="None: it was not over")
    sources: list[str] = Field(
        default_factory=list,
        description="of these rows, or of who sent the labels; empty: all",
    )


class LeftOut(FaultyStretch):
    """What it took out of a training."""

    row_count: int = Field(
        ge=0, description="labelled rows; those of two stretches count in the first"
    )


class Measurement(Value):
    """Prequential performance of one version over labelled rows."""

    version: int
    role: Role
    metric: str
    value: float


class PairedComparison(Value):
    """Candidate minus champion on the same rows; negative loss is better.

    ``standard_error`` is that of the mean difference of per-row losses.
    """

    mean_difference: float
    standard_error: float = Field(ge=0)
    row_count: int = Field(ge=1)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval of the true mean difference.

        >>> found = PairedComparison(mean_difference=-1, standard_error=1, row_count=9)
        >>> [round(end, 2) for end in found.interval(0.95)]
        [-2.96, 0.96]
        """
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * self.standard_error
        return self.mean_difference - reach, self.mean_difference + reach

    @property
    def p_value(self) -> float:
        """Probability of so good a difference, or a better one, if there is none.

        One-sided, by the normal distribution of a mean; Diebold and Mariano (1995).
        """
        if self.standard_error == 0:
            return 0.0 if self.mean_difference < 0 else 1.0
        return NormalDist().cdf(self.mean_difference / self.standard_error)


class PerformanceMeasured(Event):
    """How good the served versions were over a window of labelled rows."""

    environment: OfEnvironment = PRODUCTION
    span: Span
    row_count: int = Field(ge=1)
    measurements: list[Measurement] = Field(min_length=1)
    comparison: PairedComparison | None = None


class AlertRaised(Event):
    """Something a person should know; one per condition."""

    condition: str = Field(description="equal for repeats of the same thing")
    severity: Literal["info", "warning", "critical"]
    title: str
    detail: str
    owner: str | None = None
    can_end: bool = Field(
        default=False, description="`alert-resolved` says when it is over"
    )


class WantedLabel(Value):
    """A row whose label would help; none of its values."""

    row_id: str
    event_time: UtcTime
    score: float = Field(
        ge=0, description="how much it would help, beside others of its window"
    )
    reasons: list[str] = Field(min_length=1, description="for people")


class LabelsWanted(Event):
    """Rows that people should label; one event a window, each row once.

    The labels come back as ``label-arrived``, by the rows' ids.
    """

    window: int = Field(ge=1, description="counts the pipeline's windows")
    span: Span = Field(description="of the rows that it was chosen from")
    candidate_count: int = Field(ge=1, description="rows that it was chosen from")
    strategy: Strategy
    model_version: int | None = Field(
        default=None, description="in service, whose answers were looked at"
    )
    drifted: list[str] = Field(
        default_factory=list, description="features that had drifted"
    )
    wanted: list[WantedLabel] = Field(
        min_length=1, max_length=MAX_BUDGET_ROWS, description="first is best"
    )


# ── training ────────────────────────────────────────────────────────────────


class RetrainRequested(Event):
    """A person or an outside system asks for a training."""

    requested_by: str
    reason: str


class Trigger(Value):
    """The event that led to a training."""

    event_id: str
    event_type: str
    reason: str = Field(examples=["concept_drift", "first_model", "new_data"])
    requested_by: str | None = Field(
        default=None, description="who asked for it; may not approve the result"
    )
    since: UtcTime | None = Field(
        default=None, description="estimated start of the change, of a drift"
    )


class TrainingCancelRequested(Event):
    """A person wants a job ended that waits or runs."""

    job_id: str
    requested_by: str
    reason: str


class ServedModel(Value):
    """A version and where its package is."""

    version: int
    package: PackageRef


class TrainingStarted(Event):
    """A job was accepted; its id is derived from its trigger."""

    job_id: str
    trigger: Trigger
    dataset: DatasetRef
    train_span: Span
    holdout_span: Span
    explanation: str = Field(
        default="",
        description="the sum that says that it is worth it, where the pipeline weighs "
        "what waiting loses against what a training costs",
    )
    label_count: int = Field(
        default=0, ge=0, description="labelled rows that there are"
    )
    champion: ServedModel | None = Field(
        default=None, description="what the new model is to be compared with"
    )
    left_out: list[FaultyStretch] = Field(
        default_factory=list, description="faults whose rows are not read"
    )
    data_end: UtcTime | None = Field(
        default=None,
        description="newest labelled event time that there was; None: the hold-out's "
        "end, as no newer rows are left out",
    )

    @property
    def known_until(self) -> UtcTime:
        """Event time up to which the job could know labelled rows."""
        return self.data_end or self.holdout_span.end


class WaitingTrigger(Value):
    """A trigger that waits until a training is possible."""

    since: UtcTime | None = Field(
        description="event time from which data have to be newer; None: a person asked"
    )
    newest_job: str | None = Field(
        description="of the pipeline, when the trigger began to wait; None: none yet"
    )


class TrainingSkipped(Event):
    """A trigger led to no training of its own, and why."""

    trigger: Trigger
    reason: Literal[
        "cause_not_cured_by_training",
        "cooldown",
        "not_enough_data",
        "joined_running_job",
        "automation_advise",
        "budget",
        "not_worth_it",
    ]
    detail: str
    covered_by_job: str | None = None
    waits: WaitingTrigger | None = Field(
        default=None, description="None: the trigger is answered for good"
    )


class TrainingProgressed(Event):
    """Where a running job is."""

    job_id: str
    step: str
    done_ratio: float = Field(ge=0, le=1)
    detail: str = ""
    candidate: str | None = Field(default=None, description="that is fitted now")
    iteration: int | None = Field(
        default=None, ge=0, description="of its fit; a resumed one does not begin at 0"
    )
    iteration_count: int | None = Field(default=None, ge=0)
    loss: float | None = Field(default=None, description="on training rows, newest")
    eta_seconds: float | None = Field(
        default=None, ge=0, description="to the end of the job, estimated"
    )
    resumed_from: int | None = Field(
        default=None,
        description="iteration of the checkpoint that the fit goes on from",
    )


class TrainingFailed(Event):
    """A job ended without a model."""

    job_id: str
    trigger: Trigger
    error: str
    attempts: int = Field(ge=1)
    cpu_seconds: float = Field(default=0, ge=0, description="that all tries took")


class TrainingCancelled(Event):
    """A job ended because a person wanted it to."""

    job_id: str
    trigger: Trigger
    cancelled_by: str
    reason: str


class TrainingCancelRefused(Event):
    """Nothing was cancelled, and why."""

    job_id: str
    requested_by: str
    reason: Literal["already_ended", "unknown_job"]
    detail: str


class ModelSubmitted(Event):
    """A person registered a model that was made elsewhere, under a pipeline's name.

    The trainer measures it like a candidate of its own; it becomes ``model-trained``.
    """

    version: int = Field(ge=1, description="that it will be")
    job_id: str = Field(description="of the job that measures it")
    model: BlobRef = Field(
        description="ONNX, one input a feature; see docs/mlflow-models.md"
    )
    source: str = Field(examples=["runs:/0f3b1c…/model"])
    submitted_by: str


class FederationRequested(Event):
    """A person asks sites to train one model on rows that stay where they are."""

    requested_by: str
    reason: str
    rules: FederationRules
    target_min: float | None = Field(
        default=None, description="of regression: the target is scaled by its range"
    )
    target_max: float | None = None


class FederatedRoundOpened(Event):
    """Sites may train from these weights; all they need to know is here."""

    federation_id: str
    round: int = Field(ge=1)
    rules: FederationRules
    encoding: FederatedEncoding
    weights: Weights = Field(
        description="by output: one of each column of the encoding, then the bias"
    )
    deadline: UtcTime = Field(description="an update of a later time does not count")
    seed: int = 0


class FederatedUpdateSubmitted(Event):
    """What a site's training changed; none of its rows."""

    federation_id: str
    round: int = Field(ge=1)
    site: SiteName
    row_count: int = Field(ge=1, le=10**12, description="that the site learned from")
    update: Weights = Field(description="the site's weights minus the round's")


class FederatedRoundClosed(Event):
    """Who took part in a round, and the weights that came of it."""

    federation_id: str
    round: int = Field(ge=0, description="0: the request was refused")
    outcome: Literal["averaged", "failed"]
    detail: str
    took_part: list[SiteShare] = Field(default_factory=list)
    refused: list[RefusedUpdate] = Field(
        default_factory=list, description="the first hundred"
    )
    weights: Weights = Field(default_factory=list, description="empty: failed")
    is_last: bool = Field(default=False, description="no other round follows")


class CandidateResult(Value):
    """One trained candidate on validation (inside the training span)."""

    name: str = Field(examples=["gradient_boosting"])
    validation_loss: float | None = Field(
        description="None: it could not be used, see detail"
    )
    fit_seconds: float
    detail: str = ""
    fold_losses: list[float] | None = Field(
        default=None, description="oldest first; None: there was one"
    )
    trial: int | None = Field(
        default=None, description="of the search; None: the usual parameters"
    )
    parameters: dict[str, int | float | str] | None = Field(
        default=None, description="that the trial had"
    )


class Evaluation(Value):
    """Candidate, champion and no-skill baseline on the same frozen hold-out."""

    metric: str
    holdout_span: Span
    holdout_row_count: int = Field(ge=1)
    candidate: float
    champion: float | None = None
    champion_version: int | None = None
    champion_knows_rows: int = Field(
        default=0,
        ge=0,
        description="of the hold-out, that the champion has learned; it is favoured",
    )
    baseline: float
    comparison: PairedComparison = Field(
        description="against the champion, or the baseline where there is none"
    )
    measures: Measures | None = Field(
        default=None, description="None: of a trainer that did not measure them"
    )


class ModelTrained(Event):
    """A signed package and what it was measured to be worth."""

    job_id: str
    trigger: Trigger
    package: PackageRef
    algorithm: str
    dataset: DatasetRef
    train_span: Span
    tried: list[CandidateResult]
    evaluation: Evaluation
    cpu_seconds: float = Field(default=0, ge=0, description="that all tries took")
    left_out: list[LeftOut] = Field(
        default_factory=list, description="faults whose rows were not read"
    )


# ── registry ────────────────────────────────────────────────────────────────


class GateCheck(Value):
    """One condition of the gate and how it went."""

    name: str
    passed: bool
    detail: str
    severity: Literal["block", "warn"] = Field(
        default="block", description="warn: the model passes the gate all the same"
    )
    value: float | None = Field(default=None, description="what was measured")
    limit: float | None = Field(default=None, description="what was allowed")


class ModelRegistered(Event):
    """A version exists, with the gate's checks."""

    version: int = Field(ge=1)
    job_id: str
    package: PackageRef
    algorithm: str
    evaluation: Evaluation
    gate: list[GateCheck]


ALSO = "further roles, and how many of each have to say yes too"


class ApprovalRequested(Event):
    """A version passed the gate and waits for people."""

    version: int
    package: PackageRef
    role: str
    people: int = Field(ge=1)
    also: dict[str, int] = Field(default_factory=dict, description=ALSO)
    request: int = Field(default=1, ge=1, description="counts those about a version")
    expires_at: UtcTime | None = Field(
        default=None, description="when it is over, undecided; null: it stays open"
    )
    remind_at: list[UtcTime] = Field(default_factory=list)


class ApprovalReminded(Event):
    """A version still waits for people."""

    version: int
    package: PackageRef
    role: str
    people: int = Field(ge=1)
    also: dict[str, int] = Field(default_factory=dict, description=ALSO)
    request: int = Field(ge=1)
    number: int = Field(ge=1, description="of the reminder")
    said_yes: list[str] = Field(description="who has approved so far")
    expires_at: UtcTime | None = None


class ApprovalExpired(Event):
    """Too few people said yes to a version in time; it may be asked for again."""

    version: int
    package: PackageRef
    role: str
    people: int = Field(ge=1)
    also: dict[str, int] = Field(default_factory=dict, description=ALSO)
    request: int = Field(ge=1)
    said_yes: list[str] = Field(description="who had approved")
    expires_at: UtcTime


class ApprovalRenewed(Event):
    """A person asks again about exactly the package whose request has expired."""

    version: int
    package_digest: str
    request: int = Field(ge=2, description="that is opened")
    requested_by: str
    reason: str
    role: str
    people: int = Field(ge=1)
    also: dict[str, int] = Field(default_factory=dict, description=ALSO)
    expires_at: UtcTime | None = None
    remind_at: list[UtcTime] = Field(default_factory=list)


class ApprovalGiven(Event):
    """A person decided, about exactly this package."""

    version: int
    decision: Literal["approve", "reject"]
    by: str
    reason: str
    package_digest: str
    request: int = Field(default=1, ge=1, description="that is answered")
    roles: list[str] = Field(
        default_factory=list,
        description="of those asked for, which the person has; empty: the first",
    )


class ModelApproved(Event):
    """A version may be rolled out."""

    version: int
    package: PackageRef
    approved_by: list[str] = Field(min_length=1)
    author: str | None = Field(
        default=None, description="who asked for the training, if a person did"
    )


class ModelRejected(Event):
    """A version will not be rolled out."""

    version: int
    reasons: list[str] = Field(min_length=1)
    rejected_by: str
    comparison: str = Field(
        default="", description="with what, by how much, on which rows, in words"
    )


CommentedKind = Literal[
    "pipeline", "model", "dataset", "training", "deployment", "approval"
]
MAX_COMMENT_CHARACTERS = 10_000


class CommentChanged(Event):
    """A person wrote a comment, wrote it anew, or took it back.

    One topic for all three: they keep their order.
    """

    comment_id: str | None = Field(
        default=None,
        description="event that added it; null: this one does, and its id is the "
        "comment's",
    )
    change: Literal["added", "edited", "deleted"]
    kind: CommentedKind = Field(description="what it is about")
    which: str = Field(
        max_length=200,
        description="version, observations.labels, job or rollout; of a pipeline its "
        "name",
        examples=["3"],
    )
    text: str = Field(
        default="",
        max_length=MAX_COMMENT_CHARACTERS,
        description="Markdown, as it was written; empty: taken back",
    )
    by: str


class LineageReported(Event):
    """An OpenLineage run event: a validation, training, rollout or rollback.

    The value is one by the standard, with ``pipeline`` besides: whoever reads
    OpenLineage from Kafka reads this topic.

    Source: OpenLineage 2-0-2, ``RunEvent``.
    """

    eventType: Literal["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]  # noqa: N815 - the standard's spelling
    eventTime: UtcTime  # noqa: N815
    producer: str
    schemaURL: str  # noqa: N815
    run: dict[str, Any]
    job: dict[str, Any]
    inputs: list[dict[str, Any]] = Field(default_factory=list)
    outputs: list[dict[str, Any]] = Field(default_factory=list)


class TrackingChanged(Event):
    """One write by a client of MLflow: an experiment or a run changed."""

    pipeline: PipelineName = TRACKING
    revision: int = Field(ge=1, description="counts all writes; the order to apply")
    at_ms: int = Field(ge=0, description="when, in ms since 1970")
    by: str = Field(description="who, as the request said", examples=["ann"])
    change: Change

    @property
    def sequence(self) -> int:
        return self.revision


# ── serving ─────────────────────────────────────────────────────────────────


class ReplayWanted(Value):
    """Recorded rows that a scorer is to put before both versions."""

    hours: float = Field(gt=0, description="of the log, up to the serving-desired")
    labelled_rows: int = Field(ge=1, description="that the shadow step compares")


def place_of(pipeline: str, environment: str) -> str:
    """Return the name under which something is kept for a pipeline's environment.

    >>> place_of("bike-demand", "production"), place_of("bike-demand", "staging")
    ('bike-demand', 'bike-demand@staging')
    """
    return pipeline if environment == PRODUCTION else f"{pipeline}@{environment}"


class ServingDesired(Event):
    """What every scorer of an environment should serve; the last one holds.

    The key of production is the pipeline, as it is where there is no other
    environment; that of another is ``pipeline@environment``.
    """

    environment: OfEnvironment = PRODUCTION
    generation: int = Field(ge=1, description="grows with each change")
    champion: ServedModel | None
    candidate: ServedModel | None = None
    candidate_share: float = Field(
        default=0.0, ge=0, le=1, description="of rows answered by it; 0: shadow"
    )
    replay: ReplayWanted | None = Field(
        default=None, description="a shadow from the log; None: live only"
    )
    ahead: list[str] = Field(
        default=[], description="replicas on which the candidate answers everything"
    )
    taken_back: list[int] = Field(
        default=[],
        description="versions that were rolled out here and do not serve: an approval "
        "of them that is read once more begins no other one",
    )

    @property
    def key(self) -> str:
        return place_of(self.pipeline, self.environment)


class ShadowReplayed(Event):
    """What a candidate and the champion say of recorded rows, against their labels.

    As live shadow would, but on rows of the last hours. Rows that one of the two has
    learned, by the span of its training, are left out.
    """

    environment: OfEnvironment = PRODUCTION
    generation: int = Field(ge=1, description="of the serving-desired that asked")
    replica: str
    champion_version: int
    candidate_version: int
    since: UtcTime = Field(description="begin of the stretch of the log that was read")
    until: UtcTime = Field(description="end of that: when it was asked for")
    learned_until: UtcTime = Field(
        description="event time up to which one of the versions has learned"
    )
    learned_count: int = Field(ge=0, description="rows left out as they are before")
    row_count: int = Field(ge=0, description="rows that both versions were given")
    beyond_count: int = Field(
        default=0, ge=0, description="rows left out, as a replay has its limits"
    )
    span: Span | None = Field(
        default=None,
        description="event time of the compared rows; None: there are none",
    )
    labelled_count: int = Field(
        ge=0, description="rows compared: with a label, answered by both"
    )
    wanted_count: int = Field(ge=1, description="labelled rows that the step compares")
    is_enough: bool = Field(description="no: live shadow goes on from here")
    error_count: int = Field(ge=0, description="rows on which the candidate failed")
    champion_error_count: int = Field(ge=0)
    compared_count: int = Field(ge=0, description="rows that both answered")
    different_count: int = Field(
        ge=0,
        description="of those, where they differ by more than "
        "rollout.prediction_tolerance",
    )
    measurements: list[Measurement] = Field(
        default_factory=list, description="of champion and candidate; empty: no labels"
    )
    comparison: PairedComparison | None = None


class VersionReport(Value):
    """A scorer's figures for one version since its last report."""

    version: int
    role: Role
    state: Literal["ready", "failed"]
    detail: str = ""
    row_count: int = Field(default=0, ge=0)
    error_count: int = Field(default=0, ge=0)
    call_count: int = Field(default=0, ge=0)
    latency_p50_seconds: float | None = Field(
        default=None, description="of one scoring call"
    )
    latency_p99_seconds: float | None = Field(
        default=None, description="of one scoring call"
    )
    compared_count: int = Field(
        default=0, ge=0, description="rows that the champion answered too"
    )
    differing_count: int = Field(
        default=0,
        ge=0,
        description="of them, those with another class, or a number further away than "
        "rollout.prediction_tolerance",
    )
    profile: VersionProfile | None = Field(
        default=None, description="of a version in memory, on this scorer's machine"
    )
    door: DoorCost | None = Field(
        default=None, description="of requests; None: none, or rows of the stream"
    )


class ScorerReported(Event):
    """What a scorer serves now and how it goes."""

    environment: OfEnvironment = PRODUCTION
    replica: str
    generation: int
    versions: list[VersionReport]
    watermark: UtcTime | None = None
    lease_seconds: float | None = Field(
        default=None,
        gt=0,
        description="set in a sign of life, whose versions are all that the replica "
        "has in memory: not heard of for so long, it is taken for gone",
    )
    memory_bytes: int | None = Field(
        default=None,
        gt=0,
        description="in a sign of life: the most resident memory that the process has "
        "held so far, with the versions that it has loaded",
    )


class EdgeReported(Event, EdgeReport):
    """A runner of an exported version told what it did, once home was in reach.

    Its id follows from the report's: sent again, it is the same event.
    """

    key_fields: ClassVar[tuple[str, ...]] = ("pipeline", "edge")

    reported_by: str = Field(description="who the runner's token proves")


class RollbackRequested(Event):
    """A person wants an earlier version back."""

    environment: OfEnvironment = PRODUCTION
    requested_by: str
    reason: str
    to_version: int | None = Field(default=None, description="None: the previous one")


SteeringAction = Literal["hold", "resume", "promote"]
"""hold: no further step, but back if it does worse; resume: on by the rules; promote:
in front now, without the steps that are left."""


RolloutVerdict = Literal["started", "passed", "failed", "held", "resumed"]


class RolloutSteered(Event):
    """A person holds a version's rollout, lets it go on, or cuts it short."""

    environment: OfEnvironment = PRODUCTION
    action: SteeringAction
    version: int = Field(ge=1, description="the one on its way that is meant")
    requested_by: str
    reason: str


PromotionAction = Literal["approve", "reject", "ask"]
"""ask: people are asked anew, once the last request has expired."""


class PromotionSteered(Event):
    """A person lets a version go to the next environment, or not, or asks again."""

    action: PromotionAction
    version: int = Field(ge=1, description="that waits to go on")
    by: str
    reason: str
    package_digest: str
    roles: list[str] = Field(
        default_factory=list, description="of those asked for, which the person has"
    )


class RolloutAdvanced(Event):
    """A step of a rollout was judged, or a person stepped in."""

    environment: OfEnvironment = PRODUCTION
    rollout_id: str
    version: int
    step: str = Field(examples=["shadow", "canary 10 %", "full"])
    verdict: RolloutVerdict
    detail: str


class ModelDeployed(Event):
    """A version now answers all requests."""

    rollout_id: str
    version: int
    package: PackageRef
    generation: int = Field(
        default=0, ge=0, description="of the last serving-desired; gives the order"
    )
    previous_version: int | None = None
    evaluation: Evaluation | None = None


class ModelRolledBack(Event):
    """A version was taken out, and which one answers instead."""

    rollout_id: str
    version: int
    generation: int = Field(
        default=0, ge=0, description="of the last serving-desired before this"
    )
    restored: ServedModel | None
    reason: str
