"""deploy/kubernetes renders, Kubernetes knows what comes out, and the pod is restricted, drained and fed."""

import subprocess
import sys

import pytest
import yaml

from esm import __version__
from tests.manifests import Manifest, check_safe, check_valid, configured, container, kustomized, one
from tests.servers import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
RUN_ALONE = ("single", "example")


@pytest.fixture(scope="module", params=RUN_ALONE)
def rendered(request) -> list[Manifest]:
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
    config = next(
        volume for volume in one(rendered, "StatefulSet")["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "config"
    )  # fmt: skip

    assert config["configMap"]["name"] == one(rendered, "ConfigMap")["metadata"]["name"] == "esm"


def test_the_image_is_this_versions(rendered):
    assert container(rendered)["image"].rpartition(":")[2] == __version__


def test_the_service_monitor_of_the_example_finds_the_service():
    rendered = kustomized(FOLDER / "example")
    monitor, service = one(rendered, "ServiceMonitor")["spec"], one(rendered, "Service")

    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [end["port"] for end in monitor["endpoints"]] == [port["name"] for port in service["spec"]["ports"]]
    assert {manifest["metadata"]["namespace"] for manifest in rendered} == {"esm"}
