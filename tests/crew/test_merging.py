"""The metrics of many workers are those of one program: complete, and counters never go back."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from esm.crew.merging import GAUGES, Merger, parsed
from esm.host.metrics import HostMetrics
from esm.telemetry import Telemetry

OF_MAPPING = 'mapping="u",function="f",source="s"'


def exported() -> list[Metric]:
    registry = CollectorRegistry()
    Telemetry(registry)
    HostMetrics(registry)
    return list(registry.collect())


def metrics(text: str) -> list[Metric]:
    return list(parsed(text))


def scrape(*lines: str, kind: str = "counter") -> list[Metric]:
    name = lines[0].split("{", 1)[0].split(" ", 1)[0]
    return metrics(f"# HELP {name} Text\n# TYPE {name} {kind}\n" + "".join(f"{line}\n" for line in lines))


def values(merger: Merger, *scrapes: list[Metric], is_complete: bool = True) -> dict[str, float]:
    text = generate_latest(merger.merged(scrapes, is_complete=is_complete)).decode()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {series: float(value) for series, value in lines}


def test_the_table_has_a_rule_for_every_gauge_of_the_program() -> None:
    assert {family.name for family in exported() if family.type == "gauge"} - {*GAUGES} == set()
    assert {family.type for family in exported()} == {"counter", "histogram", "gauge"}


def test_a_merged_scrape_of_one_worker_is_its_own_without_the_moments_of_creation() -> None:
    telemetry = Telemetry(CollectorRegistry())
    telemetry.aws_request("sqs", "ReceiveMessage", "ok")
    telemetry.asynchronous("f").aged(0.05)
    text = generate_latest(telemetry.exposed).decode()
    own = {line for line in text.splitlines() if "_created" not in line}
    merged = generate_latest(Merger().merged([metrics(text)], is_complete=True)).decode().splitlines()
    assert set(merged) == own
    assert len(merged) == len(own)


@pytest.mark.parametrize(
    ("name", "merged"),
    [
        ("esm_invocations_in_flight", 5), ("esm_function_concurrent_executions", 5), ("esm_queue_backlog", 3),
        ("esm_seconds_until_expiry", 2), ("esm_other", 3),
    ],
)  # fmt: skip
def test_a_gauge_follows_its_rule_and_an_unknown_one_shows_the_largest(name: str, merged: float) -> None:
    one, other = (scrape(f"{name}{{{OF_MAPPING}}} {value}", kind="gauge") for value in (2, 3))
    assert list(values(Merger(), one, other).values()) == [merged]


def test_buckets_of_histograms_add_up_in_their_order() -> None:
    name = "esm_batch_size"
    lines = [f'{name}_bucket{{le="1.0"}} 1', f'{name}_bucket{{le="+Inf"}} 2', f"{name}_count 2", f"{name}_sum 9"]
    text = f"# HELP {name} T\n# TYPE {name} histogram\n" + "\n".join(lines) + "\n"
    merged = values(Merger(), metrics(text), metrics(text))
    assert list(merged.items()) == [
        (f'{name}_bucket{{le="1.0"}}', 2), (f'{name}_bucket{{le="+Inf"}}', 4), (f"{name}_count", 4), (f"{name}_sum", 18)
    ]  # fmt: skip


def test_what_a_worker_had_counted_stays_when_it_has_ended() -> None:
    merger = Merger()
    one, other = (scrape(f"esm_polled_events_total{{{OF_MAPPING}}} {value}") for value in (10, 5))
    assert list(values(merger, one, other).values()) == [15]
    merger.retire(one)
    assert list(values(merger, other, is_complete=False).values()) == [15]
    fresh = scrape(f"esm_polled_events_total{{{OF_MAPPING}}} 1")
    assert list(values(merger, fresh, other).values()) == [16]


def test_what_was_counted_for_a_mapping_is_forgotten_once_no_worker_has_it() -> None:
    merger = Merger()
    counted = scrape(f"esm_polled_events_total{{{OF_MAPPING}}} 10")
    nothing = scrape("esm_store_errors_total 1")
    merger.retire(counted)
    merger.retire(nothing)
    assert values(merger, is_complete=False) == {"esm_store_errors_total": 1}
    assert list(values(merger, counted).values()) == [20, 1]
    assert values(merger, nothing) == {"esm_store_errors_total": 2}
    assert list(values(merger, counted).values()) == [10, 1]


def test_a_counter_of_a_worker_that_is_gone_goes_on_under_changed_tags() -> None:
    merger = Merger()
    merger.retire(scrape(f'esm_polled_events_total{{{OF_MAPPING},tag_team="orders"}} 10'))
    merger.retire(scrape(f'esm_invoked_events_total{{{OF_MAPPING},tag_team="orders"}} 7'))
    live = scrape(f'esm_polled_events_total{{{OF_MAPPING},tag_team="billing"}} 1')
    assert values(merger, live) == {
        'esm_polled_events_total{function="f",mapping="u",source="s",tag_team="billing"}': 11,
        'esm_invoked_events_total{function="f",mapping="u",source="s",tag_team="billing"}': 7,
    }


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 2**32))
def test_a_sum_never_goes_back_whatever_workers_end_and_start(count: int, steps: int, seed: int) -> None:
    merger, shown, chance = Merger(), 0.0, random.Random(seed)
    totals = [0.0] * count

    def of(total: float) -> list[Metric]:
        return scrape(f"esm_something_total{{{OF_MAPPING}}} {total!r}")

    for _ in range(steps):
        index = chance.randrange(count)
        if chance.random() < 0.3:
            merger.retire(of(totals[index]))
            totals[index] = 0.0
        else:
            totals[index] += chance.random() * 10 ** chance.randrange(-8, 8)
        (now,) = values(merger, *(of(total) for total in totals)).values()
        assert now >= shown
        shown = now
