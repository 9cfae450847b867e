"""The section `mappings:` -> mappings, each with the function that it invokes."""

import re
import uuid
from collections.abc import Collection, Iterator
from collections.abc import Mapping as Table
from dataclasses import dataclass, field, replace

from esm.config.connections import Connections
from esm.config.defaults import Default, Defaults
from esm.config.document import Document
from esm.config.files import Files
from esm.config.functions import function_arn
from esm.config.pasting import Pasted, pasted
from esm.config.where import Where
from esm.errors import RequestRefused
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.function import Function, LambdaFunction
from esm.model.mapping import Mapping
from esm.rules import validation
from esm.rules.cautions import cautions
from esm.rules.shapes import Finding

_UUID = re.compile(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_PARTIAL_ARN = re.compile(r"[0-9]{12}:(function:)?[a-zA-Z0-9_-]+(:[^:]+)?")
_CONNECTIONS = ("Connection", "DestinationConfig.OnFailure.Connection")


@dataclass(frozen=True, slots=True)
class Found:
    """One mapping, and what belongs to it."""

    mapping: Mapping
    function: Function
    document: Document
    place: str


@dataclass
class Mappings:
    """Everything that is known of the section."""

    found: list[Found] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def mappings(
    files: Files, where: Where, functions: Table[str, Function], connections: Connections, defaults: Defaults,
    wall: UnixTime,
) -> Mappings:  # fmt: skip
    """Every mapping that makes sense; what does not is noted as a problem."""
    section = _Section(files, where, functions, connections, defaults, wall)
    for document, items in files.sections("mappings", list, "must be a list"):
        for index, item in enumerate(items):
            section.add(document, item, f"mappings[{index}]")
    made = section.made
    for index, error in validation.check_unique([one.mapping for one in made.found]):
        made.found[index].document.problem(made.found[index].place, None, str(error))
    made.warnings += section.notes()
    return made


class _Section:
    """Mappings as they come, over all files."""

    def __init__(
        self, files: Files, where: Where, functions: Table[str, Function], connections: Connections,
        defaults: Defaults, wall: UnixTime,
    ) -> None:  # fmt: skip
        self.made = Mappings()
        self._names = Names(files.declared("functions"), where, functions)
        self._connections = connections
        self._defaults = defaults
        self._wall = wall
        self._ignored: dict[str, set[str]] = {}
        self._said: set[tuple[str, str]] = set()

    def add(self, document: Document, item: object, path: str) -> None:
        before = len(document.problems)
        made = pasted(document, item, path)
        if made is None:
            return
        used = self._defaults.fill(made)
        request = made.request
        name = request.get("FunctionName")
        target = self._names.target(name, document, made.place("FunctionName"))
        given = _own_uuid(made)
        found = validation.findings(request, self._wall)
        for finding in found:
            if finding.member != "FunctionName":
                self._say(made, used, finding)
        self._check_connections(made, used)
        if made.ignored:
            self._ignored.setdefault(f"{document.path}: {path}", set()).update(made.ignored)
        if target is None or found or len(document.problems) > before:
            return
        arn, function = target
        own_uuid = given.lower() if given is not None else _derived_uuid(arn, request["EventSourceArn"])
        mapping = validation.mapping_of(request, uuid=own_uuid, function_arn=arn, wall=self._wall)
        self.made.found.append(Found(mapping, function, document, path))
        self.made.warnings += [f"{document.path}: {text}" for text in made.warnings]
        self.made.warnings += cautions(mapping, request)

    def notes(self) -> Iterator[str]:
        """One note about everything that was passed over."""
        if self._ignored:
            names = sorted(set().union(*self._ignored.values()))
            yield (
                f"ignored, since Lambda only reports it or CloudFormation alone needs it: {', '.join(names)}"
                f" (in {', '.join(self._ignored)})"
            )

    def _say(self, made: Pasted, used: dict[str, Default], finding: Finding) -> None:
        head = re.split(r"[.\[]", finding.member, maxsplit=1)[0]
        text = str(finding.error)
        document, place = made.document, made.place(finding.member)
        if finding.reason is not None:
            is_hidden = any(one.startswith(place) for one in document.placeholders)
            text += " Its reason is not shown, since a ${...} is within." if is_hidden else f" {finding.reason}."
        if head not in used:
            document.problem(place, made.value(finding.member), text)
            return
        default = used[head]
        place = default.path + finding.member[len(head) :]
        if (place, text) not in self._said:
            self._said.add((place, text))
            default.document.problem(place, None, f"{text} (used by {made.document.path}: {made.base})")

    def _check_connections(self, made: Pasted, used: dict[str, Default]) -> None:
        for member in _CONNECTIONS:
            name: object = made.request
            for step in member.split("."):
                name = name.get(step) if isinstance(name, dict) else None
            problem = self._connections.problem(name) if isinstance(name, str) and name else None
            if problem is not None:
                self._say(made, used, Finding(member, RequestRefused(problem)))


class Names:
    """What a FunctionName stands for."""

    def __init__(self, declared: Collection[str], where: Where, functions: Table[str, Function]) -> None:
        """`declared`: every key under `functions:`, of sound functions or not."""
        self._declared = declared
        self._where = where
        self._functions = functions

    def target(self, name: object, document: Document, place: str) -> tuple[Arn, Function] | None:
        """The ARN as configured, and the function; None, and a problem, where the name leads nowhere."""
        found = self.of(name)
        if not isinstance(found, str):
            return found
        document.problem(place, name, found)
        return None

    def of(self, name: object) -> tuple[Arn, Function] | str | None:
        """The ARN as configured, and the function; a text: why there is none; None: its own problem has been said."""
        if not isinstance(name, str) or not name:
            return "is needed: a key of functions:, or a function's ARN"
        if name.partition(":")[0] not in self._declared and _PARTIAL_ARN.fullmatch(name):
            account, _, rest = name.partition(":")
            name = f"arn:{self._where.partition}:lambda:{self._where.region}:{account}:function:" + rest.removeprefix(
                "function:"
            )
        if name.startswith("arn:"):
            return self._by_arn(name)
        key, colon, qualifier = name.partition(":")
        function = self._functions.get(key)
        if function is None:
            if key in self._declared:
                return None  # its own problem has been said
            keys = ", ".join(self._functions) or "none"
            return f"is no key of functions: (there are: {keys}) and no ARN: define it, or give the full ARN"
        if colon and not qualifier:
            return "ends in a colon: name a version or alias, or leave the colon out"
        return self._qualified(function, qualifier)

    def _by_arn(self, text: str) -> tuple[Arn, Function] | str:
        arn = function_arn(text)
        if arn is None:
            return "is no function's ARN: arn:aws:lambda:REGION:ACCOUNT:function:NAME"
        same = [one for one in self._functions.values() if one.arn.unqualified == arn.unqualified]
        for function in same:
            if not isinstance(function, LambdaFunction):
                return self._qualified(function, arn.qualifier or "")
            if function.arn == arn:
                return arn, function
        lambdas = [one for one in same if isinstance(one, LambdaFunction)]
        return arn, replace(lambdas[0], key=text, arn=arn) if lambdas else LambdaFunction(text, arn)

    def _qualified(self, function: Function, qualifier: str) -> tuple[Arn, Function] | str:
        if not qualifier:
            return function.arn, function
        qualified = function_arn(f"{function.arn.unqualified}:{qualifier}")
        if isinstance(function, LambdaFunction):
            if qualified is None:
                return "names no version or alias after its colon: digits, a name, $LATEST"
            if function.arn.qualifier in (None, qualifier):
                return qualified, replace(function, arn=qualified)
            return f"{function.arn} has another qualifier already: name one"
        if qualifier != "$LATEST":
            return (
                "a function hosted here or behind a Url has no versions and aliases in this version of esm: use $LATEST"
            )
        assert qualified is not None
        return qualified, function


def _own_uuid(made: Pasted) -> str | None:
    given = made.given.get("UUID")
    if given is None or (isinstance(given, str) and _UUID.fullmatch(given)):
        return given
    text = "is no UUID: use the form of `uuidgen`, or leave it out"
    made.document.problem(f"{made.base}.UUID", given, text)
    return None


def _derived_uuid(function: Arn, source: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{function.unqualified}|{source}"))
