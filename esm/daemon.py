"""The daemon: composes everything, applies configurations, and stops gracefully."""

import os
import random
import signal
import uuid
from collections.abc import Mapping as Table
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import anyio
from prometheus_client import CollectorRegistry

from esm import config
from esm.api import operations
from esm.aws.sessions import Sessions
from esm.config import Configuration
from esm.destinations import make_destination
from esm.errors import ConfigurationRefused
from esm.host import Host
from esm.model.function import Function, HostedFunction
from esm.model.mapping import Mapping
from esm.ports import Destination, Target
from esm.runtime.observation import Observation
from esm.runtime.queue import QueueRunner
from esm.runtime.reporting import Reporter
from esm.runtime.stream import StreamRunner
from esm.runtime.supervisor import Plan, Runner, Supervisor
from esm.runtime.surroundings import ByteBudget, Surroundings, SystemClock
from esm.settings import Settings, state_folder
from esm.sources import open_queue, open_stream
from esm.stores import open_store
from esm.targets import make_target
from esm.telemetry import Telemetry

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
        self._targets: dict[Function, Target] = {}

    def target(self, function: Function) -> Target:
        """The one target of a function: its environments and connections are shared by its mappings."""
        if function not in self._targets:
            if isinstance(function, HostedFunction):
                self._targets[function] = self.host.target(function)
            else:
                self._targets[function] = make_target(function, self.sessions, self.telemetry)
        return self._targets[function]

    async def build(self, around: Surroundings, plan: Plan, observation: Observation) -> Runner:
        """What runs a mapping. Raises: OperatorNeeded, Unavailable (the function's role is asked for)."""
        mapping, target = plan.mapping, self.target(plan.function)
        if not mapping.source_kind.is_stream:
            source = open_queue(mapping, self.sessions)
            allows_loops = plan.function.allows_loops
            return QueueRunner(around, mapping, source, target, observation, allows_loops=allows_loops)
        role = (await target.facts()).role
        stream = open_stream(
            mapping,
            role,
            self.sessions,
            kinesis_reads_per_s=(self.settings.kinesis_reads_per_s, self.settings.kinesis_idle_reads_per_s),
            dynamodb_reads_per_s=(self.settings.dynamodb_reads_per_s, self.settings.dynamodb_idle_reads_per_s),
        )
        return StreamRunner(around, mapping, stream, target, self.destination(mapping), observation)

    def destination(self, mapping: Mapping) -> Destination | None:
        """Where a mapping's notices go."""
        return None if mapping.on_failure is None else make_destination(mapping.on_failure, self.sessions)

    async def aclose(self) -> None:
        """End environments and connections."""
        for target in self._targets.values():
            await target.aclose()
        await self.host.aclose()
        await self.sessions.aclose()


class Daemon:
    """One running worker."""

    def __init__(self, settings: Settings, environ: Table[str, str], configuration: Configuration) -> None:
        self._settings = settings
        self._environ = environ
        self._configuration = configuration
        self._is_ready = False
        self._telemetry = Telemetry(CollectorRegistry(), per_shard=settings.metrics_per_shard)

    async def run(self) -> None:
        """Run until a signal. Raises: OperatorNeeded, RequestRefused, StoreTooNew when it cannot start."""
        settings, telemetry = self._settings, self._telemetry
        async with AsyncExitStack() as stack:
            store = await open_store(settings.state, exclusive=True)
            stack.push_async_callback(store.aclose)
            around = Surroundings(
                clock=SystemClock(), telemetry=telemetry, store=store,
                budget=ByteBudget(settings.buffer_bytes_max), jitter=random.random, new_id=_new_id,
                worker=settings.worker_id, sqs_wait_s=settings.sqs_wait_s,
                checkpoint_interval_s=settings.checkpoint_interval_s,
            )  # fmt: skip
            adapters = make_adapters(settings, self._configuration, telemetry)
            stack.push_async_callback(adapters.aclose)
            adapters.host.end_leftovers()
            supervisor = Supervisor(
                around, lambda plan, observation: adapters.build(around, plan, observation)
            )  # fmt: skip
            telemetry.live.views = supervisor.views
            telemetry.live.buffered_bytes = lambda: around.budget.used_bytes
            app = operations.application(telemetry.registry, supervisor.views, lambda: self._is_ready)
            host, port = settings.metrics_host_port
            port = await stack.enter_async_context(operations.serving(app, host, port))
            telemetry.started(worker=settings.worker_id, state=settings.state, metrics=f"{host}:{port}",
                              mappings=len(self._configuration.mappings), pid=os.getpid())  # fmt: skip
            await self._serve(supervisor, Reporter(around, supervisor))

    async def _serve(self, supervisor: Supervisor, reporter: Reporter) -> None:
        self._apply(supervisor, self._configuration)
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(supervisor.run)
                tasks.start_soon(reporter.run)
                tasks.start_soon(self._follow_file, supervisor)
                self._is_ready = True
                async for number in signals:
                    if not self._is_ready:
                        break
                    self._is_ready = False
                    tasks.start_soon(self._drain, supervisor, reporter, tasks, signal.Signals(number).name)
                tasks.cancel_scope.cancel()

    async def _drain(self, supervisor: Supervisor, reporter: Reporter, tasks: anyio.abc.TaskGroup, reason: str) -> None:
        self._telemetry.draining(reason, self._settings.shutdown_grace_s)
        is_complete = await supervisor.drain(self._settings.shutdown_grace_s)
        with anyio.move_on_after(1):
            await reporter.write(supervisor.views())
        self._telemetry.stopped(complete=is_complete)
        tasks.cancel_scope.cancel()

    async def _follow_file(self, supervisor: Supervisor) -> None:
        """Apply changes of the file within a second; a wrong file is refused and the old one goes on."""
        seen = config.digest(self._configuration.files)
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            if not self._is_ready:
                continue
            found = config.digest(self._configuration.files)
            if found == seen:
                continue
            seen = found
            self._take_over(supervisor)
            seen = config.digest(self._configuration.files)

    def _take_over(self, supervisor: Supervisor) -> None:
        try:
            changed = load_configuration(self._settings, self._environ)
            config.check_successor(self._configuration, changed)
        except ConfigurationRefused as refused:
            self._telemetry.configuration_refused([str(problem) for problem in refused.problems])
            return
        self._configuration = changed
        self._apply(supervisor, changed)
        self._telemetry.configuration_applied(mappings=len(changed.mappings), functions=len(changed.functions))

    def _apply(self, supervisor: Supervisor, configuration: Configuration) -> None:
        for warning in configuration.warnings:
            self._telemetry.warned(warning)
        supervisor.apply(plans(configuration))


def plans(configuration: Configuration) -> dict[str, Plan]:
    """Every mapping with its function, by UUID."""
    return {
        mapping.uuid: Plan(mapping, configuration.function_of(mapping)) for mapping in configuration.mappings
    }  # fmt: skip


def load_configuration(settings: Settings, environ: Table[str, str]) -> Configuration:
    """The configuration file as it stands. Raises: ConfigurationRefused."""
    return config.load(Path(settings.config), environ, settings, SystemClock().wall())


def make_adapters(settings: Settings, configuration: Configuration, telemetry: Telemetry) -> Adapters:
    """Sessions and host for a configuration; nothing is contacted yet."""
    sessions = Sessions(
        configuration.region, configuration.endpoint_url, configuration.endpoints, telemetry.aws_request
    )
    host = Host(
        directory=state_folder(settings), concurrency_default=settings.host_concurrency, telemetry=telemetry,
        idle_s=settings.host_idle_s,
        function_environment=settings.function_environment,
    )  # fmt: skip
    return Adapters(sessions, host, telemetry, settings)


def _new_id() -> str:
    return str(uuid.uuid4())
