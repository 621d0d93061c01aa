"""The interfaces with TLS, by HTTP and gRPC, and a production that does not start."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from driftloop.local.kafka import KafkaNode
from driftloop.local.processes import LOOPBACK, free_port
from driftloop.runtime.admin import create_topics
from driftloop.scorer.open_inference import open_inference_pb2 as pb

from tests.component.cli import run_cli
from tests.component.processes import TOKEN, ServiceProcess
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker]


def certified(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for this machine, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "driftloop")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(LOOPBACK))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "tls.pem", folder / "tls.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def speaking_tls(name: str, home: Path, broker: str, **more: object) -> ServiceProcess:
    certificate, key = certified(home)
    process = ServiceProcess(
        name, home, broker,
        HTTP_TLS_CERTIFICATE=certificate, HTTP_TLS_KEY=key, **more,
    )  # fmt: skip
    process.url = process.url.replace("http://", "https://")
    process.client = httpx.Client(
        base_url=process.url,
        headers={"Authorization": f"Bearer {TOKEN}"},
        verify=ssl.create_default_context(cafile=certificate),
    )
    return process


def test_registry_speaks_tls_only(
    kafka: KafkaNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_topics(kafka.bootstrap)
    with speaking_tls("registry", tmp_path, kafka.bootstrap) as registry:
        assert registry.client.get("/api/v1/models").status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{LOOPBACK}:{registry.port}/readyz")
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            httpx.get(f"{registry.url}/readyz")  # not checked by this CA
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.pem"))
        run_cli(tmp_path, kafka.bootstrap, "models", REGISTRY_URL=registry.url)
        monkeypatch.delenv("SSL_CERT_FILE")
        said = run_cli(
            tmp_path, kafka.bootstrap, "models", code=1, REGISTRY_URL=registry.url
        )
        assert "certificate" in said.lower()


def test_grpc_speaks_tls_as_well(kafka: KafkaNode, tmp_path: Path) -> None:
    create_topics(kafka.bootstrap)
    port = free_port()
    with speaking_tls("scorer", tmp_path, kafka.bootstrap, GRPC_PORT=port):
        root = (tmp_path / "tls.pem").read_bytes()
        with grpc.secure_channel(
            f"{LOOPBACK}:{port}", grpc.ssl_channel_credentials(root)
        ) as channel:
            ask = channel.unary_unary(
                "/inference.GRPCInferenceService/ServerLive",
                request_serializer=pb.ServerLiveRequest.SerializeToString,
                response_deserializer=pb.ServerLiveResponse.FromString,
            )
            assert ask(pb.ServerLiveRequest(), timeout=30).live


def test_production_does_not_start_unsafely(kafka: KafkaNode, tmp_path: Path) -> None:
    process = ServiceProcess(
        "registry",
        tmp_path,
        kafka.bootstrap,
        environment={"DRIFTLOOP_MODE": "production"},
    )
    process.start(wait=False)
    wait_until(lambda: process.exit_code() is not None, 60)
    assert process.exit_code() != 0
    said = process.log.read_text()
    assert "security.protocol is PLAINTEXT" in said
    assert "DRIFTLOOP_OPERATOR_DECIDES" in said
    assert TOKEN not in said
