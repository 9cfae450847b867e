"""Whether a function behind a URL takes connections: asked without a request, which alone could run it."""

import asyncio
import os
import ssl

from yarl import URL

from esm.errors import OperatorNeeded, Unavailable
from esm.model.function import UrlFunction
from esm.targets.addresses import Addresses
from esm.targets.tls import ClientTls

_WITHIN_S = 10.0
"""For all addresses of the host together."""


async def check_connection(function: UrlFunction) -> None:
    """Return once an address of the host has taken a connection, with TLS where the Url has it; it is closed again.

    Raises: Unavailable (none takes it), OperatorNeeded (its certificate is not trusted, a file of the function cannot
    be used).
    """
    url = URL(function.url)
    host, port, is_https = url.raw_host or "", url.port or 80, url.scheme == "https"
    context = ClientTls(function, is_https=True).context() if is_https else None
    addresses = Addresses(host, port)
    await addresses.resolve()
    try:
        async with asyncio.timeout(_WITHIN_S):
            await _connect(addresses.known, port, context, host)
    except ssl.SSLCertVerificationError as error:
        text = f"The certificate of {host} is not trusted: {error.verify_message}. Mend it, or name its authority in"
        raise OperatorNeeded(f"{text} CaFile.") from error
    except OSError as error:  # TimeoutError and ssl.SSLError among them
        text = f"Nothing takes a connection at {host}:{port} ({_reason(error)})"
        raise Unavailable(f"{text}: start the function {function.key!r}, or correct its Url.") from error


async def _connect(addresses: tuple[str, ...], port: int, context: ssl.SSLContext | None, host: str) -> None:
    last: OSError | None = None
    for address in addresses:
        try:
            _, writer = await asyncio.open_connection(
                address, port, ssl=context, server_hostname=host if context is not None else None
            )
        except OSError as error:
            last = error
        else:
            writer.transport.abort()
            return
    if last is not None:
        raise last


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_WITHIN_S:.0f} s"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason}"
    return os.strerror(error.errno) if error.errno else str(error)
