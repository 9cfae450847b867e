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

from esm.settings import Settings, load_settings
from tests.servers import SERVERS

KUBERNETES = "1.37"
SETTINGS = {f"ESM_{name.upper()}" for name in Settings.model_fields}
OPERATORS_OWN = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
"""Kinds of the Prometheus Operator and of KEDA: their schemas are not Kubernetes's."""
WORKLOADS = {"StatefulSet", "Deployment"}

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


def workload(manifests: Iterable[Manifest]) -> Manifest:
    """The one object that makes pods."""
    (found,) = [manifest for manifest in manifests if manifest["kind"] in WORKLOADS]
    return found


def pod(manifests: Iterable[Manifest]) -> Manifest:
    found: Manifest = workload(manifests)["spec"]["template"]["spec"]
    return found


def container(manifests: Iterable[Manifest]) -> Manifest:
    (found,) = pod(manifests)["containers"]
    return found


def named(manifests: Iterable[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [one for one in manifests if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def environ(manifests: Iterable[Manifest]) -> dict[str, str]:
    """The variables; one that is a member of the pod as `{path}`. None is set twice."""
    entries = container(manifests)["env"]
    names = [entry["name"] for entry in entries]
    assert len(names) == len(set(names))
    return {
        entry["name"]: entry["value"] if "value" in entry else f"{{{entry['valueFrom']['fieldRef']['fieldPath']}}}"
        for entry in entries
    }


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
    inside, around = container(manifests), pod(manifests)
    assert around["enableServiceLinks"] is False
    assert around["automountServiceAccountToken"] is False
    assert around["serviceAccountName"] == one(manifests, "ServiceAccount")["metadata"]["name"]
    assert around["securityContext"]["runAsNonRoot"] is True
    assert around["securityContext"]["fsGroup"] == around["securityContext"]["runAsGroup"]
    assert around["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inside["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    mounts = {mount["mountPath"]: mount for mount in inside["volumeMounts"]}
    assert mounts.keys() >= {"/etc/esm", "/tmp"}
    assert not any("subPath" in mount for mount in mounts.values())
    volumes = {volume["name"]: volume for volume in around["volumes"]}
    assert "emptyDir" in volumes[mounts["/tmp"]["name"]]
    probes = {name: inside[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert probes == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
    if workload(manifests)["kind"] == "StatefulSet":
        check_alone(manifests)
    else:
        check_shared(manifests)
    check_enough(manifests)
    check_selects(manifests)


def check_alone(manifests: list[Manifest]) -> None:
    """One replica, whose state is a file on a volume of its own."""
    spec = workload(manifests)["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container(manifests)["volumeMounts"]}
    assert spec["replicas"] == 1
    assert spec["serviceName"] == named(manifests, "Service", spec["serviceName"])["metadata"]["name"]
    assert mounts["/var/lib/esm"] == claim["metadata"]["name"]
    assert environ(manifests).keys().isdisjoint({"ESM_STATE", "ESM_WORKER_ID"})


def check_shared(manifests: list[Manifest]) -> None:
    """Replicas that share a table, no two with one name; new ones come before old ones go, and are spread."""
    spec, settings = workload(manifests)["spec"], environ(manifests)
    scalers = [manifest for manifest in manifests if manifest["kind"] in {"HorizontalPodAutoscaler", "ScaledObject"}]
    assert len(scalers) == (0 if "replicas" in spec else 1)
    assert spec.get("replicas", 2) >= 2
    assert settings["ESM_STATE"].startswith("dynamodb://")
    assert settings.get("ESM_BLOBS", "s3://").startswith("s3://")
    assert settings["ESM_WORKER_ID"] == "{metadata.name}"
    assert spec["strategy"]["type"] == "RollingUpdate"
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert str(spec["strategy"]["rollingUpdate"]["maxSurge"]).strip("%0") != ""
    assert spec["minReadySeconds"] >= 5
    labels = spec["template"]["metadata"]["labels"].items()
    for spread in pod(manifests)["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"].items() <= labels
        assert spread["whenUnsatisfiable"] == "ScheduleAnyway"


def check_enough(manifests: list[Manifest]) -> None:
    """The daemon takes the settings; time to drain, and memory, are enough."""
    settings = environ(manifests)
    assert {name for name in settings if name.startswith("ESM_")} <= SETTINGS
    load_settings(settings, {})
    grace_s = float(settings["ESM_SHUTDOWN_GRACE_S"])
    longest_s = max([0, *(one.get("Timeout", 0) for one in configured(manifests).get("functions", {}).values())])
    assert grace_s >= float(settings.get("ESM_SQS_WAIT_S", 20)) + longest_s + 5
    assert pod(manifests)["terminationGracePeriodSeconds"] >= grace_s + 10
    memory = bytes_of(container(manifests)["resources"]["limits"]["memory"])
    assert float(settings["ESM_BUFFER_BYTES_MAX"]) <= memory / 2


def check_selects(manifests: list[Manifest]) -> None:
    """Services, budget and policy find the pod, and the ports that they name are its own."""
    spec = workload(manifests)["spec"]
    labels = spec["template"]["metadata"]["labels"].items()
    services = [manifest["spec"] for manifest in manifests if manifest["kind"] == "Service"]
    budget = one(manifests, "PodDisruptionBudget")["spec"]
    policy = one(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    for selector in (budget["selector"]["matchLabels"], policy, spec["selector"]["matchLabels"]):
        assert selector.items() <= labels
    assert budget["maxUnavailable"] == 1
    assert [port["name"] for port in container(manifests)["ports"]] == ["metrics"]
    for service in services:
        assert service["selector"].items() <= labels
        assert [port["targetPort"] for port in service["ports"]] == ["metrics"]


def configured(manifests: list[Manifest]) -> dict[str, Any]:
    """The configuration that the pod mounts."""
    text = one(manifests, "ConfigMap")["data"]["esm.yaml"]
    found: dict[str, Any] = yaml.safe_load(text)
    return found
