"""What was asked for through the API: mappings that stand in the store instead of in a file."""

from dataclasses import dataclass, field
from typing import Any

from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.mapping import State


@dataclass(frozen=True, slots=True)
class DesiredMapping:
    """A mapping as it was asked for."""

    uuid: str
    request: dict[str, Any] = field(hash=False)
    """Parameters of CreateEventSourceMapping, later changes and tags included."""
    function_arn: Arn
    """What FunctionName stood for, qualifier included."""
    state: State
    """What the last change led to: shown until a daemon has taken that change over. Deleting: it is to go."""
    created_at: UnixTime
    modified_at: UnixTime
    version: int | None = None
    """Of the stored item; None: it is not stored yet."""
    extra: dict[str, object] = field(default_factory=dict, hash=False)
    """Attributes of a newer version, kept and written back."""

    @property
    def is_leaving(self) -> bool:
        """Whether it was deleted: it drains, and goes."""
        return self.state is State.DELETING
