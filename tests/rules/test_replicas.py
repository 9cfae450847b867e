"""The number of replicas is bounded, grows with what waits, and asks for none that could not help."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from esm.model.arn import Arn, SourceKind
from esm.model.mapping import Mapping, State
from esm.model.view import MappingView, ShardView
from esm.rules.replicas import Target, batches_max, lag

FUNCTION = Arn.parse("arn:aws:lambda:us-east-1:123456789012:function:f")
QUEUE = Arn.parse("arn:aws:sqs:us-east-1:123456789012:q")
STREAM = Arn.parse("arn:aws:kinesis:us-east-1:123456789012:stream/s")
ONE = Target(messages=100, lag_s=10)

seconds = st.floats(0, 1e6)
targets = st.builds(Target, messages=st.floats(0.1, 1e5), lag_s=st.floats(0.1, 1e5))


def shard(lag_s: float | None, blocked_s: float = 0.0, name: str = "s") -> ShardView:
    return ShardView(name, lag_s, blocked_s, None, 0.0)


def stream(*shards: ShardView, lanes: int = 1, circuit_open: bool = False) -> MappingView:
    return MappingView("u", str(FUNCTION), str(STREAM), State.ENABLED, "OK", has_problem=False, in_flight=0,
                       backlog=None, shards=shards, circuit_open=circuit_open, batches_max=lanes)  # fmt: skip


def queue(visible: int | None, not_visible: int | None = 0, most: int = 1250, *, open_: bool = False) -> MappingView:
    return MappingView("u", str(FUNCTION), str(QUEUE), State.ENABLED, "OK", has_problem=False, in_flight=0,
                       backlog=visible, not_visible=not_visible, shards=(shard(0.0, name=""),), circuit_open=open_,
                       batches_max=most)  # fmt: skip


queues = st.builds(queue, st.none() | st.integers(0, 10**6), st.none() | st.integers(0, 10**6), st.integers(1, 1250))
shards = st.builds(shard, st.none() | seconds, st.sampled_from([0.0, 5.0]))
streams = st.builds(lambda held, lanes: stream(*held, lanes=lanes), st.lists(shards, max_size=8), st.integers(1, 10))
views = queues | streams


@given(st.lists(views, max_size=6), targets)
def test_the_number_is_at_least_one_and_never_more_than_could_work_at_once(found, target):
    seen = lag(found, target)
    assert 1 <= seen.desired_replicas <= max(1, sum(one.replicas_max for one in seen.mappings))
    for one in seen.mappings:
        assert one.desired_replicas <= one.replicas_max


@given(st.lists(views, min_size=1, max_size=6), targets)
def test_together_mappings_need_at_most_what_each_would_alone_and_at_least_what_the_neediest_would(found, target):
    seen = lag(found, target)
    alone = [one.desired_replicas for one in seen.mappings]
    assert max(alone) <= seen.desired_replicas <= max(1, sum(alone))


@given(queues, st.integers(0, 10**6), targets)
def test_more_messages_never_ask_for_less(view, more, target):
    grown = replace(view, backlog=(view.backlog or 0) + more)
    assert lag([grown], target).desired_replicas >= lag([view], target).desired_replicas


@given(st.lists(seconds, min_size=1, max_size=5), st.integers(1, 10), seconds, targets)
def test_a_shard_that_falls_behind_never_asks_for_less(lags, lanes, more, target):
    before = stream(*[shard(one) for one in lags], lanes=lanes)
    after = stream(shard(lags[0] + more), *[shard(one) for one in lags[1:]], lanes=lanes)
    assert lag([after], target).desired_replicas >= lag([before], target).desired_replicas


def test_a_queue_counts_what_waits_and_what_is_on_its_way() -> None:
    (one,) = lag([queue(250, 51)], ONE).mappings
    assert (one.visible_messages, one.not_visible_messages, one.shards, one.desired_replicas) == (250, 51, None, 4)
    assert lag([queue(300)], ONE).desired_replicas == 3


def test_a_queue_never_asks_for_more_than_its_maximum_concurrency() -> None:
    assert lag([queue(10**6, most=4)], ONE).desired_replicas == 4


def test_a_stream_never_asks_for_more_than_shards_times_parallelization_factor() -> None:
    seen = lag([stream(shard(1e6), shard(1e6), lanes=3)], ONE)
    assert (seen.desired_replicas, seen.mappings[0].replicas_max, seen.mappings[0].shards) == (6, 6, 2)


def test_one_shard_far_behind_asks_for_its_own_lanes_alone() -> None:
    seen = lag([stream(shard(1e6), shard(0.0), shard(None), lanes=2)], ONE)
    assert (seen.desired_replicas, seen.mappings[0].lag_s) == (2, 1e6)


def test_a_blocked_shard_and_a_broken_target_ask_for_one_at_most() -> None:
    assert lag([stream(shard(1e6, blocked_s=30.0), lanes=10)], ONE).desired_replicas == 1
    assert lag([stream(shard(1e6), shard(1e6), lanes=10, circuit_open=True)], ONE).desired_replicas == 1
    assert lag([queue(10**6, open_=True)], ONE).desired_replicas == 1


def test_many_mappings_with_little_to_do_share_a_replica() -> None:
    seen = lag([queue(10)] * 10, ONE)
    assert (seen.desired_replicas, [one.desired_replicas for one in seen.mappings]) == (1, [1] * 10)
    assert lag([queue(11)] * 10, ONE).desired_replicas == 2


def test_what_does_not_run_needs_nothing_and_says_that_nothing_is_known() -> None:
    resting = replace(queue(None, None), state=State.DISABLED, shards=())
    (one,) = lag([resting], ONE).mappings
    assert (one.state, one.lag_s, one.visible_messages, one.desired_replicas) == ("Disabled", None, None, 0)
    assert lag([], ONE).desired_replicas == 1


def test_how_many_batches_a_mapping_allows_is_its_factor_or_its_concurrency() -> None:
    of_stream = Mapping("u", "f", FUNCTION, STREAM, SourceKind.KINESIS, parallelization_factor=7)
    of_queue = Mapping("u", "f", FUNCTION, QUEUE, SourceKind.SQS)
    assert batches_max(of_stream) == 7
    assert batches_max(replace(of_stream, tumbling_window_s=60)) == 1
    assert batches_max(of_queue) == 1250
    assert batches_max(replace(of_queue, concurrency_max=3)) == 3
    assert batches_max(replace(of_queue, pollers_max=2)) == 20
