"""The daemon follows its file: whatever stands in it last is what runs."""

from dataclasses import replace
from pathlib import Path

import anyio

from esm.daemon import Daemon, load_configuration
from esm.model.mapping import State
from esm.model.view import MappingView
from esm.runtime.supervisor import Supervisor
from esm.settings import Settings, load_settings

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


def test_the_daemon_is_ready_once_every_mapping_has_begun_and_stays_so(tmp_path: Path) -> None:
    file = tmp_path / "esm.yaml"
    file.write_text(CONFIGURATION.format(size=1))
    settings = load_settings({"ESM_CONFIG": str(file)}, {})
    daemon = WrittenMeanwhile(file, settings)
    uuid = load_configuration(settings, {}).mappings[0].uuid
    creating = MappingView(uuid, "f", "s", State.CREATING, "No records processed", False, 0, None, ())
    later = replace(creating, uuid="later")

    assert not daemon._answers([])
    assert not daemon._answers([creating])
    assert daemon._answers([replace(creating, has_problem=True)])
    assert daemon._answers([creating, later])
    daemon._is_ready = False
    assert not daemon._answers([replace(creating, state=State.ENABLED)])
