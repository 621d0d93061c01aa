"""Answers a CSV file without a server: ``runner.py score IN.csv OUT.csv``."""

import csv
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from .answering import Desk
from .errors import Refused
from .forms import columns_of_rows

BLOCK_ROWS = 1000
PREDICTION, SCORE = "prediction", "score"


def score_file(desk: Desk, source: Path, target: Path) -> tuple[int, int]:
    """Write each row of a CSV file with its answer.

    Beside the columns that came: ``prediction``, and ``score`` of the second of two
    classes or ``score_CLASS`` of each; empty where there is no finite answer. The file
    appears as a whole or not at all.

    Returns
    -------
    tuple
        How many rows there were, and how many of them have no answer.

    Raises
    ------
    Refused
        When a file cannot be read or written, or has such a column already.
    BadRequest
        Names the column, and the row by its number from 0.
    ModelFailed
        When the model cannot answer.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        with (
            source.open(encoding="utf-8-sig", newline="") as rows,
            part.open("w", encoding="utf-8", newline="") as answers,
        ):
            counts = _score(desk, rows, answers)
            answers.flush()
            os.fsync(answers.fileno())
        part.replace(target)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        part.unlink(missing_ok=True)
        raise Refused(f"{source} cannot be scored: {error}") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return counts


def _score(desk: Desk, rows: IO[str], answers: IO[str]) -> tuple[int, int]:
    package = desk.package
    reader = csv.reader(rows, strict=True)
    header = next(reader, None)
    if header is None:
        raise Refused("the CSV has no header")
    added = [PREDICTION]
    if len(package.classes) == 2:
        added.append(SCORE)
    elif package.classes:
        added += [f"{SCORE}_{name}" for name in package.classes]
    for name in added:
        if name in header:
            raise Refused(f"there is a column {name!r} already; rename it")
    writer = csv.writer(answers, lineterminator="\n")
    writer.writerow([*header, *added])
    count = failed = 0
    for block in _blocks(row for row in reader if row):
        columns = columns_of_rows(header, block, package.inputs)
        answer = desk.answer(columns, first=count)
        said = answer.said
        told: list[list[Any]] = [[value] for value in said.prediction.tolist()]
        if said.score is not None:
            for line, score in zip(told, said.score.tolist(), strict=True):
                line.extend(score if isinstance(score, list) else [score])
        for at in answer.bad.nonzero()[0].tolist():
            told[at] = [""] * len(added)
        failed += int(answer.bad.sum())
        writer.writerows([*row, *more] for row, more in zip(block, told, strict=True))
        count += len(block)
    return count, failed


def _blocks(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    while block := list(islice(rows, BLOCK_ROWS)):
        yield block
