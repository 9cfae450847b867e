"""The daemon: composes everything, applies configurations, and stops gracefully."""

import hashlib
import os
import random
import signal
import uuid
from collections.abc import Collection, Sequence
from collections.abc import Mapping as Table
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
from prometheus_client import CollectorRegistry

from esm import config
from esm.api import operations
from esm.api.fleet import FleetStatus
from esm.aws.sessions import Sessions
from esm.catalogue import Catalogue
from esm.config import Configuration
from esm.crew.place import Place
from esm.destinations import make_destination
from esm.errors import ConfigurationRefused, OperatorNeeded, StoreTooNew, Unavailable
from esm.host import Host
from esm.hosting import make_host
from esm.model.arn import Arn
from esm.model.async_event import Recipient
from esm.model.connection import DAEMON, Way, Ways
from esm.model.control import Control
from esm.model.function import AsyncRules, Function, HostedFunction, LambdaFunction
from esm.model.mapping import InvocationType, Mapping, State
from esm.model.view import MappingView
from esm.ports import Destination, Store, Target
from esm.rules.sightings import Sightings
from esm.rules.stored import FORMAT
from esm.rules.ways import asynchronous_way, ways
from esm.runtime.async_events import Accepting, AsyncEvents
from esm.runtime.async_function import AsyncFunction
from esm.runtime.bounded import Bounded
from esm.runtime.fleet import Fleet, Identity
from esm.runtime.membership import Membership
from esm.runtime.observation import Observation
from esm.runtime.orders import OrderBook
from esm.runtime.queue import QueueRunner
from esm.runtime.reporting import Reporter
from esm.runtime.stream import StreamRunner
from esm.runtime.supervisor import Plan, Runner, Supervisor
from esm.runtime.surroundings import ByteBudget, Signal, Surroundings, SystemClock
from esm.settings import Settings
from esm.sources import open_queue, open_stream
from esm.state import open_bucket, open_state
from esm.stores import sqlite_path, worker_lock
from esm.stores.worker_lock import WorkerLock
from esm.targets import make_target
from esm.targets.counted import Counted
from esm.telemetry import Telemetry

_BEGINNING = {State.CREATING, State.ENABLING}

OPERATORS_EVERY_S = 1.0
"""How often the change counter in the store is looked at: pauses, rewinds and skips come from other processes."""

LOOK_EVERY_S = 0.5
"""How often the configuration file is compared with what runs: editors and ConfigMaps replace it in many ways."""


@dataclass
class Adapters:
    """Everything that reaches outside, made once and shared by the mappings."""

    sessions: Sessions
    host: Host
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

    def target(self, function: Function, way: Way = DAEMON) -> Target:
        """The one target of a function: its environments and connections are shared by its mappings."""
        if (function, way) not in self._targets:
            if isinstance(function, HostedFunction):
                made: Target = self._bounded(function, self.host.target(function))
            else:
                made = make_target(function, self.sessions.through(way), self.telemetry)
            self._targets[function, way] = Counted(made)
        return self._targets[function, way]

    def _bounded(self, function: HostedFunction, target: Target) -> Target:
        """The reserved concurrency holds over all workers; without others the host itself keeps it."""
        reserved = function.reserved_concurrency
        if not reserved or self.members is None or self.members.is_sole:
            return target
        return Bounded(self.members, f"function:{function.arn.unqualified}", reserved, target)

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
        observation.async_backlog = lambda: None
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

        Asynchronous events go to the functions of the configuration, whatever mappings there are.
        """
        used = {(plan.function, plan.ways.target) for plan in plans}
        used |= {(function, DAEMON) for function, _ in self.functions.values()}
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
        self._begun: set[str] = set()
        self._have_all_begun = False
        self._changes: int | None = None
        """The change counter that was followed last."""
        self._controls: dict[str, Control] = {}
        self._fleet: Fleet | None = None
        self._displaced: BaseException | None = None
        self._is_sole = place is None and not settings.state.startswith("dynamodb:")
        self._adapters: Adapters | None = None
        self._telemetry = Telemetry(
            CollectorRegistry(), per_shard=settings.metrics_per_shard, tag_labels=settings.tag_labels
        )

    async def run(self) -> None:
        """Run until a signal. Raises: OperatorNeeded, RequestRefused, StoreTooNew when it cannot start."""
        settings, telemetry = self._settings, self._telemetry
        async with AsyncExitStack() as stack:
            store = await open_state(
                settings, self._configuration, telemetry.aws_request, exclusive=True, warn=telemetry.warned,
                lock=self._place.lock if self._place else None,
            )  # fmt: skip
            stack.push_async_callback(store.aclose)
            self._fleet = fleet = self._member(store, stack)
            blobs = await open_bucket(settings, self._configuration, telemetry.aws_request)
            if blobs is not None:
                stack.push_async_callback(blobs.aclose)
            around = Surroundings(
                clock=SystemClock(), telemetry=telemetry, store=store,
                budget=ByteBudget(settings.buffer_bytes_max), jitter=random.random, new_id=lambda: str(uuid.uuid4()),
                worker=settings.worker_id, sqs_wait_s=settings.sqs_wait_s,
                checkpoint_interval_s=settings.checkpoint_interval_s, blobs=blobs, members=fleet,
            )  # fmt: skip
            adapters = make_adapters(settings, self._configuration, telemetry, serves=True)
            stack.push_async_callback(adapters.aclose)
            adapters.host.end_leftovers()
            adapters.members = fleet
            adapters.events = AsyncEvents(around, adapters.async_function)
            supervisor = Supervisor(
                around, lambda plan, observation: adapters.build(around, plan, observation)
            )  # fmt: skip
            telemetry.live.views = supervisor.views
            telemetry.live.async_backlogs = adapters.events.backlogs
            telemetry.live.buffered_bytes = lambda: around.budget.used_bytes
            telemetry.live.heartbeat_age_s = lambda: fleet.heartbeat_age_s
            answers = FleetStatus(
                store, around.clock, telemetry, around.worker, supervisor.views, Sightings(settings.failover_s)
            )
            app = operations.application(telemetry.exposed, answers.answer, lambda: self.is_ready(supervisor.views()))
            host, port = settings.metrics_host_port
            bound = settings.metrics_address.rpartition(":")[0]
            port = await stack.enter_async_context(operations.serving(app, host, port, self._socket))
            telemetry.started(worker=settings.worker_id, state=settings.state, metrics=f"{bound}:{port}",
                              mappings=len(self._configuration.mappings), pid=os.getpid())  # fmt: skip
            self._adapters = adapters
            catalogue = Catalogue(store)
            await self._know_controls(catalogue)
            await self._serve(supervisor, Reporter(around, supervisor), adapters, catalogue)

    def _member(self, store: Store, stack: AsyncExitStack) -> Fleet:
        """This worker among those that share the store. Raises: OperatorNeeded where its id is taken."""
        settings = self._settings
        path = sqlite_path(settings.state) if settings.state.startswith("sqlite:") else None
        run = uuid.uuid4().hex[:12]
        lock = WorkerLock(worker_lock.folder_for(settings.state, path), settings.worker_id, run)
        stack.callback(lock.release)
        identity = Identity(
            settings.worker_id, run, FORMAT, lock.lock, lock.ended, is_sole=self._is_sole,
            failover_s=settings.failover_s,
        )  # fmt: skip
        return Fleet(identity, SystemClock(), store, self._telemetry, worker_lock.is_free)

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
        return self._place is not None and not self._is_ready and number == signal.SIGTERM

    async def _serve(
        self, supervisor: Supervisor, reporter: Reporter, adapters: Adapters, catalogue: Catalogue
    ) -> None:
        events = adapters.events
        assert events is not None
        self._apply(supervisor, self._configuration)
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._run_fleet, tasks)
                tasks.start_soon(supervisor.run)
                tasks.start_soon(reporter.run)
                tasks.start_soon(events.run)
                tasks.start_soon(self._follow_file, supervisor)
                tasks.start_soon(self._follow_operators, supervisor, reporter, catalogue)
                tasks.start_soon(_let_go, supervisor, adapters)
                self._is_ready = True
                async for number in signals:
                    if self._is_echo(number):
                        continue
                    if not self._is_ready:
                        break
                    self._is_ready = False
                    name = signal.Signals(number).name
                    tasks.start_soon(self._drain, supervisor, reporter, events, tasks, name)
                tasks.cancel_scope.cancel()
        if self._displaced is not None:
            raise self._displaced

    async def _drain(
        self, supervisor: Supervisor, reporter: Reporter, events: AsyncEvents, tasks: anyio.abc.TaskGroup, reason: str
    ) -> None:
        grace_s = self._settings.shutdown_grace_s
        self._telemetry.draining(reason, grace_s)
        assert self._fleet is not None
        self._fleet.leave()
        async with anyio.create_task_group() as draining:
            draining.start_soon(events.drain, grace_s)
            is_complete = await supervisor.drain(grace_s)
        is_complete = is_complete and events.has_ended
        with anyio.move_on_after(1):
            await reporter.write(supervisor.views())
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

    async def _follow_operators(self, supervisor: Supervisor, reporter: Reporter, catalogue: Catalogue) -> None:
        """Apply what operators want within a second, and report at once: whoever asked waits for it."""
        assert self._fleet is not None
        changed = Signal()
        with self._fleet.watching(changed):
            while True:
                before = self._changes
                if (
                    self._fleet.changes != before
                    and await self._look_at_controls(catalogue)
                    and self._changes != before
                ):
                    if self._is_ready:
                        supervisor.apply(self._plans())
                    await reporter.write(supervisor.views())
                with anyio.move_on_after(OPERATORS_EVERY_S):
                    await changed.wait()

    async def _run_fleet(self, tasks: anyio.abc.TaskGroup) -> None:
        """Beat and watch; where another process has this worker's id, end."""
        assert self._fleet is not None
        try:
            await self._fleet.run()
        except* OperatorNeeded as refused:
            self._displaced = refused.exceptions[0]
            tasks.cancel_scope.cancel()

    async def _know_controls(self, catalogue: Catalogue) -> None:
        """Return once it is known what is paused: nothing may run before."""
        while True:
            if await self._look_at_controls(catalogue):
                return
            await anyio.sleep(OPERATORS_EVERY_S)

    async def _look_at_controls(self, catalogue: Catalogue) -> bool:
        """Know what operators want now; False: the store does not say, and what was known stays."""
        try:
            changes = await catalogue.changes()
            controls = await catalogue.controls() if changes != self._changes else None
        except Unavailable as error:
            self._telemetry.store_failed("controls", str(error))
            return False
        except (StoreTooNew, OperatorNeeded) as error:
            if self._changes is None:
                raise
            self._telemetry.store_failed("controls", str(error))
            return False
        self._changes = changes
        if controls is not None and self._adapters is not None:
            self._controls = {control.mapping: control for control in controls}
            self._adapters.orders.follow(controls)
        return True

    def _plans(self) -> dict[str, Plan]:
        """The mappings of the configuration, without those that operators let rest."""
        found = plans(self._configuration)
        for control in self._controls.values():
            plan = found.get(control.mapping)
            if control.pause is not None and plan is not None:
                mapping = replace(plan.mapping, enabled=False)
                found[control.mapping] = replace(plan, mapping=mapping, pause=control.pause)
        return found

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
        if self._fleet is not None:
            self._fleet.follow({mapping.uuid: digest(mapping) for mapping in configuration.mappings})
        if self._adapters is not None:
            self._adapters.functions = {
                str(one.arn.unqualified): (one, asynchronous_way(one, configuration.connections))
                for one in configuration.functions.values()
            }
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
    settings: Settings, configuration: Configuration, telemetry: Telemetry, *, serves: bool = False
) -> Adapters:
    """Sessions and host for a configuration; nothing is contacted yet. `serves`: provisioned environments are kept."""
    sessions = Sessions(
        configuration.region, configuration.endpoint_url, configuration.endpoints, telemetry.aws_request,
        worker=f"esm-{settings.worker_id}",
    )  # fmt: skip
    return Adapters(sessions, make_host(settings, telemetry, serves=serves), telemetry, settings)


async def _let_go(supervisor: Supervisor, adapters: Adapters) -> None:
    """Close what no mapping uses any more, soon after the last one has ended that did. Ends by cancellation."""
    async with anyio.create_task_group() as closing:
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            for target in adapters.unused(supervisor.plans()):
                closing.start_soon(target.aclose)
            await adapters.keep(supervisor.plans())
