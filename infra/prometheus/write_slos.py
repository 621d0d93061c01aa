"""Writes the rules of the objectives: ``make dashboards``.

For each objective the share of what was bad is recorded over seven windows, and alerts
compare it with how fast the allowed share would be used up. Windows and factors are
those of the Site Reliability Workbook (Google, 2018), chapter 5, table 5-8: fast burn
over an hour, slower ones over days, each with a short window so that it ends soon after
the fault does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parent / "slos.yml"
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
BURNS = (
    (14.4, "1h", "5m", "critical"),
    (6.0, "6h", "30m", "critical"),
    (3.0, "1d", "2h", "warning"),
    (1.0, "3d", "6h", "warning"),
)
"""Times as fast as allowed over 30 days, over a long and a short window."""
PREDICTIONS = 'service="scorer",method="POST"'
HEAD = """\
# Written by infra/prometheus/write_slos.py (make dashboards); do not edit.
"""


@dataclass(frozen=True)
class Objective:
    """What is promised over 30 days.

    Attributes
    ----------
    allowed : share that may be bad.
    bad, all : increases over a window; ``WINDOW`` is replaced.
    says : what people read when it burns; of a share that was bad.
    """

    name: str
    allowed: float
    bad: str
    all: str
    says: str


def slower(metric: str, than_s: str, where: str = "") -> tuple[str, str]:
    """Return how many of a histogram's observations took longer, and all of them."""
    everything = f"sum(increase({metric}_count{{{where}}}[WINDOW]))"
    comma = "," if where else ""
    within = f'{metric}_bucket{{{where}{comma}le="{than_s}"}}'
    return f"{everything} - sum(increase({within}[WINDOW]))", everything


REQUESTS = "driftloop_http_request_duration_seconds"
OBJECTIVES = (
    Objective(
        "scorer_errors", 0.001,
        f'sum(increase({REQUESTS}_count{{{PREDICTIONS},status=~"5.."}}[WINDOW])) '
        "or vector(0)",
        f"sum(increase({REQUESTS}_count{{{PREDICTIONS}}}[WINDOW]))",
        "of the requests for predictions failed",
    ),
    Objective("scorer_latency", 0.01, *slower(REQUESTS, "0.05", PREDICTIONS),
              "of the requests for predictions took over 50 ms"),
    Objective("freshness", 0.01, *slower("driftloop_event_age_seconds", "30.0"),
              "of the events were over 30 s old when they were handled"),
    Objective("rollout_time", 0.1,
              *slower("driftloop_chain_duration_seconds", "3600.0",
                      'result="deployed"'),
              "of the rollouts came over an hour after what set them off"),
)  # fmt: skip


def recorded(of: Objective) -> list[dict[str, Any]]:
    return [
        {
            "record": f"slo:{of.name}:ratio_rate{window}",
            "expr": f"({of.bad}) / ({of.all} > 0)".replace("WINDOW", window),
        }
        for window in WINDOWS
    ]


def alerts(of: Objective) -> list[dict[str, Any]]:
    result = []
    for factor, long, short, severity in BURNS:
        limit = f"{factor * of.allowed:.6g}"
        over = [
            f"slo:{of.name}:ratio_rate{window} > {limit}" for window in (long, short)
        ]
        name = "".join(part.capitalize() for part in of.name.split("_"))
        result.append(
            {
                "alert": f"{name}Burns",
                "expr": " and ".join(over),
                "labels": {"severity": severity, "window": long},
                "annotations": {
                    "summary": f"{{{{ $value | humanizePercentage }}}} {of.says} in "
                    f"{long}; {of.allowed:.4g} is allowed",
                    "runbook": "docs/operations.md#an-objective-is-missed",
                },
            }
        )
    return result


def main() -> None:
    """Write the file."""
    rules = {
        "groups": [
            {"name": f"slo-{of.name}", "rules": [*recorded(of), *alerts(of)]}
            for of in OBJECTIVES
        ]
    }
    text = yaml.safe_dump(rules, sort_keys=False, width=100)
    FILE.write_text(HEAD + text, "utf-8")
    print(FILE)


if __name__ == "__main__":
    main()
