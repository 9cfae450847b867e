"""What is given up -> the document sent to its destination. Source: wire-shapes.md 3.1, 3.2; lambda.md 3.5."""

from datetime import UTC, datetime

import msgspec

from esm.model.clocks import UnixTime
from esm.model.notice import Notice


def document(notice: Notice) -> bytes:
    """The JSON that SQS and SNS destinations receive, in the recorded order of keys."""
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
    return msgspec.json.encode(context)


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
