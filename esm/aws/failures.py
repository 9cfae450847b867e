"""Errors of botocore and the network -> the daemon's few kinds, by who must act. One table; nothing is guessed twice.

Source: lambda.md 3.1, 11.11; wire-shapes.md 4.7.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import botocore.exceptions as boto
import msgspec
from botocore.parsers import ResponseParserError

from esm.errors import EsmError, OperatorNeeded, PositionLost, ShardGone, Unavailable

HTTP_SERVER_ERROR = 500

NOT_IMPLEMENTED = 501
"""The one answer above 500 that no waiting mends: the server does not have this operation."""

PASSING_STATUSES = frozenset({408, 425, 429})
"""Below 500, and yet nobody's mistake: a proxy says so without a code of AWS."""

TEXT_MAX = 400
"""Characters of an error's text: some servers answer whole pages."""


class IteratorExpired(Unavailable):
    """A shard iterator is too old: open another one where the reader stands."""


class CredentialsMissing(OperatorNeeded):
    """There are no credentials for a call, or its role cannot be assumed: the call itself was not made."""


_BY_CODE: dict[str, type[EsmError]] = {
    "ExpiredIteratorException": IteratorExpired,
    "TrimmedDataAccessException": PositionLost,
    "ProvisionedThroughputExceededException": Unavailable,
    "LimitExceededException": Unavailable,
    "ResourceInUseException": Unavailable,
    "ExpiredNextTokenException": Unavailable,
    "KMSThrottlingException": Unavailable,
    "KMS.ThrottlingException": Unavailable,
    "KmsThrottled": Unavailable,
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
}
"""Codes that the daemon recovers from by itself; every other 4xx needs an operator.

So does an expired token: what can be refreshed is refreshed before that, and what was replaced is looked for again.
"""

NO_QUEUE = frozenset(
    {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NonExistentQueue", "QueueDoesNotExistException"}
)
DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation", "NotAuthorized"}
)
STALE = frozenset(
    {
        "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException",
        "InvalidAccessKeyId", "InvalidToken",
    }
)  # fmt: skip
"""The credentials ended before their time, or were replaced: others may be found by now."""

NETWORK = (
    boto.ConnectionError, boto.HTTPClientError, boto.ConnectTimeoutError, boto.ReadTimeoutError,
    aiohttp.ClientError, OSError, asyncio.TimeoutError, boto.CredentialRetrievalError, boto.MetadataRetrievalError,
)  # fmt: skip
"""Nothing was answered."""

MISCONFIGURED = (
    boto.ParamValidationError, boto.EndpointProviderError, boto.ProfileNotFound, boto.InvalidProxiesConfigError,
)  # fmt: skip
"""Nothing was asked, and nothing will be until someone acts: a parameter, an endpoint or a proxy makes no sense."""

UNREADABLE = (boto.BotoCoreError, ResponseParserError, ValueError, KeyError, TypeError, AttributeError)
"""Something was answered that is not the service's language."""

_MISREAD = (msgspec.MsgspecError, KeyError, ValueError, TypeError, AttributeError)


@contextmanager
def taking_apart(operation: str, service: str) -> Iterator[None]:
    """Around the code that takes an answer apart: what it does not find, or cannot read, is Unavailable.

    Only for such code: within it, a mistake of ours would look like one of the server.
    """
    try:
        yield
    except _MISREAD as error:
        raise Unavailable(unreadable(operation, service, error)) from error


def unreadable(operation: str, service: str, error: Exception) -> str:
    """The text of an answer that is not what the service would say."""
    return f"{operation}: the answer is not {service}'s: {type(error).__name__}: {error}"[:TEXT_MAX]


def code_behind(error: EsmError) -> str:
    """AWS's code of the answer that an error was made of; empty where there was no answer."""
    cause = error.__cause__
    return code_of(cause) if isinstance(cause, boto.ClientError) else ""


def code_of(error: boto.ClientError) -> str:
    """The error code, without the namespace that some servers put before it."""
    code = str(error.response.get("Error", {}).get("Code", "") or "Unknown")
    return code.rsplit("#", 1)[-1]


def translated(error: boto.ClientError, operation: str) -> EsmError:
    """The daemon's word for an error answer of AWS; its text is AWS's own."""
    code = code_of(error)
    message = " ".join(str(error.response.get("Error", {}).get("Message", "") or "no message").split())[:TEXT_MAX]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status == NOT_IMPLEMENTED:
        return OperatorNeeded(f"{operation}: the server does not have this operation: {message}")
    kind = _BY_CODE.get(code)
    if kind is not None:
        return kind(f"{operation}: {code}: {message}")
    if status >= HTTP_SERVER_ERROR or status in PASSING_STATUSES:
        return Unavailable(f"{operation}: {status} {code}: {message}")
    if code in NO_QUEUE:
        return OperatorNeeded(
            f"Error occurred while {operation}. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue."
            " SQS Error Message: The specified queue does not exist."
        )
    if code == "ResourceNotFoundException":
        return ShardGone(f"{operation}: {message}")
    return OperatorNeeded(f"{operation}: {code}: {message}")
