"""One function of a file, while it is read: its members, their places, and what is said of them."""

import re
from pathlib import Path
from typing import Any

from esm.config.connections import Connections
from esm.config.files import Entry
from esm.config.members import ELSEWHERE, LOOPS
from esm.config.names import suggestion
from esm.config.where import Where
from esm.rules.arns import role_problem
from esm.rules.shapes import Members, Shape, Text, Whole


class FunctionEntry:
    """Asks for members by name; notes what is wrong with them as problems."""

    def __init__(self, entry: Entry, where: Where, connections: Connections) -> None:
        self.document = entry.document
        self.key = entry.name
        self.members: dict[str, Any] = entry.value
        self.where = where
        self._connections = connections
        self._path = entry.path

    def say(self, name: str, value: object, text: str) -> None:
        """Note a problem at a member, or at the function itself."""
        self.document.problem(self.place(name), value, text)

    def place(self, name: str) -> str:
        """The place of a member in the file."""
        return f"{self._path}.{name}" if name else self._path

    def only(self, known: dict[str, Shape]) -> None:
        """Note every member that this kind of function does not have."""
        for name in self.members:
            if name in known:
                continue
            if name in ELSEWHERE:
                self.say(name, None, f"is not supported for this kind of function; it takes {', '.join(known)}")
            else:
                self.say(name, None, f"is unknown{suggestion(name, tuple(known))}")

    def formed(self, name: str, pattern: re.Pattern[str], remedy: str) -> str:
        """A text that is needed, of a form."""
        value = self.members.get(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.say(name, value, f"must be {remedy}")
            return ""
        return value

    def number(self, name: str, shape: Shape, table: dict[str, Any] | None = None) -> int | None:
        """A whole number of a shape's range, of the function or of a table within it; `name` is its place."""
        assert isinstance(shape, Whole)
        members = self.members if table is None else table
        value = members.get(name.rpartition(".")[2])
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not shape.least <= value <= shape.most:
            self.say(name, value, f"must be a whole number from {shape.least} to {shape.most}, without quotes")
            return None
        return value

    def flag(self, name: str) -> bool:
        """True or false; False where there is none."""
        value = self.members.get(name)
        if not isinstance(value, bool | None):
            self.say(name, value, "must be true or false, without quotes")
        return value is True

    def text(self, name: str, table: dict[str, Any] | None = None) -> str | None:
        """A text; None where there is none, or an empty one."""
        members = self.members if table is None else table
        value = members.get(name.rpartition(".")[2])
        found = self.document.text(self.place(name), value)
        if found is None or found == "":
            return None
        if not isinstance(found, str):
            self.say(name, value, "must be a string: put it in quotes")
            return None
        return found

    def table(self, name: str, shape: Shape, table: dict[str, Any] | None = None) -> dict[str, Any]:
        """A table with known members; an empty one where there is none."""
        assert isinstance(shape, Members)
        members = self.members if table is None else table
        value = members.get(name.rpartition(".")[2])
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.say(name, value, f"must be a table with {', '.join(shape.of)}")
            return {}
        for key in value:
            if key not in shape.of:
                self.say(f"{name}.{key}", None, f"is unknown{suggestion(key, tuple(shape.of))}")
        return value

    def file(self, name: str) -> str | None:
        """The absolute path of a file that is named relative to this one; it may appear later."""
        text = self.text(name)
        return None if text is None else self.path_of(name, text)

    def path_of(self, name: str, text: str) -> str | None:
        """An absolute path; None, and a problem, where the text is none."""
        if "\0" in text:
            self.say(name, None, "names no file: it holds a NUL character")
            return None
        return str((Path.cwd() / self.document.path.parent / text).absolute())

    def role(self) -> str:
        """The role's ARN, one made up from the function's name where it has none."""
        role = self.members.get("Role")
        if role is None:
            return self.where.role(self.key)
        if not isinstance(role, str) or role_problem(role) is not None:
            self.say("Role", role, "must be a role's ARN: arn:aws:iam::ACCOUNT:role/NAME")
        return str(role)

    def allows_loops(self) -> bool:
        """`RecursiveLoop`."""
        loops = self.members.get("RecursiveLoop")
        if loops is not None and loops not in LOOPS:
            self.say("RecursiveLoop", loops, f"must be {' or '.join(LOOPS)}")
        return bool(loops == "Allow")

    def connection(self) -> str | None:
        """`Connection`: a key of `connections:`."""
        name = self.text("Connection")
        problem = None if name is None else self._connections.problem(name)
        if problem is not None:
            self.say("Connection", name, problem)
        return name

    def description(self, shape: Shape) -> None:
        """`Description` is for people; it is only looked at."""
        assert isinstance(shape, Text)
        text = self.text("Description")
        if text is not None and len(text) > (shape.most or 0):
            self.say("Description", None, f"has {len(text)} characters: at most {shape.most} are possible")
