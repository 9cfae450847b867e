"""What an exchange that failed without an answer means, by what failed and whether the request was sent: a table.

Law: before the whole request is with the network the function cannot have run; after it, it may have, and counts. But
a server that refuses TLS, which under TLS 1.3 it says only then, or that does not speak HTTP, has run nothing.
"""

import os
import ssl

import aiohttp

from esm.model.invocation import Ending, Misconfigured, Unreachable
from esm.targets import function_errors

_REFUSES_US = (
    "CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE", "PROTOCOL_VERSION",
)  # fmt: skip
"""In the names of the alerts by which a server refuses a client, mostly for its certificate. Source: RFC 8446 6.2."""


def ending(request_id: str, host: str, error: Exception, *, was_sent: bool) -> Ending:
    """What `error`, met while `host` was asked, means for the invocation."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or "it does not fit the name"
        text = f"The certificate of {host} is not trusted: {reason}. Mend it, or name its authority in CaFile"
        return Misconfigured(request_id, f"{text}.")
    if (alert := _alert(error)) is not None:
        text = f"{host} refuses TLS with us ({alert}): see ClientCertFile and ClientKeyFile"
        return Misconfigured(request_id, f"{text}.")
    if isinstance(error, aiohttp.ClientResponseError):
        text = "The function's URL answers what is not HTTP: see that it names an HTTP server."
        return Misconfigured(request_id, text)
    if was_sent:
        return function_errors.exited(request_id)
    return Unreachable(request_id, f"The function cannot be reached: {_text(error)}.")


def _alert(error: BaseException | None) -> str | None:
    """The alert by which the server refuses us, in the error or what caused it; None where there is none."""
    while error is not None:
        inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        reason = str(getattr(inner, "reason", "")) if isinstance(inner, ssl.SSLError) else ""
        if "ALERT" in reason and any(word in reason for word in _REFUSES_US):
            return reason
        error = error.__cause__
    return None


def _text(error: Exception) -> str:
    """What failed; never the words of a library that may show the URL, or what the server sent."""
    if isinstance(error, aiohttp.ServerTimeoutError):
        return "it takes no connection"
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error) or type(error.os_error).__name__
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno)
    return type(error).__name__
