"""What a comment may be about, and whether there is such a thing."""

import re
from typing import get_args

from driftloop.contracts.events import CommentedKind
from driftloop.registry.lineage.tables import RegistryTraining
from driftloop.registry.resources.datasets import VERSION_PATTERN, dataset_row
from driftloop.registry.resources.deployments import rollouts_of
from driftloop.registry.rest import Context
from fastapi import HTTPException
from sqlmodel import Session

ABOUT_PATTERN = rf"^({'|'.join(get_args(CommentedKind))})(/[!-~]{{1,200}})?$"
HOW = (
    "name pipeline, model/3, approval/3, dataset/730.365, training/JOB or "
    "deployment/ROLLOUT"
)


def thing_of(
    context: Context, session: Session, pipeline: str, about: str
) -> tuple[CommentedKind, str]:
    """Return kind and name of what is meant.

    Raises
    ------
    HTTPException
        422 when the text names nothing, 404 when there is no such thing.

    """
    kind, _, which = about.partition("/")
    if kind == "pipeline" and which in ("", pipeline):
        return "pipeline", pipeline
    if kind in ("model", "approval") and which.isdecimal() and len(which) < 10:
        row = context.version(session, pipeline, int(which))
        if kind == "approval" and row.rule is None:
            raise HTTPException(404, f"about: nobody was asked about version {which}")
        return "model" if kind == "model" else "approval", str(row.version)
    if kind == "dataset" and re.match(VERSION_PATTERN, which):
        dataset_row(session, pipeline, which)
        return "dataset", which
    if kind == "training" and which:
        training = session.get(RegistryTraining, which)
        if training is None or training.pipeline != pipeline:
            raise HTTPException(404, f"about: {pipeline} has no training {which!r}")
        return "training", which
    if kind == "deployment" and which:
        if which not in dict(rollouts_of(session, [pipeline])):
            raise HTTPException(404, f"about: {pipeline} has no rollout {which!r}")
        return "deployment", which
    raise HTTPException(422, f"about: {about!r} names nothing; {HOW}")
