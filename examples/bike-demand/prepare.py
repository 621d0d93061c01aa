"""Make ``rentals.csv`` from the published ``hour.csv`` (see README.md here).

Usage: python examples/bike-demand/prepare.py PUBLISHED.csv > rentals.csv

Calendar columns are written out as an upstream system would send them; the
columns that would leak the answer (``casual``, ``registered``, ``instant``) and
the apparent temperature, a near copy of ``temp``, are left out.
"""

import csv
import sys
from datetime import datetime

COLUMNS = (
    "id", "time", "month", "hour", "weekday", "season", "holiday", "workingday",
    "weathersit", "temp", "hum", "windspeed", "cnt",
)  # fmt: skip


def main(path: str) -> None:
    """Write the prepared rows to stdout."""
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    with open(path, encoding="utf-8", newline="") as file:  # noqa: PTH123 - a script
        for row in csv.DictReader(file):
            time = datetime.fromisoformat(row["time"])
            values = {name: row[name] for name in COLUMNS if name in row}
            writer.writerow(
                values
                | {
                    "id": f"{time:%Y-%m-%dT%H}",
                    "time": f"{time:%Y-%m-%dT%H:%M:%SZ}",
                    "month": time.month,
                    "hour": time.hour,
                }
            )


if __name__ == "__main__":
    main(sys.argv[1])
