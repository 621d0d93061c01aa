"""Make the Secrets of ``infra/kubernetes``.

``make kubernetes-secrets POSTGRES=host:port``; the address is that which pods see.
Every password is drawn here; none has a default. Only the store's keys come from
outside: ``DRIFTLOOP_S3_ACCESS_KEY`` and ``DRIFTLOOP_S3_SECRET_KEY``. The folder is
readable by the user only. Secrets that exist are kept.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftloop.contracts.access import OUTSIDE
from driftloop.contracts.topics import SERVICES, WITH_DOOR
from driftloop.local.compose_secrets import database_script, draw, written_whole
from driftloop.local.kubernetes import PASSWORDS
from driftloop.models.signing import generate_key

FOLDER = Path(".driftloop/kubernetes")
NAMESPACE = "driftloop"
KAFKA_CA = "/etc/driftloop/kafka/ca.crt"
"""Where pods have the certificate by which they know the broker."""
STORE_KEYS = ("DRIFTLOOP_S3_ACCESS_KEY", "DRIFTLOOP_S3_SECRET_KEY")
Files = dict[str, str]


def client_settings(user: str, password: str, authority: str = KAFKA_CA) -> Files:
    """Return what a librdkafka client of Strimzi's broker needs.

    Parameters
    ----------
    authority : path of the certificate that the client knows the broker by.
    """
    return {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": authority,
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": password,
    }


def secrets_of_services(
    postgres: str, store: Mapping[str, str], kafka: Files, databases: Files
) -> dict[str, Files]:
    """Return the Secret of each service: file name to content."""
    api_token, privacy_key, webhook_key = (draw() for _ in range(3))
    found = {}
    for name in SERVICES:
        files = {
            "driftloop_database_url": (
                f"postgresql+psycopg://{name}:{databases[name]}@{postgres}/{name}"
            ),
            "driftloop_kafka_config": json.dumps(client_settings(name, kafka[name])),
            **store,
        }
        if name in WITH_DOOR:
            files["driftloop_api_token"] = api_token
        found[name] = files
    found["ingest"]["driftloop_privacy_key"] = privacy_key
    found["registry"]["driftloop_webhook_key"] = webhook_key
    return found


def make_secrets(folder: Path, postgres: str, store: Mapping[str, str]) -> bool:
    """Fill ``folder``; return False when it is there already.

    Parameters
    ----------
    postgres : ``host:port`` as pods see it.
    store : files ``driftloop_s3_access_key`` and ``driftloop_s3_secret_key``.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    if folder.exists():
        return False
    with written_whole(folder) as fresh:
        _write(fresh, postgres, store)
    return True


def _write(fresh: Path, postgres: str, store: Mapping[str, str]) -> None:
    kafka = {name: draw() for name in (*SERVICES, *OUTSIDE)}
    databases = {name: draw() for name in SERVICES}
    services = secrets_of_services(postgres, store, kafka, databases)
    generate_key(fresh / "trainer_key.pem", fresh / "trainer.pem")
    objects = [
        *(_secret(f"driftloop-{name}", files) for name, files in services.items()),
        _secret(PASSWORDS, kafka),
        _secret("driftloop-keda", {"username": "keda", "password": draw()}),
        _secret("driftloop-store", store),
        _secret("driftloop-trainer-key", _read(fresh / "trainer_key.pem")),
        _object(
            "ConfigMap", "driftloop-trusted-keys", data=_read(fresh / "trainer.pem")
        ),
    ]
    files = {
        # what begins with a brace, kubectl takes for one JSON document
        "secrets.yaml": "".join(f"---\n{json.dumps(each)}\n" for each in objects),
        "postgres_services.sql": database_script(databases),
        "api_token": services["registry"]["driftloop_api_token"],
    }
    for name in OUTSIDE:
        config = client_settings(name, kafka[name], "ca.crt")
        files[f"{name}_kafka_config"] = json.dumps(config)
    for name, text in files.items():
        path = fresh / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")


def _read(path: Path) -> Files:
    return {path.name: path.read_text("utf-8")}


def _secret(name: str, files: Mapping[str, str]) -> dict[str, Any]:
    return _object("Secret", name, type="Opaque", stringData=dict(files))


def _object(kind: str, name: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


def main() -> int:
    """Make the secrets below the current folder."""
    if len(sys.argv) != 2 or ":" not in sys.argv[1]:
        sys.stderr.write("name the database's server: POSTGRES=host:port\n")
        return 2
    missing = [name for name in STORE_KEYS if not os.environ.get(name)]
    if missing:
        sys.stderr.write(f"set the store's keys: {', '.join(missing)}\n")
        return 2
    store = {name.lower(): os.environ[name] for name in STORE_KEYS}
    made = make_secrets(FOLDER, sys.argv[1], store)
    sys.stdout.write(
        f"{'made' if made else 'kept'} the secrets in {FOLDER}\n"
        f"psql --file {FOLDER}/postgres_services.sql, as who may create databases\n"
        f"kubectl apply --filename {FOLDER}/secrets.yaml\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
