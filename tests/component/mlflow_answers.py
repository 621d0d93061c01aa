"""Records what MLflow's own server answers: ``make mlflow-answers``.

Lets the story be told to it, and writes ``mlflow-<version>.json``.
"""

from __future__ import annotations

from tests.component.mlflow_client import ANSWERS, CLIENT, tell
from tests.component.mlflow_server import ROOT, mlflow_server


def main() -> None:
    """Install, start, record, stop."""
    with mlflow_server(ANSWERS.stem.removeprefix("mlflow-")) as server:
        tell(server.url, ANSWERS, python=CLIENT)
    print(f"wrote {ANSWERS.relative_to(ROOT)}")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
