"""A pipeline's schema as the log tells it: in force, proposed, different how."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from driftloop.cli.context import CommandError
from driftloop.cli.log import Entry
from driftloop.contracts.events import PipelineApplied, SchemaAccepted, SchemaProposed
from driftloop.contracts.pipeline import (
    Feature,
    PipelineFileError,
    PipelineSpec,
    parse_pipeline,
)
from driftloop.contracts.schema import SchemaColumn, differences, features_of

TOPICS = ("pipeline-applied", "schema-proposed", "schema-accepted")
IN_FORCE, LATEST = "in-force", "latest"
WIDER_TYPES = {("integer", "number")}
"""Changes of a type that a dataset's column can follow."""

Columns = Mapping[str, SchemaColumn]


@dataclass(frozen=True, slots=True)
class Life:
    """The schema of one pipeline.

    Attributes
    ----------
    proposals : by version, oldest first.
    """

    spec: PipelineSpec
    proposals: Sequence[SchemaProposed]
    accepted: SchemaAccepted | None

    @property
    def is_declared(self) -> bool:
        """Whether the pipeline file is the schema."""
        return bool(self.spec.data.features)

    @property
    def in_force(self) -> Columns:
        """The columns that hold; empty while they are still learned."""
        if self.is_declared:
            features = self.spec.data.features
            return {name: SchemaColumn(feature=f) for name, f in features.items()}
        return self.accepted.columns if self.accepted else {}

    @property
    def source(self) -> str:
        """Who says what holds."""
        if self.is_declared:
            return "the pipeline file"
        if self.accepted:
            return f"version {self.accepted.version}, by {self.accepted.accepted_by}"
        return "types alone, as learned from the first rows"

    @property
    def pending(self) -> SchemaProposed | None:
        """The newest proposal, unless it holds already or is overtaken."""
        if not self.proposals:
            return None
        newest = self.proposals[-1]
        if self.is_declared:
            proposed = features_of(newest.columns)
            is_done = not differences(self.spec.data.features, proposed)
        else:
            is_done = self.accepted is not None and (
                self.accepted.version >= newest.version
            )
        return None if is_done else newest

    def proposal(self, version: int | None) -> SchemaProposed:
        """Return a proposal; None: the newest.

        Raises
        ------
        CommandError
            Names those that there are.
        """
        found = [p for p in self.proposals if version in (None, p.version)]
        if not found:
            versions = ", ".join(str(p.version) for p in self.proposals) or "none yet"
            raise CommandError(
                f"{self.spec.name} has no proposed schema"
                f"{'' if version is None else f' {version}'}; there are: {versions}"
            )
        return found[-1]

    def columns(self, name: str) -> Columns:
        """Return ``in-force``, ``latest`` or a version's columns.

        Raises
        ------
        CommandError
            Says which names there are.
        """
        if name == IN_FORCE:
            return self.in_force
        if name != LATEST and not name.isdigit():
            raise CommandError(
                f"{name!r}: give a version's number, {IN_FORCE} or {LATEST}"
            )
        return self.proposal(None if name == LATEST else int(name)).columns


def life_of(entries: Iterable[Entry], pipeline: str) -> Life:
    """Return the schema of a pipeline.

    Raises
    ------
    CommandError
        When no such pipeline was applied.
    """
    spec: PipelineSpec | None = None
    accepted: SchemaAccepted | None = None
    proposals: dict[int, SchemaProposed] = {}
    names: set[str] = set()
    for entry in entries:
        event = entry.event
        if isinstance(event, PipelineApplied):
            names.add(event.pipeline)
        if event.pipeline != pipeline:
            continue
        if isinstance(event, PipelineApplied):
            spec = event.spec
        elif isinstance(event, SchemaProposed):
            proposals[event.version] = event
        elif isinstance(event, SchemaAccepted):
            accepted = event
    if spec is None:
        raise CommandError(
            f"no pipeline {pipeline!r}; applied: {', '.join(sorted(names)) or 'none'}"
        )
    return Life(spec, [proposals[n] for n in sorted(proposals)], accepted)


def features_yaml(features: Mapping[str, Feature]) -> str:
    """Return columns as they stand in a pipeline file, below ``data``."""
    lines = ["features:"]
    for name, feature in features.items():
        rules = feature.model_dump(mode="json", exclude_defaults=True)
        for key in ("min", "max"):
            if isinstance(rules.get(key), float) and rules[key].is_integer():
                rules[key] = int(rules[key])
        if feature.type != "number" or not rules:
            rules = {"type": feature.type, **rules}
        flow = yaml.safe_dump(
            {name: rules}, default_flow_style=True, allow_unicode=True,
            sort_keys=False, width=10**6,
        )  # fmt: skip
        lines.append(f"  {flow.strip()[1:-1]}")
    return "\n".join(lines) + "\n"


def edited(file: Path, proposed: Columns) -> dict[str, SchemaColumn]:
    """Return the columns of a file that a person made of a proposal.

    Raises
    ------
    CommandError
        When it cannot be read, or changes what a dataset's column is.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CommandError(f"cannot read {file}: {error}") from error
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, dict) or not features:
        raise CommandError(f"{file}: must hold features:, as schema show --yaml prints")
    whole = {
        "name": "edited",
        "task": "regression",
        "data": {"target": "no column has this name", "features": features},
    }
    try:
        given = parse_pipeline(yaml.safe_dump(whole)).data.features
    except PipelineFileError as error:
        raise CommandError(f"{file}: {error}") from error
    found = {}
    for name, feature in given.items():
        before = proposed.get(name)
        types = (before.feature.type, feature.type) if before else None
        if types and types[0] != types[1] and types not in WIDER_TYPES:
            raise CommandError(
                f"{file}: {name} is {types[0]} in the dataset and cannot become "
                f"{types[1]}; give the new one another name upstream"
            )
        found[name] = SchemaColumn(
            feature=feature, profile=before.profile if before else None
        )
    return found
