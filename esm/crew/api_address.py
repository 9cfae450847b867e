"""The address of Lambda's API, which all workers of a crew listen on: the supervisor holds it for them.

Law: the workers of one crew share it, and nobody else. A socket that shares its port lets every process of the user in;
another crew, on another state, would answer some of the calls. So the address must be free of all others first.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from esm.errors import OperatorNeeded


@contextmanager
def holding(host: str, port: int) -> Iterator[int]:
    """Hold the address while the body runs; yields the port (a free one where `port` is 0).

    Raises: OperatorNeeded when it cannot be had.
    """
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, kind, protocol) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(address)
                address = alone.getsockname()
            held = stack.enter_context(socket.socket(family, kind, protocol))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(address)
        except OSError as error:
            raise OperatorNeeded(
                f"ESM_API_ADDRESS: cannot listen on {host}:{port} ({error.strerror}). Choose another address."
            ) from error
        yield int(address[1])
