"""The dashboard and the alerts ask for metrics and labels that the daemon has, and the alerts fire when they should."""

import json
import re
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from esm.model.arn import Arn, SourceKind
from esm.model.invocation import Answer
from esm.model.mapping import Mapping
from esm.model.view import ShardView
from esm.runtime.observation import Observation
from esm.telemetry import Telemetry
from tests.manifests import tool
from tests.servers import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTS = PROMETHEUS / "alerts.yaml"
ALERTS_TEST = PROMETHEUS / "alerts_test.yaml"
SCALING = yaml.safe_load((PROMETHEUS / "scaling.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "esm.json").read_text())
RULES = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:f"

MAPPING = Mapping(
    uuid="u", function="f", function_arn=Arn.parse(FUNCTION), tumbling_window_s=1,
    source_arn=Arn.parse("arn:aws:kinesis:us-east-1:000000000000:stream/s"), source_kind=SourceKind.KINESIS,
)  # fmt: skip


def everything() -> Telemetry:
    """The telemetry of a daemon to which everything has happened that has a metric."""
    telemetry = Telemetry(CollectorRegistry())
    observation = Observation(MAPPING, telemetry.mapping(MAPPING))
    observation.counted(1, 1)
    observation.shards = lambda: (ShardView("", 1.0, 0.0, 5.0, 0.0),)
    telemetry.taken_over("planned", 0.5)
    telemetry.live.heartbeat_age_s = lambda: 1.0
    telemetry.live.views = lambda: [observation.view()]
    telemetry.live.async_backlogs = lambda: {FUNCTION: 1}
    observation.telemetry.invocation_ended(Answer("r", b""), "success", 1, 0, 0.1)
    events = telemetry.asynchronous(FUNCTION)
    events.aged(1.0)
    events.invocation_ended("r", "success", 1, 0.1)
    events.dropped("destination", "r")
    telemetry.aws_request("sqs", "ReceiveMessage", "ok")
    return telemetry


def labels_by_metric() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(everything().exposed).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


KNOWN = labels_by_metric()
REPLICA = {"instance", "pod", "node"}
"""Labels that Prometheus adds, and by which it tells replicas apart."""
INSTALLATION = {"namespace", "job"}
"""Labels that it adds, and that all replicas of one installation share."""
TOGETHER = "without (instance, pod, node) ("


def panels() -> list[dict]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def asked() -> Iterator[tuple[str, str]]:
    """Every expression, with what names it."""
    for rule in [*RULES, *SCALING]:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]


@pytest.mark.parametrize(("name", "expression"), list(asked()))
def test_what_is_asked_for_exists(name, expression):
    metrics = re.findall(r"\besm_\w+", expression)
    selected = re.findall(r"(esm_\w+)\{([^}]*)\}", expression)
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    ignored = {label.strip() for group in re.findall(r"without \(([^)]*)\)", expression) for label in group.split(",")}
    listed = re.findall(r"label_values\((esm_\w+).*, (\w+)\)", expression)

    assert metrics, name
    assert [metric for metric in metrics if metric not in KNOWN] == []
    for metric, labels in selected:
        assert set(re.findall(r"(\w+)=~?", labels)) <= KNOWN[metric]
    assert ignored <= REPLICA
    for metric in metrics:
        assert grouped - REPLICA - INSTALLATION <= KNOWN[metric]
    for metric, label in listed:
        assert label in KNOWN[metric]


def test_every_counter_of_trouble_has_an_alert():
    wanted = {
        "esm_dropped_events_total", "esm_position_lost_total", "esm_destination_errors_total", "esm_store_errors_total",
        "esm_async_events_dropped_total", "esm_mapping_problem", "esm_target_circuit_open", "esm_lag_seconds",
        "esm_blocked_seconds", "esm_seconds_until_expiry", "esm_recursive_invocations_dropped_total",
        "esm_shards_without_owner", "esm_heartbeat_age_seconds", "esm_workers",
    }  # fmt: skip

    assert wanted <= {metric for rule in RULES for metric in re.findall(r"\besm_\w+", rule["expr"])}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do_with_labels_that_it_has(rule):
    texts = " ".join(rule["annotations"].values())
    named = set(re.findall(r"\$labels\.(\w+)", texts))

    assert rule["annotations"].keys() == {"summary", "description"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    for metric in re.findall(r"\besm_\w+", rule["expr"]):
        assert named - REPLICA <= KNOWN[metric]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_speaks_of_all_replicas_together_or_says_of_which_one(rule):
    names_the_replica = "$labels.instance" in rule["annotations"]["summary"]
    asked_apart = re.sub(re.escape(TOGETHER) + r"+[^)]*\)", "", rule["expr"])

    assert names_the_replica == bool(re.search(r"(?<!absent\()\besm_\w+", asked_apart))


def test_every_alert_is_seen_to_fire_and_to_be_silent():
    tests = yaml.safe_load(ALERTS_TEST.read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    alerts = {rule["alert"] for rule in RULES}

    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == alerts
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == alerts


@pytest.mark.parametrize("rules", ["alerts", "scaling"])
@pytest.mark.parametrize(("command", "ending"), [("check", ""), ("test", "_test")])
def test_prometheus_takes_the_rules_and_they_do_as_their_tests_say(command, ending, rules):
    promtool = tool("promtool", "run `make promtool`, or install Prometheus")
    path = PROMETHEUS / f"{rules}{ending}.yaml"

    answer = subprocess.run([promtool, command, "rules", path], capture_output=True, text=True, check=False)

    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_adapter_offers_what_is_recorded_for_it():
    (rule,) = yaml.safe_load((PROMETHEUS / "adapter.yaml").read_text())["rules"]["external"]

    assert rule["seriesQuery"].split("{")[0] in {recorded["record"] for recorded in SCALING}


@pytest.mark.parametrize(("name", "expression"), list(asked()))
def test_what_every_replica_says_of_the_same_thing_is_not_added_up(name, expression):
    said_by_each = (
        "mapping_problem|target_circuit_open|queue_backlog|lag_seconds|seconds_until_expiry|blocked_seconds|workers"
        "|checkpoint_age_seconds|shards_without_owner|heartbeat_age_seconds"
    )

    assert not re.search(rf"\bsum[^(]*(\([a-z_, ]+\) )?\(esm_({said_by_each})\b", expression), name


def test_the_panels_of_the_dashboard_do_not_lie_on_each_other_and_use_its_variables():
    places = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w+)", json.dumps(DASHBOARD["panels"])))
    identities = [panel["id"] for panel in DASHBOARD["panels"]]

    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
    assert used == variables
    assert len(identities) == len(set(identities))
