"""The calls of awslambdaric's compiled module, in plain Python: for interpreters that the compiled one does not fit."""

import http.client
import os
from typing import Dict, Optional, Tuple  # noqa: UP035 - for interpreters from 3.8 on

_PATH = "/2018-06-01/runtime/invocation/"
_connection = http.client.HTTPConnection(os.environ.get("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9"))


def initialize_client(user_agent: str) -> None:
    """Connect at the first call, to the Runtime API that the environment names."""
    del user_agent


def next() -> Tuple[bytes, Dict[str, object]]:  # noqa: A001, UP006 - the compiled module's name
    """The next event: its body, and its headers."""
    _connection.request("GET", _PATH + "next")
    response = _connection.getresponse()
    body = response.read()
    if response.status != http.client.OK:
        raise RuntimeError(f"Failed to get next: status {response.status}")
    headers: Dict[str, object] = dict(response.getheaders())  # noqa: UP006
    headers["Lambda-Runtime-Deadline-Ms"] = int(response.headers["Lambda-Runtime-Deadline-Ms"])
    return body, headers


def post_invocation_result(
    invoke_id: str,
    result_data: bytes,
    content_type: str = "application/json",
    invocation_id: Optional[str] = None,  # noqa: UP045
) -> None:
    """Hand in an answer."""
    _post(invoke_id + "/response", result_data, {"Content-Type": content_type}, invocation_id)


def post_error(
    invoke_id: str,
    error_response_data: str,
    xray_fault: str,
    invocation_id: Optional[str] = None,  # noqa: UP045
) -> None:
    """Hand in a failure."""
    headers = {"Content-Type": "application/json", "Lambda-Runtime-Function-Error-Type": "Unhandled"}
    if xray_fault:
        headers["Lambda-Runtime-Function-XRay-Error-Cause"] = xray_fault.replace("\n", " ")
    _post(invoke_id + "/error", error_response_data.encode("utf-8"), headers, invocation_id)


def _post(path: str, body: bytes, headers: Dict[str, str], invocation_id: Optional[str]) -> None:  # noqa: UP006, UP045
    if invocation_id:
        headers["Lambda-Runtime-Invocation-Id"] = invocation_id
    _connection.request("POST", _PATH + path, body, headers)
    response = _connection.getresponse()
    response.read()
    if response.status not in (http.client.ACCEPTED, http.client.REQUEST_ENTITY_TOO_LARGE):
        raise RuntimeError(f"Failed to post: status {response.status}")
