"""Payloads that travel with a row: what ``data.attachments`` of a pipeline file says.

The row carries a reference, never the bytes; what a reference is, and how bytes are
told apart, is in ``payloads.py``.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from driftloop.contracts.base import Section
from driftloop.contracts.checks import Severity
from driftloop.contracts.privacy import PrivacyRule
from pydantic import Field

MIB = 1024 * 1024
MAX_PAYLOAD_BYTES = 64 * MIB
"""What a pipeline file may allow at most; a validator reads each payload once."""

MediaType = Literal[
    "image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/tiff",
    "audio/wav", "audio/flac", "audio/ogg", "audio/mpeg",
    "application/pdf", "text/plain",
]  # fmt: skip


class Attachment(Section):
    """What payloads of one column are right."""

    media_types: list[MediaType] = Field(
        min_length=1, description="what its bytes may be; decided by the bytes"
    )
    max_bytes: int = Field(
        default=8 * MIB, gt=0, le=MAX_PAYLOAD_BYTES, description="of one payload"
    )
    required: bool = Field(default=False, description="whether each row needs one")
    severity: Severity = Field(
        default="quarantine", description="of a payload that is not right"
    )
    subject: str | None = Field(
        default=None,
        description="the column that says whose payload it is; erasing that person "
        "deletes it",
    )


def check_attachments(
    attachments: Mapping[str, Attachment],
    taken: Iterable[str],
    rules: Mapping[str, PrivacyRule],
) -> None:
    """Refuse attachments whose name means something else, and rules without effect.

    Parameters
    ----------
    taken : names of other columns.
    rules : ``data.privacy``.

    Raises
    ------
    ValueError
        Names the column and the remedy.
    """
    for name in sorted(set(taken) & set(attachments)):
        raise ValueError(
            f"attachments.{name}: {name} is already the name of another column; "
            "rename one of them"
        )
    for name, attachment in attachments.items():
        if name in rules and rules[name].action != "drop":
            raise ValueError(
                f"privacy.{name}: the bytes of an attachment stay as they are, so "
                "only drop has an effect on it; use drop, or name its subject under "
                f"attachments.{name}"
            )
        if attachment.subject is not None and attachment.subject in attachments:
            raise ValueError(
                f"attachments.{name}.subject: {attachment.subject} is an attachment; "
                "name a column that says whose payload it is"
            )
