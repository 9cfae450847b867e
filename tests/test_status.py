"""`esm status`: who polls is shown, and only where it is not the daemon alone does it take a column."""

import io
import json

from rich.console import Console

from esm import status
from esm.model.arn import Arn, SourceKind
from esm.model.mapping import Mapping, State
from esm.model.view import MappingView

FUNCTION = Arn.parse("arn:aws:lambda:us-east-1:123456789012:function:f")
QUEUE = Arn.parse("arn:aws:sqs:us-east-1:123456789012:q")
ROLE = "role arn:aws:iam::444455556666:role/poller through connection gate"


def row(uuid: str, identity: str | None) -> status.Row:
    mapping = Mapping(uuid, "f", FUNCTION, QUEUE, SourceKind.SQS)
    if identity is None:
        return status.Row(mapping, None, None)
    seen = MappingView(uuid, "f", str(QUEUE), State.ENABLED, "OK", has_problem=False, in_flight=0, backlog=0, shards=(),
                       identity=identity)  # fmt: skip
    return status.Row(mapping, seen, 1.0)


def shown(*rows: status.Row) -> list[str]:
    console = Console(file=io.StringIO(), width=300)
    status.show(rows, console)
    return console.file.getvalue().splitlines()


def test_the_table_says_who_polls_where_somebody_else_than_the_daemon_does() -> None:
    head, first, second, third = shown(row("a", "daemon"), row("b", ROLE), row("c", None))
    assert head.split()[-1] == "AS"
    assert [first.split()[-1], third.split()[-1]] == ["daemon", "daemon"]
    assert second.endswith(ROLE)


def test_the_table_does_not_speak_of_it_where_the_daemon_polls_everything() -> None:
    assert shown(row("a", "daemon"))[0].split()[-1] == "SHARDS"


def test_json_always_says_who_polls() -> None:
    documents = json.loads(status.as_json([row("a", "daemon"), row("b", ROLE)]))
    assert [document["identity"] for document in documents] == ["daemon", ROLE]
