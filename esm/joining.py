"""How a worker comes to be one among those that share its store: its name, its lock on this host, its heartbeat."""

import uuid
from contextlib import AsyncExitStack

from esm.ports import Store
from esm.rules import formats
from esm.runtime.fleet import Fleet, Identity
from esm.runtime.surroundings import Formats, SystemClock
from esm.settings import Settings
from esm.stores import sqlite_path, worker_lock
from esm.stores.worker_lock import WorkerLock
from esm.telemetry import Telemetry


def member(
    settings: Settings, store: Store, stack: AsyncExitStack, telemetry: Telemetry, writes: Formats, *, is_sole: bool
) -> Fleet:
    """This worker among those that share the store; `stack` lets go of its id. `writes` is changed as others come and
    go. `is_sole`: nobody else can use the store meanwhile.

    Raises: OperatorNeeded where its id is taken.
    """
    path = sqlite_path(settings.state) if settings.state.startswith("sqlite:") else None
    run = uuid.uuid4().hex[:12]
    lock = WorkerLock(worker_lock.folder_for(settings.state, path), settings.worker_id, run)
    stack.callback(lock.release)
    identity = Identity(
        settings.worker_id, run, formats.newest(), lock.lock, lock.ended, is_sole=is_sole,
        failover_s=settings.failover_s,
    )  # fmt: skip
    return Fleet(identity, SystemClock(), store, telemetry, writes, worker_lock.is_free)
