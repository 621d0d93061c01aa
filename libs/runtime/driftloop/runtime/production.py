"""What must not be in production: settings that are safe on one machine only."""

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from driftloop.runtime.settings import Settings, is_loopback

MIN_TOKEN_LENGTH = 32
"""Characters; the tokens that `make secrets` draws have 43."""
ENCRYPTED = frozenset({"SSL", "SASL_SSL"})
VERIFIED = "verify-full"


class UnsafeSettingsError(ValueError):
    """Production was asked for with settings that are not safe there."""


def refuse_unsafe(settings: Settings) -> None:
    """Return if the settings may be used, as in ``mode: local`` all may.

    Raises
    ------
    UnsafeSettingsError
        Names every setting that is not safe, why, and what to set.
    """
    found = list(unsafe(settings)) if settings.mode == "production" else []
    if found:
        raise UnsafeSettingsError(
            "DRIFTLOOP_MODE is production, and these settings are not safe there:\n- "
            + "\n- ".join(found)
        )


def unsafe(settings: Settings) -> Iterator[str]:
    """Return what is not safe between machines, each with its remedy."""
    yield from _broker(settings)
    yield from _http(settings)
    yield from _stores(settings)


def _broker(settings: Settings) -> Iterator[str]:
    config = settings.kafka_config
    protocol = config.get("security.protocol", "PLAINTEXT").upper()
    if protocol not in ENCRYPTED:
        yield (
            f"DRIFTLOOP_KAFKA_CONFIG: security.protocol is {protocol}: who is on the "
            "way reads and writes events; set SASL_SSL (with SCRAM) or SSL"
        )
    if config.get("enable.ssl.certificate.verification", "true").lower() == "false":
        yield (
            "DRIFTLOOP_KAFKA_CONFIG: enable.ssl.certificate.verification is false: "
            "anybody can pass for the broker; leave it out and set ssl.ca.location"
        )
    if config.get("ssl.endpoint.identification.algorithm", "https").lower() == "none":
        yield (
            "DRIFTLOOP_KAFKA_CONFIG: ssl.endpoint.identification.algorithm is none: "
            "any certificate of the CA passes for the broker; leave it out"
        )


def _http(settings: Settings) -> Iterator[str]:
    if not is_loopback(f"http://{settings.http_host}") and not settings.http_tls_key:
        yield (
            f"DRIFTLOOP_HTTP_HOST is {settings.http_host}, without TLS: tokens and "
            "rows can be read on their way; set DRIFTLOOP_HTTP_TLS_CERTIFICATE and "
            "DRIFTLOOP_HTTP_TLS_KEY, or listen on loopback behind what ends TLS"
        )
    if settings.operator_decides:
        yield (
            "DRIFTLOOP_OPERATOR_DECIDES is true: one token approves in anybody's name; "
            "set it to false, people approve with their own credentials"
        )
    token = settings.api_token
    if token is not None and len(token.get_secret_value()) < MIN_TOKEN_LENGTH:
        yield (
            f"DRIFTLOOP_API_TOKEN is shorter than {MIN_TOKEN_LENGTH} characters and "
            "can be guessed; draw one with: openssl rand -base64 32"
        )
    if settings.oidc is None and token is None:
        yield (
            "neither DRIFTLOOP_OIDC nor DRIFTLOOP_API_TOKEN is set: nobody can be "
            "known; set DRIFTLOOP_OIDC"
        )


def _stores(settings: Settings) -> Iterator[str]:
    for name, url in (
        ("DRIFTLOOP_TRACES_URL", settings.traces_url),
        ("DRIFTLOOP_S3_ENDPOINT_URL", settings.s3_endpoint_url),
    ):
        if url and url.startswith("http://") and not is_loopback(url):
            yield f"{name} is {url}: it can be read on its way; set an https:// address"
    database = settings.database_url
    if database is None:
        return
    url = database.get_secret_value()
    parts = urlsplit(url)
    is_far = bool(parts.hostname) and not is_loopback(url)
    if is_far and parse_qs(parts.query).get("sslmode") != [VERIFIED]:
        yield (
            "DRIFTLOOP_DATABASE_URL: the database is on another machine and its "
            f"certificate is not checked; add ?sslmode={VERIFIED}&sslrootcert=FILE"
        )
