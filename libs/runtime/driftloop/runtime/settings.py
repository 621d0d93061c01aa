"""Settings from the environment: ``DRIFTLOOP_<SERVICE>_X`` before ``DRIFTLOOP_X``.

What is secret may come as a file instead: ``DRIFTLOOP_SECRETS_DIR`` names a folder in
which ``driftloop_api_token`` holds the value of ``DRIFTLOOP_API_TOKEN``.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

COMMON_PREFIX = "DRIFTLOOP_"
SECRETS_DIR = f"{COMMON_PREFIX}SECRETS_DIR"


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
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=0, ge=0, le=65535, description="0: a free one")
    allowed_hosts: list[str] = Field(
        default=["127.0.0.1", "localhost", "[::1]"],
        description="Host headers that are answered (DNS rebinding)",
    )
    api_token: SecretStr | None = Field(
        default=None, description="bearer token of the HTTP interface"
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
