"""The supervisor: starts the workers, starts again those that end by themselves, stops all, and answers for them.

Law: a worker that was never ready and says by its status that it refuses to start ends everything, since the next start
would say the same; whatever else ends it, it is started again after a pause. The supervisor holds the state's lock and
the metrics address, and no worker outlives it.
"""

import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.lowlevel
from prometheus_client.core import Metric

from esm.api.operations import serving
from esm.crew import api_address
from esm.crew.answering import Ask, application, asking
from esm.crew.merging import Merged, Merger, counted, parsed
from esm.crew.naming import named
from esm.crew.place import Place
from esm.crew.process import WorkerProcess
from esm.crew.telling import CrewTelemetry
from esm.errors import OperatorNeeded, RequestRefused
from esm.rules.restarts import Restarts
from esm.settings import BUFFER_BYTES_MIN, OFF, Settings
from esm.stores import lending

WORKERS_MAX = 64
"""Asynchronous events are divided into so many parts: a worker more would have none."""

REFUSED = 2
"""Exit status of a worker that cannot start with its configuration, settings or state, and of the supervisor then."""

LOOK_EVERY_S = 1.0
"""Between two questions to a worker whether it is ready."""
_STARTING_LOOK_S = 0.2
_LOOKS_PER_SCRAPE = 5
"""What a worker counts is fetched after so many looks: at most that much is lost when it dies."""

SILENT_S = 60.0
"""Not heard of for so long, a worker makes the supervisor unhealthy: restarts have not helped, or it hangs."""

MARGIN_S = 5.0
"""Beyond the grace period, for a worker to close what it has open."""

_SOCKET_PATH_MAX = 107
"""Bytes of a path that a socket may have."""

Command = Callable[[Place], Sequence[str]]


@dataclass(eq=False)
class Run:
    """One process of a worker, from its start to its end."""

    process: WorkerProcess
    ask: Ask
    is_up: bool = False
    """Whether it answered when it was asked last."""
    has_answered: bool = False
    is_ready: bool = False
    was_ready: bool = False
    scraped: str = ""
    """Its metrics when they were fetched last."""
    families: list[Metric] = field(default_factory=list)
    """The same, taken apart when they were asked for last: that takes a while, and is not done for nobody."""


@dataclass(eq=False)
class Post:
    """The place of one worker, whichever process fills it."""

    worker: str
    heard_at: float
    restarts: Restarts = field(default_factory=Restarts)
    run: Run | None = None
    starts: int = 0
    was_ready: bool = False


def worker_command(settings: Settings) -> Command:
    """How a worker is started: this program, with this interpreter."""
    is_safe = str(Path.cwd()) not in sys.path
    python = [sys.executable, *(["-P"] if is_safe else []), "-m", "esm"]
    return lambda member: [*python, "run", "--config", settings.config, "--member", str(member)]


def worker_environ(settings: Settings, environ: Mapping[str, str], count: int, worker: str) -> dict[str, str]:
    """The environment of one of `count` workers: its name, its share of the memory, and no check of its own of what
    the supervisor has checked. Raises: RequestRefused, when the memory is too little for so many.
    """
    share = settings.buffer_bytes_max // count
    if share < BUFFER_BYTES_MIN:
        raise RequestRefused(
            f"--workers {count}: each would have {share} bytes of ESM_BUFFER_BYTES_MAX={settings.buffer_bytes_max},"
            f" and needs {BUFFER_BYTES_MIN}: raise it to {BUFFER_BYTES_MIN * count}, or start"
            f" {settings.buffer_bytes_max // BUFFER_BYTES_MIN} workers at most."
        )
    return {**environ, "ESM_WORKER_ID": worker, "ESM_BUFFER_BYTES_MAX": str(share), "ESM_STRICT": "false"}


class Crew:
    """The workers of one supervisor; `answering.Workers`."""

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], count: int, command: Command,
        emit: Callable[[bytes], None],
    ) -> None:  # fmt: skip
        """`command` is how a worker is started; `emit` gets every line of their logs. Raises: RequestRefused."""
        self._settings = settings
        self._command = command
        self._emit = emit
        names = [f"{settings.worker_id}-{number}" for number in range(1, count + 1)]
        self._environs = {name: worker_environ(settings, environ, count, name) for name in names}
        self._posts = [Post(name, heard_at=0.0) for name in names]
        self._merger = Merger()
        self._scraping = anyio.Lock()
        self._stopping = anyio.Event()
        self._is_refused = False
        self._is_orderly = True
        self._telemetry = CrewTelemetry(names, self._up)

    async def run(self, signals: AsyncIterator[int]) -> int:
        """Run until a signal of `signals`, a second of which ends at once; returns the exit status: 0 when all workers
        ended in order, 1 when not, 2 when one refused to start.

        Raises: OperatorNeeded, RequestRefused, StoreTooNew, Unavailable when it cannot start.
        """
        async with AsyncExitStack() as stack:
            lock = stack.enter_context(lending(self._settings.state))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="esm-")))
            _check_length(folder)
            self._share_api(stack)
            host, port = self._settings.metrics_host_port
            port = await stack.enter_async_context(serving(application(self), host, port))
            bound = self._settings.metrics_address.rpartition(":")[0]
            self._telemetry.started(worker=self._settings.worker_id, workers=len(self._posts),
                                    state=self._settings.state, metrics=f"{bound}:{port}", pid=os.getpid())  # fmt: skip
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._obey, signals)
                tasks.start_soon(self._limit)
                async with anyio.create_task_group() as keeping:
                    for post in self._posts:
                        post.heard_at = anyio.current_time()
                        keeping.start_soon(self._keep, post, folder, lock)
                tasks.cancel_scope.cancel()
        self._telemetry.stopped(orderly=self._is_orderly)
        if self._is_refused:
            return REFUSED
        return 0 if self._is_orderly else 1

    def _share_api(self, stack: AsyncExitStack) -> None:
        """Hold the API's address for the workers; a default one that is taken is left to whoever has it.

        Raises: OperatorNeeded: a configured one is taken.
        """
        settings = self._settings
        address = settings.api_host_port
        if address is None:
            return
        try:
            port = stack.enter_context(api_address.holding(*address))
        except OperatorNeeded as error:
            if "api_address" in settings.model_fields_set:
                raise
            self._telemetry.api_not_served(str(error))
            shared = OFF
        else:
            if address[1]:
                return
            shared = f"{settings.api_address.rpartition(':')[0]}:{port}"
        for environ in self._environs.values():
            environ["ESM_API_ADDRESS"] = shared

    def silent(self) -> str | None:
        """See `answering.Workers`."""
        now = anyio.current_time()
        for post in self._posts:
            if now - post.heard_at > SILENT_S and not self._stopping.is_set():
                return f"worker {post.worker} has not answered for {now - post.heard_at:.0f} s"
        return None

    def are_ready(self) -> bool:
        """See `answering.Workers`. At most `LOOK_EVERY_S` old."""
        return not self._stopping.is_set() and all(post.run is not None and post.run.is_ready for post in self._posts)

    def asked(self) -> Iterable[Ask]:
        """See `answering.Workers`."""
        running = sorted(self._runs(), key=lambda run: (run.is_ready, run.is_up), reverse=True)
        return [run.ask for run in running]

    async def metrics(self) -> Merged:
        """See `answering.Workers`. Of a worker that does not answer, what it had counted before counts."""
        async with self._scraping:
            answered: list[Run] = []
            async with anyio.create_task_group() as tasks:
                for run in self._runs():
                    tasks.start_soon(_scrape, run, answered)
            for run in self._runs():
                run.families = await _taken_apart(run.scraped)
            runs = self._runs()
            scrapes = [run.families if run in answered else counted(run.families) for run in runs]
            is_complete = len(runs) == len(self._posts) and all(run in answered for run in runs)
            merged = self._merger.merged(scrapes, is_complete=is_complete)
        return Merged([*merged.families, *self._telemetry.collected()])

    def _runs(self) -> list[Run]:
        return [post.run for post in self._posts if post.run is not None]

    def _up(self) -> dict[str, bool]:
        return {post.worker: post.run is not None and post.run.is_up for post in self._posts}

    async def _keep(self, post: Post, folder: Path, lock: int | None) -> None:
        """Have a process in the worker's place until everything stops. Survives whatever ends a worker."""
        while not self._stopping.is_set():
            started_at = anyio.current_time()
            status, is_known = await self._run_once(post, folder, lock)
            ran_s = anyio.current_time() - started_at
            if self._stopping.is_set():
                before_handlers = not is_known and status in {-signal.SIGTERM, -signal.SIGINT}
                self._is_orderly &= status == 0 or before_handlers
                self._telemetry.worker_ended(post.worker, status)
            elif status == REFUSED and not post.was_ready:
                self._is_refused = True
                self._is_orderly = False
                self._telemetry.worker_refused(post.worker)
                self._stop("a worker refused to start")
            else:
                pause_s = post.restarts.pause_s(ran_s)
                self._telemetry.worker_lost(post.worker, status, ran_s, pause_s)
                with anyio.move_on_after(pause_s):
                    await self._stopping.wait()

    async def _run_once(self, post: Post, folder: Path, lock: int | None) -> tuple[int | None, bool]:
        """The status of one process, None when none could be started; and whether it ever answered."""
        post.starts += 1
        socket = folder / f"{self._posts.index(post) + 1}.{post.starts}"
        command = self._command(Place(os.getpid(), lock, socket))
        inherits = [] if lock is None else [lock]
        try:
            process = WorkerProcess(command, self._environs[post.worker], inherits)
        except OSError as error:
            self._telemetry.worker_not_started(post.worker, str(error))
            return None, False
        self._telemetry.worker_started(post.worker, process.pid)
        async with asking(socket) as ask:
            run = post.run = Run(process, ask)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._look, post, run)
                    status = await process.run(lambda line: self._pass_on(post.worker, line))
                    tasks.cancel_scope.cancel()
            finally:
                post.run = None
                self._merger.retire(parsed(run.scraped))
        return status, run.has_answered

    async def _look(self, post: Post, run: Run) -> None:
        """Ask a worker how it is, again and again, and keep what it counts. Ends by cancellation."""
        started_at, looks = anyio.current_time(), 0
        while True:
            answer = await run.ask("/readyz")
            run.is_up = answer is not None
            if answer is not None:
                run.has_answered = True
                post.heard_at = anyio.current_time()
                is_ready = answer.status == 200  # noqa: PLR2004 - HTTP's OK
                if is_ready and not run.was_ready:
                    run.was_ready = post.was_ready = True
                    self._telemetry.worker_ready(post.worker, post.heard_at - started_at)
                run.is_ready = is_ready
                if looks % _LOOKS_PER_SCRAPE == 0:
                    await _scrape(run, [])
                looks += 1
            else:
                run.is_ready = False
            await anyio.sleep(LOOK_EVERY_S if run.is_ready else _STARTING_LOOK_S)

    def _pass_on(self, worker: str, line: bytes) -> None:
        self._emit(named(line, worker, self._settings.log_format) + b"\n")

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        """Stop at the first signal, at once at the second. Ends by cancellation."""
        async for number in signals:
            name = signal.Signals(number).name
            if not self._stopping.is_set():
                self._stop(name)
                continue
            self._telemetry.cut_short(name)
            for run in self._runs():
                run.process.send(signal.SIGINT)

    def _stop(self, reason: str) -> None:
        """Let every worker drain: it takes SIGTERM as often as it comes, and SIGINT after it as the order to end."""
        self._telemetry.draining(reason, self._settings.shutdown_grace_s)
        self._stopping.set()
        for run in self._runs():
            run.process.send(signal.SIGTERM)

    async def _limit(self) -> None:
        """Kill what is left after the grace period. Ends by cancellation."""
        await self._stopping.wait()
        await anyio.sleep(self._settings.shutdown_grace_s + MARGIN_S)
        for post in self._posts:
            if post.run is not None:
                self._telemetry.worker_killed(post.worker)
                post.run.process.send(signal.SIGKILL)


async def _taken_apart(text: str) -> list[Metric]:
    """The metrics of a scrape; the log and other questions are not held up meanwhile."""
    families = []
    for family in parsed(text):
        families.append(family)
        await anyio.lowlevel.checkpoint()
    return families


async def _scrape(run: Run, answered: list[Run]) -> None:
    answer = await run.ask("/metrics")
    if answer is not None and answer.status == 200:  # noqa: PLR2004 - HTTP's OK
        run.scraped = answer.body.decode()
        answered.append(run)


def _check_length(folder: Path) -> None:
    longest = os.fsencode(folder / f"{WORKERS_MAX}.{10**9}")
    if len(longest) > _SOCKET_PATH_MAX:
        raise OperatorNeeded(
            f"The folder {folder} has too long a name for the workers' sockets: set TMPDIR to a shorter one, of at most"
            f" {_SOCKET_PATH_MAX - len(longest) + len(os.fsencode(folder.parent))} bytes."
        )
