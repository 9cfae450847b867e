"""What a Runtime is called, and what an operator has mapped it to (`ESM_RUNTIMES`)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from esm.errors import OperatorNeeded


class Kind(Enum):
    """How a runtime is started."""

    PYTHON = "python"
    """With awslambdaric, which comes with esm."""
    NODE = "nodejs"
    """With aws-lambda-ric, which is installed beside Node.js."""
    PROVIDED = "provided"
    """The code, or a layer, brings its `bootstrap`."""
    OTHER = "other"
    """With the interpreter and the client that are mapped to it."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """What an operator wants a Runtime to be run by."""

    interpreter: str
    """Path of an executable."""
    client: str | None = None
    """Path of the runtime client; None: that which esm has or finds. Python always has esm's own."""


_NAME = re.compile(r"[a-z][a-z0-9._-]{1,63}")


def kind_of(runtime: str) -> Kind:
    """By its name."""
    for kind in (Kind.PYTHON, Kind.NODE, Kind.PROVIDED):
        if runtime.startswith(kind.value):
            return kind
    return Kind.OTHER


def mapped_runtimes(text: str) -> Mapping[str, Mapped]:
    """`NAME=INTERPRETER[:CLIENT]`, separated by commas. Raises: OperatorNeeded, saying what is wrong."""
    found: dict[str, Mapped] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, place = part.partition("=")
        interpreter, _, client = place.partition(":")
        if not equals or not _NAME.fullmatch(name) or not interpreter.startswith("/"):
            raise OperatorNeeded(
                f"ESM_RUNTIMES: {part!r} must be RUNTIME=/path/of/interpreter[:/path/of/client], such as"
                " python3.8=/usr/bin/python3.9"
            )
        if name in found:
            raise OperatorNeeded(f"ESM_RUNTIMES: {name} is mapped twice: take one of them out")
        found[name] = Mapped(interpreter, client or None)
    return found
