"""Errors of botocore and the network -> the daemon's few kinds, by who must act. One table; nothing is guessed twice.

Source: lambda.md 3.1, 11.11; wire-shapes.md 4.7.
"""

import asyncio

import aiohttp
import botocore.exceptions as boto

from esm.errors import EsmError, OperatorNeeded, PositionLost, ShardGone, Unavailable

HTTP_SERVER_ERROR = 500

TEXT_MAX = 400
"""Characters of an error's text: some servers answer whole pages."""


class IteratorExpired(Unavailable):
    """A shard iterator is too old: open another one where the reader stands."""


_BY_CODE: dict[str, type[EsmError]] = {
    "ExpiredIteratorException": IteratorExpired,
    "TrimmedDataAccessException": PositionLost,
    "ProvisionedThroughputExceededException": Unavailable,
    "LimitExceededException": Unavailable,
    "KMSThrottlingException": Unavailable,
    "ThrottlingException": Unavailable,
    "Throttling": Unavailable,
    "ThrottledException": Unavailable,
    "RequestThrottled": Unavailable,
    "RequestThrottledException": Unavailable,
    "AWS.SimpleQueueService.RequestThrottled": Unavailable,
    "TooManyRequestsException": Unavailable,
    "RequestLimitExceeded": Unavailable,
    "SlowDown": Unavailable,
    "OverLimit": Unavailable,
    "AWS.SimpleQueueService.OverLimit": Unavailable,
    "ServiceUnavailable": Unavailable,
    "ServiceUnavailableException": Unavailable,
    "InternalFailure": Unavailable,
    "InternalError": Unavailable,
    "InternalServerError": Unavailable,
    "InternalFailureException": Unavailable,
    "RequestTimeout": Unavailable,
    "RequestTimeoutException": Unavailable,
    "RequestExpired": Unavailable,
    "ExpiredToken": Unavailable,
    "ExpiredTokenException": Unavailable,
}
"""Codes that the daemon recovers from by itself; every other 4xx needs an operator."""

NO_QUEUE = frozenset(
    {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NonExistentQueue", "QueueDoesNotExistException"}
)
DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation", "NotAuthorized"}
)
NETWORK = (
    boto.ConnectionError, boto.HTTPClientError, boto.ConnectTimeoutError, boto.ReadTimeoutError,
    aiohttp.ClientError, OSError, asyncio.TimeoutError, boto.CredentialRetrievalError, boto.MetadataRetrievalError,
)  # fmt: skip
"""Nothing was answered."""

UNREADABLE = (boto.BotoCoreError, ValueError, KeyError)
"""Something was answered that is not the service's language."""


def code_of(error: boto.ClientError) -> str:
    """The error code, without the namespace that some servers put before it."""
    code = str(error.response.get("Error", {}).get("Code", "") or "Unknown")
    return code.rsplit("#", 1)[-1]


def translated(error: boto.ClientError, operation: str) -> EsmError:
    """The daemon's word for an error answer of AWS; its text is AWS's own."""
    code = code_of(error)
    message = " ".join(str(error.response.get("Error", {}).get("Message", "") or "no message").split())[:TEXT_MAX]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    kind = _BY_CODE.get(code)
    if kind is not None:
        return kind(f"{operation}: {code}: {message}")
    if status >= HTTP_SERVER_ERROR:
        return Unavailable(f"{operation}: {status} {code}: {message}")
    if code in NO_QUEUE:
        return OperatorNeeded(
            f"Error occurred while {operation}. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue."
            " SQS Error Message: The specified queue does not exist."
        )
    if code == "ResourceNotFoundException":
        return ShardGone(f"{operation}: {message}")
    return OperatorNeeded(f"{operation}: {code}: {message}")
