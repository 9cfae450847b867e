"""The daemon: composes everything, applies configurations, and stops gracefully."""

import hashlib
import os
import random
import signal
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from collections.abc import Mapping as Table
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from prometheus_client import CollectorRegistry

from esm import config, wishes
from esm.api import operations
from esm.api.fleet import FleetStatus
from esm.aws.sessions import Sessions
from esm.backing import Backing, serving_api
from esm.catalogue import Catalogue
from esm.config import Configuration
from esm.crew.place import Place
from esm.destinations import make_destination
from esm.errors import ConfigurationRefused, OperatorNeeded
from esm.host import Host
from esm.host.elsewhere import Elsewhere
from esm.hosting import make_elsewhere, make_host
from esm.joining import member
from esm.model.arn import Arn
from esm.model.async_event import Recipient
from esm.model.connection import DAEMON, Way, Ways
from esm.model.function import AsyncRules, Function, HostedFunction, LambdaFunction, PulledFunction
from esm.model.mapping import InvocationType, Mapping, State
from esm.model.view import MappingView
from esm.ports import Destination, Target
from esm.rules import shares
from esm.rules.sightings import Sightings
from esm.rules.ways import asynchronous_way, ways
from esm.runtime.async_events import Accepting, AsyncEvents
from esm.runtime.async_function import AsyncFunction
from esm.runtime.bounded import Bounded
from esm.runtime.fleet import Fleet
from esm.runtime.membership import Membership
from esm.runtime.observation import Observation
from esm.runtime.orders import OrderBook
from esm.runtime.queue import QueueRunner
from esm.runtime.reporting import Reporter
from esm.runtime.rewriting import Rewriter
from esm.runtime.stream import StreamRunner
from esm.runtime.supervisor import Plan, Runner, Supervisor
from esm.runtime.surroundings import ByteBudget, Formats, Signal, Surroundings, SystemClock
from esm.settings import Settings
from esm.sources import open_queue, open_stream
from esm.state import open_bucket, open_state
from esm.targets import make_target
from esm.targets.counted import Counted
from esm.telemetry import Telemetry

_BEGINNING = {State.CREATING, State.ENABLING}

LOOK_EVERY_S = 0.5
"""How often the configuration file is compared with what runs: editors and ConfigMaps replace it in many ways."""


@dataclass
class Adapters:
    """Everything that reaches outside, made once and shared by the mappings."""

    sessions: Sessions
    host: Host
    elsewhere: Elsewhere
    telemetry: Telemetry
    settings: Settings

    def __post_init__(self) -> None:
        self._targets: dict[tuple[Function, Way], Counted] = {}
        self._destinations: dict[tuple[Arn, str, Way], Destination] = {}
        self._ways: set[Way] = set()
        self.functions: dict[str, tuple[Function, Way]] = {}
        """Those of the configuration by unqualified ARN, and the way to their asynchronous destinations."""
        self.orders = OrderBook()
        """What operators want of the positions of each mapping."""
        self.members: Membership | None = None
        """This worker among the others; None where nothing is to run."""
        self.events: AsyncEvents | None = None
        """The asynchronous queue; None where nothing is to run."""

    def target(self, function: Function, way: Way = DAEMON) -> Counted:
        """The one target of a function: its environments and connections are shared by its mappings."""
        if (function, way) not in self._targets:
            if isinstance(function, HostedFunction):
                made: Target = self._bounded(function, self.host.target(function))
            elif isinstance(function, PulledFunction):
                made = self.elsewhere.target(function)
            else:
                made = make_target(function, self.sessions.through(way), self.telemetry)
            self._targets[function, way] = Counted(made)
        return self._targets[function, way]

    def _bounded(self, function: HostedFunction, target: Target) -> Target:
        """The reserved concurrency holds over all workers; without others the host itself keeps it."""
        reserved = function.reserved_concurrency
        if not reserved or self.members is None or self.members.is_sole:
            return target
        return Bounded(self.members, f"{shares.FUNCTION}{function.arn.unqualified}", reserved, target)

    async def build(self, around: Surroundings, plan: Plan, observation: Observation) -> Runner:
        """What runs a mapping. Raises: OperatorNeeded, Unavailable (the function's role is asked for)."""
        mapping, target = plan.mapping, self._entrance(around, plan, observation)
        sessions = self.sessions.through(plan.ways.source)
        if not mapping.source_kind.is_stream:
            source = open_queue(mapping, sessions)
            allows_loops = plan.function.allows_loops
            return QueueRunner(around, mapping, source, target, observation, allows_loops=allows_loops)
        role = (await target.facts()).role
        stream = open_stream(
            mapping,
            role,
            sessions,
            kinesis_reads_per_s=(self.settings.kinesis_reads_per_s, self.settings.kinesis_idle_reads_per_s),
            dynamodb_reads_per_s=(self.settings.dynamodb_reads_per_s, self.settings.dynamodb_idle_reads_per_s),
        )
        destination, orders = self.destination(mapping, plan.ways), self.orders.of(mapping.uuid)
        return StreamRunner(around, mapping, stream, target, destination, observation, orders)

    def _entrance(self, around: Surroundings, plan: Plan, observation: Observation) -> Target:
        """What a mapping invokes: the function, or the asynchronous queue before it. AWS Lambda has its own queue."""
        target = self.target(plan.function, plan.ways.target)
        observation.async_backlog = observation.runtimes = lambda: None
        if isinstance(plan.function, PulledFunction):
            observation.runtimes = partial(self.elsewhere.present, plan.function)
        is_event = plan.mapping.invocation_type is InvocationType.EVENT
        if self.events is None or not is_event or isinstance(plan.function, LambdaFunction):
            return target
        events, arn = self.events, str(plan.function.arn.unqualified)
        observation.async_backlog = lambda: events.backlogs().get(arn, 0)
        return Accepting(events, plan.function.role, around)

    def async_function(self, arn: Arn) -> AsyncFunction:
        """What the asynchronous events of a function need now."""
        function, way = self.functions.get(str(arn), (None, DAEMON))
        if function is None or isinstance(function, LambdaFunction):
            return AsyncFunction(None, AsyncRules(), is_blocked=False, destination=lambda _: None)
        rules = function.asynchronous
        arns = {
            Recipient.ON_SUCCESS: rules.on_success, Recipient.ON_FAILURE: rules.on_failure,
            Recipient.DEAD_LETTER: rules.dead_letter,
        }  # fmt: skip
        is_blocked = isinstance(function, HostedFunction) and function.reserved_concurrency == 0

        def destination(recipient: Recipient) -> Destination | None:
            named = arns[recipient]
            return None if named is None else self.shared_destination(named, arn.account, way)

        return AsyncFunction(self.target(function), rules, is_blocked, destination)

    def shared_destination(self, arn: Arn, account: str, way: Way) -> Destination:
        """The one destination of an ARN for the functions of an account. Raises: RequestRefused."""
        if (arn, account, way) not in self._destinations:
            self._destinations[arn, account, way] = make_destination(arn, self.sessions.through(way), account)
        return self._destinations[arn, account, way]

    def destination(self, mapping: Mapping, ways: Ways) -> Destination | None:
        """Where a mapping's notices go."""
        if mapping.on_failure is None:
            return None
        sessions = self.sessions.through(ways.destination)
        return make_destination(mapping.on_failure, sessions, mapping.function_arn.account)

    def unused(self, plans: Sequence[Plan]) -> list[Target]:
        """Targets of functions that a changed configuration left behind, once nothing runs on them: to be closed.

        Asynchronous events and calls of the API go to the functions of the configuration, whatever mappings there are.
        """
        used = {(plan.function, plan.ways.target) for plan in plans}
        used |= {(one, way if isinstance(one, LambdaFunction) else DAEMON) for one, way in self.functions.values()}
        over = [key for key, target in self._targets.items() if key not in used and not target.in_flight]
        return [self._targets.pop(key) for key in over]

    async def keep(self, plans: Sequence[Plan]) -> None:
        """Let go of what a changed configuration left behind: clients and credentials that nothing uses any more."""
        ways = {way for plan in plans for way in plan.ways.all} | {way for _, way in self.functions.values()}
        if ways != self._ways:
            self._ways = ways
            for key in [key for key in self._destinations if key[2] not in ways]:
                del self._destinations[key]
            await self.sessions.keep(ways)

    async def aclose(self) -> None:
        """End environments and connections."""
        for target in self._targets.values():
            await target.aclose()
        await self.host.aclose()
        await self.elsewhere.aclose()
        await self.sessions.aclose()


class Daemon:
    """One running worker."""

    def __init__(
        self, settings: Settings, environ: Table[str, str], configuration: Configuration,
        place: Place | None = None,
    ) -> None:  # fmt: skip
        """`place`: that of one worker of several, under a supervisor."""
        self._place = place
        self._settings = settings
        self._environ = environ
        self._configuration = configuration
        self._refused = ConfigurationRefused([])
        """What was refused since a configuration was taken the last time."""
        self._looks_again = False
        """It named files that were not watched before, so it is read once more."""
        self._is_ready = False
        self._is_draining = False
        self._begun: set[str] = set()
        self._have_all_begun = False
        self._fleet: Fleet | None = None
        self._displaced: BaseException | None = None
        self._is_sole = place is None and not settings.state.startswith("dynamodb:")
        self._adapters: Adapters | None = None
        self._formats = Formats()
        self._telemetry = Telemetry(
            CollectorRegistry(), per_shard=settings.metrics_per_shard, tag_labels=settings.tag_labels
        )
        self._backing = Backing(configuration, SystemClock(), self._telemetry, settings.worker_id)
        self._wishes = wishes.Wishes(self._telemetry, self._backing)

    async def run(self) -> None:
        """Run until a signal. Raises: OperatorNeeded, RequestRefused, StoreTooNew when it cannot start."""
        settings, telemetry = self._settings, self._telemetry
        async with AsyncExitStack() as stack:
            store = await open_state(
                settings, self._configuration, telemetry.aws_request, exclusive=True, warn=telemetry.warned,
                lock=self._place.lock if self._place else None,
            )  # fmt: skip
            stack.push_async_callback(store.aclose)
            self._fleet = fleet = member(settings, store, stack, telemetry, self._formats, is_sole=self._is_sole)
            blobs = await open_bucket(settings, self._configuration, telemetry.aws_request)
            if blobs is not None:
                stack.push_async_callback(blobs.aclose)
            around = Surroundings(
                clock=SystemClock(), telemetry=telemetry, store=store,
                budget=ByteBudget(settings.buffer_bytes_max), jitter=random.random, new_id=lambda: str(uuid.uuid4()),
                worker=settings.worker_id, sqs_wait_s=settings.sqs_wait_s,
                checkpoint_interval_s=settings.checkpoint_interval_s, blobs=blobs, members=fleet,
                formats=self._formats,
            )  # fmt: skip
            adapters = make_adapters(settings, self._configuration, telemetry, serves=True, place=self._place)
            stack.push_async_callback(adapters.aclose)
            adapters.host.end_leftovers()
            adapters.members = fleet
            adapters.events = AsyncEvents(around, adapters.async_function)
            supervisor = Supervisor(around, lambda plan, observation: adapters.build(around, plan, observation))
            telemetry.live.views = supervisor.views
            telemetry.live.async_backlogs = adapters.events.backlogs
            telemetry.live.buffered_bytes = lambda: around.budget.used_bytes
            telemetry.live.heartbeat_age_s = lambda: fleet.heartbeat_age_s
            metrics = await self._serve_tools(stack, around, supervisor)
            self._adapters = adapters
            catalogue = Catalogue(store, blobs)
            self._backing.join(adapters, supervisor.views, fleet.may_be_free, fleet.peers)
            api = await stack.enter_async_context(
                serving_api(settings, around, catalogue, self._backing, lambda: self._is_ready, self._place is not None)
            )  # fmt: skip
            telemetry.started(worker=settings.worker_id, state=settings.state, metrics=metrics, api=api,
                              mappings=len(self._configuration.mappings), pid=os.getpid())  # fmt: skip
            rewriter = Rewriter(around, self._mappings)
            await self._serve(supervisor, Reporter(around, supervisor), rewriter, adapters, catalogue)

    async def _serve_tools(self, stack: AsyncExitStack, around: Surroundings, supervisor: Supervisor) -> str:
        """Answer what operators' tools ask; returns the address."""
        settings, views = self._settings, supervisor.views
        answers = FleetStatus(
            around.store, around.clock, around.telemetry, around.worker, views, Sightings(settings.failover_s)
        )
        app = operations.application(around.telemetry.exposed, answers.answer, lambda: self.is_ready(views()))
        host, port = settings.metrics_host_port
        port = await stack.enter_async_context(operations.serving(app, host, port, self._socket))
        return f"{settings.metrics_address.rpartition(':')[0]}:{port}"

    def is_ready(self, views: Sequence[MappingView]) -> bool:
        """Whether the daemon runs, and every mapping that is switched on has begun once: it was Enabled, or showed a
        problem, which a restart would not mend. From then on only a drain ends that.
        """
        self._begun |= {view.uuid for view in views if view.has_problem or view.state not in _BEGINNING}
        wanted = {mapping.uuid for mapping in self._configuration.mappings if mapping.enabled}
        self._have_all_begun = self._have_all_begun or wanted <= self._begun
        return self._is_ready and self._have_all_begun

    @property
    def _socket(self) -> Path | None:
        """Where a worker under a supervisor answers it; the supervisor answers operators' tools for all."""
        return None if self._place is None else self._place.socket

    def _is_echo(self, number: int) -> bool:
        """Whether a worker under a supervisor is told once more to drain: some stop a service by a SIGTERM to each of
        its processes. The supervisor's order to end at once is SIGINT.
        """
        return self._place is not None and self._is_draining and number == signal.SIGTERM

    async def _serve(
        self, supervisor: Supervisor, reporter: Reporter, rewriter: Rewriter, adapters: Adapters, catalogue: Catalogue
    ) -> None:
        events, fleet = adapters.events, self._fleet
        assert events is not None
        assert fleet is not None

        async def begin() -> None:
            """Once it is known in which format to write, and what is paused. The others hear of this worker before:
            one of a newer version writes again what it cannot read.
            """
            await fleet.wait_joined()
            await self._wishes.know(catalogue, adapters.orders)
            self._apply(supervisor, self._configuration)
            for run in (supervisor.run, reporter.run, events.run, rewriter.run):
                tasks.start_soon(run)
            tasks.start_soon(self._follow_file, supervisor)
            tasks.start_soon(self._follow_operators, supervisor, reporter, catalogue, adapters)
            tasks.start_soon(_let_go, supervisor, adapters)
            self._is_ready = True

        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._run_or_end, fleet.run, tasks)
                tasks.start_soon(self._run_or_end, begin, tasks)
                async for number in signals:
                    if self._is_echo(number):
                        continue
                    if not self._is_ready:
                        break
                    self._is_ready, self._is_draining = False, True
                    name = signal.Signals(number).name
                    tasks.start_soon(self._drain, supervisor, reporter, rewriter, events, tasks, name)
                tasks.cancel_scope.cancel()
        if self._displaced is not None:
            raise self._displaced

    async def _drain(
        self, supervisor: Supervisor, reporter: Reporter, rewriter: Rewriter, events: AsyncEvents,
        tasks: anyio.abc.TaskGroup, reason: str,
    ) -> None:  # fmt: skip
        grace_s = self._settings.shutdown_grace_s
        ends_at = anyio.current_time() + grace_s
        self._telemetry.draining(reason, grace_s)
        assert self._fleet is not None
        self._fleet.leave()
        if self._adapters is not None:
            self._adapters.elsewhere.drain()
        async with anyio.create_task_group() as draining:
            draining.start_soon(events.drain, grace_s)
            draining.start_soon(self._backing.drain, grace_s)
            is_complete = await supervisor.drain(grace_s)
        is_complete = is_complete and events.has_ended and self._backing.is_idle
        with anyio.move_on_after(1):
            await reporter.write(supervisor.views())
        with anyio.CancelScope(deadline=ends_at):
            await rewriter.finish()
        await self._fleet.release()
        self._telemetry.stopped(complete=is_complete)
        tasks.cancel_scope.cancel()

    async def _follow_file(self, supervisor: Supervisor) -> None:
        """Apply changes of the file within a second; a wrong file is refused and the old one goes on.

        What is seen is always what stood there before the reading: a change made meanwhile differs from it, and is
        read next time. The first look reads once more what the start has read, and so does the one after a refusal
        that names files of its own.
        """
        seen = ""
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            if not self._is_ready:
                continue
            found = config.digest(self._configuration, self._refused.files)
            if found != seen:
                seen = found
                self._take_over(supervisor)

    async def _follow_operators(
        self, supervisor: Supervisor, reporter: Reporter, catalogue: Catalogue, adapters: Adapters
    ) -> None:
        """Apply what operators want within a second, and report at once: whoever asked waits for it."""
        assert self._fleet is not None
        changed = Signal()
        with self._fleet.watching(changed):
            while True:
                before = self._wishes.changes
                if (
                    self._fleet.changes != before
                    and await self._wishes.look(catalogue, adapters.orders)
                    and self._wishes.changes != before
                ):
                    if self._is_ready:
                        supervisor.apply(self._plans())
                    await reporter.write(supervisor.views())
                if self._is_ready:
                    await self._backing.finish_deletions(catalogue)
                with anyio.move_on_after(wishes.LOOK_EVERY_S):
                    await changed.wait()

    async def _run_or_end(self, run: Callable[[], Awaitable[None]], tasks: anyio.abc.TaskGroup) -> None:
        """Run; where that finds that this worker cannot work here, end: its id or its state is another's."""
        try:
            await run()
        except* OperatorNeeded as refused:
            self._displaced = refused.exceptions[0]
            tasks.cancel_scope.cancel()

    def _mappings(self) -> set[str]:
        """UUIDs of the mappings that this worker knows."""
        declared = {mapping.uuid for mapping in self._configuration.mappings}
        return declared | self._wishes.mappings() | self._backing.mappings()

    def _plans(self) -> dict[str, Plan]:
        """The mappings of the configuration and of the API, without those that operators let rest."""
        found = self._backing.plans() | plans(self._configuration)
        if self._fleet is not None:
            self._fleet.follow({uuid: digest(plan.mapping) for uuid, plan in found.items()})
        return self._wishes.paused(found)

    def _take_over(self, supervisor: Supervisor) -> None:
        try:
            changed = load_configuration(self._settings, self._environ)
            config.check_successor(self._configuration, changed)
        except ConfigurationRefused as refused:
            self._refuse(refused)
            return
        self._refused = ConfigurationRefused([])
        if changed == self._configuration:
            return
        said = set(self._configuration.warnings)
        self._configuration = changed
        self._apply(supervisor, changed, said)
        self._telemetry.configuration_applied(mappings=len(changed.mappings), functions=len(changed.functions))

    def _refuse(self, refused: ConfigurationRefused) -> None:
        """Say so, and watch the files that it names from now on; the look that this brings is no second refusal."""
        before, self._refused = self._refused, refused
        if not self._looks_again or refused.problems != before.problems:
            self._telemetry.configuration_refused([str(problem) for problem in refused.problems])
        self._looks_again = not set(refused.files) <= {*self._configuration.files, *before.files}

    def _apply(self, supervisor: Supervisor, configuration: Configuration, said: Collection[str] = ()) -> None:
        for warning in configuration.warnings:
            if warning not in said:
                self._telemetry.warned(warning)
        if self._adapters is not None:
            self._adapters.functions = {
                str(one.arn.unqualified): (one, asynchronous_way(one, configuration.connections))
                for one in configuration.functions.values()
            }
            self._adapters.elsewhere.declare(configuration.functions.values())
        self._backing.configured(configuration)
        supervisor.apply(self._plans())


def digest(mapping: Mapping) -> str:
    """Equal for mappings that run alike: tells workers with different files apart."""
    return hashlib.blake2b(repr(mapping).encode(), digest_size=8).hexdigest()


def plans(configuration: Configuration) -> dict[str, Plan]:
    """Every mapping with its function, by UUID."""
    found = ((mapping, configuration.function_of(mapping)) for mapping in configuration.mappings)
    return {
        mapping.uuid: Plan(mapping, function, ways(mapping, function, configuration.connections))
        for mapping, function in found
    }


def load_configuration(settings: Settings, environ: Table[str, str]) -> Configuration:
    """The configuration file as it stands. Raises: ConfigurationRefused."""
    return config.load(Path(settings.config), environ, settings, SystemClock().wall())


def make_adapters(
    settings: Settings, configuration: Configuration, telemetry: Telemetry, *, serves: bool = False,
    place: Place | None = None,
) -> Adapters:  # fmt: skip
    """Sessions and host for a configuration; nothing is contacted yet. `serves`: provisioned environments are kept,
    and addresses listened at; `place`: other workers of this host do so, too.
    """
    sessions = Sessions(
        configuration.region, configuration.endpoint_url, configuration.endpoints, telemetry.aws_request,
        worker=f"esm-{settings.worker_id}",
    )  # fmt: skip
    host = make_host(settings, telemetry, serves=serves)
    elsewhere = make_elsewhere(settings, telemetry, host.metrics, serves=serves, shares_port=place is not None)
    return Adapters(sessions, host, elsewhere, telemetry, settings)


async def _let_go(supervisor: Supervisor, adapters: Adapters) -> None:
    """Close what no mapping uses any more, soon after the last one has ended that did, and listen where runtimes are
    to come. Ends by cancellation.
    """
    async with anyio.create_task_group() as closing:
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            for target in adapters.unused(supervisor.plans()):
                closing.start_soon(target.aclose)
            await adapters.elsewhere.listen()
            await adapters.keep(supervisor.plans())
