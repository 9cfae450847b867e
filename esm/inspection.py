"""`esm validate`: asks the world whether every mapping of a file could run: sources, functions, destinations."""

from collections.abc import Sequence

from esm.daemon import Adapters
from esm.errors import EsmError
from esm.model.mapping import Mapping
from esm.rules.validation import check_timeout
from esm.runtime.supervisor import Plan
from esm.sources import open_queue, open_stream


async def problems_of_the_world(plans: Sequence[Plan], adapters: Adapters) -> list[str]:
    """One text a problem: mapping, what is wrong, in AWS's words where AWS has them. Empty: everything answers."""
    found: list[str] = []
    for plan in plans:
        for check in (_function, _source, _destination):
            try:
                await check(plan, adapters)
            except EsmError as error:
                found.append(f"{_name(plan.mapping)}: {error}")
    return found


async def _function(plan: Plan, adapters: Adapters) -> None:
    await adapters.target(plan.function).facts()


async def _source(plan: Plan, adapters: Adapters) -> None:
    mapping = plan.mapping
    if mapping.source_kind.is_stream:
        await open_stream(mapping, "", adapters.sessions).facts()
        return
    queue = await open_queue(mapping, adapters.sessions).facts()
    try:
        timeout_s = (await adapters.target(plan.function).facts()).timeout_s
    except EsmError:
        return  # the check of the function says so
    if timeout_s is not None and not mapping.extends_visibility:
        check_timeout(timeout_s, queue.visibility_s)


async def _destination(plan: Plan, adapters: Adapters) -> None:
    destination = adapters.destination(plan.mapping)
    if destination is not None:
        await destination.check()


def _name(mapping: Mapping) -> str:
    return f"mapping {mapping.function} <- {mapping.source_arn}"
