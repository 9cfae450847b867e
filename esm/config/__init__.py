"""YAML -> the same requests that Lambda's API receives -> mappings and functions.

Problems of the file are collected and raised together; what is wrong with the world is none of this room's business.
"""

import hashlib
import uuid
from collections.abc import Mapping as Table
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from esm.config.document import Document, read
from esm.config.functions import Where, function_arn, functions, suggestion
from esm.errors import ConfigurationRefused, Problem, RequestRefused
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.function import Function, LambdaFunction
from esm.model.mapping import Mapping
from esm.rules import validation

SERVICES = ("sqs", "kinesis", "dynamodb", "dynamodbstreams", "lambda", "sns", "sts")
"""Services whose endpoint can be named."""

KEYS = ("region", "account_id", "endpoint_url", "endpoints", "functions", "mappings")
_NOT_YET = ("connections", "defaults", "RoleArn")


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
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def _where(document: Document, defaults: Defaults) -> Where:
    region = document.value.get("region", defaults.region)
    if not isinstance(region, str) or not region:
        document.problem("region", region, "is needed, such as us-east-1 (or set ESM_REGION)")
        region = "us-east-1"
    account_id = document.value.get("account_id", defaults.account_id)
    if isinstance(account_id, int):
        document.problem("account_id", account_id, "was read as a number: put its twelve digits in quotes")
    elif not isinstance(account_id, str) or len(account_id) != 12 or not account_id.isdigit():  # noqa: PLR2004
        document.problem("account_id", account_id, "is needed: twelve digits in quotes (or set ESM_ACCOUNT_ID)")
    return Where(partition_of(region), region, str(account_id))


def _endpoints(document: Document) -> dict[str, str]:
    endpoints = document.value.get("endpoints") or {}
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
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.startswith(("http://", "https://")):
        document.problem(path, value, "must be a URL: http://host:port")
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
        found: list[Mapping] = []
        functions_by_mapping: dict[str, Function] = {}
        for index, request in enumerate(section):
            made = self._one(request, f"mappings[{index}]")
            if made is not None:
                found.append(made[0])
                functions_by_mapping[made[0].uuid] = made[1]
        for error in validation.check_unique(found):
            self._document.problem("mappings", None, str(error))
        return tuple(found), functions_by_mapping

    def _one(self, request: Any, path: str) -> tuple[Mapping, Function] | None:  # noqa: ANN401
        if not isinstance(request, dict):
            self._document.problem(path, request, "must be a table of CreateEventSourceMapping's parameters")
            return None
        before = len(self._document.problems)
        _only(self._document, request, (*sorted(validation.PARAMETERS), "UUID"), path)
        target = self._function(request.get("FunctionName"), path)
        if target is None or len(self._document.problems) > before:
            self._probe(request, path)
            return None
        arn, function = target
        try:
            made_uuid = self._uuid(request, arn)
            mapping = validation.mapping_of(request, uuid=made_uuid, function_arn=arn, wall=self._wall)
        except RequestRefused as error:
            self._document.problem(path, None, str(error))
            return None
        return mapping, function

    def _probe(self, request: dict[str, Any], path: str) -> None:
        """Look at the rest too when the function's name is wrong: every problem in one go."""
        arn = self._where.function_arn("unknown")
        request = {name: value for name, value in request.items() if name in validation.PARAMETERS}
        try:
            validation.mapping_of({**request, "FunctionName": "unknown"}, uuid="", function_arn=arn, wall=self._wall)
        except RequestRefused as error:
            self._document.problem(path, None, str(error))

    def _uuid(self, request: dict[str, Any], arn: Arn) -> str:
        given = request.get("UUID")
        if given is None:
            return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{arn.unqualified}|{request.get('EventSourceArn')}"))
        try:
            return str(uuid.UUID(given))
        except (ValueError, AttributeError, TypeError) as error:
            raise RequestRefused(f"UUID {given!r} is none: use the form of `uuidgen`, or leave it out.") from error

    def _function(self, name: object, path: str) -> tuple[Arn, Function] | None:
        place = f"{path}.FunctionName"
        if not isinstance(name, str) or not name:
            self._document.problem(place, name, "is needed: a key of functions:, or a function's ARN")
            return None
        if name.startswith("arn:"):
            return self._by_arn(name, place)
        key, _, qualifier = name.partition(":")
        function = self._known.get(key)
        if function is None:
            section = self._document.value.get("functions")
            if not isinstance(section, dict) or key not in section:
                keys = ", ".join(self._known) or "none"
                text = f"is no key of functions: (there are: {keys}) and no ARN: define it, or give the full ARN"
                self._document.problem(place, name, text)
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
            if qualified is not None and function.arn.qualifier in (None, qualifier):
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
