"""YAML -> the same requests that Lambda's API receives -> mappings and functions.

Problems of the file are collected and raised together; what is wrong with the world is none of this room's business.
"""

import hashlib
import re
import uuid
from collections.abc import Mapping as Table
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from esm.config.document import Document, read
from esm.config.functions import Where, function_arn, functions, suggestion
from esm.config.urls import url_problem
from esm.errors import ConfigurationRefused, Problem, RequestRefused
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.connection import Connection
from esm.model.function import Function, LambdaFunction
from esm.model.mapping import Mapping
from esm.rules import validation

SERVICES = ("sqs", "kinesis", "dynamodb", "dynamodbstreams", "lambda", "sns", "sts")
"""Services whose endpoint can be named."""

KEYS = ("region", "account_id", "endpoint_url", "endpoints", "functions", "mappings")
_NOT_YET = ("connections", "defaults", "RoleArn")
_ACCOUNT = re.compile(r"[0-9]{12}")
_REGION = re.compile(r"[a-z0-9-]+")
_UUID = re.compile(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_PARTITIONS = {
    "cn-": "aws-cn", "us-gov-": "aws-us-gov", "eusc-": "aws-eusc", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b",
    "eu-isoe-": "aws-iso-e", "us-isof-": "aws-iso-f",
}  # fmt: skip
"""By the beginning of a region's name; every other region belongs to `aws`."""


class Defaults(Protocol):
    """What the process settings give where the file is silent."""

    @property
    def region(self) -> str | None:
        """Region."""
        ...

    @property
    def account_id(self) -> str | None:
        """Twelve digits."""
        ...

    @property
    def endpoint_url(self) -> str | None:
        """Endpoint of every service."""
        ...


@dataclass(frozen=True, slots=True)
class Configuration:
    """A file that makes sense."""

    region: str
    account_id: str
    endpoint_url: str | None
    endpoints: Table[str, str]
    functions: Table[str, Function]
    mappings: tuple[Mapping, ...]
    functions_by_mapping: Table[str, Function]
    """By the mapping's UUID."""
    warnings: tuple[str, ...]
    files: tuple[Path, ...]
    """Every file that was read."""
    connections: Table[str, Connection] = field(default_factory=dict)
    """By name."""

    def function_of(self, mapping: Mapping) -> Function:
        """What a mapping invokes."""
        return self.functions_by_mapping[mapping.uuid]


def load(path: Path, environ: Table[str, str], defaults: Defaults, wall: UnixTime) -> Configuration:
    """Read a configuration file. Raises: ConfigurationRefused with every problem."""
    document = read(path, environ)
    if document.value is None:
        document.value = {}
    if not isinstance(document.value, dict):
        raise ConfigurationRefused([Problem(str(path), "", None, f"must be a table with {', '.join(KEYS)}")])
    _only(document, document.value, KEYS, "")
    where = _where(document, defaults)
    endpoint_url = _url(document, "endpoint_url", document.value.get("endpoint_url")) or defaults.endpoint_url
    endpoints = _endpoints(document)
    known = functions(document, where)
    mappings, by_mapping = _Mappings(document, where, known, wall).all()
    if document.problems:
        raise ConfigurationRefused(document.problems)
    return Configuration(
        region=where.region, account_id=where.account_id, endpoint_url=endpoint_url, endpoints=endpoints,
        functions=known, mappings=mappings, functions_by_mapping=by_mapping,
        warnings=tuple(_warnings(mappings)), files=tuple(document.files),
    )  # fmt: skip


def digest(files: tuple[Path, ...]) -> str:
    """Changes when the content of any of the files does; a missing file counts as one."""
    total = hashlib.sha256()
    for file in files:
        try:
            total.update(file.read_bytes())
        except OSError as error:
            total.update(str(error.errno).encode())
        total.update(b"\0")
    return total.hexdigest()


def check_successor(before: Configuration, after: Configuration) -> None:
    """What may not change while the positions are kept. Raises: ConfigurationRefused."""
    old = {mapping.uuid: mapping for mapping in before.mappings}
    problems = []
    for index, mapping in enumerate(after.mappings):
        if mapping.uuid in old:
            try:
                validation.check_change(old[mapping.uuid], mapping)
            except RequestRefused as error:
                problems.append(Problem(str(after.files[0]), f"mappings[{index}]", None, str(error)))
    problems += [
        Problem(str(after.files[0]), name, None, "cannot change while the daemon runs: restart it")
        for name in ("region", "account_id", "endpoint_url", "endpoints")
        if getattr(before, name) != getattr(after, name)
    ]
    if problems:
        raise ConfigurationRefused(problems)


def partition_of(region: str) -> str:
    """The partition that a region belongs to."""
    return next((name for start, name in _PARTITIONS.items() if region.startswith(start)), "aws")


def _where(document: Document, defaults: Defaults) -> Where:
    region = document.value.get("region")
    region = defaults.region if region is None else document.text("region", region)
    if not isinstance(region, str) or not _REGION.fullmatch(region):
        document.problem("region", region, "is needed, such as us-east-1 (or set ESM_REGION)")
        region = "us-east-1"
    account_id = document.value.get("account_id")
    account_id = defaults.account_id if account_id is None else document.text("account_id", account_id)
    if isinstance(account_id, int):
        written = document.written.get("account_id", account_id)
        document.problem("account_id", written, "was read as a number: put its twelve digits in quotes")
    elif not isinstance(account_id, str) or not _ACCOUNT.fullmatch(account_id):
        document.problem("account_id", account_id, "is needed: twelve digits in quotes (or set ESM_ACCOUNT_ID)")
    return Where(partition_of(region), region, str(account_id))


def _endpoints(document: Document) -> dict[str, str]:
    endpoints = document.value.get("endpoints")
    if endpoints is None:
        return {}
    if not isinstance(endpoints, dict):
        document.problem("endpoints", endpoints, "must be a table: a service, then its URL")
        return {}
    _only(document, endpoints, SERVICES, "endpoints")
    return {
        name: url
        for name, value in endpoints.items()
        if (url := _url(document, f"endpoints.{name}", value)) is not None
    }


def _url(document: Document, path: str, value: object) -> str | None:
    """A URL; None where there is none: an empty one, such as an unset `${ENDPOINT:-}` leaves, is none."""
    if value is None or value == "":
        return None
    problem = url_problem(value) if isinstance(value, str) else "must be a URL: http://host:port"
    if not isinstance(value, str) or problem is not None:
        document.problem(path, value, str(problem))
        return None
    return value


def _only(document: Document, table: Table[str, Any], known: tuple[str, ...], path: str) -> None:
    for name in table:
        place = f"{path}.{name}" if path else name
        if name in _NOT_YET and name not in known:
            document.problem(place, None, "is not supported by this version of esm: remove it")
        elif name not in known:
            document.problem(place, None, f"is unknown{suggestion(name, known)}")


def _warnings(mappings: tuple[Mapping, ...]) -> list[str]:
    return [
        f"mapping {mapping.function} <- {mapping.source_arn} has neither MaximumRetryAttempts nor"
        " MaximumRecordAgeInSeconds: one record that always fails blocks its shard until the source forgets it"
        for mapping in mappings
        if mapping.source_kind.is_stream and mapping.retries_max is None and mapping.record_age_max_s is None
    ]


class _Mappings:
    """The section `mappings:`."""

    def __init__(self, document: Document, where: Where, known: dict[str, Function], wall: UnixTime) -> None:
        self._document = document
        self._where = where
        self._known = known
        self._wall = wall

    def all(self) -> tuple[tuple[Mapping, ...], dict[str, Function]]:
        section = self._document.value.get("mappings")
        if section is None:
            return (), {}
        if not isinstance(section, list):
            self._document.problem("mappings", None, "must be a list")
            return (), {}
        places: list[str] = []
        found: list[Mapping] = []
        functions_by_mapping: dict[str, Function] = {}
        for index, request in enumerate(section):
            made = self._one(request, f"mappings[{index}]")
            if made is not None:
                places.append(f"mappings[{index}]")
                found.append(made[0])
                functions_by_mapping[made[0].uuid] = made[1]
        for index, error in validation.check_unique(found):
            self._document.problem(places[index], None, str(error))
        return tuple(found), functions_by_mapping

    def _one(self, request: Any, path: str) -> tuple[Mapping, Function] | None:  # noqa: ANN401
        if not isinstance(request, dict):
            self._document.problem(path, request, "must be a table of CreateEventSourceMapping's parameters")
            return None
        before = len(self._document.problems)
        _only(self._document, request, (*sorted(validation.PARAMETERS), "UUID"), path)
        target = self._function(request.get("FunctionName"), path)
        given = request.get("UUID")
        if given is not None and not (isinstance(given, str) and _UUID.fullmatch(given)):
            self._document.problem(f"{path}.UUID", given, "is no UUID: use the form of `uuidgen`, or leave it out")
        found = validation.findings(request, self._wall)
        for finding in found:
            if finding.member != "FunctionName":
                place = f"{path}.{finding.member}"
                self._document.problem(place, _at(request, finding.member), str(finding.error))
        if target is None or found or len(self._document.problems) > before:
            return None
        arn, function = target
        made_uuid = given.lower() if given is not None else _uuid(arn, request["EventSourceArn"])
        return validation.mapping_of(request, uuid=made_uuid, function_arn=arn, wall=self._wall), function

    def _function(self, name: object, path: str) -> tuple[Arn, Function] | None:
        place = f"{path}.FunctionName"
        if not isinstance(name, str) or not name:
            self._document.problem(place, name, "is needed: a key of functions:, or a function's ARN")
            return None
        if name.startswith("arn:"):
            return self._by_arn(name, place)
        key, colon, qualifier = name.partition(":")
        function = self._known.get(key)
        if function is None:
            section = self._document.value.get("functions")
            if not isinstance(section, dict) or key not in section:
                keys = ", ".join(self._known) or "none"
                text = f"is no key of functions: (there are: {keys}) and no ARN: define it, or give the full ARN"
                self._document.problem(place, name, text)
            return None
        if colon and not qualifier:
            self._document.problem(place, name, "ends in a colon: name a version or alias, or leave the colon out")
            return None
        return self._qualified(function, qualifier, name, place)

    def _by_arn(self, text: str, place: str) -> tuple[Arn, Function] | None:
        arn = function_arn(text)
        if arn is None:
            self._document.problem(place, text, "is no function's ARN: arn:aws:lambda:REGION:ACCOUNT:function:NAME")
            return None
        for function in self._known.values():
            if not isinstance(function, LambdaFunction) and function.arn == arn.unqualified:
                return self._qualified(function, arn.qualifier or "", text, place)
        return arn, LambdaFunction(text, arn)

    def _qualified(self, function: Function, qualifier: str, name: str, place: str) -> tuple[Arn, Function] | None:
        if not qualifier:
            return function.arn, function
        qualified = function_arn(f"{function.arn.unqualified}:{qualifier}")
        if isinstance(function, LambdaFunction):
            if qualified is None:
                self._document.problem(
                    place, name, "names no version or alias after its colon: digits, a name, $LATEST"
                )
                return None
            if function.arn.qualifier in (None, qualifier):
                return qualified, LambdaFunction(function.key, qualified)
            self._document.problem(place, name, f"{function.arn} has another qualifier already: name one")
            return None
        if qualifier != "$LATEST":
            text = (
                "a function hosted here or behind a Url has no versions and aliases in this version of esm: use $LATEST"
            )
            self._document.problem(place, name, text)
            return None
        assert qualified is not None
        return qualified, function


def _uuid(function: Arn, source: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{function.unqualified}|{source}"))


def _at(request: Table[str, Any], member: str) -> object:
    """The value at a place such as `ScalingConfig.MaximumConcurrency`; None where there is none."""
    value: object = request
    for name in member.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
