"""What the demo shows: a live table on a terminal, plain lines elsewhere, and the summary at the end."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from esm.demo.arrivals import Arrivals
from esm.demo.ledger import Ledger
from esm.demo.watching import Watched, Watcher
from esm.demo.world import AUDIT, CLICKS, FAILED, KEYS, ORDERS_DEAD, REGION, World

LINES_EVERY_S = 5.0
"""How often something is said where there is no terminal."""
EVENTS_SHOWN = 6


@dataclass
class Seen:
    """Everything that is shown."""

    ledger: Ledger
    arrivals: Arrivals
    watcher: Watcher
    events: deque[str] = field(default_factory=lambda: deque(maxlen=EVENTS_SHOWN))


class Screen:
    """Shows `seen` again whenever it is told to; a context manager."""

    def __init__(self, console: Console, seen: Seen) -> None:
        self._console = console
        self._seen = seen
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._lines_at = 0.0

    def __enter__(self) -> Self:
        """Take the terminal."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back, with the last table on it."""
        if self._live is not None:
            self._live.stop()

    def say(self, at_s: float, text: str) -> None:
        """Something has happened, `at_s` seconds after the start."""
        event = f"{at_s:6.1f} s  {text}"
        self._seen.events.append(event)
        if self._live is None:
            self._console.print(event, highlight=False, markup=False, soft_wrap=True)

    def show(self, at_s: float) -> None:
        """Show what is known now; without a terminal, at most every `LINES_EVERY_S`."""
        if self._live is not None:
            self._live.update(whole(self._seen), refresh=True)
        elif at_s - self._lines_at >= LINES_EVERY_S:
            self._lines_at = at_s
            for line in lines(self._seen):
                self._console.print(f"{at_s:6.1f} s  {line}", highlight=False, markup=False, soft_wrap=True)


def whole(seen: Seen) -> RenderableType:
    """The tables and the last events."""
    mappings = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("MAPPING", "WRITTEN", "IN", "INVOKED", "FAILED", "TAKEN", "GIVEN UP", "LAG", "STATE", "LAST RESULT"):
        is_text = name in {"MAPPING", "STATE", "LAST RESULT"}
        mappings.add_column(name, justify="left" if is_text else "right", overflow="fold" if is_text else "ellipsis")
    for name, watched in seen.watcher.mappings.items():
        mappings.add_row(*_cells(seen, name, watched))
    destinations = Table(box=None, pad_edge=False, header_style="bold")
    destinations.add_column("DESTINATION")
    destinations.add_column("ARRIVED", justify="right")
    for name in (ORDERS_DEAD, FAILED):
        destinations.add_row(name, str(seen.arrivals.messages[name]))
    return Group(mappings, Text(), destinations, Text(), *(Text(event) for event in seen.events))


def lines(seen: Seen) -> list[str]:
    """One line a mapping and one for the destinations."""
    names = ("written", "in", "invoked", "failed", "taken", "given up", "lag")
    found = []
    for name, watched in seen.watcher.mappings.items():
        cells = _cells(seen, name, watched)
        numbers = ", ".join(f"{label} {cell}" for label, cell in zip(names, cells[1:-2], strict=True))
        found.append(f"{name}: {numbers}, {cells[-2]}: {cells[-1]}")
    arrived = ", ".join(f"{name} {seen.arrivals.messages[name]}" for name in (ORDERS_DEAD, FAILED))
    return [*found, f"arrived: {arrived}"]


def _cells(seen: Seen, name: str, watched: Watched) -> list[str]:
    account = seen.ledger.accounts[name]
    counted = [str(watched.count(what)) for what in ("polled", "invoked", "failed")]
    return [
        name, str(len(account.written)), *counted, str(account.taken_count), str(len(account.given_up)),
        _lag(watched), watched.state, watched.last_result,
    ]  # fmt: skip


def _lag(watched: Watched) -> str:
    if watched.lag_s is not None:
        return f"{watched.lag_s:.1f} s"
    return "-" if watched.backlog is None else f"{watched.backlog} waiting"


def welcome(world: World, log: str) -> list[str]:
    """Where things are, and what to type to send something by hand."""
    aws = " ".join([*(f"{name}={value}" for name, value in KEYS.items()), "aws", "--endpoint-url", world.endpoint])
    aws = f"{aws} --region {REGION}"
    binary = "--cli-binary-format raw-in-base64-out  # without this with version 1 of the AWS CLI"
    body = '{"id": "mine", "poison": false}'
    item = '{"account": {"S": "me"}, "id": {"S": "mine"}, "poison": {"BOOL": false}}'
    return [
        f"An embedded local AWS listens at {world.endpoint}; the daemon's log is {log}",
        "Send something by hand (poison: true makes the handler fail):",
        f"  {aws} sqs send-message --queue-url {world.orders_url} --message-body '{body}'",
        f"  {aws} kinesis put-record --stream-name {CLICKS} --partition-key me --data '{body}' {binary}",
        f"  {aws} dynamodb put-item --table-name {AUDIT} --item '{item}'",
        "",
    ]


def summary(seen: Seen, missing_shown: int = 5) -> Sequence[str]:
    """The verdict, a line a source."""
    found = []
    for name, account in seen.ledger.accounts.items():
        text = (
            f"{name}: {len(account.written)} written, {len(account.written & account.taken.keys())} taken"
            f" ({account.taken_again} more than once), {len(account.written & account.given_up)} given up,"
            f" {len(account.missing)} missing"
        )
        if account.missing:
            first = sorted(account.missing)[:missing_shown]
            text += f": {', '.join(first)}{' ...' if len(account.missing) > missing_shown else ''}"
        found.append(text)
    found += [f"{name}: {seen.arrivals.messages[name]} messages arrived" for name in (ORDERS_DEAD, FAILED)]
    return found
