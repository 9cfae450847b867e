"""Logs of hosted functions: Lambda's lines around their own, in files that stay small, and the metrics beside them."""

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from esm import cli
from esm.host import Host, logs
from esm.host.logs import FILES, FunctionLogs
from esm.host.metrics import HostMetrics
from esm.model.invocation import Answer, Throttled
from tests.host.conftest import Here, error, invocation, until, value

SPEAKS = """
import os, time
print("loading")
def handler(event, context):
    print("ran", event)
    if event == "fail": raise KeyError("x")
    if event == "exit": os._exit(3)
    if event == "slow": time.sleep(60)
    return 1
"""


def records(folder: Path) -> list[dict[str, Any]]:
    return list(logs.records(folder / "logged" / "logs", "orders"))


async def test_start_end_and_report_stand_around_what_a_function_writes(here: Here):
    host = Host(directory=here.folder / "logged", concurrency_default=1, telemetry=here.heard, idle_s=60,
                log_bytes_max=10**6)  # fmt: skip
    try:
        target = host.target(here.function(SPEAKS, timeout_s=1, memory_mb=256, version="7"))
        asked = invocation(b'"well"')
        ending = await target.invoke(asked)
        assert isinstance(ending, Answer)
        assert ending.executed_version == "7"
        found = records(here.folder)
        assert [record["type"] for record in found] == ["function", "start", "function", "end", "report"]
        assert found[0]["line"] == "loading"
        assert "requestId" not in found[0]
        assert {record["requestId"] for record in found[1:]} == {asked.request_id}
        assert found[1]["line"] == f"START RequestId: {asked.request_id} Version: 7"
        assert found[3]["line"] == f"END RequestId: {asked.request_id}"
        assert re.fullmatch(
            rf"REPORT RequestId: {asked.request_id}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\t"
            r"Memory Size: 256 MB\tMax Memory Used: \d+ MB\tInit Duration: \d+\.\d\d ms",
            found[4]["line"],
        )
        assert found[4]["status"] == "success"
        assert ending.log_tail.decode().splitlines() == [record["line"] for record in found[1:]]
        for event, status, kind in (
            (b'"fail"', "error", "Function.Unknown"), (b'"exit"', "error", "Runtime.ExitError"),
            (b'"slow"', "timeout", None),
        ):  # fmt: skip
            error(await target.invoke(invocation(event)))
            last = records(here.folder)[-1]
            assert (last["type"], last["status"], last.get("errorType")) == ("report", status, kind)
            assert f"\tStatus: {status}" in last["line"]
    finally:
        await host.aclose()


async def test_a_failed_initialisation_is_reported(here: Here):
    host = Host(directory=here.folder / "logged", concurrency_default=1, telemetry=here.heard, idle_s=60,
                log_bytes_max=10**6)  # fmt: skip
    try:
        error(await host.target(here.function("import sys\nsys.exit(3)")).invoke(invocation()))
        last = records(here.folder)[-1]
        assert (last["type"], last["status"]) == ("init", "error")
        assert re.fullmatch(r"INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: init\tStatus: error", last["line"])
    finally:
        await host.aclose()


async def test_the_tail_of_a_long_log_is_its_last_4_kb(here: Here):
    target = here.target("def handler(event, context):\n    for n in range(9999): print('line', n)\n    return 1")
    ending = await target.invoke(invocation())
    assert isinstance(ending, Answer)
    assert len(ending.log_tail) == 4096
    assert b"REPORT RequestId" in ending.log_tail
    assert b"line 9998" in ending.log_tail


def test_files_stay_within_their_share_and_the_oldest_goes(tmp_path):
    writer = FunctionLogs(tmp_path, 5_000, pytest.fail)
    for number in range(500):
        writer.write("orders", {"number": number, "line": "x" * 50})
    writer.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == FILES
    assert all(file.stat().st_size <= 1_000 for file in files)
    kept = [record["number"] for record in logs.records(tmp_path, "orders")]
    assert kept == list(range(kept[0], 500))
    assert len(kept) > 40
    assert logs.functions(tmp_path) == ["orders"]
    again = FunctionLogs(tmp_path, 5_000, pytest.fail)
    again.write("orders", {"number": 500})
    again.close()
    assert [record["number"] for record in logs.records(tmp_path, "orders")][-2:] == [499, 500]


def test_two_daemons_write_one_log_and_lose_nothing_that_is_kept(tmp_path):
    writers = [FunctionLogs(tmp_path, 50_000, pytest.fail) for _ in range(2)]
    for number in range(400):
        writers[number % 2].write("orders", {"number": number, "line": "x" * 50})
    for writer in writers:
        writer.close()
    assert all(file.stat().st_size <= 10_000 for file in tmp_path.iterdir())
    assert [record["number"] for record in logs.records(tmp_path, "orders")] == list(range(400))


def test_what_cannot_be_written_is_said_once(tmp_path):
    (tmp_path / "logs").write_text("a file")
    said: list[str] = []
    writer = FunctionLogs(tmp_path / "logs", 5_000, said.append)
    for _ in range(3):
        writer.write("orders", {"line": "x"})
    assert len(said) == 1
    assert "cannot be written" in said[0]


def test_following_goes_on_over_a_rotation(tmp_path):
    writer = FunctionLogs(tmp_path, 5_000, pytest.fail)
    writer.write("orders", {"number": -1})
    batches = iter([range(3), range(3, 11), range(11, 12)])

    def wait() -> None:
        for number in next(batches):
            writer.write("orders", {"number": number, "line": "x" * 100})

    following = logs.followed(tmp_path, "orders", wait)
    seen = [next(following)["number"] for _ in range(12)]
    following.close()
    assert seen == list(range(12))
    assert len(list(tmp_path.iterdir())) > 1
    late = logs.followed(tmp_path, "other", lambda: writer.write("other", {"number": 1}))
    assert next(late)["number"] == 1
    late.close()
    writer.close()


def test_a_log_is_shown_for_people_and_for_machines(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ESM_HOST_DIRECTORY", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        cli.main(["logs", "orders"])
    assert ended.value.code == 1
    assert "there is none" in capsys.readouterr().err
    writer = FunctionLogs(tmp_path / "logs", 5_000, pytest.fail)
    writer.write("orders", {"time": "T", "type": "function", "requestId": "12345678-9", "line": "hello"})
    writer.close()
    for arguments, said in (
        (["logs", "orders"], "T 12345678 hello\n"),
        (["logs", "orders", "--json"], '"line": "hello"'),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
        assert said in capsys.readouterr().out


async def test_metrics_say_what_functions_do(here: Here):
    registry = CollectorRegistry()
    host = Host(directory=here.folder / "measured", concurrency_default=2, telemetry=here.heard, idle_s=60,
                metrics=HostMetrics(registry))  # fmt: skip
    try:
        target = host.target(here.function(SPEAKS, provisioned_concurrency=1, reserved_concurrency=2))
        blocked = host.target(here.function(SPEAKS, reserved_concurrency=0, version="2"))
        await target.facts()
        assert value(await target.invoke(invocation())) == 1
        error(await target.invoke(invocation(b'"fail"')))
        assert isinstance(await blocked.invoke(invocation()), Throttled)
        names = {"function": "orders", "version": "$LATEST"}

        def sample(name: str, **more: str) -> float | None:
            return registry.get_sample_value(name, {**names, **more})

        assert sample("esm_function_invocations_total") == 2
        assert sample("esm_function_errors_total") == 1
        assert sample("esm_function_throttles_total", version="2") == 1
        assert sample("esm_function_duration_seconds_count") == 2
        assert sample("esm_function_init_duration_seconds_count") in {1, 2}
        assert sample("esm_function_concurrent_executions") == 0
        await until(lambda: sample("esm_function_provisioned_ready") == 1)
        used = sample("esm_function_provisioned_invocations_total") or 0
        spilled = sample("esm_function_provisioned_spillover_invocations_total") or 0
        assert used + spilled == 2
        assert sample("esm_function_environments", phase="free") in {1, 2}
        walls = {"aspect": "cpu", "enforcement": "not enforced"}
        assert registry.get_sample_value("esm_host_isolation", walls) == 1
    finally:
        await host.aclose()
