"""Functions behind a URL, for tests: what they are, what is sent to them, and the target that sends it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from prometheus_client import CollectorRegistry

from esm.aws.sessions import Sessions
from esm.model.arn import Arn
from esm.model.clocks import Instant
from esm.model.function import UrlFunction
from esm.model.invocation import Invocation
from esm.ports import Target
from esm.targets import make_target
from esm.telemetry import Telemetry

ARN = Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:billing")
ROLE = "arn:aws:iam::000000000000:role/billing"
_NO_SESSIONS = cast("Sessions", None)
"""Functions behind a URL need none."""


def made(url: str, protocol: str = "rie", timeout_s: int = 30, **members: Any) -> Target:
    """The target of such a function."""
    function = UrlFunction("billing", ARN, ROLE, url, protocol, timeout_s, **members)
    return make_target(function, _NO_SESSIONS, Telemetry(CollectorRegistry()))


@asynccontextmanager
async def target_for(url: str, protocol: str = "rie", timeout_s: int = 30, **members: Any) -> AsyncIterator[Target]:
    """The same, closed at the end."""
    target = made(url, protocol, timeout_s, **members)
    try:
        yield target
    finally:
        await target.aclose()


def invocation(payload: bytes = b"{}", start_by: float | None = None, trace: str | None = None) -> Invocation:
    """One of the function."""
    return Invocation("request-1", ARN, payload, None if start_by is None else Instant(start_by), trace)
