"""An SNS topic that takes notices: one message each, the document itself, without subject or attributes.

Source: wire-shapes.md 3.3.
"""

import botocore.exceptions as boto

from esm.aws import failures
from esm.aws.sessions import Sessions
from esm.errors import OperatorNeeded
from esm.model.arn import Arn
from esm.model.notice import Notice

IAM_ACTIONS = ("sns:Publish",)
"""What the daemon's role needs on the topic. `check` asks sns:GetTopicAttributes, and does without it."""


class SnsTopic:
    """A `Destination`."""

    def __init__(self, arn: Arn, sessions: Sessions) -> None:
        self._arn = arn
        self._sessions = sessions

    async def send(self, notice: Notice, document: bytes) -> None:  # noqa: ARG002 all is in the document
        """See `ports.Destination`. Raises: OperatorNeeded, Unavailable."""
        client = await self._sessions.client("sns", self._arn.region)
        await self._sessions.call(client, "publish", TopicArn=str(self._arn), Message=document.decode())

    async def check(self) -> None:
        """See `ports.Destination`. A role that may not look at the topic is no problem: it may still publish."""
        client = await self._sessions.client("sns", self._arn.region)
        try:
            await self._sessions.control(client, "get_topic_attributes", TopicArn=str(self._arn))
        except OperatorNeeded as error:
            cause = error.__cause__
            if not isinstance(cause, boto.ClientError) or failures.code_of(cause) not in failures.DENIED:
                raise
