"""The trace that an invocation carries on, and how often a message has been through a function."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.model.arn import Arn
from esm.rules.recursion import ENTRIES_MAX, HEADER_MAX, HOPS_MAX, fingerprint, hops, onward

ARN = Arn.parse("arn:aws:lambda:us-east-1:123456789012:function:f")
ME = fingerprint(ARN)
ROOT = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
OWN = "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0"
ENTRIES = st.one_of(
    st.builds("{}:{}".format, st.sampled_from([ME, "25ebe4ec", "0a0b0c0d"]), st.integers(0, 40)),
    st.builds("{}:{}:{}".format, st.integers(0, 9), st.sampled_from([ME, "25ebe4ec"]), st.integers(0, 40)),
    st.text(alphabet="abcdef0123456789:#?", max_size=12),
)
LINEAGES = st.lists(ENTRIES, max_size=8).map("|".join)
HEADERS = st.one_of(st.none(), st.just(ROOT), LINEAGES.map(lambda text: f"{ROOT};Lineage={text}"), st.text(max_size=40))


def test_a_fingerprint_is_stable_and_the_same_for_all_versions() -> None:
    assert fingerprint(Arn.parse(f"{ARN}:live")) == ME == "9fa5c9e6"
    assert fingerprint(Arn.parse("arn:aws:lambda:us-east-1:123456789012:function:g")) != ME


def test_without_headers_the_batch_has_a_trace_of_its_own() -> None:
    assert onward([], ME, OWN) == onward([None, None], ME, OWN) == f"{OWN};Lineage={ME}:1"


def test_one_header_is_handed_on() -> None:
    assert onward([ROOT], ME, OWN) == onward([ROOT] * 3, ME, OWN) == f"{ROOT};Lineage={ME}:1"


def test_different_headers_make_a_trace_of_its_own_that_keeps_the_deepest_lineage() -> None:
    headers = [f"{ROOT};Lineage={ME}:4|25ebe4ec:1", f"{ROOT};Lineage=25ebe4ec:3|{ME}:2", None]
    assert onward(headers, ME, OWN) == f"{OWN};Lineage=25ebe4ec:3|{ME}:5"
    assert onward([ROOT, None], ME, OWN).startswith(OWN)


def test_unknown_text_is_handed_on_as_it_is() -> None:
    header = f"{ROOT};Self=1-2;Lineage=1:25ebe4ec:0|what?"
    assert onward([header], ME, OWN) == f"{ROOT};Self=1-2;Lineage=what?|25ebe4ec:0|{ME}:1"


@pytest.mark.parametrize("header", ["", "nonsense", "a\r\nb", ROOT + "\n", "Röot=1", "x" * (HEADER_MAX + 1)])
def test_what_is_no_trace_is_not_handed_on(header: str) -> None:
    assert onward([header], ME, OWN) == f"{OWN};Lineage={ME}:1"
    assert hops(header, ME) == 0


@given(HEADERS)
def test_each_hop_counts_one(header: str | None) -> None:
    assert hops(onward([header], ME, OWN), ME) == hops(header, ME) + 1


@given(st.lists(HEADERS, max_size=12))
def test_no_message_of_a_batch_loses_its_count(headers: list[str | None]) -> None:
    trace = onward(headers, ME, OWN)
    for name in (ME, "25ebe4ec", "0a0b0c0d"):
        most = max((hops(header, name) for header in headers), default=0)
        assert hops(trace, name) == most + (name == ME)
    assert re.fullmatch(r"[\x20-\x7e]+", trace)


def test_a_lineage_stays_bounded_and_keeps_the_deepest() -> None:
    long = "|".join([f"{number:08x}:{number}" for number in range(60)])
    trace = onward([f"{ROOT};Lineage={long}"], ME, OWN)
    entries = trace.partition("Lineage=")[2].split("|")
    assert len(entries) == ENTRIES_MAX
    assert hops(trace, f"{59:08x}") == 59
    assert len(trace) <= HEADER_MAX


def test_a_function_that_feeds_itself_reaches_the_limit() -> None:
    header: str | None = None
    for _ in range(HOPS_MAX):
        assert hops(header, ME) < HOPS_MAX
        header = onward([header], ME, OWN)
    assert hops(header, ME) == HOPS_MAX
