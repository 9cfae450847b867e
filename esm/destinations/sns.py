"""An SNS topic that takes notices: one message each, the document itself, without subject.

Source: wire-shapes.md 3.3, 3.5, 3.6.
"""

import botocore.exceptions as boto

from esm.aws import failures
from esm.aws.sessions import Sessions
from esm.destinations import message_attributes
from esm.errors import NoticeTooLarge, OperatorNeeded
from esm.model.arn import Arn
from esm.model.notice import AnyNotice

IAM_ACTIONS = ("sns:Publish",)
"""What the daemon's role needs on the topic. `check` asks sns:GetTopicAttributes, and does without it."""

MESSAGE_BYTES_MAX = 262_144
"""The largest message of a topic."""


class SnsTopic:
    """A `Destination`."""

    def __init__(self, arn: Arn, sessions: Sessions) -> None:
        self._arn = arn
        self._sessions = sessions

    async def send(self, notice: AnyNotice, document: bytes) -> None:
        """See `ports.Destination`. Raises: OperatorNeeded, NoticeTooLarge, Unavailable."""
        if len(document) > MESSAGE_BYTES_MAX:
            raise NoticeTooLarge(
                f"Publish: the notice has {len(document)} bytes, and a topic takes {MESSAGE_BYTES_MAX}: name a queue or"
                " a bucket as the destination."
            )
        client = await self._sessions.client("sns", self._arn.region)
        await self._sessions.call(
            client, "publish", TopicArn=str(self._arn), Message=document.decode(), **message_attributes.of(notice)
        )

    async def check(self) -> None:
        """See `ports.Destination`. A role that may not look at the topic is no problem: it may still publish."""
        client = await self._sessions.client("sns", self._arn.region)
        try:
            await self._sessions.control(client, "get_topic_attributes", TopicArn=str(self._arn))
        except OperatorNeeded as error:
            cause = error.__cause__
            if not isinstance(cause, boto.ClientError) or failures.code_of(cause) not in failures.DENIED:
                raise
