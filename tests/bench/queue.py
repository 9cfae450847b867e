"""Messages a second through a queue mapping, beside a bare aiobotocore loop with as many tasks, in turn, in one run.

Both receive ten messages of 1 KB and delete them; esm also builds the Lambda event and invokes a function that returns
at once: first with five batches at once, then with all that scaling gives in the time, beside as many tasks.
Run: `python -m tests.bench.queue [seconds] [rounds]`.
"""

import statistics
import subprocess
import sys
import time
import uuid
from random import Random

import anyio
from aiobotocore.session import get_session
from prometheus_client import CollectorRegistry

from esm.aws.sessions import Sessions
from esm.model.arn import Arn, SourceKind
from esm.model.function import FunctionFacts
from esm.model.invocation import Answer, Invocation
from esm.model.mapping import Mapping
from esm.rules.scaling import ADDED_A_MINUTE, STARTS_WITH
from esm.runtime.observation import Observation
from esm.runtime.queue import QueueRunner
from esm.runtime.surroundings import ByteBudget, Surroundings, SystemClock
from esm.sources import open_queue
from esm.stores.memory import MemoryStore
from esm.telemetry import Telemetry
from tests import servers

CREDENTIALS = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "us-east-1"}


class Counter:
    """A function that returns at once."""

    concurrency: int | None = None

    def __init__(self) -> None:
        self.messages = 0

    async def facts(self) -> FunctionFacts:
        return FunctionFacts(3, "role")

    async def wait_free(self) -> None:
        return

    async def invoke(self, invocation: Invocation) -> Answer:
        self.messages += invocation.payload.count(b'"messageId"')
        return Answer(invocation.request_id, b"null")

    async def aclose(self) -> None:
        return


async def through_esm(url: str, seconds: float, most: int | None) -> float:
    telemetry = Telemetry(CollectorRegistry())
    around = Surroundings(
        clock=SystemClock(), telemetry=telemetry, store=MemoryStore(), budget=ByteBudget(1 << 29),
        jitter=Random(1).random, new_id=lambda: str(uuid.uuid4()), worker="bench",
    )  # fmt: skip
    mapping = Mapping(
        "u", "f", Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:f"),
        Arn.parse("arn:aws:sqs:us-east-1:000000000000:q"), SourceKind.SQS, concurrency_max=most,
    )  # fmt: skip
    sessions = Sessions("us-east-1", url, {}, telemetry.aws_request)
    target = Counter()
    observation = Observation(mapping, telemetry.mapping(mapping))
    runner = QueueRunner(around, mapping, open_queue(mapping, sessions), target, observation)
    with anyio.move_on_after(seconds):
        await runner.run()
    await sessions.aclose()
    return target.messages / seconds


async def through_a_bare_loop(url: str, seconds: float, tasks_count: int) -> float:
    count = 0
    async with get_session().create_client("sqs", endpoint_url=url, **CREDENTIALS) as sqs:
        queue = (await sqs.get_queue_url(QueueName="q"))["QueueUrl"]

        async def loop() -> None:
            nonlocal count
            while True:
                messages = (await sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10))["Messages"]
                entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
                await sqs.delete_message_batch(QueueUrl=queue, Entries=entries)
                count += len(messages)

        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as tasks:
                for _ in range(tasks_count):
                    tasks.start_soon(loop)
    return count / seconds


async def compare(url: str, seconds: float, rounds: int) -> None:
    for most in (STARTS_WITH, None):
        count = STARTS_WITH + (0 if most else int(seconds * ADDED_A_MINUTE / 60))
        pairs = [
            (await through_esm(url, seconds, most), await through_a_bare_loop(url, seconds, count))
            for _ in range(rounds)
        ]
        ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        print(
            f"up to {count} batches at once: esm {ours:,.0f} messages/s, bare loop {bare:,.0f} messages/s,"
            f" ratio {ratio:.2f} (medians of {rounds})"
        )


def main(seconds: float = 3.0, rounds: int = 5) -> None:
    port = servers.free_port()
    server = subprocess.Popen([sys.executable, "-m", "tests.bench.canned", str(port)])
    try:
        time.sleep(1.5)
        anyio.run(compare, f"http://127.0.0.1:{port}", seconds, rounds)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main(*(float(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) > 2 else ())
