"""deploy/kubernetes renders, Kubernetes knows what comes out, and the pod is restricted, drained and fed."""

import copy
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


PULLED = ("example-runtime-api", "example-runtime-api-sidecar")


def of_esm(rendered: list[Manifest]) -> list[Manifest]:
    """What an overlay without functions of its own has."""
    own = ("app.kubernetes.io/name", "esm")
    return [manifest for manifest in rendered if own in manifest["metadata"].get("labels", {}).items()]


@pytest.fixture(scope="module", params=PULLED)
def pulled(request: pytest.FixtureRequest) -> list[Manifest]:
    return kustomized(FOLDER / request.param)


def test_kubernetes_knows_every_member_of_functions_that_pull(pulled):
    check_valid(pulled)


def test_esm_beside_functions_that_pull_is_as_safe_but_for_the_port_that_they_need(pulled):
    manifests = copy.deepcopy(of_esm(pulled))
    ports = container(manifests)["ports"]
    assert ports.pop() == {"name": "runtime-api", "containerPort": 9001}
    check_safe(manifests)


def test_the_configuration_of_functions_that_pull_is_valid_and_its_files_are_mounted(pulled, tmp_path):
    (tmp_path / "esm.yaml").write_text(yaml.safe_dump(configured(pulled)))
    answer = subprocess.run(
        [sys.executable, "-m", "esm", "validate", "--offline", "-c", tmp_path / "esm.yaml"],
        capture_output=True, text=True, check=False, cwd=ROOT, env={"PATH": ""},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    (function,) = configured(pulled)["functions"].values()
    folders = {mount["mountPath"] for mount in container(of_esm(pulled))["volumeMounts"]}
    files = [text for name, text in function.items() if name.endswith("File")]
    assert files
    assert {str(Path(text).parent) for text in files} <= folders


def test_runtimes_reach_esm_and_nobody_else_does(pulled):
    service, function = named(pulled, "Service", "esm-runtime-api")["spec"], named(pulled, "Deployment", "orders")
    labels = function["spec"]["template"]["metadata"]["labels"].items()
    of_the_daemon = workload(of_esm(pulled))["spec"]["template"]["metadata"]["labels"].items()
    (listen,) = [one["Listen"] for one in configured(pulled)["functions"].values()]
    (port,) = service["ports"]
    assert service["selector"].items() <= of_the_daemon
    assert (port["port"], port["targetPort"]) == (int(listen.rpartition(":")[2]), "runtime-api")
    entry = named(pulled, "NetworkPolicy", "esm-runtime-api")["spec"]
    assert entry["podSelector"]["matchLabels"].items() <= of_the_daemon
    ((rule,), (source,)) = entry["ingress"], entry["ingress"][0]["from"]
    assert source["podSelector"]["matchLabels"].items() <= labels
    assert [one["port"] for one in rule["ports"]] == ["runtime-api"]
    own = named(pulled, "NetworkPolicy", "orders")["spec"]
    assert own["podSelector"]["matchLabels"].items() <= labels
    assert (own["policyTypes"], own.get("ingress")) == (["Ingress", "Egress"], None)
    assert [one["ports"] for one in own["egress"] if "podSelector" in one.get("to", [{}])[0]][-1] == [
        {"protocol": "TCP", "port": port["port"]}
    ]


def test_a_runtime_asks_the_service_with_its_token_or_its_sidecar(pulled):
    spec = named(pulled, "Deployment", "orders")["spec"]["template"]["spec"]
    (function,) = spec["containers"]
    variables = {entry["name"]: entry for entry in function["env"]}
    address = variables["AWS_LAMBDA_RUNTIME_API"]["value"]
    for sidecar in spec.get("initContainers", []):
        assert sidecar["restartPolicy"] == "Always"
        options = dict(argument.removeprefix("--").split("=") for argument in sidecar["args"][1:])
        assert (options["listen"], "RUNTIME_API_TOKEN" in variables) == (address, False)
        assert {str(Path(options[name]).parent) for name in ("cert", "key", "cacert")} == {"/etc/tls"}
        address = options["target"] + "/$(RUNTIME_API_TOKEN)"
    assert address == "esm-runtime-api:9001/$(RUNTIME_API_TOKEN)"
    names = [entry["name"] for entry in function["env"]]
    if "RUNTIME_API_TOKEN" in variables:  # Kubernetes puts in only what stands before
        assert names.index("RUNTIME_API_TOKEN") < names.index("AWS_LAMBDA_RUNTIME_API")
    for inside in (function, *spec.get("initContainers", [])):
        assert inside["securityContext"]["readOnlyRootFilesystem"] is True
        assert inside["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["securityContext"]["runAsNonRoot"] is True


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
