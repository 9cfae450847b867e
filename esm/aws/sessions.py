"""What adapters call AWS through: one identity in one place. Clients behind it are shared by the whole process.

A client's endpoint is the connection's; else the configuration's for its service, or for all; else the SDK finds it:
by AWS_ENDPOINT_URL_* and AWS_ENDPOINT_URL, or AWS's own of the region and partition, FIPS and dual-stack as asked.
STS is the exception: an endpoint that the configuration names for it counts before a connection's, which may serve one
service alone.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from esm.aws.calls import OnRequest, called
from esm.aws.clients import READ_TIMEOUT_S, Clients, Key, keepalive_socket
from esm.aws.identities import Identity, identity_of
from esm.errors import OperatorNeeded, Unavailable
from esm.model.connection import DAEMON, Way

__all__ = ["OnRequest", "Sessions", "keepalive_socket"]

CONTROL_RETRY_S = 8
"""How long a control call (describe, list) is tried before its failure goes up."""

WORKER = "esm"
"""Name in role sessions, where none is given."""


class Sessions:
    """The clients of one way into AWS; `through` gives those of another."""

    def __init__(
        self, region: str, endpoint_url: str | None, endpoints: Mapping[str, str], on_request: OnRequest,
        *, worker: str = WORKER, way: Way = DAEMON, shared: Clients | None = None,
    ) -> None:  # fmt: skip
        """`region`, `endpoint_url` and `endpoints` are the daemon's; `worker` names it in role sessions."""
        connection = way.connection
        self.region = region if connection is None or connection.region is None else connection.region
        """Where an ARN names none."""
        self.on_request = on_request
        self._daemons_region = region
        self._endpoint_url = endpoint_url
        self._endpoints = dict(endpoints)
        self._worker = worker
        self._way = way
        self._clients = Clients(region, on_request) if shared is None else shared
        self._identity: Identity | None = None

    def through(self, way: Way) -> "Sessions":
        """Sessions of another way. Contacts nothing: a way that makes no sense shows at its first client."""
        return Sessions(
            self._daemons_region, self._endpoint_url, self._endpoints, self.on_request,
            worker=self._worker, way=way, shared=self._clients,
        )  # fmt: skip

    async def client(self, service: str, region: str | None = None, *, read_timeout_s: float = READ_TIMEOUT_S) -> Any:  # noqa: ANN401 - aiobotocore makes clients at run time
        """The client of a service. Raises: OperatorNeeded (region, endpoint, role or profile make no sense)."""
        key = Key(self.identity, service, region or self.region, self._endpoint(service), read_timeout_s)
        return await self._clients.client(key)

    async def call(self, client: Any, operation: str, **parameters: object) -> dict[str, Any]:  # noqa: ANN401
        """One call, counted; its failure in the daemon's words.

        Raises: OperatorNeeded (CredentialsMissing too), Unavailable, PositionLost, ShardGone, IteratorExpired.
        """
        return await called(client, operation, self.on_request, parameters)

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

    @property
    def identity(self) -> Identity:
        """As whom. Raises: OperatorNeeded (a role's ARN makes no sense)."""
        if self._way == DAEMON:
            return Identity()
        if self._identity is None:
            desk = self._clients.desk(self.region, self._endpoint("sts"))
            self._identity = identity_of(self._way, self._worker, desk)
        return self._identity

    @property
    def uses(self) -> set[tuple[Identity, str | None]]:
        """Identities and endpoints of its clients, and of those that its credentials take. Raises: OperatorNeeded."""
        connection = self._way.connection
        endpoints = {self._endpoint_url, *self._endpoints.values()}
        if connection is not None and connection.endpoint_url is not None:
            endpoints = {connection.endpoint_url, self._endpoint("sts")}
        return {*self.identity.errands, *((self.identity, endpoint) for endpoint in endpoints)}

    async def keep(self, ways: AbstractSet[Way]) -> None:
        """Close what serves none of these ways, nor the daemon itself. Nobody may go the others any more."""
        uses: set[tuple[Identity, str | None]] = set()
        for way in {DAEMON, *ways}:
            with suppress(OperatorNeeded):  # it has no client either
                uses |= self.through(way).uses
        await self._clients.keep(uses)

    async def aclose(self) -> None:
        """Close every connection, of every way."""
        await self._clients.aclose()

    def _endpoint(self, service: str) -> str | None:
        connection = self._way.connection
        if service == "sts" and service in self._endpoints:
            return self._endpoints[service]
        if connection is not None and connection.endpoint_url is not None:
            return connection.endpoint_url
        return self._endpoints.get(service, self._endpoint_url)
