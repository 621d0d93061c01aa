"""What OpenAPI says of the answers that refuse a request."""

from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel


class Fault(BaseModel):
    """One row that cannot be taken, or one part of the request that is wrong."""

    row: int | None = None
    field: str | None = None
    problem: str


class Problem(BaseModel):
    """An error answer (RFC 9457)."""

    type: str
    status: int
    title: str
    errors: list[Fault] = []
    error_count: int | None = None


def problem(status: int, title: str, **more: Any) -> JSONResponse:
    """Return an error answer as problem+json (RFC 9457)."""
    return JSONResponse(
        {"type": "about:blank", "status": status, "title": title, **more},
        status_code=status,
        media_type="application/problem+json",
    )


def refusals(why: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of routes that ask who it is, by status: why."""
    common = {
        400: "not HTTP as it is read here; a Host that is not served",
        401: "the token is missing or wrong",
        403: "the role is missing; title says which",
        422: "a field is missing or wrong; errors names it",
    }
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    content = {"content": {"application/problem+json": schema}}
    return {
        status: {"description": reason, "model": Problem} | content
        for status, reason in {**common, **why}.items()
    }
