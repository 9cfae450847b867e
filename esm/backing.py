"""What stands behind the API: the functions of the configuration, the mappings of file and store, and their states.

Law: a function that the configuration does not name does not exist for the API, whatever the daemon's own identity
could call: who may call the API is not who may use that identity.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from esm import inspection
from esm.api import composition, server
from esm.api.behind import Behind
from esm.api.credentials import Credentials
from esm.api.tls import Certificate
from esm.catalogue import Catalogue
from esm.errors import OperatorNeeded, RequestRefused, StoreTooNew, Unavailable
from esm.model.connection import DAEMON, Way
from esm.model.function import HostedFunction, LambdaFunction
from esm.model.invocation import Answer, Throttled
from esm.model.worker import worker_of
from esm.rules import desired as desires
from esm.rules.ways import asynchronous_way, ways
from esm.runtime.async_events import ACCEPTED
from esm.runtime.supervisor import Plan

if TYPE_CHECKING:
    from esm.config import Configuration
    from esm.daemon import Adapters
    from esm.model.arn import Arn
    from esm.model.clocks import UnixTime
    from esm.model.desired import DesiredMapping
    from esm.model.function import Function, FunctionFacts
    from esm.model.invocation import Ending, Invocation
    from esm.model.mapping import Mapping, State
    from esm.model.view import MappingView
    from esm.ports import Clock
    from esm.runtime.surroundings import Surroundings
    from esm.settings import Settings
    from esm.telemetry import Telemetry

CHECK_S = 20.0
"""How long the world may take to say whether a mapping could run."""


class Backing:
    """See `api.behind`. The daemon tells it what the configuration is, what the store holds, and what runs."""

    def __init__(self, configuration: Configuration, clock: Clock, telemetry: Telemetry, worker: str) -> None:
        self.configuration = configuration
        self.adapters: Adapters | None = None
        self.api: server.Api | None = None
        """While it is served."""
        self._clock = clock
        self._telemetry = telemetry
        self._worker = worker
        self._views: Callable[[], Sequence[MappingView]] = tuple
        self._may_be_free: Callable[[str], bool] = lambda owner: worker_of(owner) in ("", worker)
        self._workers: Callable[[str], Collection[str]] = lambda _: ()
        self._modified_at = clock.wall()
        self._stored: dict[str, DesiredMapping] = {}
        self._problems: dict[str, str] = {}
        self._taken: dict[str, int | None] = {}
        """The version of each stored mapping that the supervisor was told last."""

    def join(
        self, adapters: Adapters, views: Callable[[], Sequence[MappingView]], may_be_free: Callable[[str], bool],
        workers: Callable[[str], Collection[str]],
    ) -> None:  # fmt: skip
        """Know what runs. `may_be_free`: whether an owner of leases works no more; `workers`: who runs a mapping."""
        self.adapters, self._views = adapters, views
        self._may_be_free, self._workers = may_be_free, workers

    def configured(self, configuration: Configuration) -> None:
        """The configuration is another one."""
        self.configuration = configuration
        self._modified_at = self._clock.wall()

    def follow(self, stored: Sequence[DesiredMapping]) -> None:
        """The store holds these mappings."""
        self._stored = {one.uuid: one for one in stored}

    def mappings(self) -> set[str]:
        """UUIDs of those that the store holds."""
        return set(self._stored)

    def plans(self) -> dict[str, Plan]:
        """The stored mappings that are to run, with their functions; from now on they count as taken over."""
        choice = desires.chosen(self.configuration.mappings, self._stored.values())
        problems = dict(choice.problems)
        found: dict[str, Plan] = {}
        for mapping in choice.mappings:
            try:
                _, function = self.resolved(str(mapping.function_arn))
            except RequestRefused:
                problems[mapping.uuid] = f"Function does not exist: {mapping.function_arn}"
                continue
            found[mapping.uuid] = Plan(mapping, function, ways(mapping, function, self.configuration.connections))
        for uuid, text in problems.items():
            if self._problems.get(uuid) != text:
                self._telemetry.warned("mapping is not run", mapping=uuid, problem=text)
        self._problems = problems
        self._taken = {uuid: one.version for uuid, one in self._stored.items()}
        return found

    async def finish_deletions(self, catalogue: Catalogue) -> None:
        """Remove what was deleted and does not run here any more. What the store refuses is tried again."""
        running = {view.uuid for view in self._views()}
        for one in [one for one in self._stored.values() if one.is_leaving and one.uuid not in running]:
            if any(worker != self._worker for worker in self._workers(one.uuid)):
                continue
            try:
                await catalogue.finish_mapping(one, lambda owner: not self._may_be_free(owner))
            except (Unavailable, OperatorNeeded, StoreTooNew) as error:
                self._telemetry.store_failed("mapping", str(error))

    @property
    def is_idle(self) -> bool:
        """Whether no call of the API is being answered."""
        return self.api is None or self.api.is_idle

    async def drain(self, grace_s: float) -> None:
        """Return once every call of the API is answered, at the latest after the grace period."""
        if self.api is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.api.wait_idle(), grace_s)

    def functions(self) -> Sequence[Function]:
        """See `api.behind.Functions`."""
        return list(self.configuration.functions.values())

    def modified_at(self) -> UnixTime:
        """See `api.behind`."""
        return self._modified_at

    def resolved(self, name: str) -> tuple[Arn, Function]:
        """See `api.behind.Functions`."""
        found = self.configuration.resolved(name)
        if isinstance(found, str):
            raise _unknown(self._arn_text(name))
        known = (*self.configuration.functions.values(), *self.configuration.functions_by_mapping.values())
        if not any(one.arn.unqualified == found[0].unqualified for one in known):
            raise _unknown(str(found[0]))
        return found

    async def facts(self, function: Function) -> FunctionFacts:
        """See `api.behind.Functions`."""
        assert self.adapters is not None
        return await self.adapters.target(function, self._way(function)).facts()

    async def invoke(self, function: Function, invocation: Invocation) -> Ending:
        """See `api.behind.Functions`."""
        assert self.adapters is not None
        events = self.adapters.events
        if invocation.is_async and events is not None and not isinstance(function, LambdaFunction):
            request_id = await events.accept(
                invocation.function_arn, invocation.payload, invocation.trace, invocation.request_id
            )
            return Answer(request_id, b"", status=ACCEPTED)
        target = self.adapters.target(function, self._way(function))
        is_full = target.concurrency is not None and target.in_flight >= target.concurrency
        if not invocation.waits and is_full and not isinstance(function, HostedFunction):  # the host says why
            return Throttled(invocation.request_id)
        return await target.invoke(invocation)

    def declared(self) -> Sequence[Mapping]:
        """See `api.behind.Mappings`."""
        return self.configuration.mappings

    def place(self, uuid: str) -> str:
        """See `api.behind.Mappings`."""
        return ": ".join(self.configuration.places[uuid])

    def view(self, uuid: str) -> MappingView | None:
        """See `api.behind.Mappings`."""
        return next((view for view in self._views() if view.uuid == uuid), None)

    def state(self, desired: DesiredMapping) -> State:
        """See `api.behind.Mappings`."""
        return desires.shown_state(desired, self._taken.get(desired.uuid), self.view(desired.uuid))

    def problem(self, uuid: str) -> str | None:
        """See `api.behind.Mappings`."""
        return self._problems.get(uuid)

    async def check(self, mapping: Mapping) -> None:
        """See `api.behind.Mappings`."""
        assert self.adapters is not None
        try:
            _, function = self.resolved(str(mapping.function_arn))
        except RequestRefused as error:
            raise RequestRefused("Function does not exist") from error
        plan = Plan(mapping, function, ways(mapping, function, self.configuration.connections))
        try:
            async with asyncio.timeout(CHECK_S):
                await inspection.check(plan, self.adapters)
        except OperatorNeeded as error:
            text = str(error)
            missing = "Function does not exist"
            raise RequestRefused(missing if text.startswith(missing) else text) from error
        except TimeoutError as error:
            raise Unavailable(f"Function and source of the mapping did not answer within {CHECK_S:g} s.") from error

    def _way(self, function: Function) -> Way:
        """How a function is invoked: one in AWS Lambda through its connection."""
        if not isinstance(function, LambdaFunction):
            return DAEMON
        return asynchronous_way(function, self.configuration.connections)

    def _arn_text(self, name: str) -> str:
        if name.startswith("arn:"):
            return name
        configuration = self.configuration
        known = next(iter(configuration.functions.values()), None)
        partition = "aws" if known is None else known.arn.partition
        return f"arn:{partition}:lambda:{configuration.region}:{configuration.account_id}:function:{name}"


def _unknown(arn: str) -> RequestRefused:
    return RequestRefused(f"Function not found: {arn}", "ResourceNotFoundException", 404)


@asynccontextmanager
async def serving_api(
    settings: Settings,
    around: Surroundings,
    catalogue: Catalogue,
    backing: Backing,
    is_open: Callable[[], bool],
    shares_port: bool,  # noqa: FBT001 - of how the daemon was started
) -> AsyncIterator[str | None]:
    """Serve Lambda's API while the body runs; yields its address, None where it is off.

    `shares_port`: other workers of this host listen on the address, too. A default address that is taken is warned
    about: a second daemon on one host needs one of its own, or none.
    Raises: OperatorNeeded (a configured address cannot be had, a certificate does not fit), ConfigurationRefused (the
    file of credentials).
    """
    address = settings.api_host_port
    if address is None:
        yield None
        return
    telemetry, path = around.telemetry, settings.api_credentials_file
    credentials = None if path is None else Credentials(Path(path), telemetry.warned)
    tls = None
    if settings.api_tls_cert_file is not None and settings.api_tls_key_file is not None:
        tls = Certificate(Path(settings.api_tls_cert_file), Path(settings.api_tls_key_file), telemetry.warned)
    configuration = backing.configuration
    surrounding = server.Around(
        around.clock, telemetry, around.new_id, configuration.region, configuration.account_id,
        takes_any_host=settings.api_insecure, is_open=is_open,
    )  # fmt: skip
    behind = Behind(catalogue, backing, backing, telemetry, around.new_id)
    api = backing.api = server.Api(surrounding, composition.handlers(behind), credentials)
    try:
        serving = server.serving(api, *address, tls, shares_port=shares_port)
        port = await serving.__aenter__()
    except OperatorNeeded as error:
        if "api_address" in settings.model_fields_set:
            raise
        telemetry.warned("api is not served", problem=str(error))
        yield None
        return
    try:
        yield f"{settings.api_address.rpartition(':')[0]}:{port}"
    finally:
        await serving.__aexit__(None, None, None)
