"""The event of a tumbling window is, byte for byte, the one that AWS documents. Source: lambda.md 3.6."""

from esm.model.clocks import UnixTime
from esm.model.position import AfterSequence
from esm.model.record import StreamRecord
from esm.model.window import OpenWindow
from esm.rules import events, tumbling
from esm.rules.tumbling import End

STREAM = "arn:aws:kinesis:us-east-1:123456789012:stream/lambda-stream"
SHARD = "shardId-000000000006"
ARRIVED_AT = UnixTime(1_607_497_475.0)  # 2020-12-09T07:04:35Z


def window() -> OpenWindow:
    start_s, end_s = tumbling.bounds(ARRIVED_AT, 120)
    return OpenWindow(start_s, end_s, b'{"1":282}', AfterSequence("1", ARRIVED_AT))


def test_an_event_of_a_window() -> None:
    record = StreamRecord(b'{"kinesis":{}}', "1", 0, ARRIVED_AT)
    assert events.payload([record], tumbling.members(window(), SHARD, STREAM)).decode() == (
        '{"Records":[{"kinesis":{}}],'
        '"window":{"start":"2020-12-09T07:04:00Z","end":"2020-12-09T07:06:00Z"},"state":{"1":282},'
        f'"shardId":"{SHARD}","eventSourceARN":"{STREAM}",'
        '"isFinalInvokeForWindow":false,"isWindowTerminatedEarly":false}'
    )


def test_the_final_event_of_a_window() -> None:
    for end, is_early in ((End.COMPLETE, "false"), (End.EARLY, "true")):
        assert events.payload([], tumbling.members(window(), SHARD, STREAM, end)).decode() == (
            '{"Records":[],"window":{"start":"2020-12-09T07:04:00Z","end":"2020-12-09T07:06:00Z"},"state":{"1":282},'
            f'"shardId":"{SHARD}","eventSourceARN":"{STREAM}",'
            f'"isFinalInvokeForWindow":true,"isWindowTerminatedEarly":{is_early}}}'
        )


def test_the_first_event_of_a_window_carries_an_empty_state() -> None:
    machine = tumbling.Tumbling()
    machine.begin(StreamRecord(b"{}", "1", 0, ARRIVED_AT), 120)
    assert machine.open is not None
    assert b'"state":{},' in tumbling.members(machine.open, SHARD, STREAM)
