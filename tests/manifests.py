"""What the tests of deploy/ share: tools that may be missing, and Kubernetes objects as they come out of a renderer."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from esm.settings import Settings
from tests.servers import SERVERS

KUBERNETES = "1.37"
SETTINGS = {f"ESM_{name.upper()}" for name in Settings.model_fields}
OPERATORS_OWN = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus Operator: their schemas are not Kubernetes's."""

Manifest = dict[str, Any]


def tool(name: str, remedy: str) -> str:
    """The path of a command; the test is skipped where there is none, unless nothing may be skipped."""
    found = shutil.which(name, path=f"{SERVERS / name}:{os.environ.get('PATH', '')}")
    if found is None:
        unavailable(f"no {name} here: {remedy}")
    return found


def unavailable(text: str) -> None:
    """Skip, or fail where nothing may be skipped."""
    if os.environ.get("REQUIRE_SERVERS") == "1":
        pytest.fail(f"{text} (REQUIRE_SERVERS=1: nothing may be skipped)", pytrace=False)
    pytest.skip(text)


def kustomized(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize` makes of a folder; it asks no cluster."""
    kubectl = tool("kubectl", "install Kubernetes's command line client")
    answer = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return list(yaml.safe_load_all(answer.stdout))


def one(manifests: Iterable[Manifest], kind: str) -> Manifest:
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def container(manifests: Iterable[Manifest]) -> Manifest:
    (found,) = one(manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    return found


def environ(manifests: Iterable[Manifest]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container(manifests)["env"]}


def bytes_of(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * {"Mi": 1024**2, "Gi": 1024**3}[unit]


def check_valid(manifests: Iterable[Manifest]) -> None:
    """Kubernetes knows every member of every object."""
    for manifest in manifests:
        if manifest["kind"] not in OPERATORS_OWN:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def check_safe(manifests: list[Manifest]) -> None:
    """What must hold however esm is put into a cluster: restricted, drained, its files where it may write them."""
    stateful_set = one(manifests, "StatefulSet")["spec"]
    pod = stateful_set["template"]["spec"]
    inside = container(manifests)
    assert stateful_set["replicas"] == 1
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == one(manifests, "ServiceAccount")["metadata"]["name"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inside["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    mounts = {mount["mountPath"]: mount for mount in inside["volumeMounts"]}
    assert mounts.keys() >= {"/etc/esm", "/var/lib/esm", "/tmp"}
    assert not any("subPath" in mount for mount in mounts.values())
    (claim,) = stateful_set["volumeClaimTemplates"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts["/var/lib/esm"]["name"] == claim["metadata"]["name"]
    assert "emptyDir" in volumes[mounts["/tmp"]["name"]]
    probes = {name: inside[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert probes == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
    check_enough(manifests)
    check_selects(manifests)


def check_enough(manifests: list[Manifest]) -> None:
    """Settings are known; time to drain, and memory, are enough."""
    settings = environ(manifests)
    assert {name for name in settings if name.startswith("ESM_")} <= SETTINGS
    grace_s = float(settings["ESM_SHUTDOWN_GRACE_S"])
    longest_s = max([0, *(one.get("Timeout", 0) for one in configured(manifests).get("functions", {}).values())])
    assert grace_s >= float(settings.get("ESM_SQS_WAIT_S", 20)) + longest_s + 5
    pod = one(manifests, "StatefulSet")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= grace_s + 10
    memory = bytes_of(container(manifests)["resources"]["limits"]["memory"])
    assert float(settings["ESM_BUFFER_BYTES_MAX"]) <= memory / 2


def check_selects(manifests: list[Manifest]) -> None:
    """Service, budget and policy find the pod, and the ports that they name are its own."""
    stateful_set = one(manifests, "StatefulSet")["spec"]
    labels = stateful_set["template"]["metadata"]["labels"].items()
    service = one(manifests, "Service")
    assert stateful_set["serviceName"] == service["metadata"]["name"]
    budget = one(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    policy = one(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    for selector in (service["spec"]["selector"], budget, policy, stateful_set["selector"]["matchLabels"]):
        assert selector.items() <= labels
    assert [port["name"] for port in container(manifests)["ports"]] == ["metrics"]
    assert service["spec"]["ports"][0]["targetPort"] == "metrics"


def configured(manifests: list[Manifest]) -> dict[str, Any]:
    """The configuration that the pod mounts."""
    text = one(manifests, "ConfigMap")["data"]["esm.yaml"]
    found: dict[str, Any] = yaml.safe_load(text)
    return found
