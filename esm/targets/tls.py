"""TLS towards one function: whom it trusts, and as whom it speaks; made again when a file of it changes.

Law: the server's name is always checked. A key is never asked for its password: nobody is there to answer.
"""

import ssl

from esm.errors import OperatorNeeded, RequestRefused
from esm.model.function import UrlFunction
from esm.watched import Watched, read_file


class ClientTls:
    """`ca_file`, `client_cert_file` and `client_key_file` of one function. Without a CA file the system's CAs count."""

    def __init__(self, function: UrlFunction, *, is_https: bool) -> None:
        """Raises: RequestRefused for files that a URL without TLS cannot use, and for a key without certificate."""
        self._ca = function.ca_file
        self._cert = function.client_cert_file
        self._key = function.client_key_file
        files = [path for path in (self._ca, self._cert, self._key) if path is not None]
        if files and not is_https:
            text = "has CaFile, ClientCertFile or ClientKeyFile, and its Url is not https://: use the one or the other"
            raise RequestRefused(f"The function {function.key!r} {text}.")
        if self._key is not None and self._cert is None:
            raise RequestRefused(f"The function {function.key!r} has ClientKeyFile without ClientCertFile: name both.")
        self._context = Watched(files, self._made)

    def context(self) -> ssl.SSLContext:
        """The context for the next connection. Raises: OperatorNeeded, naming the file that does not fit."""
        return self._context.value()

    def _made(self) -> ssl.SSLContext:
        context = ssl.create_default_context() if self._ca is None else _trusting(self._ca)
        context.set_alpn_protocols(["http/1.1"])
        if self._cert is not None:
            _load(context, self._cert, self._key)
        return context


def _trusting(path: str) -> ssl.SSLContext:
    read_file(path)
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError among them
        raise OperatorNeeded(f"The CA file {path} holds no certificates in PEM form: {_reason(error)}.") from error


def _load(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    read_file(cert)
    if key is not None:
        read_file(key)
    try:
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError among them
        pair = cert if key is None else f"{cert} with the key {key}"
        text = "see that both are PEM, belong together, and that the key has no password"
        raise OperatorNeeded(f"The client certificate {pair} cannot be used ({_reason(error)}): {text}.") from error


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or type(error).__name__
