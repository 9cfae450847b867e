"""`esm invoke` and `esm functions`: the API of the running daemon, for people without another client."""

import argparse
import base64
import json
import sys
from collections.abc import Callable
from collections.abc import Mapping as Table
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.table import Table as Grid

from esm import daemon
from esm.api import credentials
from esm.config import Configuration
from esm.errors import RequestRefused
from esm.settings import Settings, load_settings

READ_S = 930
"""Above the 900 s that a function may run."""
CONNECT_S = 5
PIPED_WIDTH = 300
"""Columns of a table that does not go to a terminal."""

PAYLOAD_HELP = "JSON, @FILE, or - for standard input; default: {}"
KEY_HELP = "the access key of ESM_API_CREDENTIALS_FILE to sign with; default: the first one there"

Parser = Callable[[str, Callable[..., int], str], argparse.ArgumentParser]


def add_commands(command: Parser) -> None:
    """Declare the commands; `command` makes one from its name, what runs it, and its help."""
    invoke = command("invoke", _invoke, "run a function once, through the API of the running daemon")
    invoke.add_argument("function", metavar="FUNCTION", help="its name or ARN, with a qualifier or not")
    invoke.add_argument("--payload", default="{}", help=PAYLOAD_HELP)
    invoke.add_argument("--event", action="store_true", help="hand the event over, and do not wait for the function")
    invoke.add_argument("--tail", action="store_true", help="show the end of the function's log")
    functions = command("functions", _functions, "show the functions that the running daemon knows")
    functions.add_argument("--json", action="store_true", help="print a JSON list")
    for one in (invoke, functions):
        one.add_argument("--key", metavar="KEY", help=KEY_HELP)


def _invoke(arguments: argparse.Namespace, environ: Table[str, str]) -> int:
    settings, configuration = _load(arguments, environ)
    payload = _payload(arguments.payload)
    client = _client(settings, configuration, arguments.key)
    answer = _called(
        settings, client.invoke, FunctionName=arguments.function, Payload=payload,
        InvocationType="Event" if arguments.event else "RequestResponse", LogType="Tail" if arguments.tail else "None",
    )  # fmt: skip
    log = answer.get("LogResult")
    if log:
        print(base64.b64decode(log).decode(errors="replace"), file=sys.stderr)
    if arguments.event:
        print(f"accepted: request {answer['ResponseMetadata']['RequestId']}")
        return 0
    print(answer["Payload"].read().decode(errors="replace"))
    if answer.get("FunctionError"):
        print(f"esm: the function failed: {answer['FunctionError']}", file=sys.stderr)
        return 1
    return 0


def _functions(arguments: argparse.Namespace, environ: Table[str, str]) -> int:
    settings, configuration = _load(arguments, environ)
    client = _client(settings, configuration, arguments.key)
    found: list[dict[str, Any]] = []
    marker: dict[str, str] = {}
    while True:
        page = _called(settings, client.list_functions, **marker)
        found += page["Functions"]
        if not page.get("NextMarker"):
            break
        marker = {"Marker": page["NextMarker"]}
    if arguments.json:
        print(json.dumps(found, indent=2, default=str))
        return 0
    grid = Grid(box=None, pad_edge=False)
    for name in ("FUNCTION", "STATE", "RUNTIME", "HANDLER", "TIMEOUT", "MEMORY", "WHAT"):
        grid.add_column(name, overflow="fold")
    for one in found:
        cells = [one.get(name) for name in ("FunctionName", "State", "Runtime", "Handler", "Timeout", "MemorySize")]
        grid.add_row(*["-" if cell is None else str(cell) for cell in cells], one.get("Description") or "-")
    console = Console()
    (console if console.is_terminal else Console(width=PIPED_WIDTH)).print(grid)
    return 0


def _payload(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise RequestRefused(f"--payload {text}: the file cannot be read ({error.strerror}).") from error


def _client(settings: Settings, configuration: Configuration, key: str | None) -> Any:  # noqa: ANN401 - made at run time
    address = settings.api_host_port
    if address is None:
        raise RequestRefused("ESM_API_ADDRESS is off: set it to where the daemon serves its API.")
    host, port = address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - is called, not listened on
    scheme = "http" if settings.api_tls_cert_file is None else "https"
    shown = f"[{host}]" if ":" in host else host
    access_key, secret = _keys(settings, key)
    return botocore.session.Session().create_client(
        "lambda", region_name=configuration.region, endpoint_url=f"{scheme}://{shown}:{port}",
        aws_access_key_id=access_key, aws_secret_access_key=secret,
        verify=settings.api_tls_cert_file, config=Config(
            retries={"total_max_attempts": 1}, read_timeout=READ_S, connect_timeout=CONNECT_S, proxies={},
        ),
    )  # fmt: skip


def _keys(settings: Settings, key: str | None) -> tuple[str, str]:
    if settings.api_credentials_file is None:
        return "esm", "without-credentials"
    callers = credentials.read(Path(settings.api_credentials_file))
    if key is not None and key not in callers:
        raise RequestRefused(f"--key {key}: {settings.api_credentials_file} has no such AccessKeyId.")
    caller = callers[key] if key is not None else next(iter(callers.values()))
    return caller.name, caller.secret


def _called(settings: Settings, call: Callable[..., Any], **given: Any) -> Any:  # noqa: ANN401 - the SDK's
    """What the API answers. Raises: RequestRefused, in the API's words, or saying that nobody is there."""
    try:
        return call(**given)
    except ClientError as error:
        told = error.response.get("Error", {})
        raise RequestRefused(f"{told.get('Code')}: {told.get('Message')}") from error
    except BotoCoreError as error:
        remedy = "start the daemon, or set ESM_API_ADDRESS to where it serves its API"
        raise RequestRefused(f"The API at {settings.api_address} does not answer ({error}): {remedy}.") from error


def _load(arguments: argparse.Namespace, environ: Table[str, str]) -> tuple[Settings, Configuration]:
    settings = load_settings(environ, {"config": arguments.config} if arguments.config else {})
    return settings, daemon.load_configuration(settings, environ)
