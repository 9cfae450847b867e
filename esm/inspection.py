"""`esm validate`: asks the world whether every mapping of a file could run: sources, functions, destinations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import anyio

from esm.errors import EsmError, OperatorNeeded
from esm.host.handlers import check_handler
from esm.model.arn import Arn
from esm.model.function import AsyncRules, HostedFunction, LambdaFunction, PulledFunction, UrlFunction
from esm.model.mapping import InvocationType, Mapping
from esm.ports import Destination
from esm.rules.validation import check_timeout
from esm.runtime.supervisor import Plan
from esm.sources import open_queue, open_stream
from esm.targets.connecting import check_connection

if TYPE_CHECKING:
    from esm.daemon import Adapters

CHECKS_MAX = 20
"""Checks at a time: a server that does not answer takes seconds of each."""

Check = Callable[[Plan, "Adapters"], Awaitable[None]]


async def problems_of_the_world(plans: Sequence[Plan], adapters: Adapters) -> list[str]:
    """One text a problem: mapping, what is wrong, in AWS's words where AWS has them. Empty: everything answers."""
    found: dict[tuple[int, int], str] = {}
    places = anyio.CapacityLimiter(CHECKS_MAX)

    async def look(place: tuple[int, int], check: Check, plan: Plan) -> None:
        async with places:
            try:
                await check(plan, adapters)
            except EsmError as error:
                found[place] = f"{_name(plan.mapping)}: {error}"

    async with anyio.create_task_group() as tasks:
        for row, plan in enumerate(plans):
            for column, check in enumerate(_CHECKS):
                tasks.start_soon(look, (row, column), check, plan)
    return [found[place] for place in sorted(found)]


async def check(plan: Plan, adapters: Adapters) -> None:
    """Ask whether one mapping could run. Raises: what is wrong first, of function, source and destination."""
    for one in (_function, _source, _destination):
        await one(plan, adapters)


async def _function(plan: Plan, adapters: Adapters) -> None:
    await adapters.target(plan.function, plan.ways.target).facts()
    match plan.function:
        case HostedFunction():
            check_handler(plan.function)
        case UrlFunction():
            await check_connection(plan.function)
        case PulledFunction() | LambdaFunction():
            pass


async def _source(plan: Plan, adapters: Adapters) -> None:
    mapping, sessions = plan.mapping, adapters.sessions.through(plan.ways.source)
    if mapping.source_kind.is_stream:
        await open_stream(mapping, "", sessions).facts()
        return
    queue = await open_queue(mapping, sessions).facts()
    if mapping.invocation_type is InvocationType.EVENT:
        return
    try:
        timeout_s = (await adapters.target(plan.function, plan.ways.target).facts()).timeout_s
    except EsmError:
        return  # the check of the function says so
    if timeout_s is not None and not mapping.extends_visibility:
        check_timeout(timeout_s, queue.visibility_s)


async def _destination(plan: Plan, adapters: Adapters) -> None:
    destination = adapters.destination(plan.mapping, plan.ways)
    if destination is not None:
        await _check_destination(destination, f"DestinationConfig.OnFailure {plan.mapping.on_failure}")


async def _asynchronous(name: str, plan: Plan, adapters: Adapters) -> None:
    """One that the function's asynchronous queue tells, where the mapping feeds it."""
    if plan.mapping.invocation_type is not InvocationType.EVENT or isinstance(plan.function, LambdaFunction):
        return
    arn = _RECIPIENTS[name](plan.function.asynchronous)
    if arn is not None:
        destination = adapters.shared_destination(arn, plan.function.arn.account, plan.ways.asynchronous)
        await _check_destination(destination, f"{name} {arn}")


async def _check_destination(destination: Destination, name: str) -> None:
    """AWS's words name neither queue nor topic, and the mapping has a source of its own. Raises: OperatorNeeded."""
    try:
        await destination.check()
    except EsmError as error:
        msg = f"{name}: {error}"
        raise OperatorNeeded(msg) from error


def _name(mapping: Mapping) -> str:
    return f"mapping {mapping.function} <- {mapping.source_arn}"


_RECIPIENTS: dict[str, Callable[[AsyncRules], Arn | None]] = {
    "EventInvokeConfig OnSuccess": lambda rules: rules.on_success,
    "EventInvokeConfig OnFailure": lambda rules: rules.on_failure,
    "DeadLetterConfig": lambda rules: rules.dead_letter,
}
_CHECKS: tuple[Check, ...] = (
    _function, _source, _destination, *(partial(_asynchronous, name) for name in _RECIPIENTS)
)  # fmt: skip
