"""What the API needs of the daemon that serves it, as Protocols."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from esm.catalogue import Catalogue
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.desired import DesiredMapping
from esm.model.function import Function, FunctionFacts
from esm.model.invocation import Ending, Invocation
from esm.model.mapping import Mapping, State
from esm.model.view import MappingView
from esm.telemetry import Telemetry


class Functions(Protocol):
    """The functions that can be called."""

    def functions(self) -> Sequence[Function]:
        """Those of the configuration."""
        ...

    def modified_at(self) -> UnixTime:
        """When the configuration was read last."""
        ...

    def resolved(self, name: str) -> tuple[Arn, Function]:
        """What a FunctionName stands for: a name, a partial or full ARN, with or without a qualifier.

        Raises: RequestRefused (404, `Function not found: ARN`).
        """
        ...

    async def facts(self, function: Function) -> FunctionFacts:
        """What the function's target knows of it. Raises: OperatorNeeded, Unavailable."""
        ...

    async def invoke(self, function: Function, invocation: Invocation) -> Ending:
        """Run it once, or hand an asynchronous event to the function's own queue (`is_async`).

        Raises: RequestRefused (an event too large), Unavailable (the queue cannot store it).
        """
        ...


class Mappings(Protocol):
    """The event source mappings of the daemon, of file and API alike."""

    def declared(self) -> Sequence[Mapping]:
        """Those of the configuration file, which the API does not change."""
        ...

    def place(self, uuid: str) -> str:
        """Where in the configuration a declared mapping stands: for texts."""
        ...

    def modified_at(self) -> UnixTime:
        """When the configuration was read last."""
        ...

    def view(self, uuid: str) -> MappingView | None:
        """What a running mapping shows; None where it does not run here."""
        ...

    def state(self, desired: DesiredMapping) -> State:
        """The state of a stored mapping, as the API shows it."""
        ...

    def problem(self, uuid: str) -> str | None:
        """Why a stored mapping is not run here, though it should; None where it is."""
        ...

    async def check(self, mapping: Mapping) -> None:
        """Ask whether function, source and destination are there. Raises: RequestRefused, Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Behind:
    """What the operations work with."""

    catalogue: Catalogue
    functions: Functions
    mappings: Mappings
    telemetry: Telemetry
    new_id: Callable[[], str]
