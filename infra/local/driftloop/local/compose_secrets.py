"""Make the secrets of ``docker-compose.yml`` (``make secrets``).

Every password is drawn here; none has a default. The folder is readable by the user
only; the files in it can be read inside the containers that they are mounted into.
Secrets that exist are kept.
"""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driftloop.contracts.access import OUTSIDE
from driftloop.contracts.topics import SERVICES
from driftloop.models.signing import generate_key

FOLDER = Path(".driftloop/compose")
TEMPLATE = Path("infra/kafka/server.properties")
ADMIN = "admin"
LISTENERS = ("services", "outside", "controller")
IMAGE_UID = 10001
"""User of our images; the trainer runs as the owner of its signing key instead."""
PLAIN_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
SECRET_BYTES = 24


def kafka_settings(template: str, passwords: dict[str, str]) -> str:
    """Return the broker's settings with its users; ``admin`` must be among them."""
    users = " ".join(f'user_{name}="{word}"' for name, word in passwords.items())
    login = (
        f'{PLAIN_LOGIN} required username="{ADMIN}" password="{passwords[ADMIN]}" '
        f"{users};"
    )
    lines = [
        f"listener.name.{listener}.plain.sasl.jaas.config={login}"
        for listener in LISTENERS
    ]
    return "\n".join([template.rstrip(), "", *lines, ""])


def client_settings(user: str, password: str) -> dict[str, str]:
    """Return what a librdkafka client of that broker needs."""
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": user,
        "sasl.password": password,
    }


def database_script(passwords: dict[str, str]) -> str:
    """Return SQL that gives each service a role and a database of its own."""
    lines = []
    for name, word in passwords.items():
        lines += [
            f"CREATE ROLE {name} LOGIN PASSWORD '{word}';",
            f"CREATE DATABASE {name} OWNER {name};",
            f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;",
        ]
    return "\n".join([*lines, ""])


def make_secrets(folder: Path, template: str) -> bool:
    """Fill ``folder``; return False when it is there already.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    if folder.exists():
        return False
    with written_whole(folder) as fresh:
        _write(fresh, template)
    return True


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Give a folder to write to that has its name only once all of it is there.

    It is readable by the user only.
    """
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    yield fresh
    fresh.rename(folder)


def draw() -> str:
    """Return a secret that nobody can guess."""
    return secrets.token_urlsafe(SECRET_BYTES)


def _write(fresh: Path, template: str) -> None:
    for name, text in _files(template).items():
        path = fresh / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o444)
    generate_key(fresh / "trainer_key.pem", fresh / "trusted_trainer.pem")
    owner = os.getuid() or IMAGE_UID  # a service never runs as root
    if os.getuid() == 0:
        os.chown(fresh / "trainer_key.pem", owner, owner)
    (fresh / "trusted_trainer.pem").chmod(0o444)
    (fresh / "env").write_text(f"DRIFTLOOP_UID={owner}\n", encoding="utf-8")


def _files(template: str) -> dict[str, str]:
    users = {name: draw() for name in (ADMIN, *SERVICES, *OUTSIDE)}
    databases = {name: draw() for name in SERVICES}
    files = {
        "api_token": draw(),
        "grafana_password": draw(),
        "postgres_password": draw(),
        "privacy_key": draw(),
        "s3_access_key": secrets.token_hex(10),
        "s3_secret_key": draw(),
        "webhook_key": draw(),
        "kafka_server.properties": kafka_settings(template, users),
        "postgres_services.sql": database_script(databases),
    }
    for name, word in users.items():
        files[f"{name}_kafka_config"] = json.dumps(client_settings(name, word))
    for name, word in databases.items():
        files[f"{name}_database_url"] = (
            f"postgresql+psycopg://{name}:{word}@postgres:5432/{name}"
        )
    return files


def main() -> int:
    """Make the secrets below the current folder, a checkout of driftloop."""
    if not TEMPLATE.is_file():
        sys.stderr.write(f"no {TEMPLATE} here; run this in a checkout of driftloop\n")
        return 1
    made = make_secrets(FOLDER, TEMPLATE.read_text("utf-8"))
    sys.stdout.write(
        f"{'made' if made else 'kept'} the secrets in {FOLDER}\n"
        f"start with: docker compose --env-file {FOLDER}/env up --build --wait\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
