"""The course of the demo: daemon, writers, a kill halfway, and the account at the end.

Everything ends in the order in which nothing can be lost: writers first, then the daemon, which drains, then (outside)
the emulator.
"""

import signal
import sys
import time
from pathlib import Path

import anyio
from rich.console import Console

from esm.demo.arrivals import Arrivals
from esm.demo.children import Child, clean_environ, free_port, wait_started
from esm.demo.ledger import Ledger
from esm.demo.screen import Screen, Seen
from esm.demo.watching import Watcher
from esm.demo.world import KEYS, World
from esm.demo.writers import WRITERS, keep_writing
from esm.errors import Unavailable

KILL_AFTER_S = 20.0
"""When the daemon is killed where the demo has no end; else halfway."""
DOWN_S = 1.5
"""How long it stays down: long enough to be seen."""
SETTLE_S = 90.0
"""How long the last records may take, once nothing more is written: poison takes three visibility time-outs."""
GRACE_S = 15
"""The daemon's grace period."""
LOOK_EVERY_S = 0.5


class Course:
    """One run of the demo on a world that stands. Invariant: no daemon is left when `run` has ended."""

    def __init__(self, console: Console, folder: Path, world: World, seconds: float | None) -> None:
        """`seconds`: how long records are written; None: until a signal."""
        self._console = console
        self._world = world
        self._seconds = seconds
        self._started_at = time.monotonic()
        self._stop = anyio.Event()
        self._whole = anyio.CancelScope()
        self._trouble: list[str] = []
        ledger, address = folder / "ledger", f"127.0.0.1:{free_port()}"
        ledger.mkdir()
        environ = clean_environ(folder, KEYS | _settings(folder, world, address))
        command = [sys.executable, "-m", "esm", "run", "-c", str(configuration())]
        self.daemon = Child("daemon", command, environ, folder / "daemon.log")
        accounts = Ledger(ledger, world.sources.values())
        self.seen = Seen(accounts, Arrivals(world, accounts), Watcher(address, world.sources))

    async def run(self) -> int:
        """Run it; a first signal ends it gracefully, a second one at once. Returns the exit status."""
        with Screen(self._console, self.seen) as screen:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._heed_signals, screen)
                tasks.start_soon(self._observe, screen)
                for url in (self._world.dead_url, self._world.failed_url):
                    tasks.start_soon(self.seen.arrivals.follow, url)
                try:
                    with self._whole:
                        await self._play(screen)
                finally:
                    self.daemon.kill()
                tasks.cancel_scope.cancel()
            self.seen.ledger.read()
            screen.show(self._now())
        return 1 if self._trouble or self.seen.ledger.missing else 0

    def verdict(self) -> list[str]:
        """What the run has shown."""
        if self._trouble:
            return self._trouble
        if missing := self.seen.ledger.missing:
            return [f"{missing} records were neither taken nor given up to a destination."]
        return ["Every record was taken, or given up to its destination."]

    async def _play(self, screen: Screen) -> None:
        if not await self._start(screen, "the daemon runs"):
            return
        async with anyio.create_task_group() as writing:
            for name, write in WRITERS.items():
                writing.start_soon(keep_writing, name, write, self._world, self.seen.ledger.accounts[name])
            await self._until(KILL_AFTER_S if self._seconds is None else self._seconds / 2)
            if not self._stop.is_set():
                await self._kill_and_restart(screen)
            await self._until(self._seconds)
            writing.cancel_scope.cancel()
        await self._settle(screen)
        if not self._trouble:
            await self._end(screen)

    async def _start(self, screen: Screen, text: str) -> bool:
        self.daemon.start()
        try:
            await wait_started(self.daemon, self.seen.watcher.is_ready)
        except Unavailable as error:
            self._fail(str(error))
            return False
        screen.say(self._now(), f"{text} (pid {self.daemon.pid})")
        return True

    async def _kill_and_restart(self, screen: Screen) -> None:
        pid = self.daemon.pid
        await self.seen.watcher.look()
        self.daemon.kill()
        self.seen.watcher.daemon_ended()
        screen.say(self._now(), f"the daemon was killed with SIGKILL (pid {pid}); records are still being written")
        await anyio.sleep(DOWN_S)
        await self._start(screen, "the daemon was started again and goes on where its state says")

    async def _settle(self, screen: Screen) -> None:
        screen.say(self._now(), "the writers have stopped; the last records are being taken or given up")
        with anyio.move_on_after(SETTLE_S):
            while self.seen.ledger.missing and not self._trouble:  # noqa: ASYNC110 - handlers in other processes
                await anyio.sleep(LOOK_EVERY_S)

    async def _end(self, screen: Screen) -> None:
        await self.seen.watcher.look()
        screen.say(self._now(), "the daemon drains (SIGTERM)")
        status = await self.daemon.stop(GRACE_S + 5)
        self.seen.watcher.daemon_ended()
        screen.say(self._now(), f"the daemon has ended with status {status}")
        if status != 0:
            self._fail(f"the daemon's status is {status}, not 0; the end of its log:\n{self.daemon.last_words()}")

    async def _until(self, at_s: float | None) -> None:
        """Return `at_s` seconds after the start, or when the demo is to stop."""
        with anyio.move_on_after(float("inf") if at_s is None else max(0.0, at_s - self._now())):
            await self._stop.wait()

    async def _observe(self, screen: Screen) -> None:
        while True:
            self.seen.ledger.read()
            if (status := self.daemon.status()) is not None and not self._trouble:
                words = self.daemon.last_words()
                self._fail(f"the daemon ended by itself with status {status}; the end of its log:\n{words}")
            if self.daemon.pid is not None:
                await self.seen.watcher.look()
            screen.show(self._now())
            await anyio.sleep(LOOK_EVERY_S)

    async def _heed_signals(self, screen: Screen) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if self._stop.is_set():
                    self._fail(f"ended at once by a second {signal.Signals(number).name}")
                    self._whole.cancel()
                else:
                    screen.say(self._now(), f"{signal.Signals(number).name}: stopping; once more ends at once")
                    self._stop.set()

    def _fail(self, text: str) -> None:
        self._trouble.append(text)
        self._stop.set()

    def _now(self) -> float:
        return time.monotonic() - self._started_at


def configuration() -> Path:
    """The demo's configuration file: inside this package in a wheel, among the examples in a checkout."""
    installed = Path(__file__).with_name("config")
    return (installed if installed.is_dir() else Path(__file__).parents[2] / "config") / "demo.yaml"


def _settings(folder: Path, world: World, address: str) -> dict[str, str]:
    return {
        "DEMO_ENDPOINT": world.endpoint,
        "DEMO_RUNTIME": f"python{sys.version_info.major}.{sys.version_info.minor}",
        "DEMO_LEDGER": str(folder / "ledger"),
        "DEMO_AUDIT_STREAM_ARN": world.audit_arn,
        "ESM_STATE": f"sqlite:///{folder / 'state.db'}",
        "ESM_HOST_ISOLATION": "none",  # the ledger lies where no sandbox sees it
        "ESM_METRICS_ADDRESS": address,
        "ESM_API_ADDRESS": "off",
        "ESM_SQS_WAIT_S": "2",
        "ESM_SHUTDOWN_GRACE_S": str(GRACE_S),
        "ESM_LOG_FORMAT": "text",
    }
