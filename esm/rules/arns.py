"""ARNs that a mapping or a function may name: sources to read, destinations for what is given up or done.

Source: lambda.md 1.2, 5; wire-shapes.md 4.7, 4.9.
"""

import re
from collections.abc import Collection

from esm.model.arn import Arn, SourceKind
from esm.rules.parameters import KINDS

_DESTINATION = re.compile(r"arn:aws[a-zA-Z0-9-]*:[a-zA-Z0-9-]+:[a-z0-9-]*:([0-9]{12})?:[^ ]+")
_REGION = re.compile(r"[a-z0-9-]+")
_ACCOUNT = re.compile(r"[0-9]{12}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,256}")
_QUEUE = re.compile(r"[a-zA-Z0-9_-]{1,80}|(?=.{1,80}$)[a-zA-Z0-9_-]+\.fifo")
_ROLE = re.compile(r"arn:aws[a-zA-Z-]*:iam::[0-9]{12}:role/[^\s]+")
_NOTICES = {"sqs": "SQS", "sns": "SNS", "s3": "S3"}


def source_problem(text: str | None) -> str | None:
    """Why nothing can be read at an ARN; None where it names a queue or stream."""
    if not text:
        return "Unrecognized event source."
    try:
        source = Arn.parse(text)
    except ValueError as error:
        return f"Unrecognized event source. EventSourceArn: {error}"
    kind = KINDS.get(source.service)
    if kind is None:
        return f"Unrecognized event source. EventSourceArn {text!r}: esm polls SQS, Kinesis and DynamoDB Streams."
    if not _REGION.fullmatch(source.region) or not _ACCOUNT.fullmatch(source.account):
        return f"Unrecognized event source. {text!r} lacks its region, or its account of twelve digits."
    return _resource_problem(source, kind)


def destination_problem(text: str, services: Collection[str]) -> str | None:
    """Why nothing can be sent to an ARN; `services` are those of `sqs`, `sns` and `s3` that are allowed."""
    names = [name for service, name in _NOTICES.items() if service in services]
    allowed = f"{', '.join(names[:-1])} or {names[-1]}"
    if text.startswith("kafka://"):
        return f"The destination {text} is a Kafka topic, which esm does not write to: use {allowed}."
    if not _DESTINATION.fullmatch(text):
        return f"The destination ARN {text} is invalid."
    arn = Arn.parse(text)
    if arn.service not in services:
        return f"The destination {text} is not supported by this version of esm: use {allowed}."
    if arn.service != "s3" and arn.resource.endswith(".fifo"):
        return f"The destination {text} is FIFO: Lambda supports standard queues and topics only."
    return None if _names_one(arn) else f"The destination ARN {text} is invalid."


def _names_one(arn: Arn) -> bool:
    """Whether an ARN names a queue, topic or bucket."""
    if arn.service == "s3":
        return not arn.region and not arn.account and _BUCKET.fullmatch(arn.resource) is not None
    return bool(arn.region and arn.account and _NAME.fullmatch(arn.resource))


def role_problem(text: str) -> str | None:
    """Why an ARN is no role's."""
    return None if _ROLE.fullmatch(text) else f"{text} is no role's ARN: arn:aws:iam::ACCOUNT:role/NAME."


def _resource_problem(source: Arn, kind: SourceKind) -> str | None:
    resource = source.resource
    match kind:
        case SourceKind.SQS if not _QUEUE.fullmatch(resource):
            return f"Unrecognized event source. {str(source)!r} names no queue (…:NAME or …:NAME.fifo)."
        case SourceKind.KINESIS if "/consumer/" in resource:
            return (
                f"{source} is a consumer (enhanced fan-out), which this version of esm does not read: name the stream"
                " itself, which is the part before /consumer/."
            )
        case SourceKind.KINESIS if not re.fullmatch(r"stream/[a-zA-Z0-9_.-]{1,128}", resource):
            return f"Unrecognized event source. {str(source)!r} names no stream (…:stream/NAME)."
        case SourceKind.DYNAMODB if not re.fullmatch(r"table/[a-zA-Z0-9_.-]{1,255}/stream/[^\s/]+", resource):
            return (
                f"Unrecognized event source. {str(source)!r} names no stream of a table (…:table/NAME/stream/LABEL);"
                " DescribeTable shows it as LatestStreamArn."
            )
        case _:
            return None
