"""What is given up -> the document sent to its destination. Source: wire-shapes.md 3.1-3.4; lambda.md 3.5."""

from datetime import UTC, datetime

import msgspec

from esm.model.clocks import UnixTime
from esm.model.mapping import Mapping
from esm.model.notice import Notice

MESSAGE_BYTES_MAX = {"sqs": 1_048_576, "sns": 262_144}
"""The largest document of a destination's service; an object in S3 is never too small for one."""


def carries_payload(mapping: Mapping) -> bool:
    """Whether the notices of a mapping hold the event: in S3 always, elsewhere where it was asked for."""
    if mapping.on_failure is None:
        return False
    return mapping.on_failure.service == "s3" or mapping.on_failure_has_payload


def document_for(service: str, notice: Notice, payload: bytes | None) -> bytes:
    """The notice with its event, for a destination of a mapping that `carries_payload`.

    In S3 `payload` is null where the source had lost the records; SQS and SNS get the ordinary notice then, and where
    the event does not fit.
    """
    if payload is None and service != "s3":
        return document(notice)
    made = document(notice, {"payload": None if payload is None else payload.decode("utf-8", "replace")})
    return made if len(made) <= MESSAGE_BYTES_MAX.get(service, len(made)) else document(notice)


def document(notice: Notice, more: dict[str, str | None] | None = None) -> bytes:
    """The JSON that SQS and SNS destinations receive, in the recorded order of keys; `more` at its end."""
    context: dict[str, object] = {
        "requestContext": {
            "requestId": notice.request_id,
            "functionArn": str(notice.function_arn),
            "condition": notice.condition.value,
            "approximateInvokeCount": notice.invoke_count,
        }
    }
    if notice.ran is not None:
        context["responseContext"] = {
            "statusCode": notice.ran.status,
            "executedVersion": notice.ran.executed_version,
            "functionError": notice.ran.function_error,
        }
    is_kinesis = notice.source_arn.service == "kinesis"
    context["version"] = "1.0"
    context["timestamp"] = timestamp(notice.at)
    context["KinesisBatchInfo" if is_kinesis else "DDBStreamBatchInfo"] = _batch_info(notice, is_kinesis=is_kinesis)
    return msgspec.json.encode({**context, **(more or {})})


def timestamp(at: UnixTime, *, milliseconds: bool = True) -> str:
    """ISO 8601 in UTC with `Z`."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds" if milliseconds else "seconds")
    return text.removesuffix("+00:00") + "Z"


def _batch_info(notice: Notice, *, is_kinesis: bool) -> dict[str, object]:
    span = notice.span
    return {
        "shardId": notice.shard,
        "startSequenceNumber": span.first_sequence,
        "endSequenceNumber": span.last_sequence,
        "approximateArrivalOfFirstRecord": timestamp(span.first_arrived_at, milliseconds=is_kinesis),
        "approximateArrivalOfLastRecord": timestamp(span.last_arrived_at, milliseconds=is_kinesis),
        "batchSize": span.count,
        "streamArn": str(notice.source_arn),
    }
