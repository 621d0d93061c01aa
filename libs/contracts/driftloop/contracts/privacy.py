"""What becomes of personal data: the rules of ``data.privacy`` in a pipeline file.

They hold at the data door, before anything is stored or published onward; what each
does is told in docs/privacy.md.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Action = Literal["drop", "mask", "hash", "tokenise", "encrypt"]
REDACTED = "[redacted]"
"""What ingest puts in place of a value that is not what its feature says."""
ENCRYPTED = "enc1"
"""What an encrypted value begins with: ``enc1:SUBJECT:HEX``."""
MAX_KEPT_CHARACTERS = 8
ID_ACTIONS = frozenset({"hash", "tokenise"})
"""An id has to stay one value for one row, so that labels find their rows."""
FEATURE_ACTIONS = frozenset({"mask", "hash", "tokenise"})
"""What is left is a text, and a model can use it only as a category."""


class PrivacyRule(BaseModel):
    """What becomes of one column.

    Examples
    --------
    >>> PrivacyRule.model_validate("hash").action
    'hash'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action = Field(description="see docs/privacy.md")
    keep_last: int = Field(
        default=0,
        ge=0,
        le=MAX_KEPT_CHARACTERS,
        description="mask: last characters that stay, never more than half of a value",
    )
    subject: str | None = Field(
        default=None, description="encrypt: the column that says whose value it is"
    )

    @model_validator(mode="before")
    @classmethod
    def _action_alone(cls, value: Any) -> Any:
        return {"action": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _options_fit(self) -> "PrivacyRule":
        if self.action == "encrypt" and self.subject is None:
            raise ValueError(
                "encrypt needs subject, the column that says whose value it is: "
                "{action: encrypt, subject: customer_id}"
            )
        if self.action != "encrypt" and self.subject is not None:
            raise ValueError(f"subject belongs to encrypt, not to {self.action}")
        if self.action != "mask" and self.keep_last:
            raise ValueError(f"keep_last belongs to mask, not to {self.action}")
        return self


def check_rules(
    rules: Mapping[str, PrivacyRule],
    *,
    row_id: str,
    fixed: Iterable[str],
    feature_types: Mapping[str, str],
) -> None:
    """Refuse rules that would take away what the chain works with.

    Parameters
    ----------
    row_id : the id column.
    fixed : columns that have to stay as they are (time, target).
    feature_types : by column.

    Raises
    ------
    ValueError
        Names the column and the remedy.
    """
    if rules and not feature_types:
        raise ValueError(
            "privacy needs features: a column that nobody has named cannot be told "
            "from personal data; list the features"
        )
    kept = set(fixed)
    for name, rule in rules.items():
        if name in kept:
            raise ValueError(
                f"privacy.{name}: the time and the target have to stay as they are; "
                "remove the rule"
            )
        if name == row_id and rule.action not in ID_ACTIONS:
            raise ValueError(
                f"privacy.{name}: labels find their rows by the id; use hash or "
                "tokenise"
            )
        if name in feature_types and (
            rule.action not in FEATURE_ACTIONS or feature_types[name] != "category"
        ):
            raise ValueError(
                f"privacy.{name}: nothing is left of it that a model can use; remove "
                "it from features, or make it a category and use mask, hash or tokenise"
            )
