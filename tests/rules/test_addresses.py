"""Hosts by what they are."""

import pytest

from esm.rules.addresses import is_address, is_loopback


@pytest.mark.parametrize(
    ("host", "address", "loopback"),
    [
        ("127.0.0.1", True, True), ("127.9.9.9", True, True), ("::1", True, True), ("localhost", True, True),
        ("0.0.0.0", True, False), ("::", True, False), ("10.0.0.1", True, False), ("esm", False, False),
        ("", False, False), ("localhost.example", False, False),
    ],
)  # fmt: skip
def test_a_host_is_an_address_this_machine_or_a_name(host: str, address: bool, loopback: bool) -> None:  # noqa: FBT001
    assert (is_address(host), is_loopback(host)) == (address, loopback)
