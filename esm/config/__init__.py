"""YAML -> the same requests that Lambda's API receives -> mappings and functions.

Problems of the files are collected and raised together; what is wrong with the world is none of this room's business.
"""

import hashlib
from collections.abc import Iterable
from collections.abc import Mapping as Table
from dataclasses import dataclass
from pathlib import Path

from esm.config.connections import connections
from esm.config.defaults import defaults
from esm.config.files import files_at, read_all
from esm.config.functions import functions
from esm.config.mappings import Found, mappings
from esm.config.names import only
from esm.config.where import Surrounding, endpoint_url, endpoints, where
from esm.errors import ConfigurationRefused, Problem, RequestRefused
from esm.model.clocks import UnixTime
from esm.model.connection import Connection
from esm.model.function import Function
from esm.model.mapping import Mapping
from esm.rules import validation

KEYS = ("region", "account_id", "endpoint_url", "endpoints", "connections", "functions", "defaults", "mappings")
_RESTART = "cannot change while the daemon runs: restart it"


@dataclass(frozen=True, slots=True)
class Configuration:
    """Files that make sense."""

    region: str
    account_id: str
    endpoint_url: str | None
    endpoints: Table[str, str]
    functions: Table[str, Function]
    connections: Table[str, Connection]
    """By name."""
    mappings: tuple[Mapping, ...]
    functions_by_mapping: Table[str, Function]
    """By the mapping's UUID."""
    places: Table[str, tuple[str, str]]
    """File, and place in it, by the mapping's UUID."""
    warnings: tuple[str, ...]
    path: Path
    """What was read: a file, a folder or a pattern."""
    files: tuple[Path, ...]
    """Every file that was read."""
    state_connection: Connection | None = None
    """By which the state's table is reached; None: as the daemon itself."""
    blobs_connection: Connection | None = None
    """By which the bucket for large values is reached."""

    def function_of(self, mapping: Mapping) -> Function:
        """What a mapping invokes."""
        return self.functions_by_mapping[mapping.uuid]


def load(path: Path, environ: Table[str, str], settings: Surrounding, wall: UnixTime) -> Configuration:
    """Read a configuration: a file, a folder or a pattern. Raises: ConfigurationRefused with every problem."""
    files = read_all(path, environ, KEYS)
    for document in files.documents:
        only(document, document.value, KEYS, "")
    place = where(files, settings)
    url, urls = endpoint_url(files, settings), endpoints(files)
    ways = connections(files)
    known = functions(files, place, ways, environ)
    made = mappings(files, place, known, ways, defaults(files), wall)
    named = {"ESM_STATE_CONNECTION": settings.state_connection, "ESM_BLOBS_CONNECTION": settings.blobs_connection}
    unknown = [problem for pair in named.items() if (problem := ways.of_setting(*pair)) is not None]
    if files.problems or unknown:
        raise ConfigurationRefused([*files.problems, *unknown], files.paths)
    return Configuration(
        region=place.region, account_id=place.account_id, endpoint_url=url, endpoints=urls,
        functions=known, connections=ways.known, mappings=tuple(one.mapping for one in made.found),
        functions_by_mapping={one.mapping.uuid: one.function for one in made.found},
        places={one.mapping.uuid: _place(one) for one in made.found},
        warnings=(*made.warnings, *ways.unused()), path=path, files=tuple(files.paths),
        state_connection=ways.known.get(settings.state_connection or ""),
        blobs_connection=ways.known.get(settings.blobs_connection or settings.state_connection or ""),
    )  # fmt: skip


def digest(configuration: Configuration, more: Iterable[Path] = ()) -> str:
    """Changes when the content of any of the files does, and when one comes or goes; a missing one counts as one.

    `more` are files beside those that were read, such as those of a configuration that was refused.
    """
    total = hashlib.sha256()
    for file in dict.fromkeys((*files_at(configuration.path), *configuration.files, *more)):
        total.update(str(file).encode(errors="surrogateescape") + b"\0")
        try:
            total.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError as error:
            total.update(str(error.errno).encode())
        total.update(b"\0")
    return total.hexdigest()


def check_successor(before: Configuration, after: Configuration) -> None:
    """What may not change while the positions are kept. Raises: ConfigurationRefused."""
    old = {mapping.uuid: mapping for mapping in before.mappings}
    problems = []
    for mapping in after.mappings:
        if mapping.uuid in old:
            try:
                validation.check_change(old[mapping.uuid], mapping)
            except RequestRefused as error:
                problems.append(Problem(*after.places[mapping.uuid], None, str(error)))
    problems += [
        Problem(str(after.path), name, None, _RESTART)
        for name in ("region", "account_id", "endpoint_url", "endpoints")
        if getattr(before, name) != getattr(after, name)
    ]
    problems += [
        Problem(str(after.path), f"connections.{connection.name}", None, "the state is reached by it: " + _RESTART)
        for connection, other in (
            (before.state_connection, after.state_connection), (before.blobs_connection, after.blobs_connection)
        )
        if connection is not None and connection != other
    ]  # fmt: skip
    if problems:
        raise ConfigurationRefused(problems, after.files)


def _place(found: Found) -> tuple[str, str]:
    return str(found.document.path), found.place
