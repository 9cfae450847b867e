"""SqsQueue: one queue. Messages become `"Records"` elements as they come in; a body is never parsed.

Source: wire-shapes.md 2.1; lambda.md 2.1, 2.5, 2.6.
"""

import time
from collections.abc import Sequence
from typing import Any

import anyio
import msgspec

from esm.aws.failures import CredentialsMissing, taking_apart
from esm.aws.raw import BODY
from esm.aws.sessions import Sessions
from esm.errors import OperatorNeeded
from esm.model.arn import Arn
from esm.model.clocks import Instant, UnixTime
from esm.model.record import Message, QueueFacts

IAM_ACTIONS = (
    "sqs:GetQueueUrl",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibility",
)

MESSAGE_BYTES_MAX = 1_048_576
"""Of a queue that does not say. Source: lambda.md 2.6."""

ENVELOPE_BYTES = 4_096
"""What a message costs around its body and attributes."""

LATE_S = 1.0
"""A message is taken to become visible this much early, at most a tenth of its time: the answer took some to come. One
that took longer than this and than its wait has no part in the time that is left.
"""

_ATTRIBUTES = [
    "VisibilityTimeout", "MaximumMessageSize", "FifoQueue", "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
]  # fmt: skip
_RAW_NONE = msgspec.Raw(b"")
_encode = msgspec.json.encode


class _Attribute(msgspec.Struct):
    DataType: str
    StringValue: msgspec.Raw = _RAW_NONE
    BinaryValue: msgspec.Raw = _RAW_NONE


class _Message(msgspec.Struct):
    MessageId: str
    ReceiptHandle: str
    Body: msgspec.Raw
    MD5OfBody: str = ""
    MD5OfMessageAttributes: str | None = None
    Attributes: dict[str, str | int | float] = msgspec.field(default_factory=dict)
    MessageAttributes: dict[str, _Attribute] = msgspec.field(default_factory=dict)


class _Received(msgspec.Struct):
    Messages: list[_Message] | None = None


class _Entry(msgspec.Struct):
    Id: str
    Code: str = ""


class _Entries(msgspec.Struct):
    Failed: list[_Entry] | None = None


_received = msgspec.json.Decoder(_Received)
_entries = msgspec.json.Decoder(_Entries)


class SqsQueue:
    """Implements `ports.QueueSource`."""

    def __init__(self, arn: Arn, sessions: Sessions, *, says_null_md5: bool) -> None:
        """`says_null_md5`: the mapping has a window, so that an absent `md5OfMessageAttributes` is written as null."""
        self._arn = arn
        self._sessions = sessions
        self._client: Any = None
        self._url = ""
        self._visibility_s = 30
        self._frame = _Frame(arn, says_null_md5=says_null_md5)
        self.read_bytes_max = 10 * (MESSAGE_BYTES_MAX + ENVELOPE_BYTES)

    async def facts(self) -> QueueFacts:
        """Ask for the queue's URL and attributes."""
        self._client = await self._sessions.client("sqs", self._arn.region)
        try:
            url = await self._sessions.control(
                self._client, "get_queue_url", QueueName=self._arn.name, QueueOwnerAWSAccountId=self._arn.account
            )
            with taking_apart("GetQueueUrl", "SQS"):
                self._url = str(url["QueueUrl"])
            answer = await self._sessions.control(
                self._client, "get_queue_attributes", QueueUrl=self._url, AttributeNames=_ATTRIBUTES
            )
        except OperatorNeeded as error:
            raise _spoken(error) from error.__cause__
        with taking_apart("GetQueueAttributes", "SQS"):
            return self._facts(answer.get("Attributes", {}))

    def _facts(self, attributes: dict[str, str]) -> QueueFacts:
        self._visibility_s = int(attributes.get("VisibilityTimeout", 30))
        message_bytes = int(attributes.get("MaximumMessageSize", MESSAGE_BYTES_MAX))
        self.read_bytes_max = 10 * (message_bytes + ENVELOPE_BYTES)
        return QueueFacts(
            visibility_s=self._visibility_s,
            message_bytes_max=message_bytes,
            is_fifo=attributes.get("FifoQueue", "false").lower() == "true",
            backlog=int(attributes.get("ApproximateNumberOfMessages", 0)),
            not_visible=int(attributes.get("ApproximateNumberOfMessagesNotVisible", 0)),
        )

    async def receive(self, count: int, wait_s: int, attempt: str | None = None) -> list[Message]:
        """One ReceiveMessage."""
        named = {} if attempt is None else {"ReceiveRequestAttemptId": attempt}
        asked_at = anyio.current_time()
        try:
            answer = await self._sessions.call(
                self._client, "receive_message", QueueUrl=self._url, MaxNumberOfMessages=count,
                WaitTimeSeconds=wait_s, MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"], **named,
            )  # fmt: skip
        except OperatorNeeded as error:
            raise _spoken(error) from error.__cause__
        received_at = Instant(min(anyio.current_time(), asked_at + max(wait_s, LATE_S)))
        visible_at = Instant(received_at + self._visibility_s - min(LATE_S, self._visibility_s / 10))
        with taking_apart("ReceiveMessage", "SQS"):
            found = _received.decode(answer[BODY] or b"{}").Messages or []
            return [self._frame.message(message, received_at, visible_at) for message in found]

    async def delete(self, messages: Sequence[Message]) -> list[Message]:
        """One DeleteMessageBatch; an entry whose handle is not valid any more is settled."""
        failed = await self._batch("delete_message_batch", messages, [{}] * len(messages))
        return [message for message, entry in failed if not _is_settled(entry)]

    async def release(self, messages: Sequence[Message], delay_s: int = 0) -> None:
        """One ChangeMessageVisibilityBatch."""
        await self._change(messages, [delay_s] * len(messages))

    async def extend(self, messages: Sequence[Message], seconds: Sequence[int]) -> list[Message]:
        """One ChangeMessageVisibilityBatch."""
        return [message for message, _ in await self._change(messages, seconds)]

    async def _change(self, messages: Sequence[Message], seconds: Sequence[int]) -> list[tuple[Message, _Entry]]:
        more = [{"VisibilityTimeout": one} for one in seconds]
        return await self._batch("change_message_visibility_batch", messages, more)

    async def _batch(
        self, operation: str, messages: Sequence[Message], more: Sequence[dict[str, int]]
    ) -> list[tuple[Message, _Entry]]:
        """One call; returns what failed."""
        entries = [
            {"Id": str(index), "ReceiptHandle": message.receipt_handle, **more[index]}
            for index, message in enumerate(messages)
        ]
        answer = await self._sessions.call(self._client, operation, QueueUrl=self._url, Entries=entries)
        with taking_apart(operation, "SQS"):
            failed = {entry.Id: entry for entry in _entries.decode(answer[BODY] or b"{}").Failed or []}
        return [(one, failed[str(index)]) for index, one in enumerate(messages) if str(index) in failed]


class _Frame:
    """Builds the element of `"Records"` around what a queue's messages have in common."""

    def __init__(self, arn: Arn, *, says_null_md5: bool) -> None:
        self._says_null_md5 = says_null_md5
        self._tail = b"".join(
            [
                b',"eventSource":"aws:sqs","eventSourceARN":',
                _encode(str(arn)),
                b',"awsRegion":',
                _encode(arn.region),
                b"}",
            ]
        )

    def message(self, message: _Message, received_at: Instant, visible_at: Instant) -> Message:
        """The message with its event, in the recorded order of keys."""
        attributes = {name: str(value) for name, value in message.Attributes.items()}
        parts = [
            b'{"messageId":', _encode(message.MessageId), b',"receiptHandle":', _encode(message.ReceiptHandle),
            b',"body":', message.Body, b',"attributes":', _encode(attributes),
            b',"messageAttributes":', _message_attributes(message.MessageAttributes),
        ]  # fmt: skip
        if message.MessageAttributes and message.MD5OfMessageAttributes:
            parts += [b',"md5OfMessageAttributes":', _encode(message.MD5OfMessageAttributes)]
        elif self._says_null_md5:
            parts.append(b',"md5OfMessageAttributes":null')
        parts += [b',"md5OfBody":', _encode(message.MD5OfBody), self._tail]
        sent_ms = attributes.get("SentTimestamp", "")
        receives = attributes.get("ApproximateReceiveCount", "")
        return Message(
            event=b"".join(parts),
            message_id=message.MessageId,
            receipt_handle=message.ReceiptHandle,
            visible_at=visible_at,
            sent_at=UnixTime(int(sent_ms) / 1000 if sent_ms.isdecimal() else time.time()),
            group=attributes.get("MessageGroupId"),
            receives=int(receives) if receives.isdecimal() else 1,
            received_at=received_at,
            trace=attributes.get("AWSTraceHeader"),
        )


def _message_attributes(attributes: dict[str, _Attribute]) -> bytes:
    if not attributes:
        return b"{}"
    return b"{" + b",".join([_message_attribute(name, value) for name, value in attributes.items()]) + b"}"


def _message_attribute(name: str, attribute: _Attribute) -> bytes:
    parts: list[bytes | msgspec.Raw] = [_encode(name), b":{"]
    if bytes(attribute.StringValue) not in {b"", b"null"}:
        parts += [b'"stringValue":', attribute.StringValue, b","]
    if bytes(attribute.BinaryValue) not in {b"", b"null"}:
        parts += [b'"binaryValue":', attribute.BinaryValue, b","]
    parts += [b'"stringListValues":[],"binaryListValues":[],"dataType":', _encode(attribute.DataType), b"}"]
    return b"".join(parts)


def _is_settled(entry: _Entry) -> bool:
    return "ReceiptHandle" in entry.Code or "InvalidParameterValue" in entry.Code


def _spoken(error: OperatorNeeded) -> OperatorNeeded:
    """The text that Lambda shows for a queue it may not poll. Source: lambda.md 11.11."""
    text = str(error)
    if isinstance(error, CredentialsMissing):
        return error
    if "AccessDenied" in text or "NotAuthorized" in text:
        text = f"The function execution role does not have permissions to call ReceiveMessage on SQS ({text})"
    elif "GetQueueUrl. SQS Error Code" in text:
        text = text.replace("while GetQueueUrl.", "while ReceiveMessage.")
    return OperatorNeeded(text)
