"""Make ``days.csv`` from the published ``weather.csv`` (see README.md here).

Usage: python examples/rain/prepare.py PUBLISHED.csv > days.csv

The published file has neither dates nor names. Its order is that of the days, so they
are counted from the first one; its columns are in the order that its authors name.
"""

import csv
import sys
from datetime import UTC, datetime, timedelta

FIRST_DAY = datetime(1949, 1, 1, tzinfo=UTC)
COLUMNS = (
    "temperature", "dew_point", "pressure", "visibility", "wind", "max_wind",
    "max_temperature", "min_temperature",
)  # fmt: skip


def main(path: str) -> None:
    """Write the prepared rows to stdout."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["id", "time", *COLUMNS, "weather"])
    with open(path, encoding="utf-8", newline="") as file:  # noqa: PTH123 - a script
        rows = csv.reader(file)
        next(rows)
        for number, (*measured, rain) in enumerate(rows):
            day = FIRST_DAY + timedelta(days=number)
            answer = "wet" if rain == "1" else "dry"
            writer.writerow(
                [f"day-{number + 1}", f"{day:%Y-%m-%dT%H:%M:%SZ}", *measured, answer]
            )


if __name__ == "__main__":
    main(sys.argv[1])
