"""A target that knows whether it is in use, so that one that was replaced is closed only once nothing runs on it."""

from esm.model.function import FunctionFacts
from esm.model.invocation import Ending, Invocation
from esm.ports import Target


class Counted:
    """A `Target` before another one. Invariant: `in_flight` invocations have begun and not ended."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.in_flight = 0

    @property
    def concurrency(self) -> int | None:
        """The target's."""
        return self._target.concurrency

    async def facts(self) -> FunctionFacts:
        """The target's."""
        return await self._target.facts()

    async def wait_free(self) -> None:
        """As the target does."""
        await self._target.wait_free()

    async def invoke(self, invocation: Invocation) -> Ending:
        """As the target does."""
        self.in_flight += 1
        try:
            return await self._target.invoke(invocation)
        finally:
            self.in_flight -= 1

    async def aclose(self) -> None:
        """Close the target."""
        await self._target.aclose()
