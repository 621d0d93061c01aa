"""infra/kubernetes as a whole: valid, closed, and what the settings say."""

import importlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from driftloop.contracts.access import access_rights
from driftloop.contracts.topics import PARTITIONS, SERVICES, WITH_DOOR
from driftloop.local import kubernetes
from driftloop.local.kubernetes_secrets import KAFKA_CA, make_secrets
from driftloop.runtime.settings import Settings, load_settings

from tests.deployment.kustomized import (
    OURS,
    OVERLAYS,
    Object,
    build,
    environment,
    identity,
    matches,
    named,
    pods,
    service_container,
    strict,
    workloads,
)  # fmt: skip
from tests.deployment.programs import INSTALL_TIMEOUT_S, built_with_go

VENDOR = Path(__file__).parent / "vendor"
VERSIONS = ("1.31", "1.37")
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1"
CUSTOM = ("kafka.strimzi.io/v1", "keda.sh/v1alpha1", "gateway.networking.k8s.io/v1")
BEYOND_SETTINGS = {"DRIFTLOOP_SECRETS_DIR", "POD_IP", "TMPDIR"}
"""Read before there are settings, or by others."""


@pytest.fixture(scope="module")
def kustomize(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The real program: given, kubectl's, or built where Go is installed."""
    if given := os.environ.get("KUSTOMIZE"):
        return [given, "build"]
    if kubectl := shutil.which("kubectl"):
        return [kubectl, "kustomize"]
    folder = built_with_go(
        KUSTOMIZE,
        tmp_path_factory.mktemp("go"),
        "neither kubectl nor Go here: checked by tests' own build only",
    )
    return [str(folder / "kustomize"), "build"]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(INSTALL_TIMEOUT_S + 120)
def test_kustomize_makes_what_these_tests_are_about(
    kustomize: list[str], root: Path, tmp_path: Path
) -> None:
    """Object by object; what the one refuses, the other refuses."""
    folder = tmp_path / "kubernetes"
    shutil.copytree(root / "infra/kubernetes", folder)
    for overlay in OVERLAYS:
        done = run(kustomize, folder / "overlays" / overlay)
        assert done.returncode == 0, done.stderr
        real = {identity(each): each for each in yaml.safe_load_all(done.stdout)}
        ours = {identity(each): each for each in build(folder / "overlays" / overlay)}
        assert real == ours
    patch = folder / "overlays/small/scorers.yaml"
    text = patch.read_text("utf-8").replace("name: scorer-a", "name: nobody")
    patch.write_text(text, encoding="utf-8")
    assert run(kustomize, folder / "overlays/small").returncode != 0
    with pytest.raises(ValueError, match="changes nothing"):
        build(folder / "overlays/small")


@pytest.mark.parametrize("version", VERSIONS)
def test_core_objects_are_valid(objects: list[Object], version: str) -> None:
    """By Kubernetes' own schemas; a misspelt key is an error."""
    core = [each for each in objects if each["apiVersion"] not in CUSTOM]
    assert len(core) > len(SERVICES)
    for each in core:
        kubernetes_validate.validate(each, version, strict=True)
    core[-1]["specc"] = core[-1].pop("spec")
    with pytest.raises(kubernetes_validate.ValidationError):  # negative control
        kubernetes_validate.validate(core[-1], version, strict=True)


def custom_problems(objects: list[Object]) -> list[str]:
    """Say what the schemas of Strimzi, KEDA and the Gateway API say."""
    found = []
    schemas = {
        api: json.loads((VENDOR / f"{name}.json").read_text("utf-8"))
        for api, name in zip(CUSTOM, ("strimzi", "keda", "gateway-api"), strict=True)
    }
    for each in objects:
        if each["apiVersion"] not in CUSTOM:
            continue
        schema = schemas[each["apiVersion"]][each["kind"]]
        if each["apiVersion"] != CUSTOM[0]:  # that one is of the spec alone
            schema = schema["properties"]["spec"]
        validator = jsonschema.Draft202012Validator(strict(schema))
        found += [
            f"{each['kind']} {each['metadata']['name']}: {error.message}"
            for error in validator.iter_errors(each["spec"])
        ]
    return found


def test_custom_objects_are_valid(production: list[Object]) -> None:
    """By their own schemas, and each kind's check sees a mistake."""
    assert custom_problems(production) == []
    broken: list[tuple[str, str, str, Any]] = [
        ("Kafka", "kafka", "kafkaa", {}),
        ("KafkaNodePool", "nodes", "roles", ["broker", "zookeeper"]),
        ("KafkaTopic", "batch-ingested", "partitions", 0),
        ("KafkaUser", "ingest", "authorization", {"type": "simple", "acl": []}),
        ("ScaledObject", "ingest", "maxReplicas", 4),
        ("TriggerAuthentication", "kafka", "secretTargetRef", [{"name": "x"}]),
        ("HTTPRoute", "console", "hostname", "console.example.org"),
    ]
    for kind, name, key, value in broken:  # negative controls
        named(production, kind, name)["spec"][key] = value
    seen = {problem.split()[0] for problem in custom_problems(production)}
    assert seen == {kind for kind, *_ in broken}


def test_small_overlay_is_valid_too(root: Path) -> None:
    """And needs no KEDA and no gateway."""
    objects = build(root / "infra/kubernetes/overlays/small")
    assert custom_problems(objects) == []
    assert {each["apiVersion"] for each in objects} & set(CUSTOM) == {CUSTOM[0]}


def stale(folder: Path) -> list[str]:
    return [
        name
        for name, text in kubernetes.files().items()
        if (folder / name).read_text("utf-8") != text
    ]


def test_generated_files_are_fresh(root: Path, tmp_path: Path) -> None:
    """`make kubernetes` would change nothing."""
    base = root / "infra/kubernetes/base"
    assert stale(base) == []
    for name in kubernetes.files():
        shutil.copy(base / name, tmp_path)
    with (tmp_path / "kafka-topics.yaml").open("a", encoding="utf-8") as file:
        file.write("---\n")
    assert stale(tmp_path) == ["kafka-topics.yaml"]  # negative control


def test_each_service_runs(objects: list[Object]) -> None:
    """All of them, under a label that the policies know; with names or without."""
    found = workloads(objects)
    assert set(found) == set(SERVICES)
    for name, each in found.items():
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "driftloop"
        assert each["kind"] == ("Deployment" if name == "console" else "StatefulSet")
        assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()


def loose(workload: Object) -> Iterator[str]:
    """Name what a pod may do and need not."""
    pod = workload["spec"]["template"]["spec"]
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "root"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "seccomp"
    if pod.get("automountServiceAccountToken") is not False:
        yield "token"
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        own = container.get("securityContext", {})
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']}: writes"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{container['name']}: escalates"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{container['name']}: capabilities"
        resources = container.get("resources", {})
        if set(resources.get("requests", {})) != {"cpu", "memory"}:
            yield f"{container['name']}: no requests"
        if "memory" not in resources.get("limits", {}):
            yield f"{container['name']}: no limit"


def test_pods_are_closed(objects: list[Object]) -> None:
    """No root, no capabilities, nothing writable but volumes, bounded memory."""
    for name, each in workloads(objects).items():
        assert list(loose(each)) == [], name
    trainer = workloads(objects)["trainer"]["spec"]["template"]["spec"]
    trainer["initContainers"][0]["securityContext"] = {}
    del trainer["containers"][0]["resources"]["limits"]
    assert list(loose(workloads(objects)["trainer"])) == [
        "signing-key: writes",
        "signing-key: escalates",
        "signing-key: capabilities",
        "service: no limit",
    ]  # negative control


def test_probes_and_endings(objects: list[Object]) -> None:
    """Asked when ready, killed when dead, and given time to end."""
    for name, each in workloads(objects).items():
        container = service_container(each)
        paths = [
            container[f"{probe}Probe"]["httpGet"]["path"]
            for probe in ("startup", "readiness", "liveness")
        ]
        assert paths == ["/livez", "/readyz", "/livez"], name
        pod = each["spec"]["template"]["spec"]
        waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod["terminationGracePeriodSeconds"] >= waits + 30
        notes = each["spec"]["template"]["metadata"]["annotations"]
        assert notes["prometheus.io/path"] == "/metrics"
        assert notes["prometheus.io/port"] == "8000"


def settings_class(service: str) -> type[Settings]:
    module = importlib.import_module(f"driftloop.{service}.app")
    settings: type[Settings] = module.SERVICE.settings
    return settings


def unknown(service: str, names: set[str]) -> set[str]:
    """Return variables that no setting of the service reads."""
    fields = settings_class(service).model_fields
    known = {f"DRIFTLOOP_{field.upper()}" for field in fields}
    known |= {f"DRIFTLOOP_{service.upper()}_{field.upper()}" for field in fields}
    return {name for name in names if name.upper() not in known | BEYOND_SETTINGS}


@pytest.fixture(scope="module")
def made_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make kubernetes-secrets` makes."""
    folder = tmp_path_factory.mktemp("made") / "kubernetes"
    store = {"driftloop_s3_access_key": "a", "driftloop_s3_secret_key": "b"}
    assert make_secrets(folder, "postgres.data.svc:5432", store)
    assert not make_secrets(folder, "elsewhere:5432", store)  # what exists is kept
    assert folder.stat().st_mode & 0o077 == 0
    return folder / "secrets.yaml"


@pytest.fixture(scope="module")
def made(made_file: Path) -> list[Object]:
    text = made_file.read_text("utf-8")
    assert "elsewhere" not in text
    return list(yaml.safe_load_all(text))


def read_by_kubectl(file: Path) -> subprocess.CompletedProcess[str]:
    """Have kubectl read a file, without a cluster."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl here")
    return subprocess.run(
        [kubectl, "label", "--local", "--filename", str(file), "a=b", "--output=name"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_kubectl_reads_the_secrets(
    made_file: Path, made: list[Object], tmp_path: Path
) -> None:
    """All of them; a file that begins with a brace would be taken for JSON."""
    done = read_by_kubectl(made_file)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(made)
    broken = tmp_path / "secrets.yaml"
    broken.write_text(made_file.read_text("utf-8").removeprefix("---\n"), "utf-8")
    assert read_by_kubectl(broken).returncode != 0  # negative control


@pytest.mark.parametrize("service", SERVICES)
def test_settings_are_those_of_the_service(
    objects: list[Object],
    made: list[Object],
    service: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Each variable and each file of its Secret is one; together they are valid."""
    told = environment(workloads(objects)[service], objects)
    files = named(made, "Secret", f"driftloop-{service}")["stringData"]
    assert unknown(service, {*told, *files}) == set()
    assert unknown(service, {"DRIFTLOOP_BROKRE"})  # negative control
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name, value in told.items():
        if name != "TMPDIR":
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("DRIFTLOOP_SECRETS_DIR", str(tmp_path))
    settings = load_settings(settings_class(service), service)
    assert settings.replica == "pod-0"
    assert settings.http_port == 8000
    assert {"192.0.2.5", "localhost"} <= set(settings.allowed_hosts)
    assert settings.kafka_config["sasl.username"] == service
    assert settings.kafka_config["ssl.ca.location"] == KAFKA_CA
    assert settings.database_url_for(service).endswith(f"5432/{service}")
    assert (settings.api_token is not None) == (service in WITH_DOOR)


def mounted(workload: Object) -> Iterator[tuple[str, str]]:
    for volume in workload["spec"]["template"]["spec"]["volumes"]:
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]


def missing(objects: list[Object], made: list[Object]) -> set[tuple[str, str]]:
    """Return what is asked for and not made by us, nor by Strimzi."""
    there = {(each["kind"], each["metadata"]["name"]) for each in made}
    there.add(("Secret", "kafka-cluster-ca-cert"))
    wanted = {one for each in workloads(objects).values() for one in mounted(each)}
    passwords = named(made, "Secret", kubernetes.PASSWORDS)["stringData"]
    for each in objects:
        if each["kind"] == "KafkaUser":
            source = each["spec"]["authentication"]["password"]["valueFrom"]
            if source["secretKeyRef"]["name"] == kubernetes.PASSWORDS:
                assert source["secretKeyRef"]["key"] in passwords
            wanted.add(("Secret", source["secretKeyRef"]["name"]))
        if each["kind"] == "TriggerAuthentication":
            wanted |= {("Secret", x["name"]) for x in each["spec"]["secretTargetRef"]}
    return wanted - there


def test_all_secrets_are_made(objects: list[Object], made: list[Object]) -> None:
    """Those of pods, of Kafka's users and of who scales; none stands in the files."""
    assert missing(objects, made) == set()
    assert not [each for each in objects if each["kind"] == "Secret"]
    [left_out] = [
        each for each in made if each["metadata"]["name"] == "driftloop-trainer-key"
    ]
    rest = [each for each in made if each is not left_out]
    assert missing(objects, rest) == {("Secret", "driftloop-trainer-key")}


def test_volumes_are_mounted(objects: list[Object]) -> None:
    """Each mount has its volume, each volume its mount, and secrets are read-only."""
    for name, each in workloads(objects).items():
        pod = each["spec"]["template"]["spec"]
        claims = each["spec"].get("volumeClaimTemplates", [])
        there = [volume["name"] for volume in pod["volumes"]]
        there += [claim["metadata"]["name"] for claim in claims]
        containers = [*pod.get("initContainers", []), *pod["containers"]]
        used = {m["name"] for c in containers for m in c["volumeMounts"]}
        assert sorted(there) == sorted(used), name
        where = {m["name"]: m for m in service_container(each)["volumeMounts"]}
        assert where["secrets"]["readOnly"] is True
        assert where["kafka-ca"]["mountPath"] == str(Path(KAFKA_CA).parent)


def astray(objects: list[Object]) -> list[str]:
    """Name what points at pods, services or workloads that there are not."""
    found = []
    all_labels = [pod[1] for pod in pods(objects).values()]
    there = {identity(each) for each in objects}
    for each in objects:
        kind, spec, name = each["kind"], each.get("spec", {}), each["metadata"]["name"]
        wanted: Object | None = None
        if kind == "Service":
            wanted = {"matchLabels": spec["selector"]}
        elif kind == "PodDisruptionBudget":
            wanted = spec["selector"]
        if wanted and sum(matches(wanted, labels) for labels in all_labels) != 1:
            found.append(f"{kind} {name}")
        refs = []
        if kind == "StatefulSet":
            refs.append(("Service", OURS, spec["serviceName"]))
        elif kind in {"ScaledObject", "HorizontalPodAutoscaler"}:
            target = spec["scaleTargetRef"]
            refs.append((target["kind"], OURS, target["name"]))
        elif kind == "HTTPRoute":
            [rule] = spec["rules"]
            refs += [("Service", OURS, back["name"]) for back in rule["backendRefs"]]
        found += [f"{kind} {name}" for ref in refs if ref not in there]
    return found


def test_all_that_points_finds(objects: list[Object], overlay: str) -> None:
    """Services, budgets, scalers and routes."""
    assert astray(objects) == []
    named(objects, "Service", "console")["spec"]["selector"] = {"app": "consol"}
    del objects[objects.index(named(objects, "Service", "deployer-pods"))]
    broken = ["StatefulSet deployer", "Service console"]
    if overlay == "production":
        scaled = named(objects, "ScaledObject", "ingest")
        scaled["spec"]["scaleTargetRef"]["name"] = "ingestion"
        broken.append("ScaledObject ingest")
    assert sorted(astray(objects)) == sorted(broken)  # negative controls


def test_routes_lead_to_names_that_are_answered(production: list[Object]) -> None:
    """Each door has a host that its service answers to, at its Service's port."""
    doors = set(WITH_DOOR) - {"scorer"}  # whose routes have weights
    routes = [each for each in production if each["kind"] == "HTTPRoute"]
    assert {each["metadata"]["name"] for each in routes} == doors
    for each in routes:
        name = each["metadata"]["name"]
        hosts = environment(workloads(production)[name], production)
        assert set(each["spec"]["hostnames"]) <= set(
            json.loads(hosts["DRIFTLOOP_ALLOWED_HOSTS"])
        )
        [back] = each["spec"]["rules"][0]["backendRefs"]
        [port] = named(production, "Service", name)["spec"]["ports"]
        assert back == {"name": name, "port": port["port"]}


def counts(objects: list[Object]) -> dict[str, tuple[int, int]]:
    """Return how few and how many instances each service may have."""
    found = {}
    for name, each in workloads(objects).items():
        own = each["metadata"]["name"]
        scalers = [
            x["spec"]
            for x in objects
            if x["kind"] in {"ScaledObject", "HorizontalPodAutoscaler"}
            and x["spec"]["scaleTargetRef"]["name"] == own
        ]
        fixed = each["spec"].get("replicas")
        assert len(scalers) + (fixed is not None) <= 1, f"{name}: two say how many"
        if scalers:
            [spec] = scalers
            least = spec.get("minReplicaCount", spec.get("minReplicas"))
            found[name] = (least, spec.get("maxReplicaCount", spec.get("maxReplicas")))
        else:
            found[name] = (fixed or 1, fixed or 1)
    return found


def test_how_many_there_are(production: list[Object], root: Path) -> None:
    """Several where a service may have them, one where it must be one."""
    assert counts(production) == {
        "ingest": (2, 4), "validator": (2, 4), "scorer": (2, 8), "registry": (2, 2),
        "monitor": (1, 1), "trainer": (1, 1), "deployer": (1, 1), "console": (1, 1),
    }  # fmt: skip
    small = build(root / "infra/kubernetes/overlays/small")
    assert set(counts(small).values()) == {(1, 1)}
    workloads(production)["ingest"]["spec"]["replicas"] = 2
    with pytest.raises(AssertionError, match="two say how many"):  # negative control
        counts(production)
    budgets = [x for x in production if x["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == len(SERVICES)


def test_lag_is_that_of_the_services_group(production: list[Object]) -> None:
    """The group that the rights name; as many instances as partitions at most."""
    groups = {r.service: r.name for r in access_rights() if r.resource == "GROUP"}
    scaled = [each for each in production if each["kind"] == "ScaledObject"]
    assert scaled
    for each in scaled:
        [trigger] = each["spec"]["triggers"]
        metadata = trigger["metadata"]
        name = each["spec"]["scaleTargetRef"]["name"]
        assert metadata["consumerGroup"] == groups[name]
        assert each["spec"]["maxReplicaCount"] <= PARTITIONS
        assert all(isinstance(value, str) for value in metadata.values())
        reference = trigger["authenticationRef"]["name"]
        assert named(production, "TriggerAuthentication", reference)
