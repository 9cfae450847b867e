"""What a typical filter costs: records a second from an answer's body to records that matched, beside no filter.

    python -m tests.bench.filters

Both begin with the bytes that a server sent and end with the records that would go to the lanes or into a batch; each
pattern has two conditions on what was sent, half of the records match, and the sources take turns in one run.
"""

import asyncio
import base64
import json
import statistics
import time
from typing import Any

from prometheus_client import CollectorRegistry

from esm.model.arn import Arn, SourceKind
from esm.model.mapping import Mapping
from esm.runtime.sieve import Sieve
from esm.telemetry import Telemetry
from tests.bench import wire

ROUNDS = 11
FUNCTION = Arn.parse("arn:aws:lambda:us-east-1:1:function:f")
PATTERNS = {
    SourceKind.SQS: {"body": {"type": ["order"], "amount": [{"numeric": [">", 10]}]}},
    SourceKind.KINESIS: {"data": {"type": ["order"], "amount": [{"numeric": [">", 10]}]}},
    SourceKind.DYNAMODB: {"eventName": ["MODIFY"], "dynamodb": {"Keys": {"key": {"S": [{"suffix": "0"}]}}}},
}


def sent(number: int) -> str:
    """1 KB of JSON, every other an order."""
    kind = "order" if number % 2 else "refund"
    return json.dumps({"type": kind, "amount": 12.5, "items": [{"sku": f"sku-{n}", "count": n} for n in range(30)]})


def answer(kind: SourceKind) -> bytes:
    """As in `wire`, with what can be matched in it."""
    match kind:
        case SourceKind.SQS:
            parsed = json.loads(wire.sqs_answer())
            for number, message in enumerate(parsed["Messages"]):
                message["Body"] = sent(number)
        case SourceKind.KINESIS:
            parsed = json.loads(wire.kinesis_answer())
            for number, record in enumerate(parsed["Records"]):
                record["Data"] = base64.b64encode(sent(number).encode()).decode()
        case SourceKind.DYNAMODB:
            parsed = json.loads(wire.dynamodb_answer())
            for number, record in enumerate(parsed["Records"]):
                record["dynamodb"]["Keys"]["key"]["S"] = f"key-{number % 2}"
    return json.dumps(parsed).encode()


async def rates(kind: SourceKind, filters: tuple[str, ...], repeats: int) -> tuple[float, float]:
    """Records a second, and the share that matched."""
    service, operation = ("sqs", "ReceiveMessage") if kind is SourceKind.SQS else (
        ("kinesis" if kind is SourceKind.KINESIS else "dynamodbstreams"), "GetRecords",
    )  # fmt: skip
    _, read = wire.contest(wire.Canned(service, operation, answer(kind)), service)
    mapping = Mapping("u", "f", FUNCTION, FUNCTION, kind, filters=filters)
    sieve = Sieve(Telemetry(CollectorRegistry()).mapping(mapping))
    rounds = []
    kept = count = 0
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(repeats):
            found: Any = await read()
            records = found if isinstance(found, list) else found.records
            matching, _ = await sieve.sift(mapping, records)
            kept, count = len(matching), len(records)
        rounds.append(repeats * count / (time.process_time() - began))
    return statistics.median(rounds), kept / count


async def main() -> None:
    """Print the table."""
    print(f"{'records/s of CPU time, median of ' + str(ROUNDS):<40}{'no filter':>12}{'filter':>12}{'us each':>9}")
    for kind, pattern in PATTERNS.items():
        repeats = 200 if kind is SourceKind.SQS else 2
        without, _ = await rates(kind, (), repeats)
        filtered, share = await rates(kind, (json.dumps(pattern),), repeats)
        cost_us = (1 / filtered - 1 / without) * 1e6
        print(f"{kind.value + f', {share:.0%} match':<40}{without:>12,.0f}{filtered:>12,.0f}{cost_us:>9.1f}")


if __name__ == "__main__":
    asyncio.run(main())
