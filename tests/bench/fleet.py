"""What workers cost and how they share 1,000 shards, in simulation: takeovers, balance, moves, calls of the store.

The real loops run on a virtual clock, over streams that nobody writes to and that are read once in ten seconds; so
calls of the store are those of the fleet alone. Run: `python -m tests.bench.fleet [shards] [workers ...]`.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass, field

import anyio

from esm.model.arn import Arn
from esm.model.mapping import Mapping
from tests.simulation.freezing import simulate
from tests.simulation.replicas import FleetPlay, Worker
from tests.simulation.world import stream_mapping

MAPPINGS = 10
WORKERS = (1, 3, 10)
READS_PER_S = 0.1
QUIET_S = 60.0


@dataclass
class Report:
    """One line for each number of workers."""

    workers: int
    lines: list[str] = field(default_factory=list)
    takeovers: dict[str, list[float]] = field(default_factory=lambda: {"planned": [], "crash": []})

    def say(self, what: str, text: str) -> None:
        self.lines.append(f"{self.workers:>7}  {what:<34}  {text}")


def mappings() -> list[Mapping]:
    return [
        stream_mapping(uuid=f"u{number}", source_arn=Arn.parse(f"arn:aws:kinesis:us-east-1:0:stream/s{number}"))
        for number in range(MAPPINGS)
    ]


def join(play: FleetPlay, report: Report) -> Worker:
    worker = play.join()
    telemetry = worker.around.telemetry
    telemetry.taken_over = lambda kind, seconds: report.takeovers[kind].append(seconds)  # type: ignore[method-assign]
    return worker


def loads(play: FleetPlay) -> str:
    counts = [len(worker.owned) for worker in play.workers]
    return f"{min(counts)} to {max(counts)} shards a worker, {sum(counts)} in all"


def calls(play: FleetPlay) -> tuple[int, int]:
    everybody = [*play.workers, *play.gone]
    return sum(one.store.writes for one in everybody), sum(one.store.reads for one in everybody)


class Bench(FleetPlay):
    """A play that remembers who has left."""

    def __init__(self, shards: int) -> None:
        super().__init__(1, mappings(), faults=False, shards=shards // MAPPINGS, checkpoint_interval_s=1.0)
        self.gone: list[Worker] = []
        for stream in self.streams.values():
            stream.reads_per_s_idle = READS_PER_S

    async def leave(self, worker: Worker) -> None:
        self.gone.append(worker)
        await super().leave(worker)


async def measured(play: Bench, report: Report, what: str, seconds: float) -> None:
    """Store calls while nothing but the fleet itself goes on."""
    before, began_at = calls(play), time.process_time()
    await anyio.sleep(seconds)
    writes, reads = [(now - then) * 60 / seconds for now, then in zip(calls(play), before, strict=True)]
    cpu = (time.process_time() - began_at) / seconds / max(1, len(play.workers))
    report.say(what, f"{writes:.0f} writes and {reads:.0f} reads a minute; {100 * cpu:.1f} % of a core a worker")


async def changed(play: Bench, report: Report, what: str, wait_s: float, happens: object) -> None:
    """Let something happen, and say which shards have moved and how long nobody read them."""
    before = {shard: names[0] for shard, names in play.owners().items()}
    for times in report.takeovers.values():
        times.clear()
    await happens()  # type: ignore[operator]
    await anyio.sleep(wait_s)
    after = {shard: names[0] for shard, names in play.owners().items()}
    count = sum(after.get(shard) != name for shard, name in before.items())
    report.say(what, f"{count} shards moved; {loads(play)}{times_of(report)}")


def times_of(report: Report) -> str:
    return "".join(
        f"; {kind}: median {statistics.median(times):.2f} s, worst {max(times):.2f} s"
        for kind, times in report.takeovers.items()
        if times
    )


async def run(shards: int, workers: int) -> None:
    play, report = Bench(shards), Report(workers)
    began_at = time.monotonic()
    async with anyio.create_task_group() as play.tasks:
        for _ in range(workers):
            join(play, report)
        await anyio.sleep(30)
        report.say("started together", loads(play))
        report.say("formula", f"{24 * workers} writes and {60 * workers} queries a minute, for heartbeats")
        await measured(play, report, "quiet", QUIET_S)

        async def joins() -> None:
            join(play, report)

        async def leaves() -> None:
            await play.leave(play.workers[-1])

        async def dies() -> None:
            play.gone.append(play.workers[-1])
            play.kill(play.workers[-1])

        async def rolls() -> None:
            before = calls(play)
            since = anyio.current_time()
            for worker in list(play.workers):
                join(play, report)
                await anyio.sleep(5)
                await play.leave(worker)
                await anyio.sleep(5)
            minutes = (anyio.current_time() - since) / 60
            writes, reads = [(now - then) / minutes for now, then in zip(calls(play), before, strict=True)]
            report.say("rolling restart, ten seconds each", f"{writes:.0f} writes and {reads:.0f} reads a minute")

        await changed(play, report, "one joins", 10, joins)
        await changed(play, report, "one leaves", 10, leaves)
        await changed(play, report, "one more joins", 10, joins)
        await changed(play, report, "one is killed", 20, dies)
        await changed(play, report, "all are replaced one by one", 5, rolls)
        await measured(play, report, "quiet again", QUIET_S)
        await play.end()
    print("\n".join(report.lines), f"({time.monotonic() - began_at:.0f} s)", flush=True)


def main() -> None:
    shards, *counts = [int(argument) for argument in sys.argv[1:]] or [1000]
    print(f"{shards} shards of {MAPPINGS} mappings")
    for workers in counts or WORKERS:
        simulate(run, shards, workers)


if __name__ == "__main__":
    main()
