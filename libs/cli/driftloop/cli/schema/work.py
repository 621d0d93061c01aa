"""What the ``schema`` commands do."""

from pathlib import Path
from typing import Any

from driftloop.cli.context import CommandError, Installation
from driftloop.cli.data import publish_event
from driftloop.cli.log import read_log
from driftloop.cli.publish import read_file
from driftloop.cli.schema.life import TOPICS, Columns, Life, edited, life_of
from driftloop.contracts.events import PipelineApplied, SchemaAccepted
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.schema import SchemaColumn, features_of
from driftloop.runtime.data.inference import schema_of
from driftloop.runtime.data.profile import TECHNICAL, profiles_of, with_moments


def read_life(installation: Installation, pipeline: str) -> Life:
    """Return a pipeline's schema, from the log."""
    entries = read_log(installation.bootstrap, TOPICS, installation.store)
    return life_of(entries, pipeline)


def infer(file: Path, left_out: set[str]) -> dict[str, SchemaColumn]:
    """Return a schema for the columns of a file, but those that are left out.

    Raises
    ------
    CommandError
        When nothing is left.
    """
    profiles = profiles_of(with_moments(read_file(file)), {*TECHNICAL, *left_out})
    found = schema_of(profiles)
    if not found:
        raise CommandError(f"{file}: no column with values is left for a feature")
    return found


def accept(
    installation: Installation,
    pipeline: str,
    version: int | None,
    file: Path | None,
    by: str,
) -> tuple[Life, int, Columns]:
    """Put a proposal, as it is or as a person edited it, into force.

    Where the pipeline file names the features, that file is what is changed, and
    applied; else the schema is accepted by an event of its own.

    Returns
    -------
    tuple
        The schema as it was before, the proposal's version, the columns now.

    Raises
    ------
    CommandError
        When there is no such proposal, or the edited file is not right.
    """
    life = read_life(installation, pipeline)
    proposal = life.proposal(version)
    columns: Columns = proposal.columns
    if file is not None:
        columns = edited(file, columns)
    if life.is_declared:
        event = PipelineApplied(
            pipeline=pipeline, spec=_with(life.spec, columns), applied_by=by
        )
        publish_event(installation, event)
    else:
        publish_event(
            installation,
            SchemaAccepted(
                pipeline=pipeline,
                version=proposal.version,
                columns=dict(columns),
                accepted_by=by,
            ),
        )
    return life, proposal.version, columns


def _with(spec: PipelineSpec, columns: Columns) -> PipelineSpec:
    features = {n: f.model_dump() for n, f in features_of(columns).items()}
    content = spec.model_dump()
    content["data"]["features"] = features
    return PipelineSpec.model_validate(content)


def life_json(life: Life) -> dict[str, Any]:
    """Return a pipeline's schema for programs."""
    pending = life.pending
    return {
        "pipeline": life.spec.name,
        "source": life.source,
        "in_force": columns_json(life.in_force),
        "accepted_version": life.accepted.version if life.accepted else None,
        "proposed": [p.version for p in life.proposals],
        "pending": pending.model_dump(mode="json") if pending else None,
    }


def columns_json(columns: Columns) -> dict[str, Any]:
    return {n: column.model_dump(mode="json") for n, column in columns.items()}
