"""What is given up leaves a notice at the destination. A destination that fails is tried again and holds its lane
until age or retention ends (or, where the mapping says `drop`, not at all); only then are the records dropped, and
counted so.

Law: nothing here holds a payload during a pause: a lane whose destination fails for long hands its payloads back. A
notice that carries the payload is then made again once the lane has read it again, under the same id and time, so that
a bucket gets one object for it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from esm.errors import EsmError, NoticeTooLarge, OperatorNeeded, Unavailable
from esm.model.clocks import Instant, UnixTime
from esm.model.mapping import Mapping
from esm.model.notice import Condition, Notice
from esm.ports import Destination
from esm.rules import events, notices
from esm.rules.backoff import pause_s
from esm.rules.delivery import GiveUp
from esm.runtime.observation import Observation
from esm.runtime.surroundings import Stop, Surroundings

_REASONS = {
    Condition.RETRIES: "retries", Condition.AGE: "age", Condition.PAYLOAD: "payload", Condition.SKIPPED: "skipped",
}  # fmt: skip


@dataclass
class _Outstanding:
    """A notice that its destination has not taken yet."""

    notice: Notice
    failures: int = 0
    is_plain: bool = False
    """The destination does not take it with its payload."""


@dataclass(frozen=True, slots=True)
class PutOff:
    """The notice is not delivered: the step is to be asked for again then."""

    until: Instant
    needs_payload: bool
    """The next try carries the payload, where the source still has it."""


class Notifier:
    """Sends the notices of one shard."""

    def __init__(
        self,
        around: Surroundings,
        destination: Destination | None,
        observation: Observation,
        retention_s: Callable[[], float],
    ) -> None:
        self._around = around
        self._destination = destination
        self._observation = observation
        self._retention_s = retention_s
        self._outstanding: dict[str, _Outstanding] = {}
        """By first sequence number: at most one a lane."""

    async def give_up(
        self, mapping: Mapping, shard: str, step: GiveUp, stop: Stop, members: bytes = b""
    ) -> PutOff | None:
        """Deliver the notice, or count the records as dropped (None); or say when to try again. After a stop nothing
        is tried.

        `members` are what the event carried beside its records.
        """
        key = step.span.first_sequence
        one = self._outstanding.get(key)
        if one is None or one.notice.span != step.span:
            one = self._outstanding[key] = _Outstanding(self._notice(mapping, shard, step))
            self._observation.telemetry.given_up(one.notice)
        put_off = await self._settle(mapping, step, one, stop, members)
        if put_off is None:
            self._outstanding.pop(key, None)
        return put_off

    async def _settle(
        self, mapping: Mapping, step: GiveUp, one: _Outstanding, stop: Stop, members: bytes
    ) -> PutOff | None:
        telemetry = self._observation.telemetry
        if self._destination is None:
            telemetry.dropped(step.span.count, _REASONS[step.condition])
            self._observation.succeeded()
            return None
        if stop.is_set:
            return PutOff(self._around.clock.now(), needs_payload=False)
        error = await self._try(self._destination, mapping, step, one, members)
        if error is None:
            return None
        if mapping.on_failure_drops or self._around.clock.wall() >= self._gives_in_at(mapping, step):
            telemetry.dropped(step.span.count, "destination")
            return None
        wait_s = pause_s(one.failures, self._around.jitter())
        return PutOff(Instant(self._around.clock.now() + wait_s), needs_payload=not one.is_plain)

    async def _try(
        self, destination: Destination, mapping: Mapping, step: GiveUp, one: _Outstanding, members: bytes
    ) -> EsmError | None:
        """Send once. A failure is counted, logged, and shown for as long as the notice waits."""
        telemetry = self._observation.telemetry
        try:
            await self._send(destination, mapping, step, one, members)
        except (Unavailable, OperatorNeeded) as error:
            one.failures += 1
            telemetry.destination_failed(type(destination).__name__, str(error))
            if not mapping.on_failure_drops:
                self._observation.problem("destination", str(error))
            return error
        self._observation.mended("destination")
        self._observation.succeeded()
        telemetry.notice_delivered(step.span.count)
        return None

    async def _send(
        self, destination: Destination, mapping: Mapping, step: GiveUp, one: _Outstanding, members: bytes
    ) -> None:
        """The document is made anew for each try, so that none is held during a pause."""
        if not one.is_plain and mapping.on_failure is not None and notices.carries_payload(mapping):
            payload = _payload(step, members)
            try:
                await destination.send(
                    one.notice, notices.document_for(mapping.on_failure.service, one.notice, payload)
                )  # fmt: skip
            except NoticeTooLarge:
                one.is_plain = True
            else:
                return
        await destination.send(one.notice, notices.document(one.notice))

    def _gives_in_at(self, mapping: Mapping, step: GiveUp) -> UnixTime:
        limit_s = self._retention_s()
        counts_age = step.span.count > 0  # a tumbling window's final call names a record, but is not as old as that
        if counts_age and mapping.record_age_max_s is not None and step.condition is not Condition.AGE:
            limit_s = min(limit_s, mapping.record_age_max_s)
        return UnixTime(step.span.first_arrived_at + limit_s)

    def _notice(self, mapping: Mapping, shard: str, step: GiveUp) -> Notice:
        is_order = step.condition is Condition.SKIPPED
        return Notice(
            mapping=mapping.uuid, function_arn=mapping.function_arn, source_arn=mapping.source_arn, shard=shard,
            condition=step.condition, span=step.span, invoke_count=step.invoke_count,
            request_id=step.request_id or self._around.new_id(), ran=step.ran, at=self._around.clock.wall(),
            id=step.request_id if is_order and step.request_id else self._around.new_id(),
        )  # fmt: skip


def _payload(step: GiveUp, members: bytes) -> bytes | None:
    """The event as the function got it; None where the source no longer had its records.

    A final call of a tumbling window has no records, and its members instead.
    """
    if not all(record.event for record in step.records) or not (step.records or members):
        return None
    return events.payload(step.records, members)
