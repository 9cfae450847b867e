"""An SQS queue that takes notices: one message each, its body the document.

Source: wire-shapes.md 3.1, 3.5, 3.6.
"""

from esm.aws import failures
from esm.aws.sessions import Sessions
from esm.destinations import message_attributes
from esm.errors import NoticeTooLarge, OperatorNeeded
from esm.model.arn import Arn
from esm.model.notice import AnyNotice

IAM_ACTIONS = ("sqs:GetQueueUrl", "sqs:SendMessage")
"""What the daemon's role needs on the queue."""

MESSAGE_BYTES_MAX = 1_048_576
"""The largest message of a queue, where its own `MaximumMessageSize` is not lower."""

_NOT_TAKEN = frozenset({"InvalidParameterValue", "InvalidParameterValueException", "MessageTooLong"})
"""SQS's words for a body beyond the queue's own `MaximumMessageSize`; nothing else in the call is ours to get wrong."""


class SqsQueue:
    """A `Destination`. The queue's URL is asked for once, and again when it no longer leads to a queue."""

    def __init__(self, arn: Arn, sessions: Sessions) -> None:
        self._arn = arn
        self._sessions = sessions
        self._url: str | None = None

    async def send(self, notice: AnyNotice, document: bytes) -> None:
        """See `ports.Destination`. Raises: OperatorNeeded, NoticeTooLarge, Unavailable."""
        if len(document) > MESSAGE_BYTES_MAX:
            raise NoticeTooLarge(
                f"SendMessage: the notice has {len(document)} bytes, and a queue takes {MESSAGE_BYTES_MAX}: name a"
                " bucket as the destination."
            )
        was_known = self._url is not None
        try:
            await self._send(notice, document)
        except OperatorNeeded as error:
            self._url = None
            if failures.code_behind(error) in _NOT_TAKEN:
                raise NoticeTooLarge(str(error)) from error
            if not (was_known and failures.code_behind(error) in failures.NO_QUEUE):
                raise
            await self._send(notice, document)

    async def check(self) -> None:
        """See `ports.Destination`."""
        client = await self._sessions.client("sqs", self._arn.region)
        await self._sessions.control(
            client, "get_queue_url", QueueName=self._arn.name, QueueOwnerAWSAccountId=self._arn.account
        )

    async def _send(self, notice: AnyNotice, document: bytes) -> None:
        client = await self._sessions.client("sqs", self._arn.region)
        if self._url is None:
            answer = await self._sessions.call(
                client, "get_queue_url", QueueName=self._arn.name, QueueOwnerAWSAccountId=self._arn.account
            )
            self._url = answer["QueueUrl"]
        trace = {} if notice.trace is None else {"AWSTraceHeader": {"DataType": "String", "StringValue": notice.trace}}
        await self._sessions.call(
            client, "send_message", QueueUrl=self._url, MessageBody=document.decode(),
            **message_attributes.of(notice), **({"MessageSystemAttributes": trace} if trace else {}),
        )  # fmt: skip
