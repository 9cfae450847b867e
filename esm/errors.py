"""The few kinds of failure that the daemon tells apart, split by who must act.

Law: errors of foreign libraries end at the adapter that met them, translated into one of these. A function's own
failure is never an error here; it is an `Outcome`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class EsmError(Exception):
    """The root of everything that the daemon raises by itself."""


class RequestRefused(EsmError):
    """The caller must act: the request or the configuration is wrong. Becomes AWS's exception of the same name."""

    def __init__(self, text: str, exception: str = "InvalidParameterValueException", status: int = 400) -> None:
        super().__init__(text)
        self.exception = exception
        self.status = status


class OperatorNeeded(EsmError):
    """The operator must act: a permission, a missing queue, stream or function. Shown on the mapping, tried slowly."""


class StateMissing(OperatorNeeded):
    """There is no state yet, and whoever asked makes none."""


class NoticeTooLarge(OperatorNeeded):
    """A notice is larger than its destination takes: sending the same again cannot help, a smaller one can."""


class Unavailable(EsmError):
    """The network or a server must recover: time-outs, throttling, 5xx. Backed off and tried again."""


class PositionLost(EsmError):
    """The stored position was trimmed at the source: resume at the oldest record and count the gap."""


class ShardGone(EsmError):
    """The shard no longer exists at the source: it counts as ended."""


class LeaseLost(EsmError):
    """Another owner holds the lease: stop quietly, store nothing more."""


class Conflict(EsmError):
    """A conditional write met another version than the expected one."""


class StoreTooNew(EsmError):
    """A stored value has a format newer than this program can read: an upgrade was rolled back too far."""


class ValueTooLarge(EsmError, ValueError):
    """A value is larger than a store takes: the program must split it, or keep it elsewhere."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a file or the environment."""

    file: str
    path: str
    """Where in it: `mappings[0].BatchSize`, or the variable's name."""
    value: object
    """As given; None where there is none, or where it must not be shown."""
    text: str
    """What is wrong, and the remedy."""
    line: int | None = None
    """Where in the file, from 1; None where it has no lines."""

    def __str__(self) -> str:
        file = self.file if self.line is None else f"{self.file}:{self.line}"
        where = ": ".join(part for part in (file, self.path) if part)
        value = str(self.value).lower() if isinstance(self.value, bool) else repr(self.value)
        shown = "" if self.value is None else f" = {value:.200}"
        return f"{where}{shown}: {self.text}"


class ConfigurationRefused(EsmError):
    """The operator must mend the file or the environment: every problem in one go."""

    def __init__(self, problems: Sequence[Problem], files: Sequence[Path] = ()) -> None:
        """`files`: every file that was read; a change of any of them may mend it."""
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
        self.files = tuple(files)
