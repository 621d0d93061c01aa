"""What Kustomize makes of a folder, for the few of its features that ours use.

The tests compare it with the real program where there is one; it is here so that the
manifests are checked as a whole where there is none.
"""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
}
"""Lists of Kubernetes' own kinds that are merged by a key; others are replaced."""
OVERLAYS = ("small", "production")
LABEL = "app.kubernetes.io/component"
WITHOUT_NAMESPACE = {"Namespace"}
KNOWN = {"apiVersion", "kind", "namespace", "resources", "patches"}


def build(folder: Path) -> list[Object]:
    """Return the objects of a folder with a ``kustomization.yaml``.

    Raises
    ------
    ValueError
        When a file is not there, a patch changes nothing, an object comes twice, or the
        file asks for what is not known here.
    """
    wanted = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    if unknown := set(wanted) - KNOWN:
        raise ValueError(f"{folder}: not known here: {', '.join(sorted(unknown))}")
    objects: list[Object] = []
    for name in wanted.get("resources", []):
        path = folder / name
        objects += build(path) if path.is_dir() else load(path)
    if "namespace" in wanted:
        for each in objects:
            if each["kind"] not in WITHOUT_NAMESPACE:
                each["metadata"]["namespace"] = wanted["namespace"]
    for patch in wanted.get("patches", []):
        _lay_over(objects, folder / patch["path"], patch.get("target"))
    ids = [identity(each) for each in objects]
    if twice := {one for one in ids if ids.count(one) > 1}:
        raise ValueError(f"{folder}: twice: {twice}")
    return objects


def load(path: Path) -> list[Object]:
    """Return the objects of a file.

    Raises
    ------
    ValueError
        When it is not there.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not there")
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def identity(each: Object) -> tuple[str, str, str]:
    """Return what an object is known by."""
    metadata = each["metadata"]
    return each["kind"], metadata.get("namespace", ""), metadata["name"]


def _lay_over(objects: list[Object], path: Path, target: Object | None) -> None:
    [patch] = load(path)
    kind, name = patch["kind"], re.escape(patch["metadata"]["name"])
    if target is not None:
        kind, name = target["kind"], target["name"]
    found = [
        each
        for each in objects
        if each["kind"] == kind and re.fullmatch(name, each["metadata"]["name"])
    ]
    if not found:
        raise ValueError(f"{path} changes nothing")
    is_own = "strimzi" not in patch["apiVersion"]
    for each in found:
        spec = _merged(each["spec"], patch["spec"], is_own=is_own)
        each["spec"] = spec


def _merged(old: Any, new: Any, *, is_own: bool, key: str = "") -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        result = dict(old)
        for name, value in new.items():
            result[name] = _merged(old.get(name), value, is_own=is_own, key=name)
        return result
    if is_own and isinstance(old, list) and isinstance(new, list) and key in KEYS:
        by = KEYS[key]
        theirs = {each[by]: each for each in new}
        kept = {each[by] for each in old}
        changed = [
            _merged(each, theirs.get(each[by], {}), is_own=is_own) for each in old
        ]
        return [deepcopy(each) for each in new if each[by] not in kept] + changed
    return deepcopy(new)


Pod = tuple[str, dict[str, str]]
"""Namespace and labels."""
OURS = "driftloop"


def named(objects: list[Object], kind: str, name: str) -> Object:
    [found] = [
        each
        for each in objects
        if each["kind"] == kind and each["metadata"]["name"] == name
    ]
    return found


def workloads(objects: list[Object]) -> dict[str, Object]:
    """Return what runs, by service."""
    return {
        each["spec"]["template"]["metadata"]["labels"][LABEL]: each
        for each in objects
        if each["kind"] in {"StatefulSet", "Deployment"}
    }


def service_container(workload: Object) -> Object:
    [container] = workload["spec"]["template"]["spec"]["containers"]
    found: Object = container
    return found


def environment(workload: Object, objects: list[Object]) -> dict[str, str]:
    """Return a pod's variables as Kubernetes sets them."""
    container = service_container(workload)
    told: dict[str, str] = {}
    for source in container["envFrom"]:
        told |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    of_pod = {"metadata.name": "pod-0", "status.podIP": "192.0.2.5"}
    return with_entries(told, container["env"], of_pod)


def with_entries(
    told: dict[str, str], entries: list[Object], of_pod: dict[str, str]
) -> dict[str, str]:
    """Return variables with those of a container's ``env``, in their order.

    Parameters
    ----------
    of_pod : what fields of the pod hold.
    """
    told = dict(told)
    for entry in entries:
        if "value" in entry:
            value = entry["value"]
            for name, earlier in told.items():  # only what stands before it
                value = value.replace(f"$({name})", earlier)
        else:
            value = of_pod[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        told[entry["name"]] = value
    return told


def matches(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector takes what has these labels."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


def pods(objects: list[Object]) -> dict[str, Pod]:
    return {
        name: (OURS, each["spec"]["template"]["metadata"]["labels"])
        for name, each in workloads(objects).items()
    }


def strict(schema: Any) -> Any:
    """Return a schema for which a key that it does not name is an error."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found
