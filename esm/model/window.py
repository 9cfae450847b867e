"""A tumbling window that is open in one lane, and where its state stands in the store."""

from dataclasses import dataclass, field

from esm.model.position import AfterSequence


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """A window between its first record and its final call."""

    start_s: int
    """Unix seconds, a multiple of the window's size."""
    end_s: int
    state: bytes = field(default=b"{}", repr=False)
    """The JSON object of the function's last answer, byte for byte."""
    last: AfterSequence | None = None
    """The last record settled in the window; None: its first batch is still on its way."""
    stored_bytes: int = 0
    """Above 0: the state, so long, stands in the store alone, and `state` is empty until it is needed."""

    @property
    def is_hollow(self) -> bool:
        """Whether the state has to be read before it can be used."""
        return self.stored_bytes > 0

    @property
    def state_bytes(self) -> int:
        """The length of the state, wherever it is."""
        return self.stored_bytes or len(self.state)

    @property
    def size_s(self) -> int:
        """`TumblingWindowInSeconds` as it was when the window opened."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class StoredState:
    """What a lease says of its open window: the bounds, and which items of kind `window` hold the state."""

    start_s: int
    end_s: int
    last: AfterSequence
    generation: int
    """Of the lease when the state was written: two owners never write the same item."""
    number: int
    """Grows with every state that an owner writes."""
    parts: int
    size_bytes: int
    extra: dict[str, object] = field(default_factory=dict)
    """Attributes of a newer version, kept and written back."""
