"""Our facets of OpenLineage: what its core has no place for in machine learning.

A facet's JSON Schema lies in ``libs/contracts/openlineage/`` under the name that its
``_schemaURL`` ends with: ``urn:driftloop:openlineage:gate:v1`` is ``gate.v1.json``.

Source: OpenLineage 2-0-2, "Custom facets": keys carry a prefix that tells them from
those of the standard.
"""

import json
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

PREFIX = "driftloop"
PRODUCER = "urn:driftloop:registry"
"""Who says it, in each event and facet. No version: a replay gives the same bytes."""


class Facet(BaseModel):
    """A facet of ours; the names are spelt as OpenLineage spells its own."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="null")
    short_name: ClassVar[str]
    major: ClassVar[int] = 1

    producer: str = Field(default=PRODUCER, alias="_producer")
    schema_url: str = Field(default="", alias="_schemaURL")

    @classmethod
    def key(cls) -> str:
        """Return the key of the facet among others, ``driftloop_gate``."""
        return f"{PREFIX}_{cls.short_name}"

    @classmethod
    def urn(cls) -> str:
        return f"urn:driftloop:openlineage:{cls.short_name}:v{cls.major}"

    def as_json(self) -> dict[str, Any]:
        """Return the facet as it stands in an event."""
        body = json.loads(self.model_dump_json(exclude={"producer", "schema_url"}))
        return {"_producer": PRODUCER, "_schemaURL": self.urn(), **body}


class ModelFacet(Facet):
    """Which version a training made, or a rollout brings into service."""

    short_name: ClassVar[str] = "model"

    pipeline: str
    version: int = Field(ge=1)
    packageDigest: str = Field(  # noqa: N815 - as OpenLineage spells names
        pattern=r"^[0-9a-f]{64}$", description="sha256 of its signed manifest"
    )
    algorithm: str
    metric: str = Field(description="of the figures, on the same hold-out")
    candidate: float | None
    champion: float | None = Field(description="null: there was none")
    baseline: float | None
    holdoutRowCount: int = Field(ge=1)  # noqa: N815


class GateFacetCheck(BaseModel):
    """One condition of the gate and how it went."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="null")

    name: str
    passed: bool
    severity: Literal["block", "warn"] = "block"
    detail: str = ""
    value: float | None = None
    limit: float | None = None


class GateFacet(Facet):
    """What the gate said of the model of a training."""

    short_name: ClassVar[str] = "gate"

    verdict: Literal["passed", "failed"]
    checks: list[GateFacetCheck]


class TriggerFacet(Facet):
    """What led to a training; of a drift, its cause."""

    short_name: ClassVar[str] = "trigger"

    eventId: str  # noqa: N815
    eventType: str = Field(examples=["drift-detected"])  # noqa: N815
    reason: str
    driftCause: str | None = Field(  # noqa: N815
        default=None, description="null: no drift", examples=["concept_drift"]
    )
    since: str | None = Field(
        default=None, description="estimated start of the change, RFC 3339"
    )


class RolloutFacet(Facet):
    """Where a rollout is."""

    short_name: ClassVar[str] = "rollout"

    step: str = Field(examples=["canary 10 %"])
    verdict: Literal["started", "passed", "failed", "held", "resumed"]
    detail: str = ""


FACETS: tuple[type[Facet], ...] = (ModelFacet, GateFacet, TriggerFacet, RolloutFacet)


def schema_of_facet(facet: type[Facet]) -> dict[str, Any]:
    """Return the JSON Schema of a facet as published."""
    schema = facet.model_json_schema(by_alias=True)
    schema["required"] = ["_producer", "_schemaURL", *schema.get("required", [])]
    schema["properties"]["_producer"] = {"type": "string", "format": "uri"}
    schema["properties"]["_schemaURL"] = {"const": facet.urn()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": facet.urn(),
        **schema,
    }
