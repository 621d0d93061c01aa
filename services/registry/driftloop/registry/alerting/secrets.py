"""Secrets that channels name: kept by the operator, bound to hosts and projects."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

SETTING = "DRIFTLOOP_REGISTRY_ALERT_SECRETS"
EVERYWHERE = "*"


class SecretRefusedError(ValueError):
    """A secret that is not there, or not for this; the text says what to do."""


class AlertSecret(BaseModel):
    """A secret, and what it is for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: SecretStr = Field(description="URL of a chat's webhook, key, or token")
    hosts: list[str] = Field(
        default=[],
        description="that a template may send it to; a URL goes to its own, a key that "
        "signs to none",
    )
    projects: list[str] = Field(
        default=[EVERYWHERE], description="whose pipelines may use it"
    )


class Secrets:
    """What the operator gave, handed out only for what it was given for."""

    def __init__(self, given: Mapping[str, AlertSecret]) -> None:
        self._given = given

    def url(self, name: str, project: str) -> str:
        """Return a secret that is an address."""
        return self._of(name, project).value.get_secret_value().strip()

    def key(self, name: str, project: str) -> str:
        """Return a secret that signs, and leaves nowhere."""
        return self._of(name, project).value.get_secret_value().strip()

    def sent_to(self, name: str, project: str, url: str) -> str:
        """Return a secret that is sent to the host of an address.

        Raises
        ------
        SecretRefusedError
            When it is not for that host: a pipeline file says where templates go.
        """
        found = self._of(name, project)
        host = (urlsplit(url).hostname or "").rstrip(".")
        if host not in [each.lower() for each in found.hosts]:
            raise SecretRefusedError(
                f"secret {name!r} is not for {host!r}; the operator lists hosts with "
                f"it in {SETTING}"
            )
        return found.value.get_secret_value().strip()

    def _of(self, name: str, project: str) -> AlertSecret:
        found = self._given.get(name)
        if found is None:
            raise SecretRefusedError(
                f"there is no secret {name!r}; the operator gives it in {SETTING}"
            )
        if EVERYWHERE not in found.projects and project not in found.projects:
            raise SecretRefusedError(
                f"secret {name!r} is not for project {project!r}; the operator lists "
                f"projects with it in {SETTING}"
            )
        return found
