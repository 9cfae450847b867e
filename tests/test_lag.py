"""`/lag`: JSON out of which an autoscaler takes one number, and which refuses a query that it does not understand."""

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from esm.api.fleet import Answer
from esm.api.operations import application, serving
from esm.model.clocks import UnixTime
from esm.model.mapping import State
from esm.model.view import MappingView, ShardView
from esm.rules.fleet_views import FleetView, Life, Report

QUEUE = "arn:aws:sqs:us-east-1:123456789012:q"
VIEW = MappingView("u", "f", QUEUE, State.ENABLED, "OK", has_problem=False, in_flight=0, backlog=1800, not_visible=400,
                   shards=(ShardView("", 12.3456, 0.0, None, 0.0),), batches_max=1250)  # fmt: skip


async def fleet() -> Answer:
    report = Report("a", Life.LIVE, UnixTime(1.0), (VIEW,))
    return Answer((FleetView(VIEW, ((report, VIEW),)),), 0.25)


async def asked(query: str) -> tuple[int, str, object]:
    app = application(CollectorRegistry(), fleet, lambda: True)
    async with (
        serving(app, "127.0.0.1", 0) as port,
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{port}/lag{query}") as answer,
    ):
        is_json = answer.content_type == "application/json"
        return answer.status, answer.content_type, await (answer.json() if is_json else answer.text())


async def test_the_document_has_one_number_and_what_it_was_made_of() -> None:
    assert await asked("") == (200, "application/json", {
        "desired_replicas": 3,
        "known_age_s": 0.25,
        "mappings": [{
            "mapping": "u", "function": "f", "source": QUEUE, "state": "Enabled", "lag_s": 12.346,
            "visible_messages": 1800, "not_visible_messages": 400, "shards": None, "replicas_max": 1250,
            "desired_replicas": 3,
        }],
    })  # fmt: skip


async def test_the_query_says_what_one_replica_bears() -> None:
    _, _, document = await asked("?messages_per_replica=220&lag_s_per_replica=5")
    assert isinstance(document, dict)
    assert document["desired_replicas"] == 10


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?messages_per_replica=0", "messages_per_replica=0: it must be a number above 0, such as"),
        ("?messages_per_replica=many", "messages_per_replica=many: it must be a number above 0"),
        ("?lag_s_per_replica=inf", "lag_s_per_replica=inf: it must be a number above 0"),
        ("?lag_s_per_replica=nan", "lag_s_per_replica=nan: it must be a number above 0"),
        ("?lag_per_replica=5", "lag_per_replica: no such parameter; use messages_per_replica or lag_s_per_replica"),
    ],
)
async def test_a_wrong_query_is_refused_by_name(query: str, said: str) -> None:
    status, _, text = await asked(query)
    assert status == 400
    assert str(text).startswith(said)
