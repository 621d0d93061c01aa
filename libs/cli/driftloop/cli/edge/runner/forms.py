"""Bodies of requests: MLflow's four forms in JSON, and CSV."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, NoReturn

from .columns import DATETIME, STRINGS, Column
from .errors import BadRequest

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")

Values = dict[str, list[Any]]


def json_object(data: bytes) -> dict[str, Any]:
    """Return a JSON object; NaN and infinity are no JSON.

    Raises
    ------
    BadRequest
        When the bytes are something else.
    """
    try:
        content = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error!s:.200}") from error
    if not isinstance(content, dict):
        kind = {list: "a list", type(None): "null"}.get(type(content), "a plain value")
        raise BadRequest(f"the body must be a JSON object, not {kind}")
    return content


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON; a missing value is null")


def columns_of_json(body: dict[str, Any], inputs: Sequence[Column]) -> Values:
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
    form, content = found[0], body[found[0]]
    if form == "dataframe_split":
        return _from_split(content)
    if form == "inputs" and isinstance(content, dict):
        return {
            name: values if isinstance(values, list) else [values]
            for name, values in content.items()
        }
    if not isinstance(content, list):
        raise BadRequest(f"{form}: expected a list")
    return _from_rows(form, content, [column.name for column in inputs])


def _from_split(content: Any) -> Values:
    if not isinstance(content, dict) or not {"columns", "data"} <= content.keys():
        raise BadRequest("dataframe_split: expected 'columns' and 'data'")
    names, data = content["columns"], content["data"]
    if not isinstance(names, list) or not isinstance(data, list):
        raise BadRequest("dataframe_split: 'columns' and 'data' must be lists")
    _check_once("dataframe_split", list(map(str, names)))
    return _from_rows("dataframe_split", data, names)


def _check_once(form: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"{form}: column {twice!r:.80} comes twice")


def _from_rows(form: str, rows: list[Any], names: list[Any]) -> Values:
    """Return columns from rows that are objects, or values in the order of names."""
    columns: Values = {str(name): [] for name in names}
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


def columns_of_csv(data: bytes, inputs: Sequence[Column]) -> Values:
    """Return the values by column from CSV with a header; an empty field is null.

    Raises
    ------
    BadRequest
        When it is not UTF-8, has no header, or a row of another length.
    """
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRequest(f"not CSV in UTF-8: {error}") from error
    if not rows:
        raise BadRequest("the CSV has no header")
    return columns_of_rows(rows[0], [row for row in rows[1:] if row], inputs)


def columns_of_rows(
    header: list[str], rows: list[list[str]], inputs: Sequence[Column]
) -> Values:
    """Return the values by column from rows of texts.

    Raises
    ------
    BadRequest
        When a row has another length than the header, or a name comes twice.
    """
    _check_once("text/csv", header)
    columns = _from_rows("text/csv", list(rows), list(header))
    for column in inputs:
        values = columns.get(column.name)
        if values is None:
            continue
        if column.type in STRINGS or column.type == DATETIME:
            columns[column.name] = [value or None for value in values]
        else:
            columns[column.name] = [_number(v, column.type) for v in values]
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
