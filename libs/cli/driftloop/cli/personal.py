"""Personal data: erase a person, read one token or encrypted value."""

import os
from typing import Any

import httpx
from driftloop.cli.context import CommandError, Installation, problem_of

REVEAL_TOKEN = "DRIFTLOOP_REVEAL_TOKEN"  # noqa: S105 - the variable's name


def erase(
    installation: Installation, pipeline: str, subject: str, by: str, reason: str
) -> Any:
    """Ask ingest to make a person's data unreadable; return what Kafka has.

    Raises
    ------
    CommandError
        With ingest's own explanation.
    """
    body = {"subject": subject, "requested_by": by, "reason": reason}
    return _post(installation, f"/v1/pipelines/{pipeline}/erasures", body, {})


def reveal(
    installation: Installation, pipeline: str, value: str, by: str, reason: str
) -> Any:
    """Return the column and what a token or encrypted value stands for.

    Raises
    ------
    CommandError
        Also when this person may not read it.
    """
    token = os.environ.get(REVEAL_TOKEN)
    if not token:
        raise CommandError(
            f"reading personal data takes a token of its own; set {REVEAL_TOKEN}"
        )
    body = {"value": value, "revealed_to": by, "reason": reason}
    return _post(
        installation,
        f"/v1/pipelines/{pipeline}/revelations",
        body,
        {"reveal-token": token},
    )


def _post(
    installation: Installation, path: str, body: dict[str, str], headers: dict[str, str]
) -> Any:
    with installation.door() as client:
        try:
            response = client.post(path, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise CommandError(
                f"ingest does not answer ({error}); look at: driftloop status"
            ) from error
    if response.is_error:
        raise CommandError(problem_of(response))
    return response.json()
