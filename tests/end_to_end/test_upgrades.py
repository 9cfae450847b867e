"""A rollout to a made-up next version and back, under load: nothing is lost, and no position goes back."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from esm.rules.kinds import OLDEST
from tests import servers
from tests.end_to_end.test_async import mapping as event_mapping
from tests.end_to_end.test_crew import workers
from tests.end_to_end.test_streams import Table, mapping
from tests.end_to_end.world import Queue, World, wait_for
from tests.next_format import NEXT

NEXT_VERSION = ("-m", "tests.end_to_end.next_version")
KEYS = 5


class Load:
    """Records in a stream and messages for an asynchronous queue, for as long as it runs; and where the lease was."""

    def __init__(self, world: World, url: str, name: str) -> None:
        self.table, self.queue = Table(url, name), Queue(url, name, visibility_s=30)
        self.idle = Queue(url, f"{name}-idle")
        self.sent: dict[str, list[str]] = defaultdict(list)
        self.events: list[str] = []
        self.places: list[int] = []
        self._world = world
        self._has_ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        writing = threading.Thread(target=self._write)
        writing.start()
        try:
            yield
        finally:
            self._has_ended.set()
            writing.join()

    def _write(self) -> None:
        number = 0
        while not self._has_ended.wait(0.05):
            key, identity = f"k{number % KEYS}", f"{number:05d}"
            self.table.put(key, identity)
            self.sent[key].append(identity)
            if number % 8 == 0:
                self.events.append(f"event-{number}")
                self.queue.send(self.events[-1], key="events")
            self.places += lease_places(self._world)
            number += 1


def stored(world: World) -> dict[tuple[str, str], bytes]:
    """Everything in the state, by kind and item."""
    path = world.folder / "state.db"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        try:
            rows = connection.execute("SELECT kind, item, value FROM items").fetchall()
        except sqlite3.OperationalError:  # it is being made
            return {}
    return {(kind, item): value for kind, item, value in rows}


def formats_of(world: World, *kinds: str) -> set[int]:
    found = stored(world).items()
    lines = [value.partition(b"\n")[0] for (kind, _), value in found if not kinds or kind in kinds]
    return {json.loads(line)["format"] for line in lines}


def lease_places(world: World) -> list[int]:
    """The sequence number of the position of each lease, in either format; 0: none yet."""
    leases = [json.loads(value) for (kind, _), value in stored(world).items() if kind == "lease"]
    places = [one.get("positions") or one.get("places") for one in leases]
    return [int(place[0].get("after") or place[0].get("behind") or 0) for place in places if place]


def wait_more(world: World, load: Load, count: int = 25) -> None:
    """Return when as many more records and a few more events are taken."""

    def taken() -> tuple[int, int]:
        found = set(world.taken())
        return len(found - set(load.events)), len(found & set(load.events))

    records, events = taken()
    wait_for(lambda: taken() >= (records + count, 0) and taken()[1] >= events + 3, "the work goes on", 40)


def configured(world: World, ministack: str, name: str, count: int) -> Load:
    """Load for so many workers: each tries one event at a time, so that some wait."""
    load = Load(world, ministack, name)
    functions: dict[str, Any] = {
        "clicks": world.function(), "orders": world.function(SLEEP_S="0.6", ReservedConcurrentExecutions=count),
    }  # fmt: skip
    mappings = [mapping(load.table.arn, BatchSize=5), event_mapping(load.queue), event_mapping(load.idle)]
    world.configure(endpoint_url=ministack, functions=functions, mappings=mappings)
    return load


def check_all(world: World, load: Load) -> None:
    """Everything was taken once, in order, and no stored position went back."""
    everything = {identity for ids in load.sent.values() for identity in ids} | set(load.events)
    wait_for(lambda: set(world.taken()) == everything, "nothing is lost", 60)
    assert world.stop() == 0
    assert len(world.taken()) == len(everything)
    orders = world.first_orders()
    assert {key: orders[key] for key in load.sent} == load.sent
    assert load.places == sorted(load.places)


def test_the_next_version_goes_on_and_this_one_says_what_it_cannot_read(world: World, ministack: str) -> None:
    load = configured(world, ministack, "upgraded", 1)
    with load.running():
        world.start()
        wait_more(world, load)
        assert formats_of(world) == {OLDEST}
        assert world.stop() == 0
        world.start(program=NEXT_VERSION)
        wait_more(world, load)
        assert world.stop() == 0
        assert formats_of(world, "lease") == {OLDEST, NEXT}
        assert NEXT in formats_of(world, "async")
        check_older_version(world, load)
        world.start(program=NEXT_VERSION)
        wait_more(world, load)
    check_all(world, load)


def test_two_workers_go_to_the_next_version_and_back_one_after_the_other(world: World, ministack: str) -> None:
    load = configured(world, ministack, "rolled", 2)
    named = world.folder / "next-version-workers"

    def become(worker: str, *of_the_next_version: str) -> None:
        named.write_text(" ".join(of_the_next_version))
        before = workers(world)[worker]
        os.kill(before, signal.SIGTERM)
        wait_for(lambda: workers(world)[worker] != before, f"{worker} starts again", 40)
        wait_for(world._is_ready, "both are ready", 40)

    named.write_text("w-1")
    with load.running():
        world.start("--crew", program=NEXT_VERSION, ESM_WORKER_ID="w", NEXT_VERSION_WORKERS=str(named))
        wait_more(world, load)
        assert formats_of(world) == {OLDEST}
        become("w-2", "w-1", "w-2")
        wait_for(lambda: NEXT in formats_of(world, "lease"), "nobody is left who needs the older format", 30)
        paused = next_command(world, "pause", load.idle.arn)
        assert "paused." in paused.stdout, paused.stderr
        assert NEXT in formats_of(world, "catalogue")
        become("w-2", "w-1")
        wait_for(lambda: formats_of(world) == {OLDEST}, "everything is written again", 15)
        wait_more(world, load)
        become("w-1")
        wait_more(world, load)
    assert formats_of(world) == {OLDEST}
    check_all(world, load)


def next_command(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Another command of the next version."""
    environ = {name: value for name, value in world.settings.items() if name != "NEXT_VERSION_WORKERS"}
    return subprocess.run(
        [sys.executable, *NEXT_VERSION, *arguments, "-c", str(world.config_path)],
        env=environ, cwd=servers.ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def check_older_version(world: World, load: Load) -> None:
    """It says what it cannot read, in all its parts, and does none of it."""
    text = "has format 2, and this version reads up to 1"
    shown = world.command("status")
    assert shown.returncode == 2
    assert f"esm: A stored status {text}" in shown.stderr
    before = set(world.taken()) - {*load.events}
    world.start()
    wait_for(lambda: text in str(world.status()[0]["last_result"]), "the mapping says so")
    assert world.status()[0]["has_problem"]
    wait_for(lambda: f"asynchronous event {text}" in world.log(), "the queue of events says so")
    assert world.metric("esm_async_restarts_total") == 0
    time.sleep(1)
    assert set(world.taken()) - {*load.events} == before
    assert NEXT in formats_of(world, "async")
    assert world.stop() == 0
    assert formats_of(world, "lease") == {OLDEST, NEXT}
