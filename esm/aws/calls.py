"""One call of an AWS API: counted, and its failure in the daemon's words."""

from collections.abc import Callable
from typing import Any

import botocore.exceptions as boto

from esm.aws import failures
from esm.errors import EsmError, OperatorNeeded, Unavailable

OnRequest = Callable[[str, str, str], None]
"""service, operation, outcome: `ok`, an error code, `credentials`, or `unreachable`."""


async def called(client: Any, operation: str, on_request: OnRequest, parameters: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - aiobotocore makes clients at run time
    """The answer. Raises: OperatorNeeded (CredentialsMissing too), Unavailable, PositionLost, ShardGone, ..."""
    service = str(client.meta.service_model.service_name)
    name = str(client.meta.method_to_api_mapping[operation])
    try:
        answer: dict[str, Any] = await getattr(client, operation)(**parameters)
    except EsmError as error:  # the credentials' own, met while signing
        on_request(service, name, "credentials")
        raise type(error)(f"{name}: {error}") from error.__cause__
    except boto.ClientError as error:
        on_request(service, name, failures.code_of(error))
        raise failures.translated(error, name) from error
    except failures.MISCONFIGURED as error:
        on_request(service, name, "refused")
        raise OperatorNeeded(f"{name}: {' '.join(str(error).split())}") from error
    except failures.NETWORK as error:
        on_request(service, name, "unreachable")
        raise Unavailable(f"{name}: {type(error).__name__}: {error}") from error
    except failures.UNREADABLE as error:
        on_request(service, name, "unreadable")
        raise Unavailable(failures.unreadable(name, service, error)) from error
    on_request(service, name, "ok")
    return answer
