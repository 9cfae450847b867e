"""Filter patterns agree with a naive matcher, whatever the pattern and the record."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from esm.model.arn import SourceKind
from esm.rules.patterns import compile_filter, reason_invalid
from tests.rules import naive_patterns as naive

NAMES = st.sampled_from(["a", "b", "c", "a.b", "b.c"])
NUMBERS = st.sampled_from(
    ["0", "-0", "1", "1.0", "10e-1", "2", "300", "3e2", "0.1", "0.10000000000000001", "9007199254740993",
     "9007199254740992", "1152921504606846976", "1e400", "-1e-400", "123456789012345678901", "5.0e-324"]
)  # fmt: skip
STRINGS = st.one_of(
    st.sampled_from(["", "a", "A", "ab", "aB", "abc", "a*c", "x", "1", "ß", "SS", "\u01c5", "K", "\u212a"]),
    st.sampled_from(["10.0.0.1", "10.0.0.2", "::1", "0:0::1", "::ffff:a00:1", "10.0.0.256", "2001:db8::1", ":"]),
    st.text("abAB*\\é", max_size=6),
)
BOOLEANS = st.sampled_from(["true", "false", "null"])


def quoted(text: str) -> str:
    return json.dumps(text)


def members(names: st.SearchStrategy[str], values: st.SearchStrategy[str], **size: int) -> st.SearchStrategy[str]:
    """The text of an object; names may come twice."""
    pairs = st.lists(st.tuples(names, values), **size)
    return pairs.map(lambda found: "{" + ",".join([f"{quoted(name)}:{value}" for name, value in found]) + "}")


def array(values: st.SearchStrategy[str], **size: int) -> st.SearchStrategy[str]:
    return st.lists(values, **size).map(lambda found: "[" + ",".join(found) + "]")


def one(name: str, value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return value.map(lambda text: f'{{"{name}":{text}}}')


TEXTS = STRINGS.map(quoted)
FULL_TEXTS = STRINGS.filter(bool).map(quoted)
WILD = st.lists(st.sampled_from(["a", "b", "B", "\\*", "\\\\", "*"]), max_size=5).map("".join)
WILDCARDS = WILD.filter(lambda text: "**" not in re.sub(r"\\[*\\]", "x", text)).map(quoted)
LOW = st.sampled_from(["-1", "0", "0.5", "1"])
HIGH = st.sampled_from(["1.5", "2", "3e2", "1e3"])
RANGES = st.one_of(
    st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), LOW | HIGH).map(lambda b: f'["{b[0]}",{b[1]}]'),
    st.tuples(st.sampled_from([">", ">="]), LOW, st.sampled_from(["<", "<="]), HIGH).map(
        lambda b: f'["{b[0]}",{b[1]},"{b[2]}",{b[3]}]'
    ),
)
EXACT = NUMBERS.filter(lambda text: naive.double(text) is not None)
UNWANTED = st.one_of(
    TEXTS, EXACT, array(TEXTS, min_size=1, max_size=3), array(EXACT, min_size=1, max_size=3),
    one("prefix", FULL_TEXTS | array(FULL_TEXTS, min_size=1, max_size=2)),
    one("suffix", FULL_TEXTS | array(FULL_TEXTS, min_size=1, max_size=2)),
    one("equals-ignore-case", TEXTS | array(TEXTS, min_size=1, max_size=2)),
    one("wildcard", WILDCARDS | array(WILDCARDS, min_size=1, max_size=2)),
)  # fmt: skip
CIDRS = st.sampled_from(["10.0.0.0/30", "0.0.0.0/0", "10.0.0.1/31", "::/64", "2001:db8::/32", "::ffff:a00:0/24"])
EXPRESSIONS = st.one_of(
    one("exactly", TEXTS), one("prefix", TEXTS), one("suffix", TEXTS), one("equals-ignore-case", TEXTS),
    one("prefix", one("equals-ignore-case", TEXTS)), one("suffix", one("equals-ignore-case", TEXTS)),
    one("wildcard", WILDCARDS), one("numeric", RANGES), one("anything-but", UNWANTED), one("cidr", CIDRS.map(quoted)),
    one("exists", st.sampled_from(["true", "false", "false"])),
)  # fmt: skip
LISTS = array(st.one_of(TEXTS, NUMBERS, BOOLEANS, EXPRESSIONS), min_size=1, max_size=3)


def alternatives(pattern: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return array(pattern, min_size=2, max_size=3)


def levels(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    plain = members(NAMES, LISTS | inner, min_size=1, max_size=4)
    return plain | st.tuples(plain, alternatives(plain), st.booleans()).map(with_or)


def with_or(parts: tuple[str, str, bool]) -> str:
    plain, options, is_first = parts
    inside = plain[1:-1]
    return f'{{"$or":{options},{inside}}}' if is_first else f'{{{inside},"$or":{options}}}'


PATTERNS = st.recursive(members(NAMES, LISTS, min_size=1, max_size=3), levels, max_leaves=6)
SCALARS = st.one_of(TEXTS, NUMBERS, BOOLEANS)
RECORD_NAMES = st.sampled_from(["a", "b", "c", "a.b", "b.c"])


def unique_members(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    found = st.dictionaries(RECORD_NAMES, values, max_size=4)
    return found.map(lambda pairs: "{" + ",".join([f"{quoted(name)}:{value}" for name, value in pairs.items()]) + "}")


RECORDS = unique_members(
    st.recursive(SCALARS, lambda inner: unique_members(inner) | array(inner, max_size=4), max_leaves=12)
)

SIMPLE = st.sampled_from(
    ["[1]", "[2]", '[{"exists":false}]', '[{"exists":true}]', '[1,{"exists":false}]', '[{"anything-but":1}]']
)
TREES = st.recursive(
    members(NAMES, SIMPLE, min_size=1, max_size=3),
    lambda inner: members(NAMES, SIMPLE | inner, min_size=1, max_size=3),
    max_leaves=5,
)
FEW = st.sampled_from(["1", "2"])
ARRAYS = unique_members(
    st.recursive(
        FEW, lambda inner: unique_members(inner) | array(inner | unique_members(inner), max_size=3), max_leaves=14
    )
)


def message(body: str) -> bytes:
    return json.dumps({"messageId": "m", "body": body, "eventSource": "aws:sqs"}).encode()


def ours(pattern: str, record: str) -> bool:
    return compile_filter([f'{{"body":{pattern}}}'], SourceKind.SQS).matches(message(record))


@settings(max_examples=150)
@given(PATTERNS, RECORDS)
def test_a_pattern_matches_what_the_naive_matcher_says(pattern: str, record: str) -> None:
    expected = naive.matches(pattern, naive.record_of(record))
    event(f"matches: {expected}")
    assert ours(pattern, record) == expected


@settings(max_examples=250)
@given(TREES, ARRAYS)
def test_arrays_are_held_consistent_as_the_naive_matcher_does(pattern: str, record: str) -> None:
    expected = naive.matches(pattern, naive.record_of(record))
    event(f"matches: {expected}")
    assert ours(pattern, record) == expected


@settings(max_examples=200)
@given(st.lists(SCALARS, min_size=1, max_size=3), LISTS)
def test_a_list_holds_for_a_value_as_the_naive_matcher_says(values: list[str], members_: str) -> None:
    record = f'{{"a":[{",".join(values)}]}}'
    pattern = f'{{"a":{members_}}}'
    assert ours(pattern, record) == naive.matches(pattern, naive.record_of(record))


WORDS = st.sampled_from([*sorted(naive.RESERVED), "$or", "a", "a.b", ""])
ANY_JSON = st.recursive(
    SCALARS, lambda inner: array(inner, max_size=4) | members(WORDS, inner, max_size=3), max_leaves=8
)
SLOPPY_LISTS = array(st.one_of(EXPRESSIONS, SCALARS, members(WORDS, ANY_JSON, max_size=2)), max_size=3)
SLOPPY = st.recursive(
    members(WORDS, SLOPPY_LISTS | ANY_JSON, max_size=3),
    lambda inner: members(WORDS, SLOPPY_LISTS | array(inner, max_size=3) | inner, max_size=3),
    max_leaves=5,
)


def is_valid(pattern: str) -> bool:
    try:
        naive.ways(pattern)
    except naive.Wrong:
        return False
    return True


@settings(max_examples=300)
@given(st.one_of(SLOPPY, PATTERNS, ANY_JSON, st.text(max_size=30)))
def test_a_pattern_is_refused_exactly_where_the_specification_refuses_it(pattern: str) -> None:
    reason = reason_invalid(pattern, SourceKind.SQS)
    event(f"valid: {reason is None}")
    assert (reason is None) == is_valid(pattern)


@given(st.sampled_from(list(SourceKind)), st.one_of(SLOPPY, st.text()), st.binary())
def test_no_text_and_no_bytes_crash_it(kind: SourceKind, pattern: str, record: bytes) -> None:
    if reason_invalid(pattern, kind) is None:
        assert compile_filter([pattern], kind).matches(record) in {True, False}


@given(st.sampled_from(list(SourceKind)), PATTERNS, st.one_of(ANY_JSON, RECORDS, st.text()))
def test_no_record_crashes_it(kind: SourceKind, pattern: str, record: str) -> None:
    key = {SourceKind.SQS: "body", SourceKind.KINESIS: "data", SourceKind.DYNAMODB: "dynamodb"}[kind]
    chosen = compile_filter([pattern, f'{{"{key}":{pattern}}}'], kind)
    for text in (record, f'{{"{key}":{record}}}', f'{{"kinesis":{record}}}', f'{{"kinesis":{{"data":{record}}}}}'):
        assert chosen.matches(text.encode("utf-8", "surrogatepass")) in {True, False}


@pytest.mark.parametrize("kind", list(SourceKind))
def test_an_empty_filter_matches_nothing_and_several_patterns_are_alternatives(kind: SourceKind) -> None:
    record = b'{"eventName":"INSERT"}'
    assert not compile_filter([], kind).matches(record)
    assert compile_filter(['{"eventName":["MODIFY"]}', '{"eventName":["INSERT"]}'], kind).matches(record)
