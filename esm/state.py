"""The state that the settings name, and its blobs, opened for the daemon or a command, each by its own connection."""

from collections.abc import Callable

from esm.aws.sessions import OnRequest, Sessions
from esm.config import Configuration
from esm.model.connection import Connection, Way
from esm.ports import Blobs, Store
from esm.settings import Settings
from esm.stores import open_blobs, open_store


def _uncounted(*_: str) -> None:
    pass


async def open_state(
    settings: Settings, configuration: Configuration, on_request: OnRequest = _uncounted, *,
    exclusive: bool, read_only: bool = False, warn: Callable[[str], None] = lambda _: None, lock: int | None = None,
) -> Store:  # fmt: skip
    """The store of ESM_STATE; a table is reached by ESM_STATE_CONNECTION. See `open_store`.

    Raises: StateMissing, OperatorNeeded, Unavailable, StoreTooNew.
    """
    sessions = _sessions(settings, configuration, configuration.state_connection, on_request)
    return await open_store(settings.state, sessions, exclusive=exclusive, read_only=read_only, warn=warn, lock=lock)


async def open_state_blobs(
    settings: Settings, configuration: Configuration, on_request: OnRequest = _uncounted
) -> Blobs | None:
    """What ESM_BLOBS names, reached by ESM_BLOBS_CONNECTION; or the blobs beside a file. See `open_blobs`.

    Raises: OperatorNeeded, Unavailable.
    """
    sessions = _sessions(settings, configuration, configuration.blobs_connection, on_request)
    return await open_blobs(settings.state, settings.blobs, sessions)


async def open_bucket(
    settings: Settings, configuration: Configuration, on_request: OnRequest = _uncounted
) -> Blobs | None:
    """The blobs of ESM_BLOBS alone: None where there are none, and what is large is cut into items of the store.

    Raises: OperatorNeeded, Unavailable.
    """
    return None if settings.blobs is None else await open_state_blobs(settings, configuration, on_request)


def _sessions(
    settings: Settings, configuration: Configuration, connection: Connection | None, on_request: OnRequest
) -> Sessions:
    """Clients of its own: those of mappings come and go with the configuration."""
    own = Sessions(
        configuration.region, configuration.endpoint_url, configuration.endpoints, on_request,
        worker=f"esm-{settings.worker_id}",
    )  # fmt: skip
    return own if connection is None else own.through(Way(connection))
