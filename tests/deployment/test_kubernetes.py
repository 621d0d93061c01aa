"""The manifests: valid by Kubernetes' own schemas, and no more rights than needed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from driftloop.runtime.settings import load_settings
from driftloop.scorer.open_inference.rpc import SERVICE as RPC_SERVICE
from driftloop.scorer.settings import ScorerSettings

from tests.deployment.kustomized import strict, with_entries

VERSIONS = ("1.31", "1.37")
SCORER = "base/scorer.yaml"
FILES = ("trainer-job.yaml", "trainer-access.yaml", SCORER)
POOLS = ("scorer-a", "scorer-b")
GATEWAY_API = Path(__file__).parent / "vendor/gateway-api.json"
Objects = list[dict[str, Any]]


def manifests(root: Path, name: str, pool: str = POOLS[0]) -> Objects:
    """Return a file's objects; for another pool with its name, as the file says."""
    text = (root / "infra/kubernetes" / name).read_text("utf-8")
    return list(yaml.safe_load_all(text.replace(POOLS[0], pool)))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_manifest_is_valid(root: Path, name: str, version: str) -> None:
    """Each object by its schema; a misspelt key is an error."""
    for found in manifests(root, name):
        kubernetes_validate.validate(found, version, strict=True)


def test_wrong_manifest_is_found(root: Path) -> None:
    """Negative control: a key that does not exist."""
    [job] = manifests(root, "trainer-job.yaml")
    job["spec"]["backofLimit"] = 0
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)


def unsafe(job: dict[str, Any]) -> list[str]:
    """Name what a pod may do and need not."""
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    context = container["securityContext"]
    wanted = {
        "runAsNonRoot": pod["securityContext"].get("runAsNonRoot") is True,
        "readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is True,
        "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
        "capabilities": context.get("capabilities") == {"drop": ["ALL"]},
        "token": pod.get("automountServiceAccountToken") is False,
        "seccomp": "seccompProfile" in pod["securityContext"],
    }
    return [name for name, is_so in wanted.items() if not is_so]


def test_pod_may_do_nothing_but_train(root: Path) -> None:
    """And the check sees when it may."""
    [job] = manifests(root, "trainer-job.yaml")
    assert unsafe(job) == []
    pod = job["spec"]["template"]["spec"]
    pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False
    pod["automountServiceAccountToken"] = True
    assert unsafe(job) == ["readOnlyRootFilesystem", "token"]


def test_account_may_make_jobs_and_nothing_else(root: Path) -> None:
    """No secrets, no other objects, no other namespaces."""
    found = manifests(root, "trainer-access.yaml")
    assert [x["kind"] for x in found] == [
        "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy",
    ]  # fmt: skip
    assert {(*x["resources"], *x["verbs"]) for x in found[1]["rules"]} == {
        ("jobs", "create", "get", "delete"),
        ("pods", "list"),
    }


@pytest.fixture
def scorer(root: Path) -> dict[str, Any]:
    """What is to run, of a pool of scorers."""
    [found] = [x for x in manifests(root, SCORER) if x["kind"] == "StatefulSet"]
    return found


def container_of(workload: dict[str, Any]) -> dict[str, Any]:
    [container] = workload["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


def test_scorer_may_do_nothing_but_score(scorer: dict[str, Any]) -> None:
    """The same as for a training, and what it may take is bounded."""
    assert unsafe(scorer) == []
    resources = container_of(scorer)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert "memory" in resources["limits"]
    scorer["spec"]["template"]["spec"]["securityContext"] = {}
    assert unsafe(scorer) == ["runAsNonRoot", "seccomp"]  # negative control


def environment(
    root: Path, scorer: dict[str, Any], pod: str, address: str
) -> dict[str, str]:
    """Return a pod's variables as Kubernetes sets them."""
    of_pod = {"metadata.name": pod, "status.podIP": address}
    [shared] = manifests(root, "base/config.yaml")
    return with_entries(shared["data"], container_of(scorer)["env"], of_pod)


def settings_of(
    root: Path,
    scorer: dict[str, Any],
    pod: str,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> ScorerSettings:
    for name, value in environment(root, scorer, pod, address).items():
        if name not in {"DRIFTLOOP_SECRETS_DIR", "TMPDIR"}:  # there are none here
            monkeypatch.setenv(name, value)
    return load_settings(ScorerSettings, "scorer")


def test_scorers_have_names_of_their_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all pools; a name comes back with its pod."""
    names = set()
    for pool in POOLS:
        [scorer] = [
            x for x in manifests(root, SCORER, pool) if x["kind"] == "StatefulSet"
        ]
        for number in range(2):
            pod = f"{scorer['metadata']['name']}-{number}"
            names.add(settings_of(root, scorer, pod, "192.0.2.5", monkeypatch).replica)
    assert names == {"scorer-a-0", "scorer-a-1", "scorer-b-0", "scorer-b-1"}


def unknown(scorer: dict[str, Any]) -> set[str]:
    """Return variables that no setting of the scorer reads."""
    known = {"DRIFTLOOP_SECRETS_DIR", "POD_IP", "TMPDIR"}
    for field in ScorerSettings.model_fields:
        known |= {f"DRIFTLOOP_{field.upper()}", f"DRIFTLOOP_SCORER_{field.upper()}"}
    return {entry["name"] for entry in container_of(scorer)["env"]} - known


def test_variables_are_settings(scorer: dict[str, Any]) -> None:
    """And a misspelt one is none (negative control)."""
    assert unknown(scorer) == set()
    container_of(scorer)["env"][0]["name"] = "DRIFTLOOP_REPLIKA"
    assert unknown(scorer) == {"DRIFTLOOP_REPLIKA"}


def test_those_who_ask_a_scorer_are_answered(
    root: Path, scorer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probes come with the pod's address as Host, callers with the routes' names."""
    settings = settings_of(root, scorer, "scorer-a-0", "192.0.2.5", monkeypatch)
    assert "192.0.2.5" in settings.allowed_hosts
    http, rpc = (
        set(route["spec"]["hostnames"])
        for route in manifests(root, "scorer-routes.yaml")
    )
    assert http <= set(settings.allowed_hosts)
    assert not http & rpc  # else a gateway takes one of the two routes only
    ports = {p["name"]: p["containerPort"] for p in container_of(scorer)["ports"]}
    assert ports == {"http": settings.http_port, "grpc": settings.grpc_port}


def test_probes_ask_for_what_they_mean(scorer: dict[str, Any]) -> None:
    """Requests come when it is ready; it is killed only when it does not live."""
    container = container_of(scorer)
    paths = {
        name: container[name]["httpGet"]["path"]
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert paths == {
        "startupProbe": "/livez",
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",
    }


def astray(objects: Objects) -> list[str]:
    """Name the objects of a pool that do not find its pods, or each other."""
    by_kind: dict[str, Objects] = {}
    for each in objects:
        by_kind.setdefault(each["kind"], []).append(each)
    [workload] = by_kind["StatefulSet"]
    name, spec = workload["metadata"]["name"], workload["spec"]
    labels = spec["template"]["metadata"]["labels"].items()
    selectors = [("StatefulSet", spec["selector"]["matchLabels"])]
    selectors += [("Service", x["spec"]["selector"]) for x in by_kind["Service"]]
    [budget] = by_kind["PodDisruptionBudget"]
    selectors.append(("PodDisruptionBudget", budget["spec"]["selector"]["matchLabels"]))
    lost = [kind for kind, wanted in selectors if not wanted.items() <= labels]
    headless = [
        x["metadata"]["name"]
        for x in by_kind["Service"]
        if x["spec"].get("clusterIP") == "None"
    ]
    if headless != [spec["serviceName"]]:
        lost.append("serviceName")
    [scaler] = by_kind["HorizontalPodAutoscaler"]
    if scaler["spec"]["scaleTargetRef"]["name"] != name or "replicas" in spec:
        lost.append("HorizontalPodAutoscaler")
    return lost


@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_is_whole(root: Path, pool: str) -> None:
    """Each object finds the pool's pods; no object of it is another pool's too."""
    objects = manifests(root, SCORER, pool)
    assert {x["metadata"]["namespace"] for x in objects} == {"driftloop"}
    assert {x["metadata"]["name"] for x in objects} == {pool, f"{pool}-pods"}
    assert astray(objects) == []
    [service] = [x for x in objects if x["metadata"]["name"] == f"{pool}-pods"]
    service["spec"]["selector"] = {"app.kubernetes.io/name": "scorer"}
    objects[0]["spec"]["replicas"] = 2
    assert astray(objects) == ["Service", "HorizontalPodAutoscaler"]  # the control


def route_problems(route: dict[str, Any]) -> Iterator[str]:
    """Say what the Gateway API's own schema says about a route."""
    schema = strict(json.loads(GATEWAY_API.read_text("utf-8"))[route["kind"]])
    schema["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft202012Validator(schema)
    return (error.message for error in validator.iter_errors(route))


def shares(route: dict[str, Any]) -> dict[str, int]:
    """Return each pool's weight."""
    [rule] = route["spec"]["rules"]
    return {back["name"]: back["weight"] for back in rule["backendRefs"]}


def test_routes_are_valid_and_divide_alike(root: Path) -> None:
    """By the Gateway API's schema; both doors give each pool the same weight."""
    routes = manifests(root, "scorer-routes.yaml")
    assert [route["kind"] for route in routes] == ["HTTPRoute", "GRPCRoute"]
    for route in routes:
        assert list(route_problems(route)) == []
        assert shares(route) == {"scorer-a": 90, "scorer-b": 10}
    [rpc] = routes[1]["spec"]["rules"][0]["matches"]
    assert rpc["method"]["service"] == RPC_SERVICE
    routes[0]["spec"]["rules"][0]["backendRefs"][0]["wieght"] = 1  # negative controls
    routes[1]["spec"]["rules"][0]["backendRefs"][0]["weight"] = "much"
    assert [len(list(route_problems(route))) for route in routes] == [1, 1]


def test_routes_lead_to_ports_that_there_are(root: Path) -> None:
    """Each backend is a Service of a pool, at a port of it that speaks so."""
    speaks = {"HTTPRoute": "http", "GRPCRoute": "kubernetes.io/h2c"}
    there = {
        (x["metadata"]["name"], port["port"], port.get("appProtocol"))
        for pool in POOLS
        for x in manifests(root, SCORER, pool)
        if x["kind"] == "Service"
        for port in x["spec"]["ports"]
    }
    for route in manifests(root, "scorer-routes.yaml"):
        for back in route["spec"]["rules"][0]["backendRefs"]:
            assert (back["name"], back["port"], speaks[route["kind"]]) in there
    assert ("scorer-a", 8001, "http") not in there  # negative control


def reached(path: str, route: dict[str, Any]) -> bool:
    """Whether the route takes a path (Gateway API, ``HTTPPathMatch``)."""
    for match in route["spec"]["rules"][0]["matches"]:
        kind, value = match["path"]["type"], match["path"]["value"]
        if path == value or (kind == "PathPrefix" and path.startswith(f"{value}/")):
            return True
    return False


def test_routes_take_all_that_a_scorer_answers(root: Path) -> None:
    """Each of its paths that callers ask; not what is for probes and Prometheus."""
    route, _ = manifests(root, "scorer-routes.yaml")
    asked = [
        "/v2/models/shirts/infer", "/v2", "/v2/health/ready", "/v2/repository/index",
        "/pipelines/shirts/invocations", "/invocations", "/ping", "/health", "/version",
    ]  # fmt: skip
    assert [path for path in asked if not reached(path, route)] == []
    for path in ("/metrics", "/readyz", "/docs", "/v2x"):
        assert not reached(path, route)
