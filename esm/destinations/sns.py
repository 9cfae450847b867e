"""An SNS topic that takes notices: one message each, the document itself, without subject or attributes.

Source: wire-shapes.md 3.3.
"""

from esm.aws.sessions import Sessions
from esm.model.arn import Arn
from esm.model.notice import Notice

IAM_ACTIONS = ("sns:Publish",)
"""What the daemon's role needs on the topic."""


class SnsTopic:
    """A `Destination`."""

    def __init__(self, arn: Arn, sessions: Sessions) -> None:
        self._arn = arn
        self._sessions = sessions

    async def send(self, notice: Notice, document: bytes) -> None:  # noqa: ARG002 all is in the document
        """See `ports.Destination`. Raises: OperatorNeeded, Unavailable."""
        client = await self._sessions.client("sns", self._arn.region)
        await self._sessions.call(client, "publish", TopicArn=str(self._arn), Message=document.decode())
