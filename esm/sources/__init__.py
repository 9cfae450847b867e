"""What is polled. Each source reads one queue or stream and builds its records' events once."""

from esm.aws.sessions import Sessions
from esm.model.arn import SourceKind
from esm.model.mapping import Mapping
from esm.ports import QueueSource, StreamSource
from esm.sources.dynamodb import DynamoDBStream
from esm.sources.kinesis import KinesisStream
from esm.sources.sqs import SqsQueue

Rates = tuple[float, float]
"""Reads a second and shard while records come, and while none come."""

KINESIS_RATES: Rates = (2, 1)
DYNAMODB_RATES: Rates = (4, 1)


def open_queue(mapping: Mapping, sessions: Sessions) -> QueueSource:
    """The queue that a mapping polls."""
    return SqsQueue(mapping.source_arn, sessions, says_null_md5=mapping.window_s > 0)


def open_stream(
    mapping: Mapping,
    role: str,
    sessions: Sessions,
    *,
    kinesis_reads_per_s: Rates = KINESIS_RATES,
    dynamodb_reads_per_s: Rates = DYNAMODB_RATES,
) -> StreamSource:
    """The stream that a mapping reads; `role` is the function's."""
    match mapping.source_kind:
        case SourceKind.KINESIS:
            busy, idle = kinesis_reads_per_s
            return KinesisStream(mapping.source_arn, role, sessions, reads_per_s_busy=busy, reads_per_s_idle=idle)
        case SourceKind.DYNAMODB:
            busy, idle = dynamodb_reads_per_s
            return DynamoDBStream(mapping.source_arn, sessions, reads_per_s_busy=busy, reads_per_s_idle=idle)
        case SourceKind.SQS:
            raise AssertionError("a queue is no stream")
