"""What is given up leaves a notice at the destination. A destination that fails is tried again and holds its lane
until age or retention ends; only then are the records dropped, and counted so.
"""

from collections.abc import Callable

from esm.errors import OperatorNeeded, Unavailable
from esm.model.clocks import UnixTime
from esm.model.mapping import Mapping
from esm.model.notice import Condition, Notice
from esm.ports import Destination
from esm.rules import notices
from esm.rules.delivery import GiveUp
from esm.runtime.knowing import pause_after
from esm.runtime.observation import Observation
from esm.runtime.surroundings import Stop, Surroundings

_REASONS = {Condition.RETRIES: "retries", Condition.AGE: "age", Condition.PAYLOAD: "payload"}


class Notifier:
    """Sends the notices of one mapping."""

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

    async def give_up(self, mapping: Mapping, shard: str, step: GiveUp, stop: Stop) -> bool:
        """Deliver the notice, or count the records as dropped; False: the stop came first, nothing is settled."""
        notice = self._notice(mapping, shard, step)
        telemetry = self._observation.telemetry
        telemetry.given_up(notice)
        if self._destination is None:
            telemetry.dropped(step.span.count, _REASONS[step.condition])
            self._observation.succeeded()
            return True
        return await self._send(self._destination, notice, self._gives_in_at(mapping, step), stop)

    async def _send(self, destination: Destination, notice: Notice, gives_in_at: UnixTime, stop: Stop) -> bool:
        document = notices.document(notice)
        telemetry = self._observation.telemetry
        failures = 0
        while not stop.is_set:
            try:
                await destination.send(notice, document)
            except (Unavailable, OperatorNeeded) as error:
                telemetry.destination_failed(type(destination).__name__, str(error))
                self._observation.problem("destination", str(error))
                if self._around.clock.wall() >= gives_in_at:
                    telemetry.dropped(notice.span.count, "destination")
                    return True
                failures = await pause_after(self._around, stop, Unavailable(str(error)), failures)
            else:
                self._observation.mended("destination")
                self._observation.succeeded()
                telemetry.notice_delivered(notice.span.count)
                return True
        return False

    def _gives_in_at(self, mapping: Mapping, step: GiveUp) -> UnixTime:
        limit_s = self._retention_s()
        counts_age = step.span.count > 0  # a tumbling window's final call names a record, but is not as old as that
        if counts_age and mapping.record_age_max_s is not None and step.condition is not Condition.AGE:
            limit_s = min(limit_s, mapping.record_age_max_s)
        return UnixTime(step.span.first_arrived_at + limit_s)

    def _notice(self, mapping: Mapping, shard: str, step: GiveUp) -> Notice:
        return Notice(
            mapping=mapping.uuid, function_arn=mapping.function_arn, source_arn=mapping.source_arn, shard=shard,
            condition=step.condition, span=step.span, invoke_count=step.invoke_count,
            request_id=step.request_id or self._around.new_id(), ran=step.ran, at=self._around.clock.wall(),
        )  # fmt: skip
