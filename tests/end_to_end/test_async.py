"""Asynchronous invocation end to end, against ministack: a queue feeds a hosted function's asynchronous queue."""

import json
import os
import signal
import subprocess
import sys

from tests import servers
from tests.end_to_end.world import CREDENTIALS, Queue, World, wait_for

DAEMON = """
import dataclasses, os, sys
import anyio
from esm import daemon
from esm.model.arn import Arn
from esm.model.function import AsyncRules
from esm.model.mapping import InvocationType
from esm.settings import load_settings
from esm.telemetry import set_up_logging

settings = load_settings(os.environ, {"config": sys.argv[1]})
set_up_logging(settings.log_format, settings.log_level)
found = daemon.load_configuration(settings, os.environ)
failure, dead = (Arn.parse(arn) for arn in sys.argv[2:4])
rules = AsyncRules(retries_max=0, on_failure=failure, dead_letter=dead)
functions = {key: dataclasses.replace(one, asynchronous=rules) for key, one in found.functions.items()}
mappings = tuple(dataclasses.replace(one, invocation_type=InvocationType.EVENT) for one in found.mappings)
by_mapping = {one.uuid: functions[one.function] for one in mappings}
found = dataclasses.replace(found, functions=functions, mappings=mappings, functions_by_mapping=by_mapping)
anyio.run(daemon.Daemon(settings, os.environ, found).run)
"""


def start(world: World, failure: str, dead: str) -> None:
    """Start the daemon with every mapping of type Event and every function with recipients."""
    port = servers.free_port()
    world.metrics_url = f"http://127.0.0.1:{port}"
    environ = {
        "PATH": os.environ["PATH"], "HOME": str(world.folder), **CREDENTIALS, "ESM_LOG_LEVEL": "DEBUG",
        "ESM_STATE": f"sqlite:///{world.folder}/state.db", "ESM_METRICS_ADDRESS": f"127.0.0.1:{port}",
        "ESM_SQS_WAIT_S": "1", "ESM_SHUTDOWN_GRACE_S": "10",
    }  # fmt: skip
    with world.log_path.open("ab") as log:
        world.process = subprocess.Popen(
            [sys.executable, "-c", DAEMON, str(world.config_path), failure, dead],
            env=environ, stdout=log, stderr=log, cwd=servers.ROOT, start_new_session=True,
        )  # fmt: skip
    wait_for(world._is_ready, "the daemon is ready")


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
    mapping = {"FunctionName": "orders", "EventSourceArn": queue.arn}
    world.configure(endpoint_url=ministack, functions={"orders": world.function()}, mappings=[mapping])
    start(world, failure.arn, dead.arn)
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
    mapping = {"FunctionName": "orders", "EventSourceArn": queue.arn}
    function = world.function(SLEEP_S="2", Timeout=10)
    world.configure(endpoint_url=ministack, functions={"orders": function}, mappings=[mapping])
    start(world, failure.arn, dead.arn)
    queue.send("slow")
    wait_for(lambda: world.metric("esm_deleted_events_total") == 1, "the message is accepted")
    assert world.taken() == []
    assert world.metric("esm_async_backlog") == 1
    assert world.status()[0]["async_backlog"] == 1
    assert world.process is not None
    world.process.send_signal(signal.SIGKILL)
    world.process.wait(timeout=10)
    start(world, failure.arn, dead.arn)
    wait_for(lambda: world.taken() == ["slow"], "the event is taken after the restart")
    assert world.stop() == 0
    assert failure.count() == dead.count() == 0
