"""Lambda's own description of its API: the service model that botocore brings, and the way from a path to an operation.

Law: nothing of an operation is written down a second time here. Paths are matched as they came, before decoding, so
that an encoded slash is no slash; a trailing slash is one that older SDKs send. Source: the `lambda` service model.
"""

import re
from collections.abc import Mapping as Table
from dataclasses import dataclass
from functools import cache
from urllib.parse import parse_qsl, unquote

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, StructureShape

from esm.errors import RequestRefused

_LABEL = re.compile(r"\{(\w+)(\+?)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """One operation, and how its path looks."""

    operation: OperationModel
    method: str
    path: re.Pattern[str]
    """Groups are the labels."""
    query: tuple[tuple[str, str], ...]
    """What the query must hold beside the path, where two operations share one."""


@dataclass(frozen=True, slots=True)
class Routed:
    """The operation of a request, and the labels of its path, decoded."""

    operation: OperationModel
    labels: Table[str, str]


@cache
def service() -> ServiceModel:
    """The service model of Lambda."""
    return ServiceModel(Loader().load_service_model("lambda", "service-2"), "lambda")


def operations() -> list[OperationModel]:
    """Every operation of the model, by name."""
    return [service().operation_model(name) for name in sorted(service().operation_names)]


def error_shape(name: str) -> StructureShape | None:
    """The shape of an exception; None where the model does not know it (`ValidationException`)."""
    return _errors().get(name)


def routed(method: str, path: str, query: Table[str, str]) -> Routed:
    """Which operation a request is for; `path` as it came, without its query. Raises: RequestRefused (404)."""
    for route in _routes():
        match = route.path.fullmatch(path) if route.method == method else None
        if match is not None and all(query.get(name) == value for name, value in route.query):
            return Routed(route.operation, {name: unquote(value) for name, value in match.groupdict().items()})
    raise RequestRefused(
        f"{method[:20]} {path[:200]} is no operation of Lambda's API: check the endpoint and the SDK's version.",
        "UnknownOperationException", 404,
    )  # fmt: skip


@cache
def _errors() -> dict[str, StructureShape]:
    return {shape.name: shape for shape in service().error_shapes if isinstance(shape, StructureShape)}


@cache
def _routes() -> tuple[Route, ...]:
    """What asks for more of the query comes first."""
    found = []
    for operation in operations():
        path, _, query = operation.http["requestUri"].partition("?")
        found.append(Route(operation, operation.http["method"], _pattern(path), tuple(parse_qsl(query))))
    return tuple(sorted(found, key=lambda route: -len(route.query)))


def _pattern(path: str) -> re.Pattern[str]:
    text, at = "", 0
    for label in _LABEL.finditer(path):
        inner = r".+" if label[2] else r"[^/]+"
        text += re.escape(path[at : label.start()]) + f"(?P<{label[1]}>{inner})"
        at = label.end()
    return re.compile(text + re.escape(path[at:].rstrip("/")) + "/?")
