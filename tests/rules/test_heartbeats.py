"""Heartbeats go to the store and come back."""

import json

import pytest

from esm.errors import OperatorNeeded, StoreTooNew
from esm.model.clocks import UnixTime
from esm.model.worker import Heartbeat, HostLock, Known, owner_name, worker_of
from esm.rules import heartbeats

FULL = Heartbeat(
    "pod-0", "a1b2", 17, 1, at=UnixTime(12.5), is_leaving=True, is_released=True, mappings={"uuid": Known("d", 3)},
    busy=frozenset({"q"}), broken=frozenset({"r"}), unlisted=frozenset({"u"}),
    lock=HostLock("/x", 1, 2, "boot"), ended=("z",), moves={"gone": 2},
    extra={"colour": "blue"},
)  # fmt: skip


@pytest.mark.parametrize("heartbeat", [FULL, Heartbeat("pod-0", "a1b2", 1, 1)])
def test_a_heartbeat_comes_back_as_it_was_with_what_a_newer_version_added(heartbeat: Heartbeat) -> None:
    assert heartbeats.decode(heartbeats.encode(heartbeat)) == heartbeat


def test_a_heartbeat_of_a_newer_format_is_refused_with_the_remedy() -> None:
    with pytest.raises(StoreTooNew, match="format 99"):
        heartbeats.decode(json.dumps({"format": 99}).encode())


def test_what_is_no_heartbeat_is_said_to_be_none_of_ours() -> None:
    with pytest.raises(OperatorNeeded):
        heartbeats.decode(b'{"format": 1, "worker": 3}')


def test_an_owner_is_a_worker_in_one_run() -> None:
    owner = owner_name("host/with-slash", "a1")
    assert worker_of(owner) == "host/with-slash"
    assert worker_of("old-style") == "old-style"
    assert worker_of("") == ""
