"""Whether any worker runs a mapping: found out by looking again, for as long as a worker that lives may stay silent."""

from collections.abc import Callable, Collection

import anyio

from esm.catalogue import Catalogue
from esm.model.clocks import Instant
from esm.rules.sightings import Proof

LOOK_EVERY_S = 0.2


async def runs_at(
    catalogue: Catalogue, mapping: str, also: Collection[str], failover_s: float,
    waits: Callable[[list[str], float], None],
) -> list[str]:  # fmt: skip
    """Ids of workers that run a mapping or may, empty if surely none does; `also` as in `Catalogue.words`.

    `waits` is told once of the workers that are in doubt, and of the seconds that it takes at most to know. Raises as
    the catalogue does.
    """
    proof = Proof(mapping, failover_s)
    proof.looked(await catalogue.words(also), Instant(anyio.current_time()))
    if proof.doubtful:
        await catalogue.touch()
        waits(proof.doubtful, proof.patience_s)
    while proof.doubtful and not proof.runs_at:
        await anyio.sleep(LOOK_EVERY_S)
        now = Instant(anyio.current_time())
        proof.looked(await catalogue.words(also), now)
    return proof.runs_at
