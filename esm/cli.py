"""Arguments -> settings -> anyio.run. Exit status: 0 done, 1 something was found wrong, 2 the call or a file is."""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any

import anyio
from prometheus_client import CollectorRegistry
from rich.console import Console

from esm import __version__, calling, daemon, filtering, inspection, migration, operating, status
from esm.config import Configuration
from esm.config.schema import schema
from esm.crew.place import Place
from esm.crew.supervising import WORKERS_MAX, Crew, worker_command
from esm.errors import ConfigurationRefused, EsmError
from esm.host import logs, logs_folder
from esm.model.arn import SourceKind
from esm.settings import Settings, load_settings, state_folder
from esm.state import open_state
from esm.telemetry import Telemetry, set_up_logging

Migration = Callable[[Settings, Configuration, migration.Request], Awaitable[list[str]]]

WATCH_EVERY_S = 2.0
"""How often `esm status --watch` looks again."""

FOLLOW_EVERY_S = 0.2
"""How often `esm logs --follow` looks again."""

CONFIG_HELP = (
    "the configuration: a file, a folder of YAML files, or a pattern such as 'conf/*.yaml'; default: ESM_CONFIG"
)

PIPED_WIDTH = 300
"""Columns of a table that does not go to a terminal: nothing is cut or folded for other programs."""


CLOSED_PIPE = 141
"""Exit status where whoever read the output has gone: what a shell shows of a program that SIGPIPE has ended."""


def main(argv: Sequence[str] | None = None) -> None:
    """The `esm` command."""
    try:
        try:
            code = _called(argv)
        finally:
            print(end="", flush=True)
    except BrokenPipeError:
        _drop_output()
        code = CLOSED_PIPE
    sys.exit(code)


def _called(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments, os.environ)
    except ConfigurationRefused as refused:
        for problem in refused.problems:
            print(f"esm: {problem}", file=sys.stderr)
        code = 2
    except EsmError as error:
        print(f"esm: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    return code


def _drop_output() -> None:
    """Whatever is still to be written, also at the end of the interpreter, goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="esm", description="AWS Lambda's event side, anywhere.")
    parser.add_argument("--version", action="version", version=f"esm {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = _command(commands, "run", _run, "poll, invoke and route until stopped")
    run.add_argument("--strict", action="store_true", help="refuse to start while a source or function is missing")
    run.add_argument(
        "--workers", type=_workers, metavar="N",
        help="start N worker processes on one state, and start again those that end; default: one process, which works",
    )  # fmt: skip
    run.add_argument("--member", type=Place.parse, help=argparse.SUPPRESS)
    check = _command(commands, "validate", _validate, "check a configuration and what it names")
    check.add_argument("--offline", action="store_true", help="look at the file alone")
    show = _command(commands, "status", _status, "show what each mapping does")
    show.add_argument("--json", action="store_true", help="print a JSON list")
    show.add_argument("--watch", action="store_true", help="show it again every two seconds until Ctrl-C")
    _kcl_command(commands, "import-kcl", migration.import_kcl, "go on where a stopped KCL application stopped")
    _kcl_command(commands, "export-kcl", migration.export_kcl, "write a lease table from which KCL goes on")
    operating.add_commands(partial(_command, commands))
    log = commands.add_parser("logs", help="show what a hosted function logs", description=logs.__doc__)
    log.set_defaults(run=_logs)
    log.add_argument("function", metavar="FUNCTION", help="its name")
    log.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    log.add_argument("--json", action="store_true", help="print the records as they are kept")
    for_editors = commands.add_parser("schema", help="print the JSON schema of a configuration file, for editors")
    for_editors.set_defaults(run=_schema)
    sift = commands.add_parser("filter", help="try a filter pattern on an event", description=filtering.__doc__)
    sift.add_argument("--pattern", required=True, action="append", help="JSON, or @FILE; again: any of them")
    sift.add_argument("--event", required=True, metavar="FILE", help="an event, a record, or the data of one")
    sift.add_argument(
        "--source", choices=[kind.value for kind in SourceKind], help="whose, where the file does not say"
    )
    sift.set_defaults(run=_filter)
    calling.add_commands(partial(_command, commands))
    demo = commands.add_parser("demo", help="the whole thing on an embedded local AWS")
    demo.add_argument("--seconds", type=float, help="end by itself after this time; exit status 1 if a record is lost")
    demo.set_defaults(run=_demo)
    return parser


def _command(
    commands: Any, name: str, run: Callable[..., int], text: str  # noqa: ANN401 - argparse has no public type
) -> argparse.ArgumentParser:  # fmt: skip
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument(
        "-c",
        "--config",
        help=CONFIG_HELP,
    )
    parser.set_defaults(run=run)
    return parser


def _kcl_command(commands: Any, name: str, run: Migration, text: str) -> None:  # noqa: ANN401 - as above
    parser = _command(commands, name, partial(_migrate, run), text)
    parser.add_argument("--table", required=True, help="the lease table, called as the application is")
    parser.add_argument("--mapping", required=True, help="its UUID, function or source ARN")
    parser.add_argument("--yes", action="store_true", help="do it; without, show what would be done")
    parser.add_argument("--replace", action="store_true", help="take the place of what is there already")
    parser.add_argument(
        "--look-s", type=float, default=migration.LOOK_S, metavar="SECONDS",
        help="between two looks at the table: above a third of the application's failover time; default: %(default)g",
    )  # fmt: skip


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    member: Place | None = arguments.member
    if member is not None:
        member.take()
    settings, configuration = _load(arguments, environ)
    set_up_logging(settings.log_format, settings.log_level)
    if arguments.strict or settings.strict:
        problems = anyio.run(_problems, settings, configuration)
        if problems:
            return _report(problems)
    if arguments.workers is not None:
        return anyio.run(_supervise, settings, environ, arguments.workers)
    anyio.run(daemon.Daemon(settings, environ, configuration, member).run)
    return 0


async def _supervise(settings: Settings, environ: Mapping[str, str], count: int) -> int:
    crew = Crew(settings, environ, count, worker_command(settings), _pass_on)
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        return await crew.run(signals)


def _pass_on(line: bytes) -> None:
    with suppress(OSError):  # as for the log itself: nobody reads it any more
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()


def _workers(text: str) -> int:
    count = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= count <= WORKERS_MAX:
        msg = f"{text!r} is not a number of workers: use 1 to {WORKERS_MAX}, at most one a core"
        raise argparse.ArgumentTypeError(msg)
    return count


def _validate(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings, configuration = _load(arguments, environ)
    for warning in configuration.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    problems = [] if arguments.offline else anyio.run(_problems, settings, configuration)
    if problems:
        return _report(problems)
    print(f"{settings.config}: {len(configuration.functions)} functions, {len(configuration.mappings)} mappings, OK")
    return 0


def _status(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings, configuration = _load(arguments, environ)
    anyio.run(partial(_show, settings, configuration, as_json=arguments.json, watch=arguments.watch))
    return 0


def _logs(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    folder = logs_folder(state_folder(load_settings(environ, {})))
    known = logs.functions(folder)
    if arguments.function not in known and not arguments.follow:
        found = f"found {', '.join(known)}" if known else "there is none"
        print(f"esm: no log of {arguments.function} below {folder}; {found}", file=sys.stderr)
        return 1
    kept = logs.records(folder, arguments.function)
    coming = logs.followed(folder, arguments.function, lambda: time.sleep(FOLLOW_EVERY_S)) if arguments.follow else ()
    for record in chain(kept, coming):
        print(json.dumps(record) if arguments.json else logs.shown(record), flush=arguments.follow)
    return 0


def _migrate(run: Migration, arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings, configuration = _load(arguments, environ)
    request = migration.Request(
        arguments.table, arguments.mapping, writes=arguments.yes, replaces=arguments.replace, look_s=arguments.look_s
    )
    for line in anyio.run(run, settings, configuration, request):
        print(line)
    return 0


def _schema(_: argparse.Namespace, __: Mapping[str, str]) -> int:
    print(json.dumps(schema(), indent=2))
    return 0


def _filter(arguments: argparse.Namespace, _: Mapping[str, str]) -> int:
    results = filtering.tried(arguments.pattern, arguments.event, arguments.source)
    for index, matches in enumerate(results):
        print(f"Records[{index}]: {'match' if matches else 'no match'}")
    return 0 if all(results) else 1


def _demo(arguments: argparse.Namespace, _: Mapping[str, str]) -> int:
    from esm.demo import run_demo  # noqa: PLC0415 - needs the extra `local`, which other commands do not

    return anyio.run(run_demo, arguments.seconds)


def _load(arguments: argparse.Namespace, environ: Mapping[str, str]) -> tuple[Settings, Configuration]:
    overrides = {"config": arguments.config} if arguments.config else {}
    settings = load_settings(environ, overrides)
    return settings, daemon.load_configuration(settings, environ)


async def _problems(settings: Settings, configuration: Configuration) -> list[str]:
    adapters = daemon.make_adapters(settings, configuration, Telemetry(CollectorRegistry()))
    try:
        return await inspection.problems_of_the_world(list(daemon.plans(configuration).values()), adapters)
    finally:
        await adapters.aclose()


def _report(problems: Sequence[str]) -> int:
    for problem in problems:
        print(f"esm: {problem}", file=sys.stderr)
    return 1


async def _show(settings: Settings, configuration: Configuration, *, as_json: bool, watch: bool) -> None:
    store = await open_state(settings, configuration, exclusive=False, read_only=True)
    try:
        console = Console()
        if not console.is_terminal:
            console = Console(width=PIPED_WIDTH)
        looker = status.Looker(store, configuration, settings)
        if not watch:
            _print(await looker.look(), console, as_json=as_json)
        while watch:
            found = await looker.look()
            console.clear()
            _print(found, console, as_json=as_json)
            await anyio.sleep(WATCH_EVERY_S)
    finally:
        await store.aclose()


def _print(found: status.Overview, console: Console, *, as_json: bool) -> None:
    if as_json:
        print(status.as_json(found))
    else:
        status.show(found, console)
