"""Settings from the environment: ``DRIFTLOOP_<SERVICE>_X`` before ``DRIFTLOOP_X``.

What is secret may come as a file instead: ``DRIFTLOOP_SECRETS_DIR`` names a folder in
which ``driftloop_api_token`` holds the value of ``DRIFTLOOP_API_TOKEN``.
"""

import ipaddress
import os
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from driftloop.contracts.roles import Rights
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

COMMON_PREFIX = "DRIFTLOOP_"
SECRETS_DIR = f"{COMMON_PREFIX}SECRETS_DIR"
SignatureAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
    "EdDSA",
]  # fmt: skip
"""None that shares a secret with the issuer (HS…), and not ``none``."""


class Oidc(BaseModel):
    """Whose access tokens are believed, and what they say about rights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(min_length=1, description="the claim iss, to the letter")
    audience: str = Field(min_length=1, description="the claim aud holds it")
    jwks: str = Field(description="the provider's keys: https://…, or a file")
    algorithms: list[SignatureAlgorithm] = Field(
        default=["RS256"], min_length=1, description="how tokens may be signed"
    )
    leeway_seconds: float = Field(
        default=30, ge=0, le=300, description="clocks may differ by so much"
    )
    subject_claim: str = Field(
        default="sub",
        description="who it is; has to be unique, and nobody may choose their own",
    )
    roles_claim: str = Field(
        default="roles", description="path to a list, such as realm_access.roles"
    )
    role_map: dict[str, list[str]] = Field(
        default_factory=dict,
        description="groups to roles: {group: [role@project]}; empty: the claim holds "
        "roles",
    )

    @field_validator("jwks")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        if value.startswith("http://") and not is_loopback(value):
            raise ValueError(
                "keys over http:// can be exchanged on their way: use https://, or a "
                "file"
            )
        return value

    @field_validator("role_map")
    @classmethod
    def _are_roles(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        for roles in value.values():
            Rights.of(roles)
        return value


def is_loopback(url: str) -> bool:
    """Whether an address is of this machine only."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Settings(BaseSettings):
    """What each process needs to run; services add their own by subclassing."""

    model_config = SettingsConfigDict(extra="ignore")

    broker: str = Field(default="127.0.0.1:9092", description="bootstrap servers")
    kafka_config: dict[str, str] = Field(
        default_factory=dict, description="more librdkafka settings, such as SASL, JSON"
    )
    home: Path = Path(".driftloop")
    replica: str = Field(default="0", description="stable name of this instance")
    database_url: SecretStr | None = Field(
        default=None,
        description=(
            "SQLAlchemy URL of this service's own database; {service} stands for its "
            "name; default: SQLite under home"
        ),
    )
    artifacts_url: str | None = Field(
        default=None, description="folder or s3://bucket/prefix; default: under home"
    )
    datasets_url: str | None = Field(
        default=None, description="folder or s3://bucket/prefix; default: under home"
    )
    s3_endpoint_url: str | None = None
    s3_access_key: SecretStr | None = None
    s3_secret_key: SecretStr | None = None
    s3_region: str = "us-east-1"
    mode: Literal["local", "production"] = Field(
        default="local",
        description="production: refuse to start with settings that are safe on one "
        "person's machine only",
    )
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=0, ge=0, le=65535, description="0: a free one")
    http_tls_certificate: Path | None = Field(
        default=None, description="PEM with the chain; the interfaces speak TLS then"
    )
    http_tls_key: Path | None = Field(default=None, description="its key, PEM")
    requests_per_second: float | None = Field(
        default=None,
        gt=0,
        description="that one caller may make at the HTTP interface; more: 429",
    )
    requests_at_once: int = Field(
        default=100, ge=1, description="that a caller may make beyond that in a burst"
    )
    allowed_hosts: list[str] = Field(
        default=["127.0.0.1", "localhost", "[::1]"],
        description="Host headers that are answered (DNS rebinding)",
    )
    api_token: SecretStr | None = Field(
        default=None,
        description="the installation's own token: all rights, no person; see "
        "operator_decides",
    )
    operator_decides: bool = Field(
        default=False,
        description="the installation's own token may also approve and reject, in the "
        "name that the request says: where one person does all",
    )
    oidc: Oidc | None = Field(
        default=None,
        description="an identity provider, JSON: issuer, audience, jwks and more",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"
    traces_url: str | None = Field(
        default=None, description="OTLP/HTTP endpoint; default: a file under home"
    )
    watchdog_seconds: float = Field(
        default=60, gt=0, description="no progress in spite of lag: restart"
    )
    retry_limit_seconds: float = Field(
        default=600, gt=0, description="a passing fault longer than this: dead letter"
    )

    @model_validator(mode="after")
    def _has_both(self) -> Self:
        both = {
            "HTTP_TLS_CERTIFICATE": self.http_tls_certificate,
            "HTTP_TLS_KEY": self.http_tls_key,
        }
        if None in both.values() and any(both.values()):
            raise ValueError(f"set both of {' and '.join(both)}, or none")
        for name, path in both.items():
            if path is not None and not path.is_file():
                raise ValueError(f"{name}: {path} is no file")
        return self

    @property
    def tls(self) -> tuple[Path, Path] | None:
        """Certificate and key of the interfaces, where they speak TLS."""
        both = self.http_tls_certificate, self.http_tls_key
        return (both[0], both[1]) if both[0] and both[1] else None

    @property
    def part(self) -> str:
        """Which replicas of the service share their work with this one.

        Each part handles every message, with a consumer group and a database of its
        own. Empty: there is one part.
        """
        return ""

    def database_url_for(self, service: str) -> str:
        """Return the SQLAlchemy URL of a service's own database."""
        if self.database_url:
            return self.database_url.get_secret_value().replace("{service}", service)
        return f"sqlite:///{self.home.resolve()}/databases/{service}-{self.replica}.db"


SettingsT = TypeVar("SettingsT", bound=Settings)


def load_settings(cls: type[SettingsT], service: str, **overrides: Any) -> SettingsT:
    """Read settings of one service from the environment and the secrets' folder.

    Raises
    ------
    pydantic.ValidationError
        Names the setting that is wrong.
    ValueError
        When the secrets' folder is not there: nothing starts without its secrets.
    """
    own_prefix = f"{COMMON_PREFIX}{service.upper()}_"
    secrets_dir = os.environ.get(SECRETS_DIR)
    if secrets_dir is not None and not Path(secrets_dir).is_dir():
        raise ValueError(f"{SECRETS_DIR} is {secrets_dir!r}, which is no folder")

    def sources(
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        **_: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        env = partial(EnvSettingsSource, settings_cls)
        return (
            init_settings,
            env(env_prefix=own_prefix),
            env(env_prefix=COMMON_PREFIX),
            SecretsSettingsSource(settings_cls, secrets_dir, env_prefix=COMMON_PREFIX),
        )

    bound = type(cls.__name__, (cls,), {"settings_customise_sources": sources})
    result: SettingsT = bound(**overrides)
    return result
