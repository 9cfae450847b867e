"""deploy/kubernetes renders, Kubernetes knows what comes out, and the pod is restricted, drained and fed."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import yaml

from esm import __version__
from esm.api.operations import TARGETS
from esm.rules.assignment import Candidate, assignment
from esm.rules.replicas import Lag
from tests.manifests import (
    Manifest,
    check_safe,
    check_valid,
    configured,
    container,
    environ,
    kustomized,
    named,
    one,
    pod,
    workload,
)
from tests.servers import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
SHIPPED = ("single", "example", "replicas", "example-replicas")
HPA = "replicas with an autoscaler of Kubernetes' own"


def with_autoscaler(folder: Path) -> list[Manifest]:
    """The overlay `replicas` with `monitoring` and `hpa`, as an operator's own folder puts them together."""
    near = os.path.relpath(FOLDER, folder)
    text = {"resources": [f"{near}/replicas"], "components": [f"{near}/monitoring", f"{near}/hpa"], "namespace": "esm"}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(text))
    return kustomized(folder)


@pytest.fixture(scope="module", params=[*SHIPPED, HPA])
def rendered(request, tmp_path_factory) -> list[Manifest]:
    if request.param == HPA:
        return with_autoscaler(tmp_path_factory.mktemp("hpa"))
    return kustomized(FOLDER / request.param)


def test_kubernetes_knows_every_member(rendered):
    check_valid(rendered)


def test_the_pod_is_restricted_drained_and_fed(rendered):
    check_safe(rendered)


def test_the_configuration_that_is_mounted_is_valid(rendered, tmp_path):
    (tmp_path / "esm.yaml").write_text(yaml.safe_dump(configured(rendered)))

    answer = subprocess.run(
        [sys.executable, "-m", "esm", "validate", "--offline", "-c", tmp_path / "esm.yaml"],
        capture_output=True, text=True, check=False, cwd=ROOT, env={"PATH": ""},
    )  # fmt: skip

    assert answer.returncode == 0, answer.stderr


def test_a_changed_configuration_reaches_the_running_pod(rendered):
    config = next(volume for volume in pod(rendered)["volumes"] if volume["name"] == "config")

    assert config["configMap"]["name"] == one(rendered, "ConfigMap")["metadata"]["name"] == "esm"


def test_the_image_is_this_versions(rendered):
    assert container(rendered)["image"].rpartition(":")[2] == __version__


@pytest.mark.parametrize("example", ["example", "example-replicas"])
def test_the_service_monitor_of_an_example_scrapes_every_pod_once(example):
    rendered = kustomized(FOLDER / example)
    monitor = one(rendered, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    services = [one for one in rendered if one["kind"] == "Service" and wanted <= one["metadata"]["labels"].items()]

    assert [service["metadata"]["name"] for service in services] == ["esm"]
    assert services[0]["spec"]["publishNotReadyAddresses"] is True
    assert [end["port"] for end in monitor["endpoints"]] == [port["name"] for port in services[0]["spec"]["ports"]]
    assert {manifest["metadata"]["namespace"] for manifest in rendered} == {"esm"}


def test_one_replica_and_several_run_the_same_pod_but_for_their_state():
    alone, shared = pod(kustomized(FOLDER / "single")), pod(kustomized(FOLDER / "replicas"))
    for spec in (alone, shared):
        spec.pop("topologySpreadConstraints", None)
        spec["securityContext"].pop("fsGroupChangePolicy", None)
        (inside,) = spec["containers"]
        inside["env"] = [entry for entry in inside["env"] if entry["name"] not in {"ESM_STATE", "ESM_WORKER_ID"}]
        inside["volumeMounts"] = [mount for mount in inside["volumeMounts"] if mount["name"] != "state"]

    assert shared == alone


def test_the_example_has_a_table_and_a_bucket_of_its_own():
    settings = environ(kustomized(FOLDER / "example-replicas"))

    assert settings["ESM_STATE"] == "dynamodb://esm-production"
    assert settings["ESM_BLOBS"] == "s3://esm-production-111122223333/blobs"


def test_keda_asks_a_ready_pod_for_a_number_that_there_is():
    rendered = kustomized(FOLDER / "example-replicas")
    scaled, service = one(rendered, "ScaledObject"), named(rendered, "Service", "esm-lag")
    (trigger,) = scaled["spec"]["triggers"]
    address = f"http://{service['metadata']['name']}.{service['metadata']['namespace']}.svc:9464/lag?"
    policy = one(rendered, "NetworkPolicy")["spec"]["ingress"][0]["from"]

    assert scaled["spec"]["scaleTargetRef"] == target(rendered)
    assert trigger["type"] == "metrics-api"
    assert trigger["metadata"]["url"].startswith(address)
    assert parse_qs(trigger["metadata"]["url"].partition("?")[2], strict_parsing=True).keys() == TARGETS.keys()
    assert trigger["metadata"]["valueLocation"] in {field.name for field in fields(Lag)}
    assert "publishNotReadyAddresses" not in service["spec"]
    assert [port["port"] for port in service["spec"]["ports"]] == [9464]
    assert [one["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for one in policy] == [
        "monitoring", "keda",
    ]  # fmt: skip


def test_the_autoscaler_reads_the_number_that_the_adapter_offers(tmp_path):
    scaler = one(with_autoscaler(tmp_path), "HorizontalPodAutoscaler")["spec"]
    (rule,) = yaml.safe_load((ROOT / "deploy" / "prometheus" / "adapter.yaml").read_text())["rules"]["external"]
    (metric,) = scaler["metrics"]

    assert scaler["scaleTargetRef"] == target(with_autoscaler(tmp_path))
    assert metric["external"]["metric"]["name"] == rule["name"]["as"]
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "1"}


def target(rendered: list[Manifest]) -> dict[str, str]:
    found = workload(rendered)
    return {"apiVersion": found["apiVersion"], "kind": found["kind"], "name": found["metadata"]["name"]}


def moves_in_a_rollout(replicas: int, surge: int) -> float:
    """How often a shard moves on average, if every new pod is ready before as many old ones go."""
    shards = [("mapping", f"shard-{number}") for number in range(120)]
    live = [f"esm-old-{number}" for number in range(replicas)]
    coming = [f"esm-new-{number}" for number in range(replicas)]
    owners = assignment(shards, {}, [Candidate(worker, frozenset({"mapping"})) for worker in live])
    moves = 0
    while any("old" in worker for worker in live):
        live += coming[:surge]
        coming = coming[surge:]
        gone = [worker for worker in live if "old" in worker][:surge]
        for remaining in (live, [worker for worker in live if worker not in gone]):
            known = [Candidate(worker, frozenset({"mapping"})) for worker in remaining]
            after = assignment(shards, owners, known)
            moves += sum(after[shard] != owners[shard] for shard in shards)
            owners, live = after, list(remaining)
    return moves / len(shards)


def test_a_surge_of_all_moves_each_shard_once():
    assert workload(kustomized(FOLDER / "replicas"))["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == "100%"
    for replicas in (2, 3, 10):
        assert moves_in_a_rollout(replicas, replicas) == 1.0
        assert moves_in_a_rollout(replicas, 1) > 1.25
