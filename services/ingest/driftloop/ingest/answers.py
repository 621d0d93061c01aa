"""What OpenAPI says of the answers that refuse a request."""

from typing import Any

from pydantic import BaseModel

NOT_APPLIED = "the pipeline is not applied"


class BadRowAnswer(BaseModel):
    """One row that cannot be taken, or one part of the request that is wrong."""

    row: int | None = None
    field: str | None = None
    problem: str


class Problem(BaseModel):
    """An error answer (RFC 9457)."""

    type: str
    status: int
    title: str
    errors: list[BadRowAnswer] = []
    error_count: int | None = None


def refusals(why: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of routes that need the token."""
    common = {
        400: "not HTTP as this door reads it; a Host that is not served",
        401: "the token is missing or wrong",
        422: "a field is missing or wrong; errors names it",
    }
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    content = {"content": {"application/problem+json": schema}}
    return {
        status: {"description": reason, "model": Problem} | content
        for status, reason in {**common, **why}.items()
    }
