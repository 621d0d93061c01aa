"""What a backtest is asked; one line of JSON on stdin."""

from datetime import datetime
from pathlib import Path

from driftloop.backtest.stream import Rhythm
from driftloop.contracts.pipeline import PipelineSpec
from pydantic import BaseModel

ORACLE_TRAININGS = 12


class Plan(BaseModel):
    """A backtest.

    Attributes
    ----------
    source : see :func:`sources.read_rows`.
    policies : see :func:`policies.policies_of`.
    candidates : trained instead of the pipeline's; empty: those.
    known_drifts : when the world changed, if somebody knows.
    workers : processes side by side.
    oracle_trainings : moments at which the oracle may train, evenly set; those at which
        another policy trained count beside them.
    html : where the report goes as a page, or a ``.svg`` with its chart.
    """

    spec: PipelineSpec
    source: str
    policies: list[str] = []
    bounds: bool = True
    candidates: list[str] = []
    rhythm: Rhythm = Rhythm()
    known_drifts: list[datetime] = []
    workers: int = 2
    oracle_trainings: int = ORACLE_TRAININGS
    home: Path = Path(".driftloop")
    html: Path | None = None
    seed: int = 0
