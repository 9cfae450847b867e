"""The section `connections:`: ways into AWS accounts, by name."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from esm.config.document import Document
from esm.config.files import Entry, Files
from esm.config.names import only
from esm.config.where import REGION, url_at
from esm.errors import Problem
from esm.model.connection import Connection
from esm.rules.arns import role_problem

MEMBERS = ("Region", "EndpointUrl", "RoleArn", "ExternalId", "SessionName", "Profile")
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
"""Source: AssumeRole of the STS API, as the next one."""
SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)


@dataclass
class Connections:
    """What may be named as a `Connection`, and what is."""

    known: dict[str, Connection]
    declared: set[str]
    used: set[str] = field(default_factory=set)

    def problem(self, name: object) -> str | None:
        """Why a value names no connection; None where it names one, which then counts as used."""
        if isinstance(name, str) and name in self.declared:
            self.used.add(name)
            return None
        there = ", ".join(sorted(self.declared)) or "none"
        return f"is no key of connections: (there are: {there}): define it there, or remove this"

    def of_setting(self, variable: str, name: str | None) -> Problem | None:
        """What is wrong with a connection that a setting names."""
        text = None if name is None else self.problem(name)
        return None if text is None else Problem("environment", variable, name, text)

    def unused(self) -> Iterator[str]:
        """A warning for each connection that nothing uses."""
        for name in self.known:
            if name not in self.used:
                yield f"connections.{name} is used by no mapping, function or destination"


def connections(files: Files) -> Connections:
    """Every connection that makes sense; what does not is noted as a problem."""
    entries = list(files.entries("connections", "must be a table: a name, then Region, EndpointUrl, RoleArn, ..."))
    known = {entry.name: made for entry in entries if (made := _one(entry)) is not None}
    return Connections(known, files.declared("connections"))


def _one(entry: Entry) -> Connection | None:
    document, before = entry.document, len(entry.document.problems)
    if not NAME.fullmatch(entry.name):
        document.problem(entry.path, None, "a connection's name has 1 to 64 letters, digits, - or _")
    if not isinstance(entry.value, dict):
        document.problem(entry.path, entry.value, f"must be a table with any of {', '.join(MEMBERS)}")
        return None
    only(document, entry.value, MEMBERS, entry.path)
    texts = {name: _text(document, f"{entry.path}.{name}", entry.value.get(name)) for name in MEMBERS}
    for name, form, remedy in (
        ("Region", REGION, "must be a region, such as us-east-1"),
        ("ExternalId", EXTERNAL_ID, "must have 2 to 1224 letters, digits or _ + = , . @ : / -"),
        ("SessionName", SESSION_NAME, "must have 2 to 64 letters, digits or _ + = , . @ -"),
    ):
        text = texts[name]
        if text is not None and not form.fullmatch(text):
            document.problem(f"{entry.path}.{name}", None if name == "ExternalId" else text, remedy)
    role = texts["RoleArn"]
    if role is not None and role_problem(role) is not None:
        document.problem(f"{entry.path}.RoleArn", role, "must be a role's ARN: arn:aws:iam::ACCOUNT:role/NAME")
    for name in ("ExternalId", "SessionName"):
        if texts[name] is not None and entry.value.get("RoleArn") is None:
            document.problem(
                f"{entry.path}.{name}", None, "means something with a RoleArn only: give one, or remove it"
            )
    url = url_at(document, f"{entry.path}.EndpointUrl", texts["EndpointUrl"])
    if len(document.problems) > before:
        return None
    return Connection(
        entry.name, region=texts["Region"], endpoint_url=url, role_arn=role, external_id=texts["ExternalId"],
        session_name=texts["SessionName"], profile=texts["Profile"],
    )  # fmt: skip


def _text(document: Document, path: str, value: object) -> str | None:
    text = document.text(path, value)
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        document.problem(path, value, "must be a string: put it in quotes")
        return None
    return text
