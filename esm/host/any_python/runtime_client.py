"""The four calls of awslambdaric's compiled `runtime_client`, for interpreters that its binary does not fit.

Law: a module of its own in the runtime client's folder (there named `runtime_client.py`), standard library only,
Python 3.8 and later. One connection, kept alive; the caller never uses it twice at once.
"""

import http.client
import os
from typing import Dict, Optional, Tuple  # noqa: UP035 - runs on 3.8

_PREFIX = "/2018-06-01/runtime/invocation/"
_TEXTS = (
    "Lambda-Runtime-Aws-Request-Id", "Lambda-Runtime-Trace-Id", "Lambda-Runtime-Invoked-Function-Arn",
    "Lambda-Runtime-Client-Context", "Lambda-Runtime-Cognito-Identity", "Lambda-Runtime-Aws-Tenant-Id",
    "Lambda-Runtime-Invocation-Id", "Content-Type",
)  # fmt: skip
_OK, _ACCEPTED = 200, 202

_connection = http.client.HTTPConnection(os.environ.get("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"))
_headers: Dict[str, bytes] = {}  # noqa: UP006 - runs on 3.8


def initialize_client(user_agent: str) -> None:
    """Called once, before the others."""
    _headers["User-Agent"] = user_agent.encode()


def next() -> Tuple[bytes, Dict[str, object]]:  # noqa: A001, UP006 - the compiled module's name; runs on 3.8
    """Wait for an invocation; returns its event and the headers that came with it, None for the absent ones."""
    _connection.request("GET", _PREFIX + "next", headers=_headers)
    answer = _connection.getresponse()
    event = answer.read()
    if answer.status != _OK:
        raise RuntimeError(f"the Runtime API answered {answer.status} to next")
    headers: Dict[str, object] = {name: answer.headers.get(name) or None for name in _TEXTS}  # noqa: UP006
    headers["Lambda-Runtime-Deadline-Ms"] = int(answer.headers["Lambda-Runtime-Deadline-Ms"])
    return event, headers


def post_invocation_result(
    request_id: str,
    content: bytes,
    content_type: str,
    invocation_id: Optional[str] = None,  # noqa: UP045 - runs on 3.8
) -> None:
    """Hand in what the handler returned."""
    _post(request_id + "/response", content, content_type, {}, invocation_id)


def post_error(
    request_id: str,
    content: str,
    xray_cause: str,
    invocation_id: Optional[str] = None,  # noqa: UP045 - runs on 3.8
) -> None:
    """Hand in what the handler raised."""
    cause = {"Lambda-Runtime-Function-XRay-Error-Cause": xray_cause.encode()} if xray_cause else {}
    _post(request_id + "/error", content.encode(), "application/json", cause, invocation_id)


def _post(
    path: str,
    content: bytes,
    content_type: str,
    headers: Dict[str, bytes],  # noqa: UP006 - runs on 3.8
    invocation_id: Optional[str],  # noqa: UP045
) -> None:
    headers = {**_headers, **headers, "Content-Type": content_type.encode()}
    if invocation_id:
        headers["Lambda-Runtime-Invocation-Id"] = invocation_id.encode()
    _connection.request("POST", _PREFIX + path, body=content, headers=headers)
    answer = _connection.getresponse()
    answer.read()
    if answer.status != _ACCEPTED:
        raise RuntimeError(f"the Runtime API answered {answer.status} to {path.rpartition('/')[2]}")
