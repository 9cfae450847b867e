"""deploy/helm/esm lints, renders what deploy/kubernetes has, and refuses values that would do harm.

Helm's code runs in processes of its own: it brings a runtime and signal handlers along.
"""

import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest
import yaml

from esm import __version__
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
    unavailable,
    workload,
)
from tests.servers import ROOT

CHART = ROOT / "deploy" / "helm" / "esm"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
EXAMPLE = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "example" / "esm.yaml").read_text())
MONITORED = {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True},
             "grafanaDashboard": {"enabled": True}}  # fmt: skip
EVERYTHING = {
    **MONITORED,
    "image": {"repository": "registry.example.com/esm", "pullSecrets": [{"name": "mine"}]},
    "config": EXAMPLE, "functionTimeoutSecondsMax": 120, "settings": {"ESM_LOG_LEVEL": "DEBUG", "ESM_STRICT": True},
    "env": [{"name": "AWS_REGION", "value": "eu-central-1"}], "envFrom": [{"secretRef": {"name": "mine"}}],
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/esm"}},
    "persistence": {"storageClass": "gp3", "accessModes": ["ReadWriteOncePod"]},
    "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"}, "nodeSelector": {"e": "f"}, "priorityClassName": "high",
    "tolerations": [{"operator": "Exists"}], "affinity": {"nodeAffinity": {}},
    "extraVolumes": [{"name": "code", "configMap": {"name": "code"}}],
    "extraVolumeMounts": [{"name": "code", "mountPath": "/code"}],
}  # fmt: skip

TABLE = {"state": "dynamodb://esm"}
KEDA = {**TABLE, "autoscaling": {"by": "keda"}}
HPA = {**TABLE, "autoscaling": {"by": "hpa"}}
SHARED = {
    **{name: value for name, value in EVERYTHING.items() if name != "persistence"}, "state": "dynamodb://esm-production",
    "blobs": "s3://esm-production-111122223333/blobs", "replicas": 4,
    "rollout": {"maxSurge": 1, "minReadySeconds": 30},
}  # fmt: skip

RENDER = """
import json, sys
from helm_python import Chart
with Chart.load(sys.argv[1]) as chart:
    print(json.dumps(chart.render(json.load(sys.stdin), name="my", namespace="ns")))
"""
LINT = "import json, sys; from helm_python import lint; print(json.dumps(lint(sys.argv[1], strict=True)))"


def helm(program: str, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("helm_python") is None:
        unavailable("no helm-python-sdk here: it is installed on x86-64 Linux only")
    return subprocess.run(
        [sys.executable, "-c", program, CHART], input=json.dumps(values), capture_output=True, text=True, check=False
    )


def rendered(values: dict[str, Any]) -> list[Manifest]:
    answer = helm(RENDER, values)
    assert answer.returncode == 0, answer.stderr
    texts = [text for name, text in json.loads(answer.stdout).items() if name.endswith(".yaml")]
    return [manifest for text in texts for manifest in yaml.safe_load_all(text) if manifest is not None]


def of_esm(manifests: list[Manifest]) -> list[Manifest]:
    """Without the dashboard, which is a second ConfigMap."""
    return [manifest for manifest in manifests if not manifest["metadata"]["name"].endswith("-dashboard")]


def test_the_chart_passes_helms_lint():
    report = json.loads(helm(LINT, {}).stdout)

    assert report["errors"] == []
    assert {message["error"] for message in report["messages"]} == {"icon is recommended"}


WAYS = {"defaults": {}, "everything": EVERYTHING, "table": TABLE, "shared": SHARED, "keda": KEDA, "hpa": HPA}


@pytest.mark.parametrize("values", WAYS.values(), ids=WAYS)
def test_what_the_chart_renders_is_valid_restricted_drained_and_fed(values):
    manifests = rendered(values)

    check_valid(manifests)
    check_safe(of_esm(manifests))


@pytest.mark.parametrize(("values", "overlay"), [({}, "single"), (TABLE, "replicas")])
def test_the_chart_makes_the_same_pod_as_kustomize(values, overlay):
    ours = workload(of_esm(rendered(values)))["spec"]
    theirs = workload(kustomized(ROOT / "deploy" / "kubernetes" / overlay))["spec"]
    for spec in (ours, theirs):
        del spec["selector"], spec["template"]["metadata"]
        spec.pop("serviceName", None)
        for claim in spec.get("volumeClaimTemplates", ()):
            del claim["metadata"]
        inside = spec["template"]["spec"]
        del inside["serviceAccountName"]
        inside["volumes"] = [{**volume, "configMap": None} for volume in inside["volumes"]]
        for spread in inside.get("topologySpreadConstraints", ()):
            del spread["labelSelector"]
        inside["containers"][0]["env"].sort(key=lambda entry: entry["name"])

    assert ours == theirs


@pytest.mark.parametrize(("values", "component", "kind"), [
    (KEDA, "keda", "ScaledObject"), (HPA, "hpa", "HorizontalPodAutoscaler"),
])  # fmt: skip
def test_the_chart_scales_as_kustomize_does(values, component, kind):
    ours = one(rendered(values), kind)["spec"]
    files = (ROOT / "deploy" / "kubernetes" / component).glob("*.yaml")
    theirs = one([yaml.safe_load(path.read_text()) for path in files], kind)["spec"]

    as_theirs = json.loads(json.dumps(ours).replace("my-lag.ns.", "esm-lag.esm.").replace('"my"', '"esm"'))

    assert as_theirs == theirs


def test_keda_is_let_through_to_a_service_that_is_not_scraped():
    manifests = rendered({**KEDA, **MONITORED, "autoscaling": {"by": "keda", "kedaNamespace": "scalers"}})
    service = named(manifests, "Service", "my-lag")
    scraped = one(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    allowed = one(manifests, "NetworkPolicy")["spec"]["ingress"][0]["from"]

    assert "publishNotReadyAddresses" not in service["spec"]
    assert not scraped <= service["metadata"]["labels"].items()
    assert scraped <= named(manifests, "Service", "my")["metadata"]["labels"].items()
    assert allowed[-1]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "scalers"}


def test_what_the_autoscaler_asks_for_is_recorded_with_the_alerts():
    manifests = rendered({**HPA, **MONITORED})
    recorded = yaml.safe_load((ROOT / "deploy" / "prometheus" / "scaling.yaml").read_text())

    assert named(manifests, "PrometheusRule", "my-scaling")["spec"] == recorded
    assert [rule for rule in rendered(HPA) if rule["kind"] == "PrometheusRule"] == []


def test_every_value_of_several_replicas_does_something():
    manifests = of_esm(rendered(SHARED))
    spec = workload(manifests)["spec"]

    assert workload(manifests)["kind"] == "Deployment"
    assert spec["replicas"] == 4
    assert spec["minReadySeconds"] == 30
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert environ(manifests) == {
        "ESM_SHUTDOWN_GRACE_S": "145", "ESM_BUFFER_BYTES_MAX": "268435456", "ESM_LOG_LEVEL": "DEBUG",
        "ESM_STRICT": "true", "AWS_REGION": "eu-central-1", "ESM_STATE": "dynamodb://esm-production",
        "ESM_BLOBS": "s3://esm-production-111122223333/blobs", "ESM_WORKER_ID": "{metadata.name}",
    }  # fmt: skip
    (trigger,) = one(rendered({**TABLE, "autoscaling": {
        "by": "keda", "replicasMin": 3, "replicasMax": 7, "messagesPerReplica": 500, "lagSecondsPerReplica": 5,
    }}), "ScaledObject")["spec"]["triggers"]  # fmt: skip
    assert trigger["metadata"]["url"].endswith("/lag?messages_per_replica=500&lag_s_per_replica=5")


def test_the_one_pod_may_be_put_to_sleep():
    assert workload(rendered({"replicas": 0}))["spec"]["replicas"] == 0


def test_every_value_does_something():
    manifests = of_esm(rendered(EVERYTHING))
    pod = workload(manifests)["spec"]["template"]
    account = one(manifests, "ServiceAccount")["metadata"]

    assert container(manifests)["image"] == f"registry.example.com/esm:{__version__}"
    assert configured(manifests) == EXAMPLE
    assert environ(manifests) == {
        "ESM_SHUTDOWN_GRACE_S": "145", "ESM_BUFFER_BYTES_MAX": "268435456", "ESM_LOG_LEVEL": "DEBUG",
        "ESM_STRICT": "true", "AWS_REGION": "eu-central-1",
    }  # fmt: skip
    assert account["annotations"] == EVERYTHING["serviceAccount"]["annotations"]
    assert pod["metadata"]["annotations"] == {"a": "b"}
    assert pod["metadata"]["labels"]["c"] == "d"
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert pod["spec"][name] == EVERYTHING[name]
    assert pod["spec"]["volumes"][-1] == EVERYTHING["extraVolumes"][0]
    assert container(manifests)["volumeMounts"][-1] == EVERYTHING["extraVolumeMounts"][0]


def test_large_numbers_of_the_configuration_stay_whole():
    mapping = {"FunctionName": "f", "StartingPositionTimestamp": 1_800_000_000, "MaximumRecordAgeInSeconds": 604_800}

    found = configured(of_esm(rendered({"config": {"mappings": [mapping]}})))["mappings"]

    assert found == [mapping]
    assert configured(of_esm(rendered({})))["account_id"] == VALUES["config"]["account_id"]


def test_a_config_map_of_ones_own_takes_the_place_of_the_charts():
    manifests = rendered({"existingConfigMap": "mine"})
    volumes = pod(manifests)["volumes"]

    assert [manifest for manifest in manifests if manifest["kind"] == "ConfigMap"] == []
    assert volumes[0]["configMap"] == {"name": "mine"}


def test_alerts_and_dashboard_come_with_the_chart_as_they_are():
    manifests = rendered(MONITORED)
    (dashboard,) = [manifest for manifest in manifests if manifest["metadata"]["name"].endswith("-dashboard")]

    assert one(manifests, "PrometheusRule")["spec"] == yaml.safe_load(
        (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text()
    )
    assert json.loads(dashboard["data"]["esm.json"]) == json.loads((ROOT / "deploy/grafana/esm.json").read_text())
    assert one(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items() <= (
        one(manifests, "Service")["metadata"]["labels"].items()
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 2}, "at '/replicas': maximum: got 2, want 1"),
        ({"state": "memory://"}, "at '/state'"),
        ({"state": "sqlite:////tmp/state.db"}, "at '/state'"),
        ({"blobs": "s3://bucket/prefix"}, "at '/blobs'"),
        ({"autoscaling": {"by": "keda"}}, "at '/autoscaling/by'"),
        ({**TABLE, "autoscaling": {"by": "both"}}, "at '/autoscaling/by'"),
        ({**TABLE, "autoscaling": {"by": "hpa", "keda": True}}, "additional properties 'keda' not allowed"),
        ({**KEDA, "replicas": 3}, "at '/replicas'"),
        ({**TABLE, "autoscaling": {"by": "hpa", "replicasMin": 0}}, "at '/autoscaling/replicasMin'"),
        ({**TABLE, "autoscaling": {"by": "hpa", "replicasMin": 20}}, "raise autoscaling.replicasMax"),
        ({**TABLE, "rollout": {"maxSurge": 0}}, "at '/rollout/maxSurge'"),
        ({**TABLE, "rollout": {"maxSurge": "0%"}}, "at '/rollout/maxSurge'"),
        ({**TABLE, "rollout": {"minReadySeconds": 0}}, "at '/rollout/minReadySeconds'"),
        ({**TABLE, "blobs": "/var/lib/esm"}, "at '/blobs'"),
        ({"settings": {"ESM_WORKER_ID": "mine"}}, "invalid propertyName 'ESM_WORKER_ID'"),
        ({"env": [{"name": "ESM_STATE", "value": "memory://"}]}, "at '/env/0/name'"),
        ({"settings": {"ESM_STATE": "memory://"}}, "invalid propertyName 'ESM_STATE'"),
        ({"settings": {"ESM_BUFFER_BYTES_MAX": 268435456}}, "/settings/ESM_BUFFER_BYTES_MAX"),
        ({"persistence": {"accessModes": ["ReadWriteMany"]}}, "/persistence/accessModes"),
        ({"serviceAccount": {"create": False}}, "/serviceAccount"),
        ({"config": {"account_id": 111122223333}}, "/config/account_id"),
        ({"config": {"functions": {"slow": {"Timeout": 300}}}}, "raise functionTimeoutSecondsMax"),
    ],
)
def test_values_that_would_do_harm_are_refused_by_name(values, said):
    answer = helm(RENDER, values)

    assert answer.returncode != 0
    assert said in answer.stderr


def test_the_schema_knows_every_value():
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]

    assert VALUES.keys() == schema.keys() - {"global"}


def test_the_chart_is_of_this_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
