import logging
import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Simulated worlds fail on purpose, thousands of times."""
    logger = logging.getLogger("esm")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `seed` runs for many: SEEDS=1000 for a long run, SEED=7 to play one again."""
    if "seed" in metafunc.fixturenames:
        one = os.environ.get("SEED")
        count = int(os.environ.get("SEEDS", "5"))
        metafunc.parametrize("seed", [int(one)] if one else list(range(count)))
