"""Invoker: one batch to the target, its outcome to everyone who must know."""

from collections.abc import Sequence

from esm.model.clocks import Instant
from esm.model.invocation import Ending, Invocation, Misconfigured, Refused
from esm.model.mapping import CALL_FAILED, InvocationType, Mapping
from esm.model.outcome import Failed, FailedItems, Outcome, Succeeded
from esm.ports import Target
from esm.rules import events, recursion, responses
from esm.rules.events import HasEvent
from esm.runtime.gate import Gate
from esm.runtime.observation import Observation
from esm.runtime.surroundings import Surroundings


class Invoker:
    """Invokes one mapping's function. A failure is a value; nothing is raised but cancellation."""

    def __init__(self, around: Surroundings, target: Target, gate: Gate, observation: Observation) -> None:
        self._around = around
        self._target = target
        self._gate = gate
        self._observation = observation

    async def invoke(
        self, mapping: Mapping, records: Sequence[HasEvent], ids: Sequence[str], attempt: int,
        shard: str | None = None, start_by: Instant | None = None, members: bytes = b"",
        headers: Sequence[str | None] = (),
    ) -> Outcome:  # fmt: skip
        """Run the function with `records`, named `ids`, and report the outcome to gate, telemetry and status.

        `members` are those of a tumbling window; the answer must hold a state then. `headers` are the trace headers
        that the records carry.
        """
        payload = events.payload(records, members)
        trace = recursion.onward(headers, recursion.fingerprint(mapping.function_arn), self._trace())
        invocation = Invocation(
            self._around.new_id(), mapping.function_arn, payload, start_by, trace,
            mapping.invocation_type is InvocationType.EVENT,
        )  # fmt: skip
        observation = self._observation
        began_at = self._around.clock.now()
        observation.in_flight += 1
        try:
            ending = await self._ending(invocation)
        finally:
            observation.in_flight -= 1
        duration_s = self._around.clock.now() - began_at
        outcome = responses.read(
            ending, ids, reports_item_failures=mapping.reports_item_failures, needs_state=bool(members)
        )
        self._gate.ended(outcome)
        observation.circuit(is_open=self._gate.is_broken)
        failed = 0 if isinstance(outcome, Succeeded) else len(records)
        name = responses.outcome_name(outcome)
        observation.telemetry.invocation_ended(ending, name, len(records), failed, duration_s)
        self._report(outcome, ids, attempt, shard)
        return outcome

    async def _ending(self, invocation: Invocation) -> Ending:
        if invocation.is_async and len(invocation.payload) > events.ASYNC_PAYLOAD_BYTES_MAX:
            return Refused(invocation.request_id, "The batch is larger than an asynchronous invocation takes.")
        return await self._target.invoke(invocation)

    def _trace(self) -> str:
        """A trace of the batch's own, not sampled, as Lambda makes one. Source: lambda.md 8.3."""
        root, parent = (self._around.new_id().replace("-", "") for _ in range(2))
        return f"Root=1-{int(self._around.clock.wall()):08x}-{root[:24]};Parent={parent[:16]};Sampled=0"

    def _report(self, outcome: Outcome, ids: Sequence[str], attempt: int, shard: str | None) -> None:
        observation = self._observation
        if not isinstance(outcome, Misconfigured):
            observation.mended("function")
        match outcome:
            case Succeeded():
                observation.succeeded()
                return
            case Misconfigured(text=text):
                observation.problem("function", text)
                error_type = text
            case FailedItems():
                observation.succeeded()
                error_type = "batchItemFailures"
            case Failed(error_type=error_type):
                observation.failed(CALL_FAILED)
            case _:
                observation.failed(CALL_FAILED)
                error_type = type(outcome).__name__ + ": " + getattr(outcome, "text", "")
        request_id = outcome.ran.request_id if isinstance(outcome, (FailedItems, Failed)) else outcome.request_id
        first, last = (ids[0], ids[-1]) if ids else (None, None)
        observation.telemetry.invocation_failed(
            request_id, error_type.rstrip(": "), attempt, len(ids), shard, first, last
        )
