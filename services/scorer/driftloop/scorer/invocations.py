"""MLflow's scoring server: ``/ping``, ``/health``, ``/version``, ``/invocations``.

Source: the four routes, content types and status codes of MLflow's scoring server;
errors as MLflow's REST API writes them.
"""

import csv
import io
from collections.abc import Sequence
from importlib.metadata import version as version_of
from typing import Any

from driftloop.models.package import STRINGS, InputColumn
from driftloop.runtime.identity.routing import (
    GuardedRouter,
    check_about,
    openly,
)
from driftloop.scorer.answering import Desk, NotServed
from driftloop.scorer.door import (
    VERSION_HEADER,
    DoorRoute,
    door_router,
    json_answer,
    json_object,
    read_body,
    request_id_of,
)
from driftloop.scorer.explaining.telling import as_json
from driftloop.scorer.explaining.wish import parameters_in_query, wish_in
from driftloop.scorer.feeds import BadRequest
from fastapi import Request, Response

JSON, CSV = "application/json", "text/csv"
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
PIPELINE_HEADER = "x-driftloop-pipeline"
ERROR_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    413: "INVALID_PARAMETER_VALUE",
    500: "INTERNAL_ERROR",
}

Columns = dict[str, list[Any]]


class InvocationsRoute(DoorRoute):
    """Errors as MLflow has them."""

    def problem(self, status: int, text: str) -> Response:
        code = ERROR_CODES.get(status, "INTERNAL_ERROR")
        return json_answer({"error_code": code, "message": text}, status)


def columns_of_json(body: dict[str, Any], inputs: Sequence[InputColumn]) -> Columns:
    """Return the values by column from one of MLflow's four forms.

    Raises
    ------
    BadRequest
        When there is none of them, more than one, or one that is not right.
    """
    found = [form for form in FORMS if form in body]
    if len(found) != 1:
        raise BadRequest(
            f"the input must be a JSON object with exactly one of {', '.join(FORMS)}; "
            f"it has {', '.join(found or map(repr, body)) or 'nothing'}"
        )
    content = body[found[0]]
    if found[0] == "dataframe_split":
        return _from_split(content)
    if found[0] == "inputs" and isinstance(content, dict):
        return {name: _as_list(values) for name, values in content.items()}
    if not isinstance(content, list):
        raise BadRequest(f"{found[0]}: expected a list")
    return _from_rows(found[0], content, [column.name for column in inputs])


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    parameters = body.get("params")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadRequest("params: expected an object")
    return parameters


def _as_list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _from_split(content: Any) -> Columns:
    if not isinstance(content, dict) or not {"columns", "data"} <= content.keys():
        raise BadRequest("dataframe_split: expected 'columns' and 'data'")
    names, data = content["columns"], content["data"]
    if not isinstance(names, list) or not isinstance(data, list):
        raise BadRequest("dataframe_split: 'columns' and 'data' must be lists")
    return _from_rows("dataframe_split", data, names)


def _from_rows(form: str, rows: list[Any], names: list[Any]) -> Columns:
    """Return columns from rows that are objects, or values in the order of names."""
    names = [str(name) for name in names]
    columns: Columns = {name: [] for name in names}
    if len(columns) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"{form}: column {twice!r:.80} comes twice")
    if rows and all(isinstance(row, dict) for row in rows):
        if form == "dataframe_split":
            raise BadRequest("dataframe_split: each row of 'data' must be a list")
        return {name: [row.get(name) for row in rows] for name in rows[0]}
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            raise BadRequest(f"{form}: row {number} does not have {len(names)} values")
        for name, value in zip(columns, row, strict=True):
            columns[name].append(value)
    return columns


def columns_of_csv(data: bytes, inputs: Sequence[InputColumn]) -> Columns:
    """Return the values by column from CSV with a header; an empty field is null.

    Raises
    ------
    BadRequest
        When it is not UTF-8, has no header, a row of another length, or a name twice.
    """
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRequest(f"not CSV in UTF-8: {error}") from error
    if not rows:
        raise BadRequest("the CSV has no header")
    columns = _from_rows("text/csv", [row for row in rows[1:] if row], rows[0])
    for column in inputs:
        is_text = column.type in STRINGS or column.type == "datetime"
        if column.name in columns and not is_text:
            values = columns[column.name]
            columns[column.name] = [_number(v, column.type) for v in values]
        elif column.name in columns:
            columns[column.name] = [value or None for value in columns[column.name]]
    return columns


def _number(text: str, kind: str) -> float | str | None:
    """Read one field; text that is no number stays text and is named as wrong."""
    if not text:
        return None
    if kind == "boolean" and text.lower() in {"true", "false"}:
        return float(text.lower() == "true")
    try:
        return float(text)
    except ValueError:
        return text


def _content_problem(content_type: str) -> str | None:
    """Say why a content type cannot be read."""
    kind, *parameters = (part.strip() for part in content_type.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() != "charset":
            return f"unrecognized content type parameter {name!r}"
        if value.strip().strip('"').lower() not in {"utf-8", "utf8"}:
            return "the scoring server only supports UTF-8"
    if kind.lower() not in {JSON, CSV}:
        return f"send {JSON} or {CSV}; got {content_type!r}"
    return None


def ping_router(desk: Desk) -> GuardedRouter:
    """Return the probes, which ask nobody."""
    router = GuardedRouter(
        tags=["MLflow scoring"],
        dependencies=[openly("probes of orchestrators: a model is there, or not")],
    )

    @router.get("/ping")
    @router.get("/health")
    async def ping() -> Response:
        return Response("\n", 200 if desk.shelf.pipelines() else 404)

    return router


def invocations_router(desk: Desk, max_body_bytes: int) -> GuardedRouter:
    """Return scoring; with one served pipeline its name need not be given."""
    router = door_router(InvocationsRoute, tags=["MLflow scoring"])

    def chosen(request: Request, pipeline: str | None) -> str:
        named = (
            pipeline
            or request.headers.get(PIPELINE_HEADER)
            or request.query_params.get("pipeline")
        )
        served = desk.shelf.pipelines()
        if named:
            return named
        if len(served) == 1:
            return served[0]
        if not served:
            raise NotServed("no model is served")
        raise BadRequest(
            f"several pipelines are served ({', '.join(served)}): name one in the "
            f"header {PIPELINE_HEADER} or call /pipelines/NAME/invocations"
        )

    @router.post("/invocations")
    @router.post("/pipelines/{pipeline}/invocations")
    async def invocations(request: Request, pipeline: str | None = None) -> Response:
        content_type = request.headers.get("content-type", "")
        if problem := _content_problem(content_type):
            return Response(problem, 415, media_type="text/plain")
        name = chosen(request, pipeline)
        check_about(request, "score", name)
        data = await read_body(request, max_body_bytes)
        served = desk.shelf.get(name)
        if served is None or served.champion is None:
            raise NotServed(f"no model is served for {name!r}")
        inputs = served.champion.manifest.inputs
        has_query = bool(request.scope["query_string"])  # most have none: it is slow
        parameters = parameters_in_query(request.query_params) if has_query else {}
        if content_type.lower().startswith(CSV):
            columns = columns_of_csv(data, inputs)
        else:
            body = json_object(data)
            columns = columns_of_json(body, inputs)
            parameters |= _parameters(body)
        wish = wish_in(parameters, desk.explaining.times)
        reply = await desk.answer(name, columns, request_id_of(request), explain=wish)
        content: dict[str, Any] = {"predictions": reply.said.prediction.tolist()}
        if reply.explanation is not None:
            content["explanations"] = as_json(reply.explanation)
        return json_answer(
            content,
            headers={
                VERSION_HEADER: str(reply.version),
                **reply.headers(),
            },
        )

    @router.get("/version")
    async def version(_: Request) -> Response:
        return Response(version_of("driftloop-scorer"), media_type="text/plain")

    return router
