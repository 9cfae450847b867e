"""`esm forget`: what is stored of a mapping goes for good, once no worker runs it any more."""

import sys

from esm.catalogue import Catalogue
from esm.catalogue.running import runs_at
from esm.config import Configuration
from esm.errors import RequestRefused
from esm.settings import Settings


def check_unconfigured(name: str, settings: Settings, configuration: Configuration) -> None:
    """Raises: RequestRefused where the configuration still has the mapping."""
    if any(mapping.uuid == name for mapping in configuration.mappings):
        raise RequestRefused(
            f"Mapping {name} is in the configuration {settings.config}, or was made through the API: remove it there"
            " first, or its positions would be made anew from StartingPosition."
        )


async def forget(catalogue: Catalogue, name: str, settings: Settings, *, is_dry: bool) -> None:
    """Remove everything of a mapping, or say what would be.

    Raises: RequestRefused where nothing is stored, or the API has it, or a worker runs it.
    """
    await _check_unwanted(catalogue, name)
    also = [settings.worker_id]
    stands = await catalogue.stands(name, also)
    if not any(stands.values()):
        raise RequestRefused(f"Nothing is stored of a mapping {name!r}: give its whole UUID, as `esm leases` shows it.")
    running = await runs_at(catalogue, name, also, settings.failover_s, _waits)
    if running:
        which = "daemon" if len(running) == 1 else "daemons"
        raise RequestRefused(
            f"Mapping {name} runs in the {which} {', '.join(running)}: remove it from the configuration of every daemon"
            " that shares this state, and try again once `esm status` there does not show it any more."
        )
    listed = ", ".join(f"{count} of {kind}" for kind, count in stands.items() if count)
    if is_dry:
        print(f"mapping {name}: {listed} would be removed for good. Nothing has been changed: say --yes to do it.")
        return
    await catalogue.forget(name, also)
    print(f"mapping {name}: forgotten ({listed}).")


async def _check_unwanted(catalogue: Catalogue, name: str) -> None:
    """Refuse a mapping of the API, also one that does not run beside the configuration for now."""
    made = await catalogue.mapping(name)
    if made is not None and not made.is_leaving:
        raise RequestRefused(
            f"Mapping {name} was made through the API: delete it there (`aws lambda delete-event-source-mapping`),"
            " which removes what is stored of it, or its positions would be made anew from StartingPosition."
        )


def _waits(workers: list[str], seconds: float) -> None:
    print(f"Waiting up to {seconds:.0f} s for a sign of life of {', '.join(workers)}, which had it.", file=sys.stderr)
