"""The daemon follows its file: whatever stands in it last is what runs."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from prometheus_client import CollectorRegistry

from esm.daemon import Daemon, load_configuration, make_adapters
from esm.errors import Unavailable
from esm.model.arn import Arn
from esm.model.connection import DAEMON, Ways
from esm.model.function import UrlFunction
from esm.model.invocation import Answer, Invocation
from esm.model.mapping import InvocationType, State
from esm.model.view import MappingView
from esm.runtime.async_events import AsyncEvents
from esm.runtime.stream import StreamRunner
from esm.runtime.supervisor import Plan, Supervisor
from esm.settings import Settings, load_settings
from esm.telemetry import Telemetry
from tests.fakes.rie_server import holding, rie_server
from tests.simulation.world import World, stream_mapping

CONFIGURATION = """
region: us-east-1
account_id: "000000000000"
functions: {{audit: {{Arn: "arn:aws:lambda:us-east-1:111122223333:function:audit"}}}}
mappings:
  - FunctionName: audit
    EventSourceArn: arn:aws:sqs:us-east-1:000000000000:orders
    BatchSize: {size}
"""


class WrittenMeanwhile(Daemon):
    """A daemon whose file is written once more just after it was read."""

    def __init__(self, file: Path, settings: Settings) -> None:
        super().__init__(settings, {}, load_configuration(settings, {}))
        self._file = file
        self._is_ready = True
        self.sizes: list[int] = []

    def _take_over(self, supervisor: Supervisor) -> None:
        super()._take_over(supervisor)
        self.sizes.append(self._configuration.mappings[0].batch_size)
        self._file.write_text(CONFIGURATION.format(size=3))

    async def follow_until(self, size: int) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow_file, Supervisor(None, None))  # type: ignore[arg-type] - it is not run
            with anyio.fail_after(20):
                while size not in self.sizes:  # noqa: ASYNC110 - nothing tells
                    await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()


def test_a_file_that_is_written_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "esm.yaml"
    file.write_text(CONFIGURATION.format(size=1))
    daemon = WrittenMeanwhile(file, load_settings({"ESM_CONFIG": str(file)}, {}))
    file.write_text(CONFIGURATION.format(size=2))
    anyio.run(daemon.follow_until, 3)
    assert daemon.sizes[:2] == [2, 3]


class Refusing(Daemon):
    """A daemon that remembers what it refused and took."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, {}, load_configuration(settings, {}))
        self._is_ready = True
        self.refusals: list[list[str]] = []
        self._telemetry.configuration_refused = self.refusals.append  # type: ignore[method-assign]

    async def follow(self, play: Callable[[Callable[[Callable[[], bool]], Awaitable[None]]], Awaitable[None]]) -> None:
        async def until(condition: Callable[[], bool]) -> None:
            with anyio.fail_after(20):
                while not condition():  # noqa: ASYNC110 - nothing tells
                    await anyio.sleep(0.05)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow_file, Supervisor(None, None))  # type: ignore[arg-type] - it is not run
            await play(until)
            tasks.cancel_scope.cancel()

    @property
    def size(self) -> int:
        return self._configuration.mappings[0].batch_size


def test_mending_a_file_that_only_a_refused_configuration_names_applies_it(tmp_path: Path) -> None:
    file, size = tmp_path / "esm.yaml", tmp_path / "size"
    file.write_text(CONFIGURATION.format(size=1))
    daemon = Refusing(load_settings({"ESM_CONFIG": str(file)}, {}))

    async def play(until: Callable[[Callable[[], bool]], Awaitable[None]]) -> None:
        file.write_text(CONFIGURATION.format(size="${file:size}"))
        await until(lambda: len(daemon.refusals) == 1)
        size.write_text("many")
        await until(lambda: len(daemon.refusals) == 2)
        file.write_text(CONFIGURATION.format(size="${file:size}") + "\n")
        await until(lambda: len(daemon.refusals) == 3)
        size.write_text("4")
        await until(lambda: daemon.size == 4)
        size.write_text("5")
        await until(lambda: daemon.size == 5)

    anyio.run(daemon.follow, play)
    (missing,), (wrong,), (again,) = daemon.refusals
    assert "the file 'size' cannot be read" in missing
    assert "it must be a whole number" in wrong
    assert again == wrong


def test_the_daemon_is_ready_once_every_mapping_was_enabled_or_showed_a_problem_and_stays_so(tmp_path: Path) -> None:
    file = tmp_path / "esm.yaml"
    second = "  - {FunctionName: audit, EventSourceArn: arn:aws:sqs:us-east-1:000000000000:bills}"
    file.write_text(f"{CONFIGURATION.format(size=1)}{second}\n")
    settings = load_settings({"ESM_CONFIG": str(file)}, {})
    daemon = Daemon(settings, {}, configuration := load_configuration(settings, {}))
    daemon._is_ready = True  # as `_serve` says
    one, other = (mapping.uuid for mapping in configuration.mappings)

    def view(uuid: str, state: State, *, has_problem: bool = False) -> MappingView:
        return MappingView(uuid, "f", "s", state, "OK", has_problem=has_problem, in_flight=0, backlog=None, shards=())

    assert not daemon.is_ready([])
    assert not daemon.is_ready([view(one, State.ENABLED), view(other, State.CREATING)])
    assert daemon.is_ready([view(one, State.UPDATING), view(other, State.CREATING, has_problem=True)])
    assert daemon.is_ready([view(one, State.CREATING), view(other, State.CREATING)])
    daemon._is_ready = False  # it drains
    assert not daemon.is_ready([view(one, State.ENABLED), view(other, State.ENABLED)])


async def test_a_mapping_of_type_event_runs_while_its_function_is_out_of_reach(tmp_path: Path) -> None:
    file = tmp_path / "esm.yaml"
    file.write_text(CONFIGURATION.format(size=1))
    settings = load_settings({"ESM_CONFIG": str(file)}, {})
    world = World(1, faults=False)
    around = world.around()
    adapters = make_adapters(settings, load_configuration(settings, {}), around.telemetry)
    adapters.events = AsyncEvents(around, adapters.async_function)
    arn = Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:f")
    function = UrlFunction("f", arn, "role", url="http://no-such-host.invalid", protocol="http", timeout_s=30)
    mapping = stream_mapping(invocation_type=InvocationType.EVENT)
    plan = Plan(mapping, function, Ways())
    runner = await adapters.build(around, plan, world.observation(mapping, around))
    assert isinstance(runner, StreamRunner)
    with pytest.raises(Unavailable):
        await adapters.build(around, replace(plan, mapping=stream_mapping()), world.observation(mapping, around))
    await adapters.aclose()


async def test_a_function_that_was_replaced_is_closed_once_nothing_runs_on_it(tmp_path: Path) -> None:
    file = tmp_path / "esm.yaml"
    file.write_text(CONFIGURATION.format(size=1))
    settings = load_settings({"ESM_CONFIG": str(file)}, {})
    adapters = make_adapters(settings, load_configuration(settings, {}), Telemetry(CollectorRegistry()))
    arn = Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:f")
    go_on = asyncio.Event()
    async with rie_server(holding(go_on)) as server:
        function = UrlFunction("f", arn, "role", url=server.url, protocol="http", timeout_s=30)
        target = adapters.target(function)
        async with anyio.create_task_group() as tasks:
            told: list[object] = []

            async def invoke() -> None:
                told.append(await target.invoke(Invocation("r", arn, b"{}")))

            tasks.start_soon(invoke)
            while not server.calls:  # noqa: ASYNC110 - nothing tells
                await anyio.sleep(0.01)
            assert adapters.unused([]) == []
            go_on.set()
        assert isinstance(told[0], Answer)
        adapters.functions = {str(arn): (function, DAEMON)}
        assert adapters.unused([]) == []
        adapters.functions = {}
        assert adapters.unused([]) == [target]
        await target.aclose()
        assert adapters.target(function) is not target
    await adapters.aclose()
