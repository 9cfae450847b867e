"""Where notices go. Every destination keeps the promises of `ports.Destination`."""

from esm.aws.sessions import Sessions
from esm.destinations.s3 import S3Bucket
from esm.destinations.sns import SnsTopic
from esm.destinations.sqs import SqsQueue
from esm.errors import RequestRefused
from esm.model.arn import Arn
from esm.ports import Destination


def make_destination(arn: Arn, sessions: Sessions, account: str) -> Destination:
    """The destination that an ARN names, for a function of `account`. Contacts nothing yet. Raises: RequestRefused."""
    match arn.service:
        case "sqs":
            return SqsQueue(arn, sessions)
        case "sns":
            return SnsTopic(arn, sessions)
        case "s3":
            return S3Bucket(arn, sessions, account)
        case _:
            raise RequestRefused(
                f"The destination {arn} is not served: name an SQS queue, an SNS topic or an S3 bucket."
            )
