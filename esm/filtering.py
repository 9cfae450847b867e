"""`esm filter`: tries patterns on records of a file, without a mapping.

The file holds a whole event (`{"Records": [...]}`), one record, or neither: then it is what the data key of a record
would hold: the body of a message, the data of a Kinesis record, the `dynamodb` member of a DynamoDB record.
"""

import base64
from collections.abc import Sequence
from pathlib import Path

import msgspec

from esm.errors import RequestRefused
from esm.model.arn import SourceKind
from esm.rules.patterns import compile_filter, reason_invalid

KINDS = {f"aws:{kind.value}": kind for kind in SourceKind}
"""`eventSource` -> what it is."""


class _Event(msgspec.Struct):
    Records: list[msgspec.Raw]


class _Record(msgspec.Struct):
    eventSource: str  # noqa: N815 - the record's own spelling


def tried(patterns: Sequence[str], event: str, source: str | None) -> list[bool]:
    """For each record of the file, whether any pattern matches.

    A pattern that begins with @ names a file. Raises: RequestRefused, where a pattern or a file is malformed.
    """
    text = _contents(event)
    kind, records = _records(text, event, SourceKind(source) if source else None)
    texts = [_pattern(pattern, kind) for pattern in patterns]
    chosen = compile_filter(texts, kind)
    return [chosen.matches(record) for record in records]


def _contents(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        msg = f"{path} cannot be read: {error}"
        raise RequestRefused(msg) from error


def _pattern(given: str, kind: SourceKind) -> str:
    text = _contents(given[1:]) if given.startswith("@") else given
    reason = reason_invalid(text, kind)
    if reason is not None:
        where = given if given.startswith("@") else "--pattern"
        msg = f"Invalid filter pattern definition. ({where}: {reason})"
        raise RequestRefused(msg)
    return text


def _records(text: str, path: str, source: SourceKind | None) -> tuple[SourceKind, list[bytes]]:
    records = _as_event(text)
    if records is None:
        if source is None:
            msg = f"{path} is neither an event nor a record: say with --source whose data it is"
            raise RequestRefused(msg)
        return source, [_wrapped(text, source, path)]
    if not records:
        msg = f"{path} holds no records"
        raise RequestRefused(msg)
    kinds = {_kind(record) or source for record in records}
    kind = next(iter(kinds))
    if len(kinds) > 1 or kind is None:
        msg = f"{path} holds records of several sources, or of none that is known ({', '.join(KINDS)})"
        raise RequestRefused(msg)
    if source not in {None, kind}:
        msg = f"{path} holds records of {kind.value}: --source says otherwise"
        raise RequestRefused(msg)
    return kind, records


def _as_event(text: str) -> list[bytes] | None:
    """The records of an event, or the one that the text is; None where it is neither."""
    try:
        return [bytes(record) for record in msgspec.json.decode(text, type=_Event).Records]
    except (msgspec.MsgspecError, RecursionError):
        return [text.encode()] if _kind(text.encode()) is not None else None


def _kind(record: bytes) -> SourceKind | None:
    try:
        return KINDS.get(msgspec.json.decode(record, type=_Record).eventSource)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _wrapped(text: str, kind: SourceKind, path: str) -> bytes:
    match kind:
        case SourceKind.SQS:
            record: object = {"body": text.removesuffix("\n"), "eventSource": "aws:sqs"}
        case SourceKind.KINESIS:
            data = base64.b64encode(text.encode()).decode()
            record = {"kinesis": {"data": data}, "eventSource": "aws:kinesis"}
        case SourceKind.DYNAMODB:
            try:
                msgspec.json.decode(text)
            except (msgspec.MsgspecError, RecursionError) as error:
                msg = f"{path} is not JSON: {error}"
                raise RequestRefused(msg) from error
            record = {"dynamodb": msgspec.Raw(text.encode()), "eventSource": "aws:dynamodb"}
    return msgspec.json.encode(record)
