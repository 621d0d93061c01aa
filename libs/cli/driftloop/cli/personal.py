"""Personal data: erase a person, read one token or encrypted value."""

import os
from collections.abc import Sequence
from typing import Any

import httpx
from driftloop.cli.context import CommandError, Installation, problem_of
from driftloop.cli.options import plain_table
from rich.console import RenderableType
from rich.text import Text

REVEAL_TOKEN = "DRIFTLOOP_REVEAL_TOKEN"  # noqa: S105 - the variable's name


def erase(
    installation: Installation, pipeline: str, subject: str, by: str | None, reason: str
) -> Any:
    """Propose that a person's data becomes unreadable; return the proposal.

    Raises
    ------
    CommandError
        With ingest's own explanation.
    """
    body: dict[str, str | None] = {
        "subject": subject,
        "requested_by": installation.speaker(by),
        "reason": reason,
    }
    return _ask(installation, "POST", f"/v1/pipelines/{pipeline}/erasures", body)


def confirm(
    installation: Installation,
    pipeline: str,
    proposal: str,
    by: str | None,
    reason: str,
) -> Any:
    """Confirm an erasure that another person has proposed; return what Kafka has.

    Raises
    ------
    CommandError
        With ingest's own explanation.
    """
    body: dict[str, str | None] = {
        "confirmed_by": installation.speaker(by),
        "reason": reason,
    }
    path = f"/v1/pipelines/{pipeline}/erasures/{proposal}/confirm"
    return _ask(installation, "POST", path, body)


def proposed(installation: Installation, pipeline: str) -> Any:
    """Return the erasures that people have proposed, newest first."""
    return _ask(installation, "GET", f"/v1/pipelines/{pipeline}/erasures")


def proposal_table(found: Sequence[dict[str, Any]]) -> RenderableType:
    """Return proposals as a table."""
    if not found:
        return Text("nobody has proposed an erasure")
    table = plain_table("proposed erasures, newest first")
    for name in ("proposal", "subject", "by", "reason", "is", "until"):
        table.add_column(name, overflow="fold")
    for item in found:
        by = f"{item['proposed_by']} ({', '.join(item['sides'])})"
        is_confirmed = item["state"] == "confirmed"
        state = (
            f"confirmed by {item['confirmed_by']}" if is_confirmed else item["state"]
        )
        until = item["expires_at"][:16].replace("T", " ")
        table.add_row(
            item["proposal_id"], item["subject"], by, item["reason"], state, until
        )
    return table


def reveal(
    installation: Installation, pipeline: str, value: str, by: str | None, reason: str
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
    body: dict[str, str | None] = {
        "value": value,
        "revealed_to": installation.speaker(by),
        "reason": reason,
    }
    return _ask(
        installation,
        "POST",
        f"/v1/pipelines/{pipeline}/revelations",
        body,
        {"reveal-token": token},
    )


def _ask(
    installation: Installation,
    method: str,
    path: str,
    body: dict[str, str | None] | None = None,
    headers: dict[str, str] | None = None,
) -> Any:
    with installation.door() as client:
        try:
            response = client.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise CommandError(
                f"ingest does not answer ({error}); look at: driftloop status"
            ) from error
    if response.is_error:
        raise CommandError(problem_of(response))
    return response.json()
