"""SQS end to end, against ministack."""

import http.server
import json
import signal
import threading
import time

import pytest

from tests import servers
from tests.end_to_end.world import Queue, World, client, wait_for


def mapping(queue: Queue, **more):
    return {"FunctionName": "orders", "EventSourceArn": queue.arn, **more}


def test_every_message_is_taken_once_and_deleted(world: World, ministack: str) -> None:
    queue = Queue(ministack, "plain", visibility_s=30)
    queue.send(*[f"m{number}" for number in range(60)])
    world.configure(endpoint_url=ministack, functions={"orders": world.function()}, mappings=[mapping(queue)])
    world.start()
    wait_for(lambda: len(set(world.taken())) == 60, "60 messages taken")
    wait_for(lambda: queue.count() == 0, "the queue is empty")
    assert sorted(world.taken()) == sorted(f"m{number}" for number in range(60))
    assert world.metric("esm_deleted_events_total") == 60
    assert world.stop() == 0


def test_failed_messages_alone_come_again_and_end_in_the_dead_letter_queue(world: World, ministack: str) -> None:
    queue = Queue(ministack, "partial", visibility_s=3, receives_max=2)
    queue.send("a", "poison-1", "b", "c")
    function = world.function(MODE="report")
    more = {"FunctionResponseTypes": ["ReportBatchItemFailures"]}
    world.configure(endpoint_url=ministack, functions={"orders": function}, mappings=[mapping(queue, **more)])
    world.start()
    wait_for(lambda: queue.count(queue.dead_url) == 1, "the poisonous message is in the dead-letter queue")
    assert sorted(world.taken()) == ["a", "b", "c"]
    assert queue.dead() == ["poison-1"]


def test_a_batch_above_ten_is_built_from_several_receives(world: World, ministack: str) -> None:
    queue = Queue(ministack, "wide", visibility_s=30)
    queue.send(*[f"m{number}" for number in range(40)])
    more = {"BatchSize": 40, "MaximumBatchingWindowInSeconds": 2, "ScalingConfig": {"MaximumConcurrency": 2}}
    world.configure(endpoint_url=ministack, functions={"orders": world.function()}, mappings=[mapping(queue, **more)])
    world.start()
    wait_for(lambda: len(set(world.taken())) == 40, "40 messages taken")
    assert max(len(entry["taken"]) for entry in world.ledger()) > 10


def test_a_broken_target_does_not_drive_a_queue_into_its_dead_letter_queue(world: World, ministack: str) -> None:
    queue = Queue(ministack, "broken", visibility_s=5, receives_max=5)
    port = servers.free_port()
    function = {"Url": f"http://127.0.0.1:{port}", "Protocol": "rie", "Timeout": 3}
    world.configure(endpoint_url=ministack, functions={"orders": function}, mappings=[mapping(queue)])
    queue.send(*[f"m{number}" for number in range(50)])
    world.start()
    time.sleep(15)
    with answering(port) as events:
        wait_for(lambda: queue.count() == 0, "the queue is empty once the target answers", 60)
    received = [int(record["attributes"]["ApproximateReceiveCount"]) for event in events for record in event["Records"]]
    assert queue.count(queue.dead_url) == 0
    assert len(received) == 50
    # Five batches were received before the target counted as broken; then one batch a visibility time-out, twice each
    # at most while the receives of the others were still under way.
    assert sum(received) <= 50 + 10 * 7


@pytest.mark.timeout(400)  # sixty starts and stops of a process: the guard against hangs is meant for less
def test_thirty_restarts_lose_no_message_to_the_dead_letter_queue(world: World, ministack: str) -> None:
    queue = Queue(ministack, "restarts", visibility_s=30, receives_max=1)
    world.configure(endpoint_url=ministack, functions={"orders": world.function()}, mappings=[mapping(queue)])
    sent = 0
    for _ in range(30):
        queue.send(*[f"m{sent + number}" for number in range(5)])
        sent += 5
        world.start(ESM_SHUTDOWN_GRACE_S="6")
        time.sleep(0.2)
        assert world.stop() == 0
    world.start()
    wait_for(lambda: len(set(world.taken())) == sent, "all messages taken")
    assert queue.count(queue.dead_url) == 0


def test_a_drain_lets_a_running_invocation_end(world: World, ministack: str) -> None:
    queue = Queue(ministack, "drain", visibility_s=30)
    function = world.function(SLEEP_S="2")
    world.configure(endpoint_url=ministack, functions={"orders": function}, mappings=[mapping(queue)])
    world.start()
    queue.send("slow")
    wait_for(lambda: world.metric("esm_invocations_in_flight") == 1, "the function runs")
    assert world.stop() == 0
    assert world.taken() == ["slow"]
    assert queue.count() == 0


def test_a_second_signal_ends_the_daemon_at_once(world: World, ministack: str) -> None:
    queue = Queue(ministack, "twice", visibility_s=60)
    function = world.function(SLEEP_S="20", Timeout=30)
    world.configure(endpoint_url=ministack, functions={"orders": function}, mappings=[mapping(queue)])
    world.start(ESM_SHUTDOWN_GRACE_S="60")
    queue.send("slow")
    wait_for(lambda: world.metric("esm_invocations_in_flight") == 1, "the function runs")
    assert world.process is not None
    world.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "drain started" in world.log(), "the drain has begun")
    began_at = time.monotonic()
    world.stop(signal.SIGINT)
    assert time.monotonic() - began_at < 5


def test_a_missing_queue_is_a_problem_that_ends_when_it_is_made(world: World, ministack: str) -> None:
    arn = f"arn:aws:sqs:us-east-1:000000000000:late-{time.time_ns()}"
    one = {"FunctionName": "orders", "EventSourceArn": arn}
    world.configure(endpoint_url=ministack, functions={"orders": world.function()}, mappings=[one])
    world.start()
    wait_for(lambda: world.metric("esm_mapping_problem") == 1, "the mapping has a problem")
    assert "NonExistentQueue" in world.status()[0]["last_result"]
    refused = world.command("validate")
    assert refused.returncode == 1
    assert "The specified queue does not exist." in refused.stderr
    sqs = client("sqs", ministack)
    url = sqs.create_queue(QueueName=arn.rsplit(":", 1)[1])["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody='{"id": "late", "key": "k"}')
    wait_for(lambda: world.taken() == ["late"], "the message is taken")
    assert world.metric("esm_mapping_problem") == 0


def test_groups_of_a_fifo_queue_come_in_order_through_failures_and_a_kill(world: World, ministack: str) -> None:
    queue = Queue(ministack, "ordered", visibility_s=4, receives_max=3, is_fifo=True)
    expected = {f"g{group}": [f"g{group}-{number:02d}" for number in range(20)] for group in range(4)}
    for number in range(20):
        for key, ids in expected.items():
            queue.send(ids[number], key=key)
    queue.send("poison", key="bad")
    queue.send("after", key="bad")
    function = world.function(MODE="report", SLEEP_S="0.2")
    more = {"BatchSize": 5, "FunctionResponseTypes": ["ReportBatchItemFailures"], "HoldGroupOnFailure": True}
    world.configure(endpoint_url=ministack, functions={"orders": function}, mappings=[mapping(queue, **more)])
    world.start()
    wait_for(lambda: len(set(world.taken())) >= 20, "20 messages taken")
    assert world.stop(signal.SIGKILL) == -signal.SIGKILL
    world.start()
    wait_for(lambda: len(set(world.taken())) == 81, "all messages taken")
    wait_for(lambda: queue.count() == 0, "the queue is empty")
    assert {key: ids for key, ids in world.first_orders().items() if key != "bad"} == expected
    assert queue.dead() == ["poison", "after"], "what waits behind a failed message is received as often as that one"
    assert world.stop() == 0


class answering:  # noqa: N801 - reads as a sentence
    """A function behind HTTP that succeeds; yields the events that it got."""

    def __init__(self, port: int) -> None:
        events = self.events = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self.events

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
