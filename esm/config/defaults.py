"""The section `defaults:`: parameters that mappings have unless they name them themselves.

A parameter that stands in `defaults:` itself is used by every mapping that takes it, and by no other: a window is not
given to a FIFO queue, retries are not given to a queue. One that stands under a source type (`sqs`, `kinesis`,
`dynamodb`) is used by mappings of that type, and wins over the general one; where no mapping of the type could take
it, it is refused. A mapping that names the parameter has its own value, whole; a null there is Lambda's default.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from esm.config.document import Document
from esm.config.files import Files
from esm.config.names import suggestion
from esm.config.pasting import Pasted, converted
from esm.model.arn import Arn
from esm.rules import arns, shapes
from esm.rules.combinations import applies
from esm.rules.parameters import KINDS, PARAMETERS, Source, source_of

ALLOWED = tuple(name for name, one in PARAMETERS.items() if one.defaults)
TYPES = {
    "sqs": frozenset({Source.QUEUE, Source.FIFO}),
    "kinesis": frozenset({Source.KINESIS}),
    "dynamodb": frozenset({Source.DYNAMODB}),
}
assert TYPES.keys() == KINDS.keys(), "every service has its defaults"
_GENERAL = ""


@dataclass(frozen=True, slots=True)
class Default:
    """A value, and where it stands."""

    value: Any
    document: Document
    path: str


@dataclass(frozen=True, slots=True)
class Defaults:
    """By source type (the general ones under none), then by parameter."""

    of: dict[str, dict[str, Default]]

    def fill(self, pasted: Pasted) -> dict[str, Default]:
        """Give a request what it leaves out; returns the defaults that were used, by parameter."""
        text = pasted.request.get("EventSourceArn")
        if not isinstance(text, str) or arns.source_problem(text) is not None:
            return {}
        arn = Arn.parse(text)
        source = source_of(arn)
        general, typed = self.of.get(_GENERAL, {}), self.of.get(arn.service, {})
        used: dict[str, Default] = {}
        for name in sorted({*general, *typed}, key=lambda name: name != "InvocationType"):
            if name not in pasted.request and applies(name, pasted.request, source):
                used[name] = typed.get(name) or general[name]
                pasted.request[name] = used[name].value
        return used


def defaults(files: Files) -> Defaults:
    """Every default that makes sense; what does not is noted as a problem."""
    found: dict[str, dict[str, Default]] = {}
    form = f"must be a table of parameters, and of source types ({', '.join(TYPES)})"
    seen: dict[str, Document] = {}
    for document, section in files.sections("defaults", dict, form):
        for name, value in section.items():
            path = f"defaults.{name}"
            if name not in TYPES:
                _add(found, seen, document, (_GENERAL, name), value)
            elif isinstance(value, dict):
                for inner, one in value.items():
                    _add(found, seen, document, (name, inner), one)
            elif value is not None:
                document.problem(path, value, "must be a table of parameters")
    return Defaults(found)


def _add(
    found: dict[str, dict[str, Default]], seen: dict[str, Document], document: Document, at: tuple[str, str], value: Any  # noqa: ANN401
) -> None:  # fmt: skip
    kind, name = at
    path = f"defaults.{kind}.{name}" if kind else f"defaults.{name}"
    if path in seen:
        document.problem(path, None, f"stands in {seen[path].path}, too: keep one")
        return
    seen[path] = document
    before = len(document.problems)
    wrong = list(_name_problems(kind, name))
    for text in wrong:
        document.problem(path, None, text)
    if wrong:
        return
    shape = PARAMETERS[name].shape
    made = converted(document, shape, value, path)
    for finding in shapes.findings(shape, made, path):
        place = finding.member
        document.problem(place, value if place == path else None, str(finding.error))
    if len(document.problems) == before and made is not None:
        found.setdefault(kind, {})[name] = Default(made, document, path)


def _name_problems(kind: str, name: str) -> Iterator[str]:
    if name not in PARAMETERS:
        yield f"is unknown{suggestion(name, (*ALLOWED, *(TYPES if not kind else ())))}"
    elif not PARAMETERS[name].defaults:
        yield "cannot be a default: give it to the mappings that need it"
    elif kind and not PARAMETERS[name].takes & TYPES[kind]:
        yield f"is taken by no mapping of {kind}: remove it"
