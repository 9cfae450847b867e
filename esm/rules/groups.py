"""Groups: which FIFO message groups are with a batch now, so that none is ever with two.

SQS keeps a group back while a message of it is hidden, but no longer than that: a function that outlives visibility, or
a deletion whose answer is still under way, lets the next messages of a group come while the first are not settled.
Source: lambda.md 2.1; design section 8.2.
"""

from collections.abc import Iterable, Sequence

from esm.model.record import Message

Messages = tuple[Message, ...]


class Groups:
    """The groups of one queue that are with a batch. Invariant: a group has at most one holder."""

    def __init__(self) -> None:
        self._held: set[str | None] = set()

    def are_free(self, messages: Iterable[Message]) -> bool:
        """Whether no group among them is with a batch."""
        return not any(message.group in self._held for message in messages)

    def claim(self, messages: Sequence[Message]) -> tuple[Messages, list[Messages]]:
        """Take the free groups; returns their messages, and those of each group that is with another batch."""
        busy: dict[str | None, list[Message]] = {}
        for message in messages:
            if message.group in self._held:
                busy.setdefault(message.group, []).append(message)
        mine = tuple(message for message in messages if message.group not in busy)
        self._held.update(message.group for message in mine)
        return mine, [tuple(group) for group in busy.values()]

    def leave(self, messages: Iterable[Message]) -> None:
        """The batch is settled: its groups are free."""
        self._held.difference_update(message.group for message in messages)
