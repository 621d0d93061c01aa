"""What the registry can be told from outside."""

from typing import Literal, Self
from urllib.parse import urlsplit

from driftloop.contracts.alerting import ADDRESS, AlertsSection
from driftloop.models.settings import PackageSettings
from driftloop.registry.alerting.secrets import AlertSecret
from driftloop.registry.alerting.smtp import Security
from pydantic import Field, SecretStr, model_validator

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class RegistrySettings(PackageSettings):
    """Keys, people and how long REST waits."""

    people: dict[str, list[str]] = Field(
        default_factory=dict,
        description="name to roles, JSON; empty: whoever holds the token may decide",
    )
    answer_timeout_seconds: float = Field(
        default=10, gt=0, description="REST answers 202 when it takes longer"
    )
    change_streams: int = Field(
        default=32, ge=1, description="callers that follow changes at once"
    )
    mlflow_file_max_bytes: int = Field(
        default=5 * 2**30, gt=0, description="of one file that a client of MLflow logs"
    )
    mlflow_owner_max_bytes: int = Field(
        default=50 * 2**30, gt=0, description="of all files of a run or a logged model"
    )
    mlflow_owner_max_files: int = Field(
        default=10_000, gt=0, description="of a run or a logged model"
    )
    mlflow_total_max_bytes: int = Field(
        default=500 * 2**30,
        gt=0,
        description="of all files of all runs and logged models",
    )
    webhook_hosts: list[str] = Field(
        default_factory=list,
        description="that webhooks may call, JSON; *.example.org: those below; *: all",
    )
    webhook_schemes: list[Literal["https", "http"]] = Field(
        default=["https"], description="of addresses that webhooks may call, JSON"
    )
    webhook_private_addresses: bool = Field(
        default=False, description="webhooks may call private and loopback addresses"
    )
    webhook_key: SecretStr | None = Field(
        default=None,
        description="encrypts webhooks' secrets; default: drawn, in home/secrets",
    )
    webhook_give_up_seconds: float = Field(
        default=86_400, gt=0, description="a delivery that still fails then is over"
    )
    alerts: AlertsSection = Field(
        default=AlertsSection(),
        description="of pipelines whose file names no channel, JSON: as `alerts` there",
    )
    alert_secrets: dict[str, AlertSecret] = Field(
        default_factory=dict,
        description="that channels name, JSON: {name: {value, hosts, projects}}",
    )
    alert_hosts: list[str] = Field(
        default_factory=list,
        description="that alerts may call, JSON; *.example.org: those below; *: all",
    )
    alert_schemes: list[Literal["https", "http"]] = Field(
        default=["https"], description="of addresses that alerts may call, JSON"
    )
    alert_private_addresses: bool = Field(
        default=False, description="alerts may call private and loopback addresses"
    )
    alert_give_up_seconds: float = Field(
        default=86_400, gt=0, description="a notice that still fails then is over"
    )
    alert_console_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s]+$",
        description="where people reach the console; for links in notices",
    )
    alert_smtp_host: str | None = Field(
        default=None, description="mail server; default: no mail is sent"
    )
    alert_smtp_port: int = Field(default=587, ge=1, le=65535)
    alert_smtp_security: Security = Field(
        default="starttls", description="tls: from the first byte, usually port 465"
    )
    alert_smtp_username: str = Field(default="", description="empty: no login")
    alert_smtp_password: SecretStr | None = None
    alert_smtp_trust: str | None = Field(
        default=None,
        description="file with the certificates that the mail server is checked by; "
        "default: the system's",
    )
    alert_email_from: str = Field(
        default="driftloop@localhost", description="sender of mails"
    )
    alert_email_domains: list[str] = Field(
        default=["*"], description="that mails may go to, JSON; *: all"
    )
    openlineage_namespace: str = Field(
        default="driftloop",
        min_length=1,
        description="of jobs and models in OpenLineage; tells installations apart",
    )
    openlineage_url: str | None = Field(
        default=None,
        description="where a collector takes OpenLineage events, such as "
        "https://HOST/api/v1/lineage; default: they stay in the log",
    )
    openlineage_hosts: list[str] = Field(
        default=sorted(LOOPBACK),
        description="hosts that lineage may be sent to, JSON",
    )
    openlineage_token: SecretStr | None = Field(
        default=None, description="bearer token of the collector"
    )

    @model_validator(mode="after")
    def _check_mail(self) -> Self:
        is_near = self.alert_smtp_host in LOOPBACK
        is_open = self.alert_smtp_security == "none"
        if self.alert_smtp_username and is_open and not is_near:
            raise ValueError(
                "DRIFTLOOP_REGISTRY_ALERT_SMTP_SECURITY: a password is not sent in the "
                "open; use starttls or tls"
            )
        if not ADDRESS.fullmatch(self.alert_email_from):
            raise ValueError(
                "DRIFTLOOP_REGISTRY_ALERT_EMAIL_FROM: no address; write "
                "driftloop@example.org"
            )
        return self

    @model_validator(mode="after")
    def _check_collector(self) -> Self:
        if self.openlineage_url is None:
            return self
        url = urlsplit(self.openlineage_url)
        name = "DRIFTLOOP_REGISTRY_OPENLINEAGE_URL"
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{name}: not an http or https URL")
        if url.username or url.password:
            raise ValueError(
                f"{name}: no user or password in the URL; a token goes into "
                "DRIFTLOOP_REGISTRY_OPENLINEAGE_TOKEN"
            )
        if url.hostname not in self.openlineage_hosts:
            raise ValueError(
                f"{name}: host {url.hostname!r} is not allowed; add it to "
                "DRIFTLOOP_REGISTRY_OPENLINEAGE_HOSTS"
            )
        is_near = url.hostname in LOOPBACK
        if self.openlineage_token and url.scheme != "https" and not is_near:
            raise ValueError(f"{name}: a token is sent by https only")
        return self
