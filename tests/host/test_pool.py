"""How the environments of a function are shared: slots, warm reuse, cancellation, idling, and what is missing."""

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from esm.errors import OperatorNeeded
from esm.host import Host
from esm.model.function import FunctionFacts
from esm.model.invocation import Answer, Misconfigured, Throttled
from tests.host.conftest import Here, invocation, is_alive, now, until, value

SLEEPS = """
import os, time
def handler(event, context):
    print("began", os.getpid())
    time.sleep(event)
    return os.getpid()
"""


async def test_one_caller_uses_one_environment_again_and_again(here: Here):
    target = here.target(SLEEPS)
    assert len({value(await target.invoke(invocation(b"0"))) for _ in range(20)}) == 1


async def test_no_more_environments_run_than_the_concurrency(here: Here):
    target = here.target(
        """
        import os, time
        def handler(event, context):
            began = time.monotonic()
            time.sleep(0.05)
            return os.getpid(), began, time.monotonic()
        """,
        reserved_concurrency=3,
    )
    assert target.concurrency == 3
    runs = [value(ending) for ending in await asyncio.gather(*(target.invoke(invocation()) for _ in range(20)))]
    assert len({pid for pid, _, _ in runs}) == 3
    for _, began, _ in runs:
        assert sum(other_began <= began < ended for _, other_began, ended in runs) <= 3


async def test_the_default_concurrency_is_the_hosts(here: Here):
    assert here.target(SLEEPS).concurrency == 2


async def test_a_blocked_function_is_throttled_and_never_free(here: Here):
    target = here.target(SLEEPS, reserved_concurrency=0)
    assert isinstance(await target.invoke(invocation()), Throttled)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(target.wait_free(), 0.05)


async def test_without_a_free_slot_until_start_by_the_invocation_is_throttled(here: Here):
    target = here.target(SLEEPS, reserved_concurrency=1)
    busy = asyncio.ensure_future(target.invoke(invocation(b"1")))
    await until(lambda: bool(here.heard.lines))
    late = invocation(b"0", start_by=now() + 0.1)
    assert await target.invoke(late) == Throttled(late.request_id)
    assert not busy.done()
    past = invocation(b"0", start_by=now() - 1)
    assert await target.invoke(past) == Throttled(past.request_id)
    in_time = asyncio.ensure_future(target.invoke(invocation(b"0", start_by=now() + 10)))
    assert value(await in_time) == value(await busy)


async def test_an_environment_that_is_ready_too_late_serves_the_next_invocation(here: Here):
    target = here.target("import os, time\ntime.sleep(0.5)\ndef handler(event, context):\n    return os.getpid()",
                         reserved_concurrency=1)  # fmt: skip
    assert isinstance(await target.invoke(invocation(start_by=now() + 0.2)), Throttled)
    pid = value(await target.invoke(invocation()))
    assert value(await target.invoke(invocation())) == pid
    assert here.heard.ended == []


async def test_wait_free_returns_when_a_slot_comes_back(here: Here):
    target = here.target(SLEEPS, reserved_concurrency=1)
    await target.wait_free()
    busy = asyncio.ensure_future(target.invoke(invocation(b"0.3")))
    await until(lambda: bool(here.heard.lines))
    await target.wait_free()
    assert busy.done()


@pytest.mark.parametrize("moment", ["loading", "running"])
async def test_a_cancelled_invocation_is_killed_and_its_slot_comes_back(here: Here, moment: str):
    code = """
        import os, time
        if not os.path.exists("cancelled"):
            open("cancelled", "w").close()
            print("began", os.getpid())
            time.sleep(9)
        def handler(event, context):
            return os.getpid()
        """ if moment == "loading" else SLEEPS  # fmt: skip
    target = here.target(code, reserved_concurrency=1)
    asked = asyncio.ensure_future(target.invoke(invocation(b"60")))
    await until(lambda: bool(here.heard.lines))
    pid = int(here.heard.lines[0][2].split()[1])
    assert is_alive(pid)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert value(await target.invoke(invocation(b"0"))) != pid
    assert not is_alive(pid)


async def test_a_cancellation_at_any_moment_loses_no_slot_and_leaves_no_process(here: Here):
    target = here.target(SLEEPS, reserved_concurrency=1)
    await target.facts()
    for turns in [*range(12), 40, 80, 160, 320, 640]:
        asked = asyncio.ensure_future(target.invoke(invocation(b"5")))
        for _ in range(turns):
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    pid = value(await target.invoke(invocation(b"0")))
    await until(lambda: [entry.read_text().split()[0] for entry in _registered(here)] == [str(pid)])
    await target.aclose()
    assert not _registered(here)
    assert not any(is_alive(pid) for pid, _ in here.heard.ended)


def _registered(here: Here) -> list[Path]:
    return list((here.folder / "host" / "environments").iterdir())


async def test_a_cancelled_wait_for_a_slot_takes_none(here: Here):
    target = here.target(SLEEPS, reserved_concurrency=1)
    busy = asyncio.ensure_future(target.invoke(invocation(b"0.5")))
    await until(lambda: bool(here.heard.lines))
    waiting = [asyncio.ensure_future(target.invoke(invocation(b"0"))) for _ in range(5)]
    await asyncio.sleep(0)
    for one in waiting[:4]:
        one.cancel()
    pid = value(await busy)
    assert value(await waiting[4]) == pid
    assert value(await target.invoke(invocation(b"0"))) == pid


async def test_an_environment_that_died_while_it_was_free_costs_no_attempt(here: Here):
    target = here.target(SLEEPS)
    pid = value(await target.invoke(invocation(b"0")))
    os.kill(pid, 9)
    while is_alive(pid):  # without a turn of the event loop: nobody has told the pool
        time.sleep(0.001)  # noqa: ASYNC251
    assert value(await target.invoke(invocation(b"0"))) != pid


async def test_idle_environments_end_and_those_in_use_stay(here: Here):
    host = Host(directory=here.folder / "idle", concurrency_default=2, telemetry=here.heard, idle_s=0.4)
    try:
        target = host.target(here.function(SLEEPS))
        first, second = [
            value(ending) for ending in await asyncio.gather(*(target.invoke(invocation(b"0.1")) for _ in range(2)))
        ]
        used = value(await target.invoke(invocation(b"0")))
        until_then = now() + 0.6
        while now() < until_then:
            assert value(await target.invoke(invocation(b"0.02"))) == used
        assert here.heard.ended == [(({first, second} - {used}).pop(), "idle")]
        await until(lambda: len(here.heard.ended) == 2)
        assert not is_alive(used)
        assert value(await target.invoke(invocation(b"0"))) not in {first, second}
    finally:
        await host.aclose()


async def test_closing_ends_what_runs_and_what_waits(here: Here):
    target = here.target(SLEEPS, reserved_concurrency=1)
    running = asyncio.ensure_future(target.invoke(invocation(b"60")))
    await until(lambda: bool(here.heard.lines))
    waiting = asyncio.ensure_future(target.invoke(invocation(b"60")))
    await asyncio.sleep(0)
    pid = int(here.heard.lines[0][2].split()[1])
    await target.aclose()
    assert isinstance(await running, Answer)
    assert isinstance(await waiting, Throttled)
    assert isinstance(await target.invoke(invocation()), Throttled)
    assert not is_alive(pid)
    assert not list((here.folder / "host" / "environments").iterdir())


async def test_facts_are_those_configured(here: Here):
    assert await here.target(SLEEPS).facts() == FunctionFacts(20, "arn:aws:iam::123456789012:role/orders")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"runtime": "python3.99"}, ["Runtime python3.99", "python3.11", "PATH"]),
        ({"code": "/nowhere/at/all"}, ["CodeUri /nowhere/at/all does not exist"]),
        ({"handler": "main.handler"}, ["'main.handler' needs main.py", "app.py"]),
        ({"handler": "pkg/main.handler"}, ["needs pkg/main.py", "app.py"]),
        ({"handler": "handler"}, ["'handler' is not of the form module.function"]),
    ],
)
async def test_what_is_missing_is_named_beside_what_is_there(here: Here, changes: dict[str, str], said: list[str]):
    target = here.target(SLEEPS, **changes)
    with pytest.raises(OperatorNeeded) as refused:
        await target.facts()
    assert all(part in str(refused.value) for part in said), str(refused.value)
    ending = await target.invoke(invocation())
    assert isinstance(ending, Misconfigured)
    assert ending.text == str(refused.value)


async def test_handlers_are_found_in_packages_and_folders(here: Here):
    for handler in ("pkg/part.handler", "pkg.part.handler", "pkg.handler"):
        function = here.function("", handler=handler)
        folder = Path(function.code) / "pkg"
        folder.mkdir()
        for name in ("__init__.py", "part.py"):
            (folder / name).write_text("def handler(event, context):\n    return 1")
        target = here.host.target(function)
        await target.facts()
        assert value(await target.invoke(invocation())) == 1


async def test_a_folder_that_vanished_is_told_as_misconfigured(here: Here):
    function = here.function(SLEEPS)
    target = here.host.target(function)
    await target.facts()
    Path(function.code).rename(here.folder / "away")  # noqa: ASYNC240
    for _ in range(3):
        assert isinstance(await target.invoke(invocation()), Misconfigured)
    (here.folder / "away").rename(function.code)
    assert value(await target.invoke(invocation(b"0")))


async def test_provisioned_environments_are_ready_before_they_are_asked_and_spill_over(here: Here):
    target = here.target(
        """
        import os, time
        print("loaded", os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"])
        def handler(event, context):
            time.sleep(event)
            return os.getpid(), os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]
        """,
        reserved_concurrency=3, provisioned_concurrency=2,
    )  # fmt: skip
    await target.facts()
    await until(lambda: [line for _, _, line in here.heard.lines] == ["loaded provisioned-concurrency"] * 2)
    await target.wait_free()
    runs = [value(ending) for ending in await asyncio.gather(*(target.invoke(invocation(b"1")) for _ in range(3)))]
    assert sorted(kind for _, kind in runs) == ["on-demand", "provisioned-concurrency", "provisioned-concurrency"]
    assert len({pid for pid, _ in runs}) == 3
    assert value(await target.invoke(invocation(b"0")))[1] == "provisioned-concurrency"


async def test_nothing_is_kept_ready_where_functions_are_only_looked_at(here: Here):
    host = Host(directory=here.folder / "looks", concurrency_default=1, telemetry=here.heard, idle_s=60,
                keeps_ready=False)  # fmt: skip
    try:
        target = host.target(here.function("print('loaded')\nhandler = print", provisioned_concurrency=1))
        await target.facts()
        await asyncio.sleep(0.3)
        assert here.heard.lines == []
    finally:
        await host.aclose()


async def test_a_provisioned_environment_that_dies_is_replaced(here: Here):
    target = here.target(SLEEPS, provisioned_concurrency=1)
    await target.facts()
    pid = value(await target.invoke(invocation(b"0")))
    os.kill(pid, 9)
    await until(lambda: here.heard.ended == [(pid, "exit")])
    again = value(await target.invoke(invocation(b"0")))
    assert again != pid


async def test_the_overall_limit_holds_over_functions_and_a_reservation_is_kept_free(here: Here):
    host = Host(directory=here.folder / "few", concurrency_default=5, telemetry=here.heard, idle_s=60,
                concurrency_total=3)  # fmt: skip
    try:
        first, second = host.target(here.function(SLEEPS)), host.target(here.function(SLEEPS))
        reserved = host.target(here.function(SLEEPS, reserved_concurrency=2))
        busy = asyncio.ensure_future(first.invoke(invocation(b"1")))
        await until(lambda: bool(here.heard.lines))
        refused = await second.invoke(replace(invocation(b"0"), waits=False))
        assert isinstance(refused, Throttled)
        assert refused.reason == "ConcurrentInvocationLimitExceeded"
        assert value(await reserved.invoke(invocation(b"0")))
        assert not busy.done()
        assert value(await second.invoke(invocation(b"0")))
        assert busy.done()
        greedy = host.target(here.function(SLEEPS, reserved_concurrency=1))
        assert await greedy.facts()
        with pytest.raises(OperatorNeeded, match=r"ESM_HOST_CONCURRENCY_TOTAL \(3\)"):
            await second.facts()
    finally:
        await host.aclose()


async def test_a_caller_that_does_not_wait_is_throttled_with_lambdas_reason(here: Here):
    target = here.target(SLEEPS, reserved_concurrency=1)
    busy = asyncio.ensure_future(target.invoke(invocation(b"1")))
    await until(lambda: bool(here.heard.lines))
    refused = await target.invoke(replace(invocation(b"0"), waits=False))
    assert isinstance(refused, Throttled)
    assert refused.reason == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert value(await busy)


async def test_an_old_environment_is_started_anew(here: Here):
    host = Host(directory=here.folder / "old", concurrency_default=1, telemetry=here.heard, idle_s=60, age_max_s=0.5)
    try:
        target = host.target(here.function(SLEEPS))
        pid = value(await target.invoke(invocation(b"0")))
        await until(lambda: here.heard.ended == [(pid, "age")])
        assert value(await target.invoke(invocation(b"0"))) != pid
    finally:
        await host.aclose()
