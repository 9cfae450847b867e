"""An SQS queue that takes notices: one message each, its body the document, without attributes.

Source: wire-shapes.md 3.1.
"""

import botocore.exceptions as boto

from esm.aws import failures
from esm.aws.sessions import Sessions
from esm.errors import OperatorNeeded
from esm.model.arn import Arn
from esm.model.notice import Notice

IAM_ACTIONS = ("sqs:GetQueueUrl", "sqs:SendMessage")
"""What the daemon's role needs on the queue."""


class SqsQueue:
    """A `Destination`. The queue's URL is asked for once, and again when it no longer leads to a queue."""

    def __init__(self, arn: Arn, sessions: Sessions) -> None:
        self._arn = arn
        self._sessions = sessions
        self._url: str | None = None

    async def send(self, notice: Notice, document: bytes) -> None:  # noqa: ARG002 all is in the document
        """See `ports.Destination`. Raises: OperatorNeeded, Unavailable."""
        was_known = self._url is not None
        try:
            await self._send(document)
        except OperatorNeeded as error:
            self._url = None
            if not (was_known and _has_no_queue(error)):
                raise
            await self._send(document)

    async def check(self) -> None:
        """See `ports.Destination`."""
        client = await self._sessions.client("sqs", self._arn.region)
        await self._sessions.control(
            client, "get_queue_url", QueueName=self._arn.name, QueueOwnerAWSAccountId=self._arn.account
        )

    async def _send(self, document: bytes) -> None:
        client = await self._sessions.client("sqs", self._arn.region)
        if self._url is None:
            answer = await self._sessions.call(
                client, "get_queue_url", QueueName=self._arn.name, QueueOwnerAWSAccountId=self._arn.account
            )
            self._url = answer["QueueUrl"]
        await self._sessions.call(client, "send_message", QueueUrl=self._url, MessageBody=document.decode())


def _has_no_queue(error: OperatorNeeded) -> bool:
    cause = error.__cause__
    return isinstance(cause, boto.ClientError) and failures.code_of(cause) in failures.NO_QUEUE
