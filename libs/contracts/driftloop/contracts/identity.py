"""Events about who may do what, and about who did it."""

from typing import Any, ClassVar, Literal

from driftloop.contracts.base import Event, PipelineName, UtcTime
from pydantic import Field

ACCESS = "access"
"""In place of a pipeline's name in events about people and programs."""
SHA256_PATTERN = r"^[0-9a-f]{64}$"


class TokenChanged(Event):
    """A service token as it is now; the last one of a token holds.

    The token itself is in no event: its SHA-256 is, from which 256 random bits cannot
    be found.
    """

    key_fields: ClassVar[tuple[str, ...]] = ("token_id",)

    pipeline: PipelineName = ACCESS
    token_id: str = Field(pattern=r"^[0-9a-f]{16}$", examples=["9f2c4e6a8b0d1f35"])
    name: str = Field(description="what it is for", examples=["rides gateway"])
    subject: str = Field(description="who acts with it", examples=["rides-gateway"])
    sha256: str = Field(pattern=SHA256_PATTERN, description="of the whole token")
    roles: list[str] = Field(min_length=1, examples=[["client@rides"]])
    expires_at: UtcTime | None = None
    issued_by: str
    issued_at: UtcTime
    revoked_by: str | None = None
    revoked_at: UtcTime | None = None


class AuditNoted(Event):
    """Somebody asked for a decision or a write, and what came of it."""

    pipeline: PipelineName = ACCESS
    subject: str = Field(examples=["ann"])
    credential: str = Field(
        description="operator, token:ID, or oidc: with the beginning of its digest",
        examples=["token:9f2c4e6a8b0d1f35"],
    )
    service: str = Field(examples=["registry"])
    action: str = Field(examples=["approve"])
    about: str | None = Field(
        default=None, description="pipeline", examples=["bike-demand"]
    )
    method: str = Field(examples=["POST"])
    path: str = Field(examples=["/api/v1/models/bike-demand/versions/3/approve"])
    request_sha256: str | None = Field(
        default=None,
        pattern=SHA256_PATTERN,
        description="of the body; none where it may name a person",
    )
    outcome: Literal["asked", "refused", "answered"] = Field(
        description="asked: before it is done; refused: no right to; answered: the end"
    )
    status: int | None = Field(default=None, description="HTTP status of the answer")
    asked_id: str | None = Field(
        default=None, description="event that noted the question to this answer"
    )

    def as_entry(self) -> dict[str, Any]:
        """Return what the audit trail keeps: all, with the event's id and time."""
        return {
            "event_id": self.meta.id,
            "time": self.meta.time.isoformat(),
            **self.model_dump(mode="json", exclude={"pipeline"}),
        }


class AuditAnchored(Event):
    """Which hash the audit trail had at a position."""

    pipeline: PipelineName = ACCESS
    position: int = Field(ge=1)
    hash: str = Field(pattern=SHA256_PATTERN)
