"""What one environment logs: Lambda's START, END and REPORT lines around what its processes write.

Law: a line belongs to the invocation during which it came, or to none. The last 4 KB of an invocation's log are kept
for the caller that asks for them. Source: lambda.md 6, 7.7.
"""

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from esm.host.logs import FunctionLogs
from esm.telemetry import Telemetry

TAIL_BYTES_MAX = 4096
_MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Logged:
    """What a log says of its function."""

    function: str
    version: str
    memory_mb: int


class Journal:
    """See the module."""

    def __init__(self, logged: Logged, environment: str, logs: FunctionLogs | None, telemetry: Telemetry) -> None:
        """`logs` None: nothing is kept in files."""
        self._logged = logged
        self._environment = environment
        self._logs = logs
        self._telemetry = telemetry
        self._request_id: str | None = None
        self._began_at = 0.0
        self._init_s: float | None = None
        """Not yet told in a REPORT line."""
        self._tail = bytearray()

    def initialised(self, init_s: float) -> None:
        """The environment is ready; its first REPORT line says how long that took."""
        self._init_s = init_s

    def init_failed(self, init_s: float, status: str) -> None:
        """It could not be initialised; `status` is timeout or error."""
        text = f"INIT_REPORT Init Duration: {init_s * 1000:.2f} ms\tPhase: init\tStatus: {status}"
        self._write("init", text, initDurationMs=round(init_s * 1000, 2), status=status)

    def began(self, request_id: str) -> None:
        """An invocation starts."""
        self._request_id, self._began_at = request_id, time.monotonic()
        self._tail.clear()
        self._write("start", f"START RequestId: {request_id} Version: {self._logged.version}")

    def line(self, text: str) -> None:
        """A process wrote a line."""
        self._telemetry.function_output(self._logged.function, self._request_id, text)
        self._write("function", text)

    def ended(self, status: str, error_type: str | None, peak_bytes: int | None) -> tuple[float, bytes]:
        """The invocation ended with `status` success, error or timeout; returns its seconds and the log's tail."""
        duration_s = time.monotonic() - self._began_at
        self._write("end", f"END RequestId: {self._request_id}")
        self._report(duration_s, status, error_type, peak_bytes)
        self._request_id = None
        return duration_s, bytes(self._tail)

    def _report(self, duration_s: float, status: str, error_type: str | None, peak_bytes: int | None) -> None:
        memory_mb, init_s, self._init_s = self._logged.memory_mb, self._init_s, None
        duration_ms = duration_s * 1000
        billed_ms = math.ceil(duration_ms + (init_s or 0) * 1000)
        parts = [f"REPORT RequestId: {self._request_id}", f"Duration: {duration_ms:.2f} ms",
                 f"Billed Duration: {billed_ms} ms", f"Memory Size: {memory_mb} MB"]  # fmt: skip
        facts: dict[str, Any] = {"durationMs": round(duration_ms, 2), "billedDurationMs": billed_ms,
                                 "memorySizeMB": memory_mb, "status": status}  # fmt: skip
        if peak_bytes is not None:
            facts["maxMemoryUsedMB"] = math.ceil(peak_bytes / _MB)
            parts.append(f"Max Memory Used: {facts['maxMemoryUsedMB']} MB")
        if init_s is not None:
            facts["initDurationMs"] = round(init_s * 1000, 2)
            parts.append(f"Init Duration: {init_s * 1000:.2f} ms")
        if status != "success":
            parts.append(f"Status: {status}")
        if error_type is not None:
            facts["errorType"] = error_type
            parts.append(f"Error Type: {error_type}")
        self._write("report", "\t".join(parts), **facts)

    def _write(self, kind: str, text: str, **facts: object) -> None:
        if self._request_id is not None:
            self._tail += text.encode(errors="replace") + b"\n"
            if len(self._tail) > TAIL_BYTES_MAX:
                del self._tail[:-TAIL_BYTES_MAX]
        if self._logs is not None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            record = {"time": now, "type": kind, "requestId": self._request_id, "version": self._logged.version,
                      "environment": self._environment, "line": text, **facts}  # fmt: skip
            self._logs.write(self._logged.function, {k: v for k, v in record.items() if v is not None})
