from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A folder, a ledger, and a daemon that has ended when the test has."""
    made = World(tmp_path)
    try:
        yield made
    finally:
        made.close()
