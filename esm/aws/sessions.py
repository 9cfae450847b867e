"""Clients of AWS's APIs, one a service and region, shared by all adapters.

The SDK's own retries are off: one retry system a path. Connections send TCP keep-alives, which aiobotocore's own
option does not bring about, or a long synchronous invocation dies behind a NAT and runs twice.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import botocore.exceptions as boto
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from esm import __version__
from esm.aws import failures
from esm.aws.raw import RawParserFactory
from esm.errors import OperatorNeeded, Unavailable

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 70
"""Above the longest long poll (20 s) and any control call."""

CONNECTIONS_MAX = 1000
"""Connections a client may hold: every poller of a service in one region may wait on one."""

KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_TRIES = 60, 15, 4
"""NATs of the large clouds forget a silent connection after 350 s."""

CONTROL_RETRY_S = 8
"""How long a control call (describe, list) is tried before its failure goes up."""

OnRequest = Callable[[str, str, str], None]
"""service, operation, outcome: `ok`, an error code, or `unreachable`."""


class Sessions:
    """Makes clients on demand and keeps them until `aclose`."""

    def __init__(
        self, region: str, endpoint_url: str | None, endpoints: Mapping[str, str], on_request: OnRequest
    ) -> None:
        self.region = region
        self._endpoint_url = endpoint_url
        self._endpoints = dict(endpoints)
        self.on_request = on_request
        self._session: Any = AioSession()
        self._session.register_component("response_parser_factory", RawParserFactory())
        self._clients: dict[tuple[str, str, float], Any] = {}
        self._making = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def client(self, service: str, region: str | None = None, *, read_timeout_s: float = READ_TIMEOUT_S) -> Any:  # noqa: ANN401 - aiobotocore makes clients at run time
        """The client of a service. Raises: OperatorNeeded (region, endpoint or profile make no sense)."""
        key = (service, region or self.region, read_timeout_s)
        async with self._making:
            if key not in self._clients:
                self._clients[key] = await self._made(*key)
        return self._clients[key]

    async def _made(self, service: str, region: str, read_timeout_s: float) -> Any:  # noqa: ANN401
        try:
            context = self._session.create_client(
                service, region_name=region, endpoint_url=self._endpoints.get(service, self._endpoint_url),
                config=_config(read_timeout_s),
            )  # fmt: skip
            return await self._stack.enter_async_context(context)
        except (boto.BotoCoreError, ValueError) as error:
            raise OperatorNeeded(f"a client of {service} in {region} cannot be made: {error}") from error

    async def call(self, client: Any, operation: str, **parameters: object) -> dict[str, Any]:  # noqa: ANN401
        """One call, counted; its failure in the daemon's words.

        Raises: OperatorNeeded, Unavailable, PositionLost, ShardGone, IteratorExpired.
        """
        service = str(client.meta.service_model.service_name)
        name = str(client.meta.method_to_api_mapping[operation])
        try:
            answer: dict[str, Any] = await getattr(client, operation)(**parameters)
        except boto.ClientError as error:
            self.on_request(service, name, failures.code_of(error))
            raise failures.translated(error, name) from error
        except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound) as error:
            self.on_request(service, name, "credentials")
            raise OperatorNeeded(
                f"{name}: {error}. Give the daemon credentials (AWS_ACCESS_KEY_ID, a role)."
            ) from error
        except boto.ParamValidationError as error:
            self.on_request(service, name, "refused")
            raise OperatorNeeded(f"{name}: {' '.join(str(error).split())}") from error
        except failures.NETWORK as error:
            self.on_request(service, name, "unreachable")
            raise Unavailable(f"{name}: {type(error).__name__}: {error}") from error
        except failures.UNREADABLE as error:
            self.on_request(service, name, "unreadable")
            raise Unavailable(failures.unreadable(name, service, error)) from error
        self.on_request(service, name, "ok")
        return answer

    async def control(self, client: Any, operation: str, **parameters: object) -> dict[str, Any]:  # noqa: ANN401
        """A describing or listing call: tried for a few seconds while unavailable. Raises as `call` does."""
        policy = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable), stop=stop_after_delay(CONTROL_RETRY_S),
            wait=wait_random_exponential(multiplier=0.2, max=2), reraise=True,
        )  # fmt: skip
        async for attempt in policy:
            with attempt:
                return await self.call(client, operation, **parameters)
        raise AssertionError("tenacity ends by a result or an error")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._stack.aclose()
        self._clients.clear()


def keepalive_socket(address: tuple[Any, ...]) -> socket.socket:
    """A TCP socket that keeps its connection alive; `address` is one entry of getaddrinfo."""
    family, kind, protocol = address[0], address[1], address[2]
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_TRIES)
    return made


def _config(read_timeout_s: float) -> AioConfig:
    return AioConfig(
        connector_args={"socket_factory": keepalive_socket, "keepalive_timeout": 12},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        max_pool_connections=CONNECTIONS_MAX,
        retries={"total_max_attempts": 1, "mode": "standard"},
        parameter_validation=False,
        user_agent=f"esm/{__version__}",  # botocore spends an eighth of a call on making its own
    )
