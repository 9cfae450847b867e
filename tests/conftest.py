"""Servers as fixtures, one of each for a whole test run: tests name their own queues, streams and tables in them."""

import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager

import pytest

from tests import servers


@pytest.fixture(scope="session")
def ministack() -> Iterator[str]:
    """ministack's endpoint; skipped where it is not installed, unless REQUIRE_SERVERS=1."""
    yield from _served(servers.ministack())


@pytest.fixture(scope="session")
def kinesalite() -> Iterator[str]:
    """kinesalite's endpoint; tests that use it are marked `node`."""
    yield from _served(servers.kinesalite())


@pytest.fixture(scope="session")
def dynamodb_local() -> Iterator[str]:
    """DynamoDB Local's endpoint; tests that use it are marked `node`, since npm brings it."""
    yield from _served(servers.dynamodb_local())


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """moto's endpoint."""
    yield from _served(servers.moto())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses a server that npm brings is marked so, also where its author forgot."""
    for item in items:
        if {"kinesalite", "dynamodb_local"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("node")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With REQUIRE_SERVERS=1, a test of such a server that is skipped, for whatever reason, has failed."""
    report = yield
    is_skipped = report.skipped and not hasattr(report, "wasxfail")
    if is_skipped and _servers_are_required() and item.get_closest_marker("node"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and REQUIRE_SERVERS=1 allows no skipping: {report.longreprtext}"
    return report


def _servers_are_required() -> bool:
    return os.environ.get("REQUIRE_SERVERS") == "1"


def _served(server: AbstractContextManager[str]) -> Iterator[str]:
    try:
        url = server.__enter__()
    except servers.ServerMissing as missing:
        if _servers_are_required():
            pytest.fail(f"{missing} (REQUIRE_SERVERS=1: nothing may be skipped)", pytrace=False)
        pytest.skip(str(missing))
    try:
        yield url
    finally:
        server.__exit__(None, None, None)
