"""Listings go to the store in parts, and come back whole or not at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.errors import OperatorNeeded, StoreTooNew
from esm.model.position import Shard
from esm.model.stored import VALUE_BYTES_MAX
from esm.rules import listings
from esm.rules.kinds import OLDEST
from esm.rules.listings import PART_SHARDS, SharedListing

SHARDS = st.lists(st.builds(Shard, st.text(max_size=5), st.tuples(st.text(max_size=5)), st.booleans()), max_size=9)


def many(count: int, author: str = "a/r") -> SharedListing:
    name = "shardId-00000001600000000000-{:08d}".format
    shards = [Shard(name(number), (name(number + 1), name(number + 2)), is_closed=True) for number in range(count)]
    return SharedListing(author, "stream@1", 86_400.0, tuple(shards))


@given(SHARDS)
def test_a_listing_comes_back_as_it_was(shards: list[Shard]) -> None:
    listing = SharedListing("a/r", "stream@1", 86_400.0, tuple(shards))
    assert listings.decode(listings.encode(listing, OLDEST)) == listing


def test_a_large_listing_has_parts_that_a_store_takes_and_more_of_them_do_not_disturb() -> None:
    listing = many(2 * PART_SHARDS + 1)
    parts = listings.encode(listing, OLDEST)
    assert len(parts) == 3
    assert max(len(part) for part in parts) < VALUE_BYTES_MAX
    assert listings.decode(parts) == listing
    shorter = listings.encode(many(1), OLDEST)
    assert listings.decode([*shorter, *parts[1:]]) == many(1)


def test_parts_that_are_missing_or_of_two_listings_make_none() -> None:
    parts = listings.encode(many(PART_SHARDS + 1), OLDEST)
    others = listings.encode(many(PART_SHARDS + 2, "b/r"), OLDEST)
    assert listings.decode([]) is None
    assert listings.decode(parts[:1]) is None
    assert listings.decode([parts[0], others[1]]) is None


def test_what_is_no_listing_is_said_to_be_none_of_ours_and_a_newer_one_is_refused() -> None:
    with pytest.raises(OperatorNeeded):
        listings.decode([b'{"format": 1}'])
    with pytest.raises(StoreTooNew):
        listings.decode([json.dumps({"format": 99}).encode()])
