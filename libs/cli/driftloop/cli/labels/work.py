"""What the ``labels`` commands do: fetch the queue, write a file, send one back."""

import io
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import polars as pl
from driftloop.cli.context import CommandError, Installation, problem_of
from driftloop.cli.door import patiently
from driftloop.contracts.pipeline import PipelineSpec

PAGE_ROWS = 1000
ROWS_A_REQUEST = 5000


def wanted(
    installation: Installation, pipeline: str, limit: int | None
) -> dict[str, Any]:
    """Return the newest and best rows of the queue; ``limit`` None: all of them.

    Raises
    ------
    CommandError
        With the monitor's own explanation.
    """
    rows: list[dict[str, Any]] = []
    cursor: int | None = None
    with installation.watcher() as client:
        while True:
            left = PAGE_ROWS if limit is None else min(PAGE_ROWS, limit - len(rows))
            page = _page(client, pipeline, left, cursor)
            rows += page["items"]
            cursor = page["next_cursor"]
            if cursor is None or (limit is not None and len(rows) >= limit):
                break
    return {
        "pipeline": pipeline,
        "waiting_count": page["waiting_count"],
        "items": rows,
    }


def _page(
    client: httpx.Client, pipeline: str, limit: int, cursor: int | None
) -> dict[str, Any]:
    params = {"limit": limit} | ({} if cursor is None else {"cursor": cursor})
    try:
        response = client.get(f"/v1/pipelines/{pipeline}/labels-wanted", params=params)
    except httpx.HTTPError as error:
        raise CommandError(
            f"the monitor does not answer ({error}); look at: driftloop status"
        ) from error
    if response.is_error:
        raise CommandError(problem_of(response))
    page: dict[str, Any] = response.json()
    return page


def export(found: dict[str, Any], spec: PipelineSpec, file: Path) -> int:
    """Write rows as CSV with the target left empty; return how many.

    Raises
    ------
    CommandError
        When the file cannot be written.
    """
    data = spec.data
    frame = pl.DataFrame(
        {
            data.id: [row["row_id"] for row in found["items"]],
            data.time: [row["event_time"] for row in found["items"]],
            data.target: [None] * len(found["items"]),
            "score": [round(row["score"], 3) for row in found["items"]],
            "reasons": ["; ".join(row["reasons"]) for row in found["items"]],
        },
        schema={
            data.id: pl.String, data.time: pl.String, data.target: pl.String,
            "score": pl.Float64, "reasons": pl.String,
        },
    )  # fmt: skip
    try:
        frame.write_csv(file)
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error}") from error
    return frame.height


def filled(file: Path, spec: PipelineSpec) -> tuple[pl.DataFrame, int]:
    """Return the rows of a file that have a label, as text, and how many have none.

    Raises
    ------
    CommandError
        Names what the file lacks.
    """
    try:
        frame = pl.read_csv(file, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise CommandError(f"cannot read {file}: {error}") from error
    data = spec.data
    missing = [n for n in (data.id, data.time, data.target) if n not in frame.columns]
    if missing:
        raise CommandError(
            f"{file} has no column {', '.join(missing)}; driftloop labels wanted "
            f"{spec.name} --export FILE writes one that has them"
        )
    frame = frame.select(data.id, data.time, data.target)
    label = pl.col(data.target).str.strip_chars()
    given = frame.with_columns(label).filter(label.is_not_null() & (label != ""))
    if not given.height:
        raise CommandError(f"{file}: no row has a {data.target} yet; fill some in")
    return given, frame.height - given.height


def give(
    installation: Installation, file: Path, spec: PipelineSpec, source: str
) -> dict[str, Any]:
    """Send a file's labels to ingest's door; rows without one stay in the queue.

    Raises
    ------
    CommandError
        When the file or a label in it is not right, with the reasons.
    PublishError
        When ingest does not answer, or Kafka takes nothing.
    """
    if spec.data.id in spec.data.privacy:
        raise CommandError(
            f"the ids of {spec.name} are tokens, and ingest would make tokens of them "
            "again; read the ids by driftloop reveal, and send the labels by them "
            f"(driftloop publish, or ingest's /v1/pipelines/{spec.name}/labels)"
        )
    given, empty = filled(file, spec)
    with installation.door() as client:
        for part in given.iter_slices(ROWS_A_REQUEST):
            _send(client, part, spec.name, source)
    return {"pipeline": spec.name, "given": given.height, "left_empty": empty}


def _send(client: httpx.Client, part: pl.DataFrame, pipeline: str, source: str) -> None:
    content = io.BytesIO()
    part.write_csv(content)
    response = patiently(
        lambda: client.post(
            f"/v1/pipelines/{pipeline}/labels",
            params={"source": source},
            headers={"content-type": "text/csv"},
            content=content.getvalue(),
        )
    )
    if response.status_code != HTTPStatus.ACCEPTED:
        raise CommandError(f"ingest refuses the labels: {problem_of(response)}")
