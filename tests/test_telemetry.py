"""What a scrape shows: every metric of a mapping with its labels, and nothing of a mapping that is gone."""

from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from esm.model.arn import Arn, SourceKind
from esm.model.invocation import Answer
from esm.model.mapping import Mapping
from esm.model.view import MappingView, ShardView
from esm.runtime.observation import Observation
from esm.telemetry import Telemetry

MAPPING = Mapping(
    uuid="u", function="f", function_arn=Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:f"),
    source_arn=Arn.parse("arn:aws:sqs:us-east-1:000000000000:q"), source_kind=SourceKind.SQS,
    tags=(("cost-centre", "7"), ("team", "orders")),
)  # fmt: skip
LABELS = {"team": "tag_team", "cost-centre": "tag_cost_centre", "stage": "tag_stage"}


def running(telemetry: Telemetry, mapping: Mapping = MAPPING) -> Observation:
    """A mapping of which everything is shown that can be."""
    observation = Observation(mapping, telemetry.mapping(mapping))
    observation.backlog = 3
    observation.shards = lambda: (ShardView("", 1.0, 0.0, 5.0, 0.0),)
    telemetry.live.views = lambda: [observation.view()]
    observation.telemetry.invocation_ended(Answer("r", b""), "success", 3, 0, 0.1)
    return observation


def samples(telemetry: Telemetry) -> list[tuple[str, dict[str, str], float]]:
    text = generate_latest(telemetry.exposed).decode()
    families = text_string_to_metric_families(text)
    return [(one.name, one.labels, one.value) for family in families for one in family.samples]


def test_tags_asked_for_are_labels_of_every_metric_of_a_mapping() -> None:
    telemetry = Telemetry(CollectorRegistry(), tag_labels=LABELS)
    running(telemetry)
    of_mappings = [(name, labels) for name, labels, _ in samples(telemetry) if "mapping" in labels]
    names = {name for name, _ in of_mappings}
    assert {"esm_polled_events_total", "esm_invocation_duration_seconds_bucket", "esm_mapping_state"} <= names
    for name, labels in of_mappings:
        tags = {label: value for label, value in labels.items() if label.startswith("tag_")}
        assert tags == {"tag_team": "orders", "tag_cost_centre": "7", "tag_stage": ""}, name


def test_without_being_asked_for_tags_are_no_labels() -> None:
    telemetry = Telemetry(CollectorRegistry())
    running(telemetry)
    assert not any(label.startswith("tag_") for _, labels, _ in samples(telemetry) for label in labels)


def test_metrics_of_the_daemon_itself_have_no_tags() -> None:
    telemetry = Telemetry(CollectorRegistry(), tag_labels=LABELS)
    telemetry.aws_request("sqs", "ReceiveMessage", "ok")
    assert ("esm_aws_requests_total", {"service": "sqs", "operation": "ReceiveMessage", "outcome": "ok"}, 1.0) in (
        samples(telemetry)
    )


def test_a_counter_goes_on_under_changed_tags() -> None:
    telemetry = Telemetry(CollectorRegistry(), tag_labels={"team": "tag_team"})
    observation = running(telemetry)
    observation.telemetry.polled(5)
    observation.follow(replace(MAPPING, tags=(("team", "billing"),)))
    observation.telemetry.polled(1)
    polled = [
        (labels["tag_team"], value) for name, labels, value in samples(telemetry) if name.startswith("esm_polled")
    ]
    assert ("billing", 6.0) in polled
    assert not any(team == "orders" for team, _ in polled)


def test_every_series_vanishes_with_its_mapping() -> None:
    telemetry = Telemetry(CollectorRegistry(), tag_labels=LABELS)
    gone, stays = running(telemetry), running(telemetry, replace(MAPPING, uuid="v"))
    assert isinstance(stays.view(), MappingView)
    gone.telemetry.close()
    assert {labels["mapping"] for _, labels, _ in samples(telemetry) if "mapping" in labels} == {"v"}
    assert telemetry.exposed.tags.keys() == {"v"}
