"""Other runtimes than Python, code that comes as a zip, layers, and extensions that run from them."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from esm.errors import OperatorNeeded
from esm.host import Host
from esm.host.interpreters import own_executable
from esm.host.runtimes import Kind, Mapped, kind_of, mapped_runtimes
from tests.host.conftest import Here, error, invocation, is_alive, until, value, write

CLIENT = next(
    (
        str(place)
        for root in (os.environ.get("ESM_TEST_NODE_MODULES", ""), ".servers/node/node_modules")
        if (place := Path(root, "aws-lambda-ric").absolute()).is_dir()
    ),
    "",
)
"""AWS's runtime client for Node.js, where it has been installed for the tests."""

BOOTSTRAP = """
    #!/bin/sh
    api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime"
    while true; do
        event=$(curl -sS -D /tmp/headers.$$ "$api/invocation/next")
        id=$(sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: *//p' /tmp/headers.$$ | tr -d '\\r')
        echo "saw $event"
        said="{\\"event\\": $event, \\"root\\": \\"$LAMBDA_TASK_ROOT\\", \\"handler\\": \\"$_HANDLER\\"}"
        curl -sS -X POST "$api/invocation/$id/response" -d "$said" >/dev/null
    done
"""

EXTENSION = f"""
    #!{own_executable()}
    import json, os, sys, urllib.request
    base = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2020-01-01/extension/"
    name = os.path.basename(sys.argv[0])
    def call(path, headers, body=None):
        request = urllib.request.Request(base + path, data=body, headers=headers)
        with urllib.request.urlopen(request) as answer:
            return answer.headers, json.loads(answer.read())
    headers, said = call("register", {{"Lambda-Extension-Name": name}}, b'{{"events": ["INVOKE", "SHUTDOWN"]}}')
    own = {{"Lambda-Extension-Identifier": headers["Lambda-Extension-Identifier"]}}
    print("registered for", said["functionName"], flush=True)
    while True:
        _, event = call("event/next", own)
        print(name, event["eventType"], event.get("requestId", event.get("shutdownReason")), flush=True)
        if event["eventType"] == "SHUTDOWN":
            break
        if os.path.exists("/tmp/extension-dies"):
            os.remove("/tmp/extension-dies")
            sys.exit(4)
"""


def zipped(folder: Path, files: dict[str, str]) -> str:
    write(folder, files)
    return shutil.make_archive(str(folder), "zip", folder)


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")


@pytest.fixture(params=["here", "walled"])
def either(request: pytest.FixtureRequest) -> Here:
    return request.getfixturevalue(request.param)


@needs_curl
@pytest.mark.parametrize("place", ["code", "layer"])
async def test_a_bootstrap_of_the_code_or_of_a_layer_is_run(either: Here, place: str):
    files = {"bootstrap": BOOTSTRAP}
    if place == "code":
        function = either.written(files, runtime="provided.al2023", handler="any")
    else:
        layer = zipped(either.folder / "layer", files)
        function = either.written({"x": "1"}, runtime="provided.al2", handler="any", layers=(layer,))
    target = either.host.target(function)
    await target.facts()
    for number in (1, 2):
        seen = value(await target.invoke(invocation(str(number).encode())))
        assert (seen["event"], seen["handler"]) == (number, "any")
    assert any(line == "saw 2" for _, _, line in either.heard.lines)


async def test_a_missing_bootstrap_is_named_as_lambda_does(here: Here):
    for files in ({"x": "1"}, {"bootstrap": "not executable"}):
        target = here.host.target(here.written(files, runtime="provided", handler=""))
        with pytest.raises(OperatorNeeded, match="Couldn't find valid bootstrap"):
            await target.facts()


async def test_a_zip_and_layers_run_as_a_folder_does(either: Here):
    code = zipped(either.folder / "code", {"app.py": "import shared, deep\ndef handler(event, context):\n"
                                                     "    return [shared.name, deep.name]"})  # fmt: skip
    first = zipped(either.folder / "first", {"python/shared.py": "name = 'first'", "python/deep.py": "name = 'first'"})
    second = zipped(
        either.folder / "second",
        {"python/shared.py": "name = 'second'", "python/lib/python3.11/site-packages/deep.py": "name = 'site'"},
    )
    function = either.written({}, code=code, layers=(first, second))
    assert value(await either.host.target(function).invoke(invocation())) == ["second", "site"]


async def test_changed_code_is_taken_up_and_idle_environments_of_before_end(here: Here):
    folder = here.folder / "code"
    function = here.written({}, code=zipped(folder, {"app.py": "def handler(event, context):\n    return 1"}))
    target = here.host.target(function)
    assert value(await target.invoke(invocation())) == 1
    zipped(folder, {"app.py": "def handler(event, context):\n    return 2"})
    await target.facts()
    assert value(await target.invoke(invocation())) == 2
    await until(lambda: [reason for _, reason in here.heard.ended] == ["changed"])


async def test_extensions_of_a_layer_run_beside_the_function_and_are_told_of_the_end(either: Here):
    layer = write(either.folder / "layer", {"extensions/tracer": EXTENSION, "extensions/README": "no executable"})
    function = either.written({"app.py": "def handler(event, context):\n    return 1"}, layers=(str(layer),))
    target = either.host.target(function)
    asked = invocation()
    assert value(await target.invoke(asked)) == 1
    lines = [line for _, _, line in either.heard.lines]
    assert lines == ["registered for orders", f"tracer INVOKE {asked.request_id}"]
    await target.aclose()
    assert [line for _, _, line in either.heard.lines][2:] == ["tracer SHUTDOWN SPINDOWN"]


@pytest.mark.parametrize(("event", "reason"), [(b"60", "TIMEOUT"), (b"-1", "FAILURE")])
async def test_extensions_are_told_why_an_environment_ends_and_the_caller_does_not_wait_for_them(
    either: Here, event: bytes, reason: str
):
    layer = write(either.folder / "layer", {"extensions/tracer": EXTENSION})
    code = """
        import os, time
        def handler(event, context):
            if event < 0: os._exit(3)
            time.sleep(event)
            return 1
        """
    target = either.host.target(either.written({"app.py": code}, layers=(str(layer),), timeout_s=1))
    assert value(await target.invoke(invocation(b"0"))) == 1
    error(await target.invoke(invocation(event)))
    await until(lambda: either.heard.lines[-1][2] == f"tracer SHUTDOWN {reason}")
    assert value(await target.invoke(invocation(b"0"))) == 1


async def test_an_extension_that_crashes_takes_the_environment_with_it(here: Here):
    layer = write(here.folder / "layer", {"extensions/tracer": EXTENSION})
    mark = Path("/tmp/extension-dies")
    function = here.written(
        {"app.py": "import time\ndef handler(event, context):\n    time.sleep(event)\n    return 1"},
        layers=(str(layer),),
    )
    target = here.host.target(function)
    assert value(await target.invoke(invocation(b"0"))) == 1
    await asyncio.to_thread(mark.touch)
    try:
        failure = error(await target.invoke(invocation(b"20")))
    finally:
        await asyncio.to_thread(mark.unlink, missing_ok=True)
    assert failure["errorType"] == "Extension.Crash"
    assert "extension tracer: exit status 4" in failure["errorMessage"]
    assert value(await target.invoke(invocation(b"0"))) == 1


async def test_an_extension_that_never_starts_fails_the_initialisation(here: Here):
    layer = write(here.folder / "layer", {"extensions/broken": "#!/bin/sh\nexit 5"})
    function = here.written({"app.py": "def handler(event, context):\n    return 1"}, layers=(str(layer),))
    failure = error(await here.host.target(function).invoke(invocation()))
    assert (failure["errorType"], "exit status 5" in failure["errorMessage"]) == ("Extension.Crash", True)


async def test_a_mapped_name_is_run_by_the_interpreter_that_it_is_mapped_to(here: Here):
    host = Host(directory=here.folder / "mapped", concurrency_default=1, telemetry=here.heard, idle_s=60,
                runtimes={"python3.8": Mapped(sys.executable)})  # fmt: skip
    try:
        code = """
            import sys, os
            def handler(event, context):
                return sys.version_info[1], os.environ["AWS_EXECUTION_ENV"]
            """
        target = host.target(here.function(code, runtime="python3.8"))
        await target.facts()
        assert value(await target.invoke(invocation())) == [sys.version_info[1], "AWS_Lambda_python3.8"]
    finally:
        await host.aclose()


@needs_curl
async def test_another_language_runs_with_the_client_that_is_mapped_to_it(either: Here):
    folder = write(either.folder / "ric", {"client.sh": BOOTSTRAP})
    isolation = await either.host.known_isolation()
    host = Host(directory=either.folder / "mapped", concurrency_default=1, telemetry=either.heard, idle_s=60,
                isolation=lambda: isolation,
                runtimes={"shell1.x": Mapped("/bin/sh", str(folder / "client.sh"))})  # fmt: skip
    try:
        target = host.target(either.written({"app.sh": "true"}, runtime="shell1.x", handler="app.main"))
        await target.facts()
        assert value(await target.invoke(invocation()))["handler"] == "app.main"
    finally:
        await host.aclose()


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ("nodejs99.x", ["Runtime nodejs99.x", "install that version of Node.js", "ESM_RUNTIMES=nodejs99.x="]),
        ("ruby3.3", ["Runtime ruby3.3", "ESM_RUNTIMES=ruby3.3=", "provided.al2023"]),
        ("python2.7", ["Runtime python2.7", "python3.11", "ESM_RUNTIMES=python2.7="]),
    ],
)
async def test_a_missing_interpreter_is_refused_with_what_to_do(here: Here, runtime: str, said: list[str]):
    files = {"app.py": "def handler(event, context):\n    return 1", "app.js": "exports.handler = async () => 1"}
    with pytest.raises(OperatorNeeded) as refused:
        await here.host.target(here.written(files, runtime=runtime)).facts()
    assert all(part in str(refused.value) for part in said), str(refused.value)


async def test_a_node_function_runs_with_awss_client(either: Here):
    node = shutil.which("node")
    if node is None or not CLIENT:
        pytest.skip("no Node.js with aws-lambda-ric here")
    either.host._interpreters._mapped = {"nodejs12.x": Mapped(node, CLIENT)}
    function = either.written(
        {
            "lib/app.mjs": """
                export const handler = async (event, context) => {
                    console.log("ran", event.n);
                    if (event.n === 0) throw new TypeError("zero");
                    return [event.n, context.awsRequestId.length, context.clientContext?.custom?.a ?? null];
                };
            """
        },
        runtime="nodejs12.x", handler="lib/app.handler", memory_mb=256,
    )  # fmt: skip
    target = either.host.target(function)
    await target.facts()
    assert value(await target.invoke(invocation(b'{"n": 7}'))) == [7, 36, None]
    failure = error(await target.invoke(invocation(b'{"n": 0}')))
    assert (failure["errorType"], failure["errorMessage"]) == ("TypeError", "zero")
    assert any("ran\t7" in line or "ran 7" in line for _, _, line in either.heard.lines)


async def test_a_missing_module_of_a_node_function_is_named(here: Here):
    here.host._interpreters._mapped = {}
    target = here.host.target(here.written({"app.mjs": "1"}, runtime="nodejs20.x", handler="main.handler"))
    with pytest.raises(OperatorNeeded, match=r"needs main.js, .mjs or .cjs"):
        await target.facts()


def test_runtimes_are_mapped_by_name():
    assert mapped_runtimes(" python3.8=/usr/bin/python3.9, nodejs12.x=/usr/bin/node:/opt/ric ,") == {
        "python3.8": Mapped("/usr/bin/python3.9"), "nodejs12.x": Mapped("/usr/bin/node", "/opt/ric"),
    }  # fmt: skip
    for wrong in ("python3.8", "python3.8=python3", "=/usr/bin/python3", "A=/x", "a.b=/x,a.b=/y"):
        with pytest.raises(OperatorNeeded, match=r"must be RUNTIME=|mapped twice"):
            mapped_runtimes(wrong)
    assert [kind_of(name) for name in ("python3.8", "nodejs12.x", "provided", "provided.al2", "go1.x")] == [
        Kind.PYTHON, Kind.NODE, Kind.PROVIDED, Kind.PROVIDED, Kind.OTHER,
    ]  # fmt: skip


async def test_a_provided_runtime_dies_with_what_it_started(here: Here):
    function = here.written(
        {"bootstrap": "#!/bin/sh\nsleep 619 &\necho $!\nwait"}, runtime="provided.al2", handler="", timeout_s=1
    )
    asked = asyncio.ensure_future(here.host.target(function).invoke(invocation()))
    await until(lambda: bool(here.heard.lines))
    pid = int(here.heard.lines[0][2])
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await until(lambda: not is_alive(pid))
