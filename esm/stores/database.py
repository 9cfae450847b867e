"""One SQLite connection in a thread of its own, with what is asked meanwhile joined into one transaction.

Law: only that thread touches the connection, and an answer is given after the transaction that it belongs to was
committed. Many shards that store their positions at once share one wait for the disk.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from esm.errors import EsmError, Unavailable

T = TypeVar("T")

_GROUP_MAX = 256
"""Jobs in one transaction: bounds how long the first of them waits."""

_UNFIT = (ValueError, OverflowError)
"""A key or number that SQLite cannot hold: its caller's mistake, and nobody else's."""
_BROKEN = "The state was closed by an error of this program: its log says more."

Connect = Callable[[ExitStack], sqlite3.Connection]
"""Opens the connection and leaves on the stack what is to be undone at the end."""

Translate = Callable[[sqlite3.Error], EsmError]
"""A failure in our own words. Called once for each waiting caller: each raises an exception of its own."""


@dataclass(frozen=True, slots=True)
class _Job:
    run: Callable[[sqlite3.Connection], Any]
    writes: bool
    answer: Future[Any]


class Database:
    """Runs jobs on one connection in the order asked. A job whose caller was cancelled before its turn is left out."""

    def __init__(self, connect: Connect, translate: Translate) -> None:
        self._connect = connect
        self._translate = translate
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._submitting = threading.Lock()
        self._is_closed = False
        self._opened: Future[None] = Future()
        self._ended: Future[None] = Future()
        for future in (self._opened, self._ended):
            future.set_running_or_notify_cancel()  # so that a cancelled waiter does not cancel what others wait for

    async def start(self) -> None:
        """Open. Raises: what `connect` raises of ours. Cancelled: the thread closes again by itself."""
        threading.Thread(target=self._serve, name="esm-state", daemon=True).start()
        try:
            await asyncio.wrap_future(self._opened)
        except asyncio.CancelledError:
            self._close()
            raise
        except EsmError:
            await asyncio.wrap_future(self._ended)  # file and lock are let go before the refusal is heard
            raise

    async def run(self, run: Callable[[sqlite3.Connection], T], *, writes: bool) -> T:
        """What `run` returns on the connection, inside a transaction if it writes.

        Raises: what `run` raises of ours; ValueError where SQLite cannot hold a key; Unavailable when closed; a failed
        transaction, translated, for each of its callers.
        """
        answer: Future[T] = Future()
        with self._submitting:
            if self._is_closed:
                raise Unavailable("The state is closed.")
            self._jobs.put(_Job(run, writes, answer))
        return await asyncio.wrap_future(answer)

    async def aclose(self) -> None:
        """Finish what was asked, then close."""
        self._close()
        await asyncio.wrap_future(self._ended)

    def _close(self) -> None:
        with self._submitting:
            if not self._is_closed:
                self._is_closed = True
                self._jobs.put(None)

    def _serve(self) -> None:
        try:
            with ExitStack() as stack:
                try:
                    connection = self._connect(stack)
                except EsmError as error:
                    self._opened.set_exception(error)
                    return
                except BaseException:  # a mistake of ours: the thread ends, and nobody is left waiting
                    self._opened.set_exception(Unavailable(_BROKEN))
                    raise
                self._opened.set_result(None)
                self._work(connection)
        finally:
            self._close()
            self._fail(self._waiting())
            self._ended.set_result(None)

    def _work(self, connection: sqlite3.Connection) -> None:
        is_open = True
        while is_open:
            taken = self._take()
            is_open = None not in taken
            group = [job for job in taken if job is not None and job.answer.set_running_or_notify_cancel()]
            try:
                answers = _transact(connection, group)
            except sqlite3.Error as error:
                for job in group:
                    job.answer.set_exception(self._translate(error))
            except BaseException:  # likewise
                self._fail(group)
                raise
            else:
                _deliver(group, answers)

    def _take(self) -> list[_Job | None]:
        """The next job, and those that came meanwhile; None: it is time to close."""
        taken = [self._jobs.get()]
        while taken[-1] is not None and len(taken) < _GROUP_MAX:
            try:
                taken.append(self._jobs.get_nowait())
            except queue.Empty:
                break
        return taken

    def _waiting(self) -> list[_Job]:
        left = []
        while not self._jobs.empty():
            job = self._jobs.get_nowait()
            if job is not None and job.answer.set_running_or_notify_cancel():
                left.append(job)
        return left

    def _fail(self, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            job.answer.set_exception(Unavailable(_BROKEN))


def _transact(connection: sqlite3.Connection, group: Sequence[_Job]) -> list[Any]:
    """Every job's result or its caller's error, all committed. Raises: sqlite3.Error, with nothing changed."""
    writes = any(job.writes for job in group)
    try:
        if writes:
            connection.execute("BEGIN IMMEDIATE")
        answers = [_result(connection, job) for job in group]
        if writes:
            connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return answers


def _result(connection: sqlite3.Connection, job: _Job) -> Any:  # noqa: ANN401 as its caller typed it
    try:
        return job.run(connection)
    except (EsmError, *_UNFIT) as error:
        return error


def _deliver(group: Sequence[_Job], answers: Sequence[Any]) -> None:
    for job, answer in zip(group, answers, strict=True):
        if isinstance(answer, (EsmError, *_UNFIT)):
            job.answer.set_exception(answer)
        else:
            job.answer.set_result(answer)
