"""The clients of the process: one for each identity, service, region, endpoint and read timeout, shared by all.

The SDK's own retries are off: one retry system a path. Connections send TCP keep-alives, which aiobotocore's own
option does not bring about, or a long synchronous invocation dies behind a NAT and runs twice.
"""

import asyncio
import socket
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.exceptions as boto
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from esm import __version__
from esm.aws.calls import OnRequest, called
from esm.aws.credentials import FoundCredentials, RoleCredentials
from esm.aws.identities import Assumed, Desk, Identity
from esm.aws.raw import RawParserFactory
from esm.errors import OperatorNeeded

IAM_ACTIONS = ("sts:AssumeRole",)
"""What the identity needs that assumes a role: the daemon's, a profile's, or the role before it."""

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 70
"""Above the longest long poll (20 s) and any control call."""

STS_READ_TIMEOUT_S = 15
"""While it is waited for, every request of a new role waits."""

CONNECTIONS_MAX = 5_000
"""Connections a client may hold: one for each request under way, and a queue alone may have 1,250 receivers. What is
above it waits for a connection, unseen: a long poll then holds up deletions. Files that may be open bound it, too."""

KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_TRIES = 60, 15, 4
"""NATs of the large clouds forget a silent connection after 350 s."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a client is for."""

    identity: Identity
    service: str
    region: str
    endpoint_url: str | None
    read_timeout_s: float


class Clients:
    """Makes clients on demand and keeps them until `keep` or `aclose` lets them go."""

    def __init__(self, region: str, on_request: OnRequest) -> None:
        """`region`: the daemon's, where the SDK asks STS for the daemon's own credentials."""
        self._region = region
        self._on_request = on_request
        self._clients: dict[Key, Any] = {}
        self._sessions: dict[Identity, Any] = {}
        self._making = asyncio.Lock()
        self._loader: Any = None

    async def client(self, key: Key) -> Any:  # noqa: ANN401 - aiobotocore makes clients at run time
        """The client. Raises: OperatorNeeded (region, endpoint or profile make no sense)."""
        async with self._making:
            if key not in self._clients:
                self._clients[key] = await self._made(key)
            return self._clients[key]

    def desk(self, region: str, endpoint_url: str | None) -> Desk:
        """Where STS is asked by a connection of this region and endpoint."""
        session = self._session(Identity())
        known = session.get_component("data_loader").load_data("partitions")["partitions"]
        try:
            partition = session.get_partition_for_region(region)
        except boto.UnknownRegionError:
            partition = None
        return Desk(
            region, endpoint_url, {one["id"]: one["outputs"]["implicitGlobalRegion"] for one in known}, partition
        )

    async def keep(self, uses: AbstractSet[tuple[Identity, str | None]]) -> None:
        """Close every client but those of an identity at an endpoint that are named. Nobody may use the others."""
        unused = [key for key in self._clients if (key.identity, key.endpoint_url) not in uses]
        closing = [self._clients.pop(key) for key in unused]
        kept = {Identity(), *(identity for identity, _ in uses)}
        for identity in [identity for identity in self._sessions if identity not in kept]:
            del self._sessions[identity]
        for client in closing:
            await client.close()

    async def aclose(self) -> None:
        """Close every connection."""
        closing = list(self._clients.values())
        self._clients.clear()
        self._sessions.clear()
        for client in closing:
            await client.close()

    async def _made(self, key: Key) -> Any:  # noqa: ANN401
        try:
            session = self._session(key.identity)
            _check_bundle(session.get_config_variable("ca_bundle"))
            context = session.create_client(
                key.service, region_name=key.region, endpoint_url=key.endpoint_url, config=_config(key)
            )
            client = await context.__aenter__()
        except (boto.BotoCoreError, ValueError, OSError) as error:
            raise OperatorNeeded(f"a client of {key.service} in {key.region} cannot be made: {error}") from error
        client.meta.events.register("after-call", (await session.get_credentials()).doubted.after_call)
        return client

    def _session(self, identity: Identity) -> Any:  # noqa: ANN401
        if identity not in self._sessions:
            session = AioSession(profile=identity.profile)
            session.register_component("response_parser_factory", RawParserFactory())
            session.register_component("credential_provider", self._credentials(session, identity))
            if self._loader is None:
                self._loader = session.get_component("data_loader")
            session.register_component("data_loader", self._loader)  # reading the models once is enough
            self._sessions[identity] = session
        return self._sessions[identity]

    def _credentials(self, session: Any, identity: Identity) -> FoundCredentials | RoleCredentials:  # noqa: ANN401
        if not identity.roles:
            return FoundCredentials(session, identity.region or self._region, identity.shown)
        role, parent = identity.roles[-1], identity.parent
        return RoleCredentials(role, parent.shown, lambda: self._assume(role, parent))

    async def _assume(self, role: Assumed, parent: Identity) -> dict[str, Any]:
        client = await self.client(Key(parent, "sts", role.region, role.endpoint_url, STS_READ_TIMEOUT_S))
        parameters = {"RoleArn": role.role_arn, "RoleSessionName": role.session_name}
        if role.external_id is not None:
            parameters["ExternalId"] = role.external_id
        return await called(client, "assume_role", self._on_request, parameters)


def _check_bundle(path: str | None) -> None:
    """The SDK meets a missing one at each request, and does not say which file it looked for."""
    if path is not None and not Path(path).is_file():
        raise ValueError(f"there is no file {path}, which AWS_CA_BUNDLE or the profile's ca_bundle names")


def keepalive_socket(address: tuple[Any, ...]) -> socket.socket:
    """A TCP socket that keeps its connection alive; `address` is one entry of getaddrinfo."""
    family, kind, protocol = address[0], address[1], address[2]
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_TRIES)
    return made


def _config(key: Key) -> AioConfig:
    more: dict[str, Any] = {}
    if key.endpoint_url is not None:  # a named endpoint is used as it is, whatever the environment asks of AWS's own
        more = {"use_fips_endpoint": False, "use_dualstack_endpoint": False}
    return AioConfig(
        connector_args={"socket_factory": keepalive_socket, "keepalive_timeout": 12},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=key.read_timeout_s,
        max_pool_connections=CONNECTIONS_MAX,
        retries={"total_max_attempts": 1, "mode": "standard"},
        parameter_validation=False,
        user_agent=f"esm/{__version__}",  # botocore spends an eighth of a call on making its own
        **more,
    )
