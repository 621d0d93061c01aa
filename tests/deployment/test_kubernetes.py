"""The manifests: valid by Kubernetes' own schemas, and no more rights than needed."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

VERSIONS = ("1.31", "1.37")
FILES = ("trainer-job.yaml", "trainer-access.yaml")


def manifests(root: Path, name: str) -> list[dict[str, Any]]:
    text = (root / "infra/kubernetes" / name).read_text("utf-8")
    return list(yaml.safe_load_all(text))


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
    """Name what a training's pod may do and need not."""
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
