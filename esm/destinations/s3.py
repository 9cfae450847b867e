"""An S3 bucket that takes notices: one object each, its key made of the notice's folder, time and uuid.

Law: a notice that is sent again overwrites its own object. `ExpectedBucketOwner` goes with every call, so that a
bucket that someone else has made under the same name gets nothing.

Source: wire-shapes.md 3.4.
"""

from datetime import UTC, datetime

from esm.aws.sessions import Sessions
from esm.errors import OperatorNeeded
from esm.model.arn import Arn
from esm.model.notice import AnyNotice

IAM_ACTIONS = ("s3:ListBucket", "s3:PutObject")
"""What the daemon's role needs on the bucket and its objects; for an encrypted bucket also kms:GenerateDataKey."""


class S3Bucket:
    """A `Destination`. `account` is the function's: the bucket must belong to it."""

    def __init__(self, arn: Arn, sessions: Sessions, account: str) -> None:
        self._bucket = arn.name
        self._region = arn.region or None
        self._sessions = sessions
        self._account = account

    async def send(self, notice: AnyNotice, document: bytes) -> None:
        """See `ports.Destination`. Raises: OperatorNeeded, Unavailable."""
        client = await self._sessions.client("s3", self._region)
        await self._sessions.call(
            client, "put_object", Bucket=self._bucket, Key=_key(notice), Body=document,
            ExpectedBucketOwner=self._account,
        )  # fmt: skip

    async def check(self) -> None:
        """See `ports.Destination`."""
        client = await self._sessions.client("s3", self._region)
        try:
            await self._sessions.control(
                client, "head_bucket", Bucket=self._bucket, ExpectedBucketOwner=self._account
            )  # fmt: skip
        except OperatorNeeded as error:
            raise OperatorNeeded(
                f"{error}: the bucket {self._bucket!r} must exist in account {self._account}, and the role must be"
                " allowed s3:ListBucket on it."
            ) from error


def _key(notice: AnyNotice) -> str:
    at = datetime.fromtimestamp(notice.at, UTC)
    return f"{notice.folder}/{at:%Y/%m/%d/%Y-%m-%dT%H.%M.%S}-{notice.id}"
