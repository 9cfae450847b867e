"""Each line of a log that many workers share names its worker."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from esm.crew.naming import named


@example(b"[" * 100_000, "w-1")
@example(b'{"level": "INFO"}', "w-1")
@given(st.binary(), st.sampled_from(["w-1", 'odd " name']))
def test_every_line_of_a_json_log_is_an_object_that_names_its_worker(line: bytes, worker: str) -> None:
    event = json.loads(named(line, worker, "json"))
    assert event["worker"] == worker
    assert {"time", "level", "event"} <= event.keys()


def test_a_json_event_keeps_its_fields_and_its_own_word_on_the_worker() -> None:
    line = b'{"time": "t", "level": "INFO", "event": "daemon started", "worker": "w-1", "pid": 7}'
    assert json.loads(named(line, "w-1", "json")) == json.loads(line)
    assert json.loads(named(b'{"event": "e", "mapping": "u"}', "w-2", "json")) == {
        "event": "e", "mapping": "u", "worker": "w-2"
    }  # fmt: skip


def test_a_traceback_becomes_an_event_in_a_json_log_and_stays_as_it_is_in_a_text() -> None:
    line = b'  File "daemon.py", line 7'
    event = json.loads(named(line, "w-1", "json"))
    assert (event["event"], event["level"], event["line"]) == ("worker output", "WARNING", line.decode())
    assert named(line, "w-1", "text") == b"w-1 | " + line


def test_bytes_that_are_no_text_pass_through_a_text_log() -> None:
    assert named(b"\xff\xfe", "w-1", "text") == b"w-1 | \xff\xfe"
