"""The example of a function that is a web server does what it says, through the protocols that it is for."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from esm.model.invocation import Answer
from tests.fakes.url_functions import invocation, target_for

SERVER = Path(__file__).resolve().parents[2] / "config" / "functions" / "web" / "server.py"


@pytest.fixture
def url() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**os.environ, "HOST": "127.0.0.1", "PORT": str(port)}
    quiet = subprocess.DEVNULL
    with subprocess.Popen([sys.executable, str(SERVER)], env=environ, stdout=quiet, stderr=quiet) as process:
        while process.poll() is None:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.mark.parametrize("protocol", ["web-adapter", "http"])
async def test_it_names_the_records_that_failed(protocol: str, url: str) -> None:
    records = [
        {"messageId": "m-1", "body": '{"id": 1}'},
        {"messageId": "m-2", "body": '{"id": 2, "broken": true}'},
    ]
    async with target_for(url, protocol) as target:
        ended = await target.invoke(invocation(json.dumps({"Records": records}).encode()))
        assert isinstance(ended, Answer)
        assert json.loads(ended.payload) == {"batchItemFailures": [{"itemIdentifier": "m-2"}]}
