"""`esm filter` says which records match, and why a pattern is refused."""

import base64
import json
from pathlib import Path

import pytest

from esm.cli import main

ORDER = {"type": "order", "amount": 5}


def message(body: object) -> dict[str, object]:
    return {"messageId": "m", "body": json.dumps(body), "eventSource": "aws:sqs"}


def tried(tmp_path: Path, content: object, *arguments: str) -> int:
    file = tmp_path / "event.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["filter", "--event", str(file), *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_each_record_of_an_event_is_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    event = {"Records": [message(ORDER), message({"type": "refund"})]}
    assert tried(tmp_path, event, "--pattern", '{"body":{"type":["order"]}}') == 1
    assert capsys.readouterr().out == "Records[0]: match\nRecords[1]: no match\n"
    assert tried(tmp_path, event, "--pattern", '{"body":{"type":["order","refund"]}}') == 0


def test_several_patterns_are_alternatives_and_may_stand_in_files(tmp_path: Path) -> None:
    pattern = tmp_path / "pattern.json"
    pattern.write_text('{"body":{"type":["refund"]}}', encoding="utf-8")
    event = {"Records": [message(ORDER), message({"type": "refund"})]}
    assert tried(tmp_path, event, "--pattern", f"@{pattern}", "--pattern", '{"body":{"amount":[5.0]}}') == 0


@pytest.mark.parametrize(
    ("content", "source", "key"),
    [
        (ORDER, "sqs", "body"),
        (ORDER, "kinesis", "data"),
        (ORDER, "dynamodb", "dynamodb"),
        (message(ORDER), None, "body"),
        ({"kinesis": {"data": base64.b64encode(json.dumps(ORDER).encode()).decode()}, "eventSource": "aws:kinesis"},
         None, "data"),
        ({"dynamodb": ORDER, "eventSource": "aws:dynamodb"}, "dynamodb", "dynamodb"),
    ],
)  # fmt: skip
def test_a_record_or_the_data_of_one_will_do(tmp_path: Path, content: object, source: str | None, key: str) -> None:
    given = ["--source", source] if source else []
    assert tried(tmp_path, content, "--pattern", json.dumps({key: {"type": ["order"]}}), *given) == 0
    assert tried(tmp_path, content, "--pattern", json.dumps({key: {"type": ["refund"]}}), *given) == 1


def test_plain_text_is_the_body_of_a_message(tmp_path: Path) -> None:
    assert tried(tmp_path, "hello\n", "--pattern", '{"body":["hello"]}', "--source", "sqs") == 0


@pytest.mark.parametrize(
    ("content", "arguments", "reason"),
    [
        (
            ORDER,
            ["--pattern", "{}", "--source", "sqs"],
            "Invalid filter pattern definition. (--pattern: the pattern is",
        ),
        (ORDER, ["--pattern", '{"data":["x"]}', "--source", "kinesis"], "only SQS takes plain text"),
        (ORDER, ["--pattern", '{"a":[1]}'], "is neither an event nor a record"),
        (ORDER, ["--pattern", "@/does/not/exist", "--source", "sqs"], "cannot be read"),
        ("{", ["--pattern", '{"a":[1]}', "--source", "dynamodb"], "is not JSON"),
        ({"Records": []}, ["--pattern", '{"a":[1]}'], "holds no records"),
        ({"Records": [{}]}, ["--pattern", '{"a":[1]}'], "of none that is known"),
        (message(1), ["--pattern", '{"a":[1]}', "--source", "kinesis"], "holds records of sqs"),
    ],
)
def test_what_is_malformed_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object, arguments: list[str], reason: str
) -> None:
    assert tried(tmp_path, content, *arguments) == 2
    told = capsys.readouterr()
    assert reason in told.err
    assert told.out == ""
