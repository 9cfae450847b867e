"""Asynchronous invocation end to end, against ministack: a queue feeds a hosted function's asynchronous queue."""

import json
import signal

from tests.end_to_end.world import Queue, World, wait_for


def recipients(failure: Queue, dead: Queue) -> dict:
    """Members of a function whose events fail once and then go to both queues."""
    return {
        "EventInvokeConfig": {
            "MaximumRetryAttempts": 0,
            "DestinationConfig": {"OnFailure": {"Destination": failure.arn}},
        },
        "DeadLetterConfig": {"TargetArn": dead.arn},
    }


def mapping(queue: Queue) -> dict:
    return {"FunctionName": "orders", "EventSourceArn": queue.arn, "InvocationType": "Event"}


def body_of(queue: Queue) -> tuple[dict, dict]:
    """The one message of a queue: its body, and its attributes."""
    (message,) = wait_for(
        lambda: queue.sqs.receive_message(
            QueueUrl=queue.url, MessageAttributeNames=["All"], AttributeNames=["All"], WaitTimeSeconds=1
        ).get("Messages"),
        f"a message in {queue.name}",
    )
    return json.loads(message["Body"]), message


def test_a_failed_event_reaches_its_destination_and_its_dead_letter_queue(world: World, ministack: str) -> None:
    queue, failure, dead = (Queue(ministack, f"async-{name}", visibility_s=30) for name in ("in", "failure", "dead"))
    function = world.function(**recipients(failure, dead))
    world.configure(endpoint_url=ministack, functions={"orders": function}, mappings=[mapping(queue)])
    world.start()
    queue.send("good")
    wait_for(lambda: world.taken() == ["good"], "the good message is taken")
    queue.send("poison-1")
    document, message = body_of(failure)
    context = document["requestContext"]
    assert context["condition"] == "RetriesExhausted"
    assert context["approximateInvokeCount"] == 1
    assert context["functionArn"] == "arn:aws:lambda:us-east-1:000000000000:function:orders:$LATEST"
    assert json.loads(document["requestPayload"]["Records"][0]["body"])["id"] == "poison-1"
    assert document["responseContext"] == {
        "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled",
    }  # fmt: skip
    assert document["responsePayload"]["errorType"] == "ValueError"
    assert document["responsePayload"]["requestId"] == context["requestId"]
    assert message["Attributes"]["AWSTraceHeader"].startswith("Root=1-")
    event, letter = body_of(dead)
    assert event == document["requestPayload"]
    found = {name: (one["DataType"], one["StringValue"]) for name, one in letter["MessageAttributes"].items()}
    assert found == {
        "RequestID": ("String", context["requestId"]), "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", "poison"),
    }  # fmt: skip
    assert queue.count() == 0
    assert world.metric("esm_async_events_received_total") == 2
    assert world.metric("esm_deleted_events_total") == 2
    assert world.stop() == 0


def test_an_event_survives_a_killed_daemon(world: World, ministack: str) -> None:
    queue, failure, dead = (Queue(ministack, f"killed-{name}", visibility_s=30) for name in ("in", "failure", "dead"))
    function = world.function(SLEEP_S="2", Timeout=10, **recipients(failure, dead))
    world.configure(endpoint_url=ministack, functions={"orders": function}, mappings=[mapping(queue)])
    world.start()
    queue.send("slow")
    wait_for(lambda: world.metric("esm_deleted_events_total") == 1, "the message is accepted")
    assert world.taken() == []
    assert world.metric("esm_async_backlog") == 1
    assert world.status()[0]["async_backlog"] == 1
    assert world.process is not None
    world.process.send_signal(signal.SIGKILL)
    world.process.wait(timeout=10)
    world.start()
    wait_for(lambda: world.taken() == ["slow"], "the event is taken after the restart")
    assert world.stop() == 0
    assert failure.count() == dead.count() == 0
