"""Which version answers a row, what a scored batch holds, when figures are told.

Pure: models are called elsewhere; here are their answers as arrays.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.events import Role, VersionReport
from driftloop.models.pairing import CLASSES_METADATA_KEY
from pydantic import BaseModel, ConfigDict

CANDIDATE_CALLS = 5
"""Calls between two reports on a candidate: their median outlives two bad moments."""
HASH_BYTES = 8
HASH_RANGE = 1 << (8 * HASH_BYTES)


def is_candidates(row_id: str, version: int, share: float) -> bool:
    """Whether a candidate answers a row (or request) at its present share.

    The same row always gets the same answer, and a row that the candidate has at
    a small share it keeps at a greater one. Another version draws other rows.

    >>> [is_candidates("a", 2, share) for share in (0.0, 1.0)]
    [False, True]
    """
    if share <= 0:
        return False
    drawn = hashlib.blake2b(f"{version}/{row_id}".encode(), digest_size=HASH_BYTES)
    return int.from_bytes(drawn.digest(), "big") < int(share * HASH_RANGE)


@dataclass(frozen=True)
class Answers:
    """What one version says about ``n_rows`` rows.

    Attributes
    ----------
    prediction : (n_rows,) float64 or string; null where the model failed.
    score : (n_rows,) float64, or lists of float64 for more than two classes.
    classes : labels in the order of the score; see :func:`scored_rows`.
    error_count : rows without a finite answer.
    seconds : duration of the call.
    detail : what went wrong, for the first row at fault.
    """

    prediction: pa.Array
    score: pa.Array | None
    classes: tuple[str, ...]
    error_count: int
    seconds: float
    detail: str = ""


def finite_answers(
    prediction: npt.NDArray[Any],
    score: npt.NDArray[np.float64] | None,
    classes: Sequence[str],
    seconds: float,
) -> Answers:
    """Return a model's answers with null where one is not finite.

    Parameters
    ----------
    prediction : (n_rows,) float64 or text.
    score : None, (n_rows,) or (n_rows, n_classes).
    """
    bad = np.zeros(len(prediction), dtype=bool)
    if prediction.dtype.kind == "f":
        bad |= ~np.isfinite(prediction)
    if score is not None:
        finite = np.isfinite(score)
        bad |= ~(finite if finite.ndim == 1 else finite.all(axis=1))
    count = int(bad.sum())
    scores = None
    if score is not None:
        values = list(score) if score.ndim == 2 else score
        kind = pa.list_(pa.float64()) if score.ndim == 2 else pa.float64()
        scores = pa.array(values, type=kind, mask=bad)
    return Answers(
        pa.array(prediction, mask=bad),
        scores,
        tuple(classes),
        count,
        seconds,
        f"no finite answer for {count} of {len(bad)} rows" if count else "",
    )


def no_answers(
    row_count: int, classes: Sequence[str], seconds: float, detail: str
) -> Answers:
    """Return the answers of a model that raised."""
    prediction = pa.nulls(row_count, pa.string() if classes else pa.float64())
    score = None
    if classes:
        is_binary = len(classes) == 2
        kind = pa.float64() if is_binary else pa.list_(pa.float64())
        score = pa.nulls(row_count, kind)
    return Answers(prediction, score, tuple(classes), row_count, seconds, detail)


def scored_rows(
    rows: pa.RecordBatch,
    champion: Answers,
    candidate: Answers | None = None,
    candidate_version: int = 0,
    share: float = 0.0,
) -> pa.RecordBatch:
    """Return the rows of a ``batch-scored``.

    Columns ``id``, ``event_time``, ``champion_prediction`` and for classification
    ``champion_score``; with a candidate also its columns and ``served_by``. A row
    drawn for the candidate on which it failed was answered by the champion.
    """
    columns: list[tuple[pa.Field, pa.Array]] = [
        (rows.schema.field(name), rows.column(name)) for name in ("id", "event_time")
    ]
    columns += _columns("champion", champion)
    if candidate is not None:
        columns += _columns("candidate", candidate)
        has_answer = candidate.prediction.is_valid().to_pylist()
        served_by = [
            "candidate" if ok and is_candidates(i, candidate_version, share)
            else "champion"
            for i, ok in zip(rows.column("id").to_pylist(), has_answer, strict=True)
        ]  # fmt: skip
        columns.append(
            (pa.field("served_by", pa.string()), pa.array(served_by, pa.string()))
        )
    fields, arrays = zip(*columns, strict=True)
    return pa.RecordBatch.from_arrays(list(arrays), schema=pa.schema(fields))


def _columns(role: Role, answers: Answers) -> Iterable[tuple[pa.Field, pa.Array]]:
    prediction = answers.prediction
    yield pa.field(f"{role}_prediction", prediction.type), prediction
    if answers.score is not None:
        classes = json.dumps(list(answers.classes)).encode()
        yield (
            pa.field(
                f"{role}_score",
                answers.score.type,
                metadata={CLASSES_METADATA_KEY: classes},
            ),
            answers.score,
        )


def p99(seconds: Iterable[float]) -> float:
    """Return the duration within which 99 of 100 calls ended.

    >>> p99([0.1, 0.1])
    0.1
    """
    return float(np.quantile(list(seconds), 0.99))


def differing(
    champion: Answers, candidate: Answers, tolerance: float
) -> tuple[int, int]:
    """Return how many rows both versions answered, and on how many they differ.

    Parameters
    ----------
    tolerance : how far two numbers may lie apart; classes have to be the same.

    >>> of = lambda *said: Answers(pa.array(said), None, (), 0, 0.0)
    >>> differing(of("a", "b", None), of("a", "c", "c"), 0.0)
    (2, 1)
    >>> differing(of(1.0, 2.0), of(1.5, 4.0), 1.0)
    (2, 1)
    """
    ours, theirs = champion.prediction, candidate.prediction
    if pa.types.is_floating(ours.type) and pa.types.is_floating(theirs.type):
        differs = pc.greater(pc.abs(pc.subtract(ours, theirs)), tolerance)
    else:
        differs = pc.not_equal(ours.cast(pa.string()), theirs.cast(pa.string()))
    compared = len(differs) - differs.null_count
    return compared, pc.sum(differs, min_count=0).as_py()


class Seen(BaseModel):
    """Figures of one version since the last report; ``seconds`` of each call."""

    model_config = ConfigDict(frozen=True)

    role: Role
    row_count: int = 0
    error_count: int = 0
    seconds: tuple[float, ...] = ()
    detail: str = ""
    compared_count: int = 0
    differing_count: int = 0


class Tally(BaseModel):
    """Figures of a pipeline since its last report, of one generation."""

    model_config = ConfigDict(frozen=True)

    generation: int = 0
    call_count: int = 0
    watermark: datetime | None = None
    versions: dict[int, Seen] = {}

    def added(
        self,
        generation: int,
        answers: dict[int, tuple[Role, Answers]],
        watermark: datetime | None = None,
        compared: tuple[int, int] = (0, 0),
    ) -> "Tally":
        """Count one call; figures of an earlier generation are dropped.

        Parameters
        ----------
        compared : of the candidate's rows; see :func:`differing`.
        """
        start = self if self.generation == generation else Tally(generation=generation)
        versions = dict(start.versions)
        for version, (role, said) in answers.items():
            seen = versions.get(version, Seen(role=role))
            more, different = compared if role == "candidate" else (0, 0)
            versions[version] = Seen(
                role=role,
                row_count=seen.row_count + len(said.prediction),
                error_count=seen.error_count + said.error_count,
                seconds=(*seen.seconds, said.seconds),
                detail=seen.detail or said.detail,
                compared_count=seen.compared_count + more,
                differing_count=seen.differing_count + different,
            )
        return Tally(
            generation=generation,
            call_count=start.call_count + 1,
            watermark=watermark or start.watermark,
            versions=versions,
        )

    def is_due(self, report_every: int) -> bool:
        """Whether to report now: errors at once, else every so many calls.

        A candidate is told of sooner, so that it is judged before it answers more.
        """
        has_errors = any(seen.error_count for seen in self.versions.values())
        if any(seen.role == "candidate" for seen in self.versions.values()):
            report_every = min(report_every, CANDIDATE_CALLS)
        return has_errors or self.call_count >= report_every

    def report(self) -> list[VersionReport]:
        """Return the figures as they are reported."""
        return [
            VersionReport(
                version=version,
                role=seen.role,
                state="ready",
                detail=seen.detail,
                row_count=seen.row_count,
                error_count=seen.error_count,
                call_count=len(seen.seconds),
                latency_p50_seconds=float(np.median(seen.seconds)),
                latency_p99_seconds=p99(seen.seconds),
                compared_count=seen.compared_count,
                differing_count=seen.differing_count,
            )
            for version, seen in sorted(self.versions.items())
        ]


@dataclass(frozen=True)
class Plan:
    """Which versions answer, by version number; None: none.

    What is wanted and what is loaded differ while a version is being loaded or
    cannot be: then the version that answered before goes on.
    """

    champion: int | None
    candidate: int | None = None
    share: float = 0.0


def plan(wanted: Plan, loaded: frozenset[int], before: int | None) -> Plan:
    """Return what may answer now.

    Parameters
    ----------
    loaded : versions that are verified and in memory.
    before : the champion until now.

    >>> plan(Plan(2, 3, 0.5), frozenset({1, 3}), before=1)
    Plan(champion=1, candidate=3, share=0.5)
    """
    champion = wanted.champion
    if champion is not None and champion not in loaded:
        champion = before if before in loaded else None
    candidate = wanted.candidate if wanted.candidate in loaded else None
    if candidate is None or champion is None or candidate == champion:
        return Plan(champion)
    return replace(wanted, champion=champion)
