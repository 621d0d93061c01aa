"""The command line in this process, on a terminal wide enough for its tables."""

from driftloop.cli import app
from typer.testing import CliRunner, Result


def run(*words: str) -> Result:
    """Return how a command ended; expected errors are raised."""
    found = CliRunner().invoke(app.app, list(words), env={"COLUMNS": "160"})
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found
