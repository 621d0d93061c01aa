"""Settings that production refuses, each with what to set instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from driftloop.runtime.production import UnsafeSettingsError, refuse_unsafe, unsafe
from driftloop.runtime.settings import Settings
from pydantic import ValidationError

TOKEN = "t" * 43
KAFKA = {"security.protocol": "SASL_SSL", "ssl.ca.location": "/ca.pem"}
POSTGRESQL = "postgresql+psycopg://driftloop@db.example.org/{service}"


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    file = tmp_path / "tls.pem"
    file.touch()
    return file


def settings(pem: Path, **more: Any) -> Settings:
    """Settings as production wants them, but for some."""
    good: dict[str, Any] = {
        "mode": "production",
        "kafka_config": KAFKA,
        "http_host": "192.0.2.7",
        "http_tls_certificate": pem,
        "http_tls_key": pem,
        "api_token": TOKEN,
        "traces_url": "https://collector.example.org/v1/traces",
        "s3_endpoint_url": "https://s3.example.org",
        "database_url": f"{POSTGRESQL}?sslmode=verify-full",
    }
    return Settings.model_validate(good | more)


def test_production_takes_what_is_safe(pem: Path) -> None:
    assert list(unsafe(settings(pem))) == []
    refuse_unsafe(settings(pem))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("security.protocol is PLAINTEXT", {"kafka_config": {}}),
        (
            "security.protocol is SASL_PLAINTEXT",
            {"kafka_config": {"security.protocol": "sasl_plaintext"}},
        ),
        (
            "enable.ssl.certificate.verification is false",
            {"kafka_config": KAFKA | {"enable.ssl.certificate.verification": "false"}},
        ),
        (
            "ssl.endpoint.identification.algorithm is none",
            {"kafka_config": KAFKA | {"ssl.endpoint.identification.algorithm": "none"}},
        ),
        (
            "DRIFTLOOP_HTTP_HOST is 192.0.2.7",
            {"http_tls_certificate": None, "http_tls_key": None},
        ),
        ("DRIFTLOOP_OPERATOR_DECIDES", {"operator_decides": True}),
        ("DRIFTLOOP_API_TOKEN is shorter than 32", {"api_token": "secret"}),
        ("neither DRIFTLOOP_OIDC nor DRIFTLOOP_API_TOKEN", {"api_token": None}),
        ("DRIFTLOOP_TRACES_URL", {"traces_url": "http://collector:4318/v1/traces"}),
        ("DRIFTLOOP_S3_ENDPOINT_URL", {"s3_endpoint_url": "http://s3:9000"}),
        ("sslmode=verify-full", {"database_url": POSTGRESQL}),
        ("sslmode=verify-full", {"database_url": f"{POSTGRESQL}?sslmode=require"}),
    ],
)
def test_each_unsafe_setting_is_named(
    pem: Path, name: str, changes: dict[str, Any]
) -> None:
    """Alone it is one line; in local mode nothing is refused."""
    (found,) = unsafe(settings(pem, **changes))
    assert name in found
    with pytest.raises(UnsafeSettingsError, match="DRIFTLOOP_MODE is production"):
        refuse_unsafe(settings(pem, **changes))
    refuse_unsafe(settings(pem, mode="local", **changes))


def test_what_stays_on_this_machine_is_safe(pem: Path) -> None:
    """Behind something that ends TLS beside the service."""
    near = settings(
        pem,
        http_host="127.0.0.1",
        http_tls_certificate=None,
        http_tls_key=None,
        traces_url="http://127.0.0.1:4318/v1/traces",
        s3_endpoint_url="http://localhost:9000",
        database_url="postgresql+psycopg://driftloop@127.0.0.1/{service}",
    )
    assert list(unsafe(near)) == []
    assert list(unsafe(settings(pem, database_url=None))) == []


def test_half_of_tls_is_refused(pem: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="HTTP_TLS_KEY"):
        settings(pem, http_tls_key=None)
    with pytest.raises(ValidationError, match="HTTP_TLS_CERTIFICATE: .* is no file"):
        settings(pem, http_tls_certificate=tmp_path / "none.pem")
