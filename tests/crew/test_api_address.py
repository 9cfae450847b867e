"""The workers of a crew share the API's address, and nobody else listens there."""

import socket
from contextlib import AsyncExitStack

import pytest

from esm.crew.api_address import holding
from esm.crew.supervising import Crew
from esm.errors import OperatorNeeded
from esm.settings import load_settings


def listener(port: int) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind(("127.0.0.1", port))
    one.listen()
    return one


def test_workers_share_the_address_that_is_held_for_them() -> None:
    with holding("127.0.0.1", 0) as port, listener(port), listener(port), socket.create_connection(("127.0.0.1", port)):
        pass


def test_what_listens_already_is_not_joined_although_it_would_share() -> None:
    with (
        holding("127.0.0.1", 0) as port,
        listener(port),
        pytest.raises(OperatorNeeded, match=f"cannot listen on 127.0.0.1:{port} .Address already in use"),
        holding("127.0.0.1", port),
    ):
        pass


async def addresses(address: str | None) -> set[str | None]:
    """Where the workers of a crew would serve the API."""
    given = {} if address is None else {"ESM_API_ADDRESS": address}
    crew = Crew(load_settings(given, {}), given, 2, lambda _: [], lambda _: None)
    async with AsyncExitStack() as stack:
        crew._share_api(stack)
    return {environ.get("ESM_API_ADDRESS") for environ in crew._environs.values()}


async def test_a_crew_serves_at_one_free_port_where_none_is_named_and_not_at_all_where_told_so() -> None:
    assert await addresses("off") == {"off"}
    (found,) = await addresses("127.0.0.1:0")
    assert found is not None
    assert int(found.removeprefix("127.0.0.1:")) > 0
    assert await addresses(found) == {found}


async def test_a_configured_address_that_is_taken_is_refused_and_a_default_one_left_to_the_other() -> None:
    with holding("127.0.0.1", 0) as port, listener(port), pytest.raises(OperatorNeeded, match="ESM_API_ADDRESS"):
        await addresses(f"127.0.0.1:{port}")
    try:
        taken = listener(3001)
    except OSError:  # by another process
        taken = socket.socket()
    with taken:
        assert await addresses(None) == {"off"}
