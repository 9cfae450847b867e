"""Lines of many workers in one log: each names its worker, whoever wrote it."""

import json
import time


def named(line: bytes, worker: str, log_format: str) -> bytes:
    """A line of a worker's log with the worker's name: a field of a JSON object, or the first word of a text.

    What is no event (the interpreter's own words at a crash) becomes one, as `worker output`.
    """
    if log_format != "json":
        return f"{worker} | ".encode() + line
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or "event" not in event:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        event = {"time": stamp, "level": "WARNING", "event": "worker output", "line": line.decode(errors="replace")}
    event.setdefault("worker", worker)
    return json.dumps(event).encode()
