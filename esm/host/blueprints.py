"""What the environments of a function are made of: interpreter, code, layers, variables, walls.

Law: everything that can be missing is looked for here, before an environment starts, and refused by name. In a sandbox
the paths are Lambda's own; without one, code and layers are seen where they lie.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from esm.errors import OperatorNeeded
from esm.host import cell_init, launcher
from esm.host.cell import Cell, Heard, PlainCell
from esm.host.code import bootstrap, check_source, check_start
from esm.host.environment import Blueprint
from esm.host.extensions_api import EXTENSIONS_MAX, Facts
from esm.host.interpreters import Interpreter, Interpreters, own_executable
from esm.host.isolation import GROUP, USER, Isolation, apart, system_mounts
from esm.host.journal import Logged
from esm.host.packages import Packages
from esm.host.runtimes import Kind, kind_of
from esm.host.sandbox import Sandbox, Walls
from esm.host.variables import Places, variables
from esm.model.function import HostedFunction

_LAUNCHER, _INIT = Path(launcher.__file__), Path(cell_init.__file__)
_INSIDE = "/run/esm"
"""Where a sandbox has our two scripts."""
_MB = 1024 * 1024
_DATA_FACTOR, _DATA_MB = 2, 256
"""Data of a process may be so much more than MemorySize: the limit knows nothing of what is only reserved."""


@dataclass(frozen=True, slots=True)
class _Ground:
    """What was found for a function, where it lies here."""

    kind: Kind
    code: Path
    layers: Path | None
    interpreter: Interpreter | None
    """None: the code brings its own."""

    @property
    def extensions(self) -> list[str]:
        """Names of the executables in `/opt/extensions`."""
        folder = None if self.layers is None else self.layers / "extensions"
        if folder is None or not folder.is_dir():
            return []
        return sorted(path.name for path in folder.iterdir() if path.is_file() and os.access(path, os.X_OK))


class Blueprints:
    """Draws blueprints. `given` is what every function gets of AWS."""

    def __init__(
        self, interpreters: Interpreters, packages: Packages, isolation: Isolation, accounts: Path,
        given: Mapping[str, str],
    ) -> None:  # fmt: skip
        """`accounts` is a folder for the two files of /etc that name a sandbox's user."""
        self._interpreters = interpreters
        self._packages = packages
        self._isolation = isolation
        self._accounts = accounts
        self._given = given

    async def draw(self, function: HostedFunction) -> Blueprint:
        """The blueprint of a function as its code is now. Raises: OperatorNeeded, naming what is missing."""
        isolation = self._isolation
        if not isolation.is_sandboxed and (function.file_systems or not function.has_network):
            raise OperatorNeeded(
                f"function {function.key}: FileSystemConfigs and Network: none need a sandbox, and there is none"
                f" ({isolation.why_not}): install bubblewrap where it may run, or take them out"
            )
        ground = await self._ground(function)
        places = self._places(ground)
        names = ground.extensions
        if len(names) > EXTENSIONS_MAX:
            raise OperatorNeeded(
                f"function {function.key}: its layers hold {len(names)} extensions: at most {EXTENSIONS_MAX} may run"
            )
        extensions = {name: self._started(function, [f"{places.layers}/extensions/{name}"]) for name in names}
        version = "" if ground.interpreter is None else ground.interpreter.version
        return Blueprint(
            function=function.key,
            facts=Facts(function.key, function.version, function.handler, function.arn.account),
            command=self._command(function, ground, places),
            folder=places.task,
            variables=variables(function, ground.kind, version, places, self._given),
            timeout_s=function.timeout_s,
            logged=Logged(function.key, function.version, function.memory_mb),
            cell=self._cell(function, ground),
            extensions=tuple(extensions.items()),
            ground=(ground, function),
            can_freeze=isolation.can_freeze,
        )

    async def _ground(self, function: HostedFunction) -> _Ground:
        kind = kind_of(function.runtime)
        check_source(function)
        code = await asyncio.to_thread(self._packages.code, Path(function.code))
        layers = await asyncio.to_thread(self._packages.layers, [Path(layer) for layer in function.layers], code)
        await asyncio.to_thread(check_start, function, kind, code, layers)
        interpreter = None if kind is Kind.PROVIDED else await self._interpreters.find(function.runtime)
        return _Ground(kind, code, layers, interpreter)

    def _places(self, ground: _Ground) -> Places:
        if self._isolation.is_sandboxed:
            client = None if ground.interpreter is None else ground.interpreter.client
            own = f"/{client.name}" if client is not None and client.is_file() else ""
            return Places("/var/task", "/opt", f"/var/runtime{own}")
        place = "/var/runtime" if ground.interpreter is None else str(ground.interpreter.client)
        return Places(str(ground.code), str(ground.layers or "/opt"), place)

    def _command(self, function: HostedFunction, ground: _Ground, places: Places) -> tuple[str, ...]:
        interpreter, handler = ground.interpreter, function.handler
        if interpreter is None:
            found = bootstrap(function, ground.code, ground.layers)
            root = places.task if found.parent == ground.code else places.layers
            return self._started(function, [f"{root}/bootstrap"])
        wrapper = dict(function.environment).get("AWS_LAMBDA_EXEC_WRAPPER")
        if ground.kind is Kind.PYTHON:
            rest = ["python", places.task, places.layers, places.client, handler]
            command = [interpreter.executable, "-S", "-B", *self._launcher(function), *rest]
            return self._started(function, [wrapper, *command]) if wrapper else tuple(command)
        if ground.kind is Kind.NODE:
            heap = f"--max-old-space-size={function.memory_mb * 9 // 10}"
            command = [interpreter.executable, heap, f"{places.client}/bin/index.mjs", handler]
        else:
            command = [interpreter.executable, places.client, handler]
        return self._started(function, [wrapper, *command] if wrapper else command)

    def _started(self, function: HostedFunction, command: Sequence[str]) -> tuple[str, ...]:
        """A command that is no Python: behind the launcher, which a sandbox's first process makes needless."""
        if self._isolation.is_sandboxed:
            return tuple(command)
        return (own_executable(), "-I", "-S", *self._launcher(function), "exec", *command)

    def _launcher(self, function: HostedFunction) -> tuple[str, str, str]:
        if self._isolation.is_sandboxed:
            return (f"{_INSIDE}/launcher.py", "0", "0")
        return (str(_LAUNCHER), str(os.getpid()), str(self._data_bytes_max(function) or 0))

    def _data_bytes_max(self, function: HostedFunction) -> int | None:
        if "memory" in self._isolation.cgroups.controllers:
            return None
        return (function.memory_mb * _DATA_FACTOR + _DATA_MB) * _MB

    def _cell(self, function: HostedFunction, ground: _Ground) -> Callable[[Heard], Cell]:
        cgroups = self._isolation.cgroups
        if not self._isolation.is_sandboxed:
            return lambda heard: PlainCell(heard, cgroups.group(function.memory_mb))
        walls = Walls(self._walls(function, ground), self._data_bytes_max(function), function.has_network)
        return lambda heard: Sandbox(heard, walls, cgroups.group(function.memory_mb))

    def _walls(self, function: HostedFunction, ground: _Ground) -> tuple[str, ...]:
        """The command of bubblewrap: what a sandbox sees, all of it read-only but /tmp and declared folders."""
        assert self._isolation.bubblewrap is not None
        seen: list[tuple[str, Path]] = [(f"{_INSIDE}/launcher.py", _LAUNCHER), (f"{_INSIDE}/init.py", _INIT)]
        seen += [(str(place), place) for place in _prefixes(ground.interpreter)]
        seen += [("/var/task", ground.code)]
        seen += [("/opt", ground.layers)] if ground.layers else []
        if ground.interpreter is not None:
            is_file = ground.interpreter.client.is_file()
            client = ground.interpreter.client.parent if is_file else ground.interpreter.client
            seen += [("/var/runtime", client)]
        accounts = _accounts(self._accounts)
        seen += [(f"/etc/{place.name}", place) for place in accounts]
        arguments = [argument for inside, place in seen for argument in ("--ro-bind", str(place), inside)]
        size = str(function.ephemeral_mb * _MB)
        arguments += ["--perms", "1777", "--size", size, "--tmpfs", "/tmp"]  # noqa: S108 - the function's own
        for source, mount in function.file_systems:
            if not Path(source).is_dir():
                raise OperatorNeeded(f"function {function.key}: FileSystemConfigs: {source} is no folder: make it")
            arguments += ["--bind", source, mount]
        return (
            self._isolation.bubblewrap, *apart(self._isolation, has_network=function.has_network), *system_mounts(),
            *arguments, "--remount-ro", "/", "--chdir", "/var/task", "--",
            own_executable(), "-I", "-S", f"{_INSIDE}/init.py",
        )  # fmt: skip


def _prefixes(interpreter: Interpreter | None) -> list[Path]:
    """Folders of interpreters that do not lie in /usr: the function's, and that of the sandbox's first process."""
    executables = [own_executable(), *([interpreter.executable] if interpreter else [])]
    found: dict[Path, None] = {}
    for executable in executables:
        for place in (Path(executable), Path(executable).resolve()):
            if not place.is_relative_to("/usr") and place.parent.name == "bin":
                found[place.parent.parent] = None
    return [place for place in found if place != Path("/")]


def _accounts(folder: Path) -> tuple[Path, Path]:
    """/etc/passwd and /etc/group of a sandbox: Lambda's one user."""
    folder.mkdir(parents=True, exist_ok=True)
    passwd, group = folder / "passwd", folder / "group"
    user = f"sbx_user1051:x:{USER}:{GROUP}::/tmp:/sbin/nologin\n"
    for place, text in ((passwd, user), (group, f"sbx_group1051:x:{GROUP}:\n")):
        if not place.is_file():  # whole at once: daemons beside this one mount it
            unfinished = place.with_suffix(f".{os.getpid()}")
            unfinished.write_text(text, encoding="ascii")
            unfinished.replace(place)
    return passwd, group
