"""Watching: what the daemon says of itself at /metrics and /status, added up over its lives."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

COUNTERS = {
    "esm_polled_events_total": "polled",
    "esm_invoked_events_total": "invoked",
    "esm_failed_invoke_events_total": "failed",
}
"""The daemon's counters that are shown, and what they are called here."""


@dataclass
class Watched:
    """What is known of one mapping."""

    before: Counter[str] = field(default_factory=Counter)
    """Counted by lives of the daemon that have ended."""
    now: Counter[str] = field(default_factory=Counter)
    """Counted by the running one."""
    lag_s: float | None = None
    backlog: int | None = None
    state: str = "-"
    last_result: str = "-"

    def count(self, name: str) -> int:
        """Over all lives."""
        return self.before[name] + self.now[name]


class Watcher:
    """Asks the daemon. A daemon that does not answer changes nothing but the state that is shown."""

    def __init__(self, address: str, sources: dict[str, str]) -> None:
        """`sources`: the demo's name of each source, by its ARN."""
        self._address = address
        self._sources = sources
        self.mappings = {name: Watched() for name in sources.values()}

    async def is_ready(self) -> bool:
        """Whether the daemon says that it runs its mappings."""
        try:
            async with self._session() as http, http.get("/readyz") as answer:
                return answer.status == 200  # noqa: PLR2004 - HTTP's OK
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def look(self) -> None:
        """Take over what the daemon says now."""
        try:
            async with self._session() as http:
                async with http.get("/metrics") as answer:
                    self._count(await answer.text())
                async with http.get("/status") as answer:
                    self._show(await answer.json())
        except (aiohttp.ClientError, TimeoutError):
            for watched in self.mappings.values():
                watched.state = "not running"

    def daemon_ended(self) -> None:
        """The next daemon counts from 0 again."""
        for watched in self.mappings.values():
            watched.before += watched.now
            watched.now = Counter()
            watched.state, watched.lag_s, watched.backlog = "not running", None, None

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(f"http://{self._address}", timeout=aiohttp.ClientTimeout(total=2))

    def _count(self, metrics: str) -> None:
        found = {name: Counter[str]() for name in self.mappings}
        for family in text_string_to_metric_families(metrics):
            for sample in family.samples:
                source = self._sources.get(sample.labels.get("source", ""))
                if source is not None and sample.name in COUNTERS:
                    found[source][COUNTERS[sample.name]] += int(sample.value)
        for name, counted in found.items():
            self.mappings[name].now = counted

    def _show(self, views: list[dict[str, Any]]) -> None:
        for view in views:
            name = self._sources.get(view["source"])
            if name is None:
                continue
            watched = self.mappings[name]
            lags = [shard["lag_s"] for shard in view["shards"] if shard["lag_s"] is not None]
            watched.lag_s = max(lags, default=None)
            watched.backlog = view["backlog"]
            watched.state, watched.last_result = view["state"], view["last_result"]
