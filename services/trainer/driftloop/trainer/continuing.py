"""Going on from the champion's training: what it left, and what is left in turn.

A package keeps the state as it was before the rows that validation judged by. The next
training goes on from there, once to be judged on validation rows of its own, which lie
later, and once for the model that is served. So no model is judged on what its state
has seen, and over all trainings each row is learned once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.pipeline import PipelineSpec, Task
from driftloop.models.package import canonical_json
from driftloop.trainer import encoding_json
from driftloop.trainer.candidates import Sample, Start
from driftloop.trainer.candidates.sample import cannot_go_on
from driftloop.trainer.encoding import Encoding
from driftloop.trainer.encoding_json import EncodingUnknown
from driftloop.trainer.graph import Core, State
from pydantic import BaseModel, ConfigDict, Field

HEADER_FILE = "continue.json"
MISFITS = (
    TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip
"""What a model raises whose parts are not what they should be."""


class Header(BaseModel):
    """What a state is of, as ``continue.json`` says it.

    Attributes
    ----------
    learned_until : event time of the last row that was learned.
    learned_at_end : how many rows of that very time were, in order of their ids.
    state_file : of the package, with the state itself.
    encoding : that the state's columns are of, see :mod:`encoding_json`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal[1] = 1
    algorithm: str
    task: Task
    target: str
    classes: list[str]
    preprocessing: dict[str, Any]
    sequences: dict[str, list[str]]
    learned_until: datetime
    learned_at_end: int = Field(ge=1)
    state_file: str = Field(pattern=r"^continue\.")
    encoding: dict[str, Any]


@dataclass(frozen=True)
class Heritage:
    """What the champion's package leaves.

    Attributes
    ----------
    version : of the champion.
    header, state, encoding : none where there is nothing to go on from.
    why : there is nothing.
    """

    version: int
    header: Header | None = None
    state: bytes = b""
    encoding: Encoding | None = None
    why: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        assert self.header is not None  # noqa: S101 - no recipe without one
        return tuple(self.header.classes)

    def obstacle(self, name: str, rows: pa.Table) -> str | None:
        """Return why a candidate cannot go on with these rows; None: it can.

        Parameters
        ----------
        rows : to learn, in order of time; those that judge come after them.
        """
        header = self.header
        if header is None:
            return self.why
        if header.algorithm != name:
            return f"version {self.version} is {header.algorithm}"
        first = self._first(rows["event_time"])
        if first is None:
            return (
                f"version {self.version} has learned rows up to "
                f"{header.learned_until:%Y-%m-%d %H:%M}, some of which would judge it"
            )
        if first == rows.num_rows:
            return "no row is newer than those that it has learned"
        return None

    def start(self, times: pa.ChunkedArray) -> Start:
        """Return the state for rows of these times, in order."""
        first = self._first(times)
        return Start(self.state, len(times) if first is None else first)

    def _first(self, times: pa.ChunkedArray) -> int | None:
        """Return the first row that was not learned; None: rows after all were."""
        assert self.header is not None  # noqa: S101 - the caller looked
        until = pa.scalar(self.header.learned_until, times.type)
        older = pc.sum(pc.less(times, until)).as_py() or 0
        same = pc.sum(pc.equal(times, until)).as_py() or 0
        at_end = self.header.learned_at_end
        if older + same == len(times) and same < at_end:
            return None
        return int(older + min(same, at_end))


def said(spec: PipelineSpec) -> dict[str, Any]:
    """Return what of a pipeline file a state depends on, by key."""
    return {
        "task": spec.task,
        "data.target": spec.data.target,
        "train.preprocessing": spec.train.preprocessing.model_dump(mode="json"),
        "train.sequences": spec.train.sequences,
    }


# ── while a candidate learns ────────────────────────────────────────────────


def learned(learn: Callable[[Sample], Core], sample: Sample) -> Core:
    """Return what a candidate learned from a sample, going on if it has a start.

    Raises
    ------
    CandidateRefused
        Also when a state that could be read turns out not to be a whole model.
    """
    if sample.start is None:
        return learn(sample)
    try:
        return learn(sample)
    except MISFITS as error:
        raise cannot_go_on(repr(error)) from error


def files_of(
    name: str,
    state: State | None,
    encoding: Encoding,
    rows: pa.Table,
    classes: tuple[str, ...],
    spec: PipelineSpec,
) -> tuple[dict[str, bytes], str]:
    """Return a package's files for a next training, and why there are none.

    Parameters
    ----------
    rows : that were learned, in order of time.
    """
    if state is None or not state.data:
        return {}, state.why if state else ""
    try:
        content = encoding_json.as_json(encoding)
    except EncodingUnknown as error:
        return {}, f"its state is not kept: {error}"
    times, keys = rows["event_time"], said(spec)
    at_end = pc.sum(pc.equal(times, times[-1])).as_py()
    header = Header(
        algorithm=name,
        task=spec.task,
        target=spec.data.target,
        classes=list(classes),
        preprocessing=keys["train.preprocessing"],
        sequences=keys["train.sequences"],
        learned_until=times[-1].as_py(),
        learned_at_end=at_end,
        state_file=state.file,
        encoding=content,
    )
    content_json = canonical_json(header.model_dump(mode="json"))
    return {HEADER_FILE: content_json, state.file: state.data}, ""
