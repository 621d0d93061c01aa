"""docker-compose.yml is valid, closed by default, and fits the services' settings."""

import importlib
import json
import os
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from driftloop.contracts.topics import SERVICES
from driftloop.local import stack
from driftloop.local.compose_secrets import make_secrets
from driftloop.runtime.settings import Settings, load_settings
from jsonschema.protocols import Validator

from tests.deployment.programs import INSTALL_TIMEOUT_S, built_with_go

OFFICIAL_SCHEMA = Path(__file__).parent / "vendor/compose-spec.json"
CHECKER = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"
REACHABLE = {"kafka", "postgres", "s3", "collector", "prometheus"}
"""What a service's network may hold beside it; Prometheus reads its metrics."""
DOORS = {"scorer": "scorer-door"}
"""Who stands in front of a service, has its port, and reaches nothing else."""
OTHER_SETTINGS = {"DRIFTLOOP_SECRETS_DIR"}
"""Read before there are settings."""


@pytest.fixture(scope="module")
def official() -> Validator:
    """The Compose Specification's own JSON Schema."""
    schema = json.loads(OFFICIAL_SCHEMA.read_text("utf-8"))
    return jsonschema.validators.validator_for(schema)(schema)


def test_file_is_valid(official: Validator, compose: dict[str, Any]) -> None:
    """The specification's schema has nothing to say."""
    assert [error.message for error in official.iter_errors(compose)] == []


def test_misspelt_key_is_refused(official: Validator, compose: dict[str, Any]) -> None:
    """Negative control: one wrong key in one service."""
    compose["services"]["ingest"]["enviroment"] = {}
    assert not official.is_valid(compose)


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The specification's own checker, built where Go is installed."""
    if given := os.environ.get("COMPOSE_CHECKER"):
        return Path(given)
    without = "no Go here: checked by the specification's schema only"
    return built_with_go(CHECKER, tmp_path_factory.mktemp("go"), without) / "cmd"


def check(checker: Path, file: Path) -> subprocess.CompletedProcess[str]:
    # It reads no environment, so a variable that must be given cannot be.
    return subprocess.run(
        [str(checker), "-no-interpolation", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(INSTALL_TIMEOUT_S + 60)
def test_file_passes_the_specifications_checker(
    checker: Path, root: Path, tmp_path: Path
) -> None:
    """References between services, networks, volumes and secrets hold as well."""
    file = root / "docker-compose.yml"
    result = check(checker, file)
    assert result.returncode == 0, result.stderr
    broken = tmp_path / "docker-compose.yml"
    for wrong in ("enviroment", "networks: [nowhere]\n    x-environment"):
        text = file.read_text("utf-8").replace("    environment:", f"    {wrong}:", 1)
        broken.write_text(text, encoding="utf-8")
        assert check(checker, broken).returncode != 0  # negative control


def networks_of(compose: dict[str, Any], name: str) -> set[str]:
    return set(compose["services"][name].get("networks", ["default"]))


def shared(compose: dict[str, Any]) -> list[tuple[str, str]]:
    """Return pairs of our services that could talk to each other."""
    return [
        (one, other)
        for one, other in combinations(SERVICES, 2)
        if networks_of(compose, one) & networks_of(compose, other)
    ]


def test_services_cannot_reach_each_other(compose: dict[str, Any]) -> None:
    """Rule 1, on the wire: no network holds two services."""
    assert shared(compose) == []
    compose["services"]["ingest"]["networks"].append("scorer")
    assert shared(compose) == [("ingest", "scorer")]  # negative control


def members_of(compose: dict[str, Any], network: str) -> set[str]:
    return {
        name for name in compose["services"] if network in networks_of(compose, name)
    }


def unneeded(compose: dict[str, Any]) -> list[str]:
    """Return networks on which a service, or its door, could reach too much."""
    allowed = {name: [{name} | REACHABLE] for name in SERVICES}
    for service, door in DOORS.items():
        allowed[service].append({service, door})
        allowed[door] = [{service, door}, {door, "prometheus"}]
    masquerade = "com.docker.network.bridge.enable_ip_masquerade"
    found = []
    for name, groups in allowed.items():
        for network in networks_of(compose, name):
            options = compose["networks"][network]
            members = members_of(compose, network)
            if members == {name}:  # for its port
                is_closed = options["driver_opts"][masquerade] == "false"
            else:
                is_closed = members in groups and options["internal"] is True
            if not is_closed:
                found.append(f"{name}: {network}")
    return found


def test_service_reaches_only_what_it_needs(compose: dict[str, Any]) -> None:
    """Its own network is internal; the one for its port has no other member."""
    assert unneeded(compose) == []
    for service in SERVICES:
        assert members_of(compose, service) == {service} | REACHABLE
    compose["services"]["scorer-door"]["networks"].append("registry")
    compose["networks"]["trainer"]["internal"] = False
    assert unneeded(compose) == [
        "trainer: trainer",
        "registry: registry",
        "scorer-door: registry",
    ]  # negative control


def openings(compose: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {port}"
        for name, service in compose["services"].items()
        for port in service.get("ports", [])
        if not str(port).startswith("127.0.0.1:")
    ]


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    """Nothing listens where another machine could reach it."""
    assert openings(compose) == []
    compose["services"]["console"]["ports"] = ["7000:8000"]
    assert openings(compose) == ["console: 7000:8000"]  # negative control


def loose(service: dict[str, Any]) -> Iterator[str]:
    """Name what a container may do that it need not."""
    if service.get("read_only") is not True:
        yield "root file system is writable"
    if service.get("cap_drop") != ["ALL"]:
        yield "keeps capabilities"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "may gain privileges"
    if str(service.get("user", "")).split(":")[0] in ("root", "0"):
        yield "runs as root"
    if service.get("privileged") or service.get("cap_add"):
        yield "asks for privileges"


def test_containers_are_closed(compose: dict[str, Any]) -> None:
    """Read-only, no capabilities, no way to more rights."""
    for name, service in compose["services"].items():
        assert list(loose(service)) == [], name
    assert len(list(loose({"user": "0:0", "privileged": True}))) == 5


def plain_secrets(compose: dict[str, Any]) -> list[str]:
    """Return environment variables that hold a secret instead of a file's name."""
    words = ("PASSWORD", "SECRET", "TOKEN", "KEY")
    return [
        f"{name}: {variable}"
        for name, service in compose["services"].items()
        for variable, value in service.get("environment", {}).items()
        if any(word in variable for word in words) and not str(value).startswith("/")
    ]


def test_secrets_come_from_files(compose: dict[str, Any]) -> None:
    """No password stands in the file, not even a default one."""
    assert plain_secrets(compose) == []
    compose["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"] = "postgres"
    assert plain_secrets(compose) == ["postgres: POSTGRES_PASSWORD"]


def test_make_secrets_makes_all_of_them(
    compose: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    """Each secret that is named has its file, readable for its owner's group only."""
    folder = tmp_path / "compose"
    template = (root / "infra/kafka/server.properties").read_text("utf-8")
    assert make_secrets(folder, template)
    wanted = {Path(secret["file"]).name for secret in compose["secrets"].values()}
    made = {path.name for path in folder.iterdir()}
    assert wanted <= made
    assert folder.stat().st_mode & 0o077 == 0
    used = {
        secret["source"] if isinstance(secret, dict) else secret
        for service in compose["services"].values()
        for secret in service.get("secrets", [])
    }
    assert used == set(compose["secrets"])
    before = (folder / "api_token").read_text("utf-8")
    assert not make_secrets(folder, template)  # what exists is kept
    assert (folder / "api_token").read_text("utf-8") == before


def settings_class(service: str) -> type[Settings]:
    module = importlib.import_module(f"driftloop.{service}.app")
    settings: type[Settings] = module.SERVICE.settings
    return settings


def unknown_settings(service: str, names: set[str], fields: set[str]) -> set[str]:
    """Return variables that no setting of the service reads."""
    known = {f"DRIFTLOOP_{field.upper()}" for field in fields}
    known |= {f"DRIFTLOOP_{service.upper()}_{field.upper()}" for field in fields}
    return {name for name in names if name.upper() not in known | OTHER_SETTINGS}


@pytest.mark.parametrize("service", SERVICES)
def test_variables_are_settings(compose: dict[str, Any], service: str) -> None:
    """Each DRIFTLOOP_ variable and each mounted secret is a setting of its service."""
    fields = set(settings_class(service).model_fields)
    described = compose["services"][service]
    names = {n for n in described["environment"] if n.startswith("DRIFTLOOP_")}
    names |= {
        secret["target"]
        for secret in described["secrets"]
        if isinstance(secret, dict) and secret["target"].startswith("driftloop_")
    }
    assert unknown_settings(service, names, fields) == set()
    assert unknown_settings(service, {"DRIFTLOOP_BROKRE"}, fields)  # negative control


def without_door(compose: dict[str, Any]) -> list[str]:
    """Return services with an interface that lack their token or their port."""
    local = {service.name: service for service in stack.SERVICES}
    return [
        name
        for name in SERVICES
        if local[name].has_api
        and not (
            {"source": "api_token", "target": "driftloop_api_token"}
            in compose["services"][name]["secrets"]
            and f"127.0.0.1:{local[name].port}:8000"
            in compose["services"][DOORS.get(name, name)].get("ports", [])
        )
    ]


def test_interfaces_are_where_the_local_stack_has_them(compose: dict[str, Any]) -> None:
    """Whoever has an interface has its token, and the port that people know."""
    assert without_door(compose) == []
    compose["services"]["registry"]["secrets"].pop()  # negative control: trusted key
    assert without_door(compose) == []
    compose["services"]["registry"]["secrets"].pop()
    del compose["services"]["console"]["ports"]
    assert without_door(compose) == ["registry", "console"]


@pytest.mark.parametrize("service", SERVICES)
def test_health_is_readiness(compose: dict[str, Any], service: str) -> None:
    """A container is healthy when its process says that it is ready."""
    command = compose["services"][service]["healthcheck"]["test"]
    assert command[0] == "CMD"
    assert "/readyz" in command[-1]
    compile(command[-1], service, "exec")


def test_the_door_is_ready_when_a_scorer_is(compose: dict[str, Any]) -> None:
    """And it comes with the file that the balancer's own tests are about."""
    door = compose["services"]["scorer-door"]
    assert door["healthcheck"]["test"][-1].endswith(":8404/readyz")
    assert door["volumes"] == ["./infra/haproxy:/etc/haproxy:ro"]
    assert door["command"] == ["haproxy", "-f", "/etc/haproxy/haproxy.cfg"]


@pytest.fixture
def own_names(compose: dict[str, Any], tmp_path: Path) -> dict[str, str]:
    """What the scorer's entry point makes of its container: its environment.

    The shell is real; ``python`` tells its environment, ``hostname`` is a container's.
    """
    said = {
        "python": "env",
        "hostname": 'test $# -eq 0 && echo c4f3 || echo "192.0.2.5 198.51.100.7 "',
    }
    for name, command in said.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
        program.chmod(0o700)
    command = [
        part.replace("$$", "$") for part in compose["services"]["scorer"]["entrypoint"]
    ]
    done = subprocess.run(
        command,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_scorers_have_names_of_their_own(
    compose: dict[str, Any], own_names: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many as are asked for: nothing is in the way, and no two are one replica."""
    for name in ("DRIFTLOOP_REPLICA", "DRIFTLOOP_ALLOWED_HOSTS"):
        monkeypatch.setenv(name, own_names[name])
    settings = load_settings(Settings, "scorer")
    assert settings.replica == "c4f3"
    assert settings.allowed_hosts == [
        "127.0.0.1",
        "localhost",
        "192.0.2.5",
        "198.51.100.7",
    ]
    assert fixed(compose["services"]["scorer"]) == []
    compose["services"]["scorer"] |= {"ports": ["127.0.0.1:7003:8000"]}
    assert fixed(compose["services"]["scorer"]) == ["ports"]  # negative control


def fixed(service: dict[str, Any]) -> list[str]:
    """Name what only one container of a service can have."""
    named = [volume for volume in service["volumes"] if ":" in volume]
    once = [key for key in ("ports", "container_name", "hostname") if key in service]
    return once + named
