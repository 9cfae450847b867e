"""Hosted functions as an operator declares them: zips, layers, sandboxes and folders, from the file to the function."""

import json
import subprocess
import sys
import zipfile

import pytest

from esm.host.isolation import find_isolation
from tests.end_to_end.world import HANDLER, Queue, World, wait_for
from tests.host.conftest import PATH


def zipped(world: World, name: str, files: dict[str, str]) -> str:
    with zipfile.ZipFile(world.folder / name, "w") as archive:
        for place, text in files.items():
            archive.writestr(place, text)
    return f"./{name}"


@pytest.mark.parametrize("isolation", ["none", "bubblewrap"])
def test_a_zip_with_a_layer_takes_messages_and_its_log_is_shown(world: World, ministack: str, isolation: str) -> None:
    found = find_isolation("auto", PATH)
    found.cgroups.close()
    if isolation == "bubblewrap" and not found.is_sandboxed:
        pytest.skip(f"no sandbox here: {found.why_not}")
    ledgers = world.folder / "ledgers"
    ledgers.mkdir()
    world.ledger_path = ledgers / "ledger"
    more = {"LEDGER": str(world.ledger_path)}
    if isolation == "bubblewrap":
        folder = {"Path": "ledgers", "LocalMountPath": "/mnt/ledgers"}
        more = {"LEDGER": "/mnt/ledgers/ledger", "FileSystemConfigs": [folder], "Network": "none"}
    function = world.function(
        CodeUri=zipped(world, "code.zip", {"app.py": f"import shared\nprint(shared.TEXT)\n{HANDLER}"}),
        Layers=[zipped(world, "layer.zip", {"python/shared.py": "TEXT = 'of a layer'"})],
        ProvisionedConcurrencyConfig={"ProvisionedConcurrentExecutions": 1}, **more,
    )  # fmt: skip
    queue = Queue(ministack, f"hosted-{isolation}", visibility_s=30)
    queue.send("a", "b")
    mapping = {"FunctionName": "orders", "EventSourceArn": queue.arn}
    world.configure(endpoint_url=ministack, functions={"orders": function}, mappings=[mapping])
    world.start(ESM_HOST_ISOLATION=isolation, PATH=PATH)
    wait_for(lambda: sorted(set(world.taken())) == ["a", "b"], "both messages taken")
    assert "isolation found" in world.log()
    assert world.metric("esm_function_invocations_total", function="orders") >= 1
    wait_for(lambda: world.metric("esm_function_provisioned_ready", function="orders") == 1, "one is kept ready")
    command = [sys.executable, "-m", "esm", "logs", "orders", "--json"]
    shown = subprocess.run(command, env=world.settings, capture_output=True, text=True, timeout=60, check=True).stdout
    assert {"start", "function", "end", "report"} <= {json.loads(line)["type"] for line in shown.splitlines()}
    assert "of a layer" in shown
    assert world.stop() == 0
