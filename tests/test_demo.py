"""The demo: its account of records, its writers and arrivals on the emulator, its children, and the whole of it."""

import base64
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
import yaml
from rich.console import Console

from esm.demo.arrivals import Arrivals
from esm.demo.children import Child
from esm.demo.course import configuration
from esm.demo.ledger import Ledger
from esm.demo.screen import Seen, lines, summary, whole
from esm.demo.watching import Watcher
from esm.demo.world import connected, make_world
from esm.demo.writers import WRITERS, Record
from tests.servers import ROOT, moto

SOURCES = ("orders", "clicks", "audit")


def records(count: int, source: str = "orders") -> list[Record]:
    return [Record(number, f"{source}-{number}", is_poison=False) for number in range(count)]


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger(tmp_path, SOURCES)


def test_a_record_is_missing_until_it_is_taken_or_given_up(ledger, tmp_path):
    ledger.accounts["orders"].written.update({"a", "b", "c"})
    (tmp_path / "orders-1.log").write_text("a\n")
    ledger.accounts["orders"].given_up.add("b")

    ledger.read()

    assert ledger.accounts["orders"].missing == {"c"}
    assert ledger.missing == 1


def test_a_line_that_a_handler_is_still_writing_waits(ledger, tmp_path):
    path = tmp_path / "clicks-7.log"
    path.write_text("a\nb")
    ledger.read()
    seen_first = dict(ledger.accounts["clicks"].taken)

    path.write_text("a\nbc\n")
    ledger.read()

    assert seen_first == {"a": 1}
    assert ledger.accounts["clicks"].taken == {"a": 1, "bc": 1}


def test_records_taken_again_by_another_process_are_counted(ledger, tmp_path):
    ledger.accounts["audit"].written.update({"a", "b"})
    (tmp_path / "audit-1.log").write_text("a\nb\n")
    (tmp_path / "audit-2.log").write_text("b\n")

    ledger.read()

    assert ledger.accounts["audit"].taken_again == 1
    assert ledger.missing == 0


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def invoke(name: str, event: dict, ledger: Path) -> object:
    handler = runpy.run_path(str(ROOT / "config" / "demo" / name / "app.py"))["handler"]
    with environment(LEDGER_DIR=str(ledger)):
        return handler(event, None)


def noted(folder: Path) -> list[str]:
    return [line for path in folder.iterdir() for line in path.read_text().splitlines()]


def test_the_orders_handler_names_poison_and_takes_the_rest(tmp_path):
    bodies = {"m1": '{"id": "a", "poison": false}', "m2": '{"id": "b", "poison": true}', "m3": "by hand"}
    event = {"Records": [{"messageId": key, "body": body} for key, body in bodies.items()]}

    answer = invoke("orders", event, tmp_path)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m2"}, {"itemIdentifier": "m3"}]}
    assert noted(tmp_path) == ["a"]


def test_the_clicks_handler_takes_all_of_a_batch_or_none(tmp_path):
    def click(one: str, *, poison: bool) -> dict:
        return {"kinesis": {"data": base64.b64encode(json.dumps({"id": one, "poison": poison}).encode()).decode()}}

    with pytest.raises(ValueError, match="poison"):
        invoke("clicks", {"Records": [click("a", poison=False), click("b", poison=True)]}, tmp_path)
    assert noted(tmp_path) == []

    invoke("clicks", {"Records": [click("a", poison=False)]}, tmp_path)
    assert noted(tmp_path) == ["a"]


def test_the_audit_handler_takes_all_of_a_batch_or_none(tmp_path):
    def change(one: str, *, poison: bool) -> dict:
        return {"eventName": "INSERT", "dynamodb": {"NewImage": {"id": {"S": one}, "poison": {"BOOL": poison}}}}

    with pytest.raises(ValueError, match="poison"):
        invoke("audit", {"Records": [change("a", poison=False), change("b", poison=True)]}, tmp_path)
    assert noted(tmp_path) == []

    invoke("audit", {"Records": [change("a", poison=False), {"eventName": "REMOVE"}]}, tmp_path)
    assert noted(tmp_path) == ["a"]


@pytest.fixture
async def world():
    with moto() as endpoint:
        async with connected(endpoint) as clients:
            yield await make_world(endpoint, clients)


async def test_the_writers_write_and_a_notice_is_traced_back_to_its_records(world, ledger):
    for name, write in WRITERS.items():
        ledger.accounts[name].written.update(await write(world, records(4, name)))
    arrivals = Arrivals(world, ledger)
    await send_notices(world)
    dead = {"id": "orders-1", "poison": True}
    await world.clients.sqs.send_message(QueueUrl=world.dead_url, MessageBody=json.dumps(dead))

    await arrivals.take(world.failed_url)
    await arrivals.take(world.dead_url)

    assert {name: account.written for name, account in ledger.accounts.items()} == {
        name: {f"{name}-{number}" for number in range(4)} for name in SOURCES
    }
    assert ledger.accounts["audit"].given_up == {"audit-1", "audit-2"}
    assert len(ledger.accounts["clicks"].given_up) == 1
    assert ledger.accounts["orders"].given_up == {"orders-1"}
    assert arrivals.messages == {"demo-failed": 2, "demo-orders-dead": 1}


async def send_notices(world) -> None:
    """A notice of the second and third change, and one of the first click of a shard."""
    stream = (await world.clients.streams.describe_stream(StreamArn=world.audit_arn))["StreamDescription"]
    shard = stream["Shards"][0]["ShardId"]
    changes = await read_all(world.clients.streams, shard, StreamArn=world.audit_arn)
    numbers = [change["dynamodb"]["SequenceNumber"] for change in changes]
    await send_notice(world, "DDBStreamBatchInfo", world.audit_arn, shard, numbers[1:3])
    for number in range(2):
        shard = f"shardId-{number:012d}"
        clicks = await read_all(world.clients.kinesis, shard, StreamName="demo-clicks")
        if clicks:
            await send_notice(world, "KinesisBatchInfo", world.clicks_arn, shard, [clicks[0]["SequenceNumber"]])
            return


async def read_all(client, shard: str, **stream: str) -> list[dict]:
    iterator = await client.get_shard_iterator(ShardId=shard, ShardIteratorType="TRIM_HORIZON", **stream)
    return (await client.get_records(ShardIterator=iterator["ShardIterator"]))["Records"]


async def send_notice(world, name: str, arn: str, shard: str, sequences: list[str]) -> None:
    span = {"shardId": shard, "startSequenceNumber": sequences[0], "endSequenceNumber": sequences[-1]}
    notice = {
        "requestContext": {"condition": "RetryAttemptsExhausted"},
        name: {**span, "batchSize": len(sequences), "streamArn": arn},
    }
    await world.clients.sqs.send_message(QueueUrl=world.failed_url, MessageBody=json.dumps(notice))


def shown(ledger: Ledger) -> Seen:
    watcher = Watcher("127.0.0.1:1", {f"arn-{name}": name for name in SOURCES})
    watched = watcher.mappings["orders"]
    watched.now["polled"], watched.lag_s, watched.last_result = 7, 1.25, "OK"
    watcher.daemon_ended()
    watched.now["polled"], watched.state = 4, "Enabled"
    return Seen(ledger, Arrivals(None, ledger), watcher)


def test_counts_go_on_over_the_lives_of_the_daemon(ledger):
    ledger.accounts["orders"].written.update({"a", "b"})

    first = lines(shown(ledger))[0]

    assert first == "orders: written 2, in 11, invoked 0, failed 0, taken 0, given up 0, lag -, Enabled: OK"


def test_the_table_and_the_summary_name_every_source_and_destination(ledger):
    ledger.accounts["clicks"].written.update({"a", "b"})
    seen = shown(ledger)
    console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115

    console.print(whole(seen))
    console.file.close()

    table = console.export_text()
    assert all(name in table for name in (*SOURCES, "demo-orders-dead", "demo-failed"))
    assert summary(seen)[1] == "clicks: 2 written, 0 taken (0 more than once), 0 given up, 2 missing: a, b"


async def test_a_daemon_that_does_not_answer_is_shown_as_not_running():
    watcher = Watcher("127.0.0.1:1", {"arn": "orders"})

    await watcher.look()

    assert watcher.mappings["orders"].state == "not running"
    assert not await watcher.is_ready()


async def test_a_child_is_stopped_with_sigterm_and_killed_when_it_does_not_heed_it(tmp_path):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    child = Child("deaf", [sys.executable, "-c", deaf], {}, tmp_path / "log")
    child.start()
    await until(lambda: "up" in child.last_words())

    status = await child.stop(grace_s=0.2)

    assert status == -signal.SIGKILL
    assert child.status() is None


def test_a_child_ends_with_its_parent_however_that_ends(tmp_path):
    start = (
        "import sys; from pathlib import Path; from esm.demo.children import Child\n"
        "child = Child('sleeper', [sys.executable, '-c', 'import time; time.sleep(60)'], {}, Path(sys.argv[1]))\n"
        "child.start(); print(child.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", start, str(tmp_path / "log")],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    child = int(parent.stdout.readline())

    parent.kill()
    parent.communicate()

    anyio.run(until, lambda: not is_running(child))


async def until(condition) -> None:
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - what another process does sets no event
            await anyio.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_the_configuration_names_a_handler_for_each_of_its_functions():
    path = configuration()

    functions = yaml.safe_load(path.read_text())["functions"]

    assert set(functions) == set(SOURCES)
    assert all((path.parent / function["CodeUri"] / "app.py").is_file() for function in functions.values())


@pytest.mark.timeout(180)
def test_the_whole_demo_loses_nothing_though_the_daemon_is_killed_halfway():
    answer = subprocess.run(
        [sys.executable, "-m", "esm", "demo", "--seconds", "8"],
        cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "the daemon was killed with SIGKILL" in answer.stdout
    assert "the daemon has ended with status 0" in answer.stdout
    assert answer.stdout.endswith("Every record was taken, or given up to its destination.\n")
    assert answer.stderr == ""
