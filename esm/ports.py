"""What the loops need from outside, as Protocols. Each promises both ways: what it gives, and how it fails."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from esm.model.clocks import Instant, UnixTime
from esm.model.function import FunctionFacts
from esm.model.invocation import Ending, Invocation
from esm.model.notice import AnyNotice
from esm.model.position import Position, Shard, StreamFacts
from esm.model.record import Message, QueueFacts, Read, StreamRecord
from esm.model.stored import Blob, Key, Page, Stored


class Clock(Protocol):
    """The two times, and waiting."""

    def now(self) -> Instant:
        """Monotonic seconds."""
        ...

    def wall(self) -> UnixTime:
        """Seconds since 1970 UTC; may jump."""
        ...

    async def sleep_until(self, at: Instant) -> None:
        """Return at `at`, or at once when it has passed."""
        ...


class Target(Protocol):
    """Something that runs one function."""

    @property
    def concurrency(self) -> int | None:
        """The most invocations at once that make sense, now; None where the target sets no bound of its own."""
        ...

    async def facts(self) -> FunctionFacts:
        """The function's timeout and role.

        Raises: OperatorNeeded (no such function, a missing interpreter), Unavailable.
        """
        ...

    async def wait_free(self) -> None:
        """Return once an invocation could start at once. Promises nothing: another caller may take the place."""
        ...

    async def invoke(self, invocation: Invocation) -> Ending:
        """Run the function once and say how it ended. A failure is a value: raises nothing but cancellation.

        Cancelled: the invocation may or may not have run; hosted ones are killed.
        """
        ...

    async def aclose(self) -> None:
        """End everything that the target started."""
        ...


class QueueSource(Protocol):
    """One SQS queue."""

    read_bytes_max: int
    """The most that the answer to one `receive` of ten messages can hold; known after `facts`."""

    async def facts(self) -> QueueFacts:
        """Visibility, sizes, kind. Raises: OperatorNeeded (no such queue, no permission), Unavailable."""
        ...

    async def receive(self, count: int, wait_s: int, attempt: str | None = None) -> list[Message]:
        """Up to `count` (1..10) messages, after waiting up to `wait_s` (0..20) for the first.

        `attempt` (FIFO only) names this receive: the same name after a failure brings the same messages again.
        Never cancel it once sent: messages that it would bring vanish for a visibility time-out.
        Raises: OperatorNeeded, Unavailable.
        """
        ...

    async def delete(self, messages: Sequence[Message]) -> list[Message]:
        """Delete up to 10 messages in one call; returns those that were not deleted and may be tried again.

        A message whose receipt handle is no longer valid counts as settled. Raises: OperatorNeeded, Unavailable.
        """
        ...

    async def release(self, messages: Sequence[Message], delay_s: int = 0) -> None:
        """Make up to 10 messages visible again in `delay_s` seconds, in this order, each if possible.

        Raises: OperatorNeeded, Unavailable.
        """
        ...

    async def extend(self, messages: Sequence[Message], seconds: Sequence[int]) -> list[Message]:
        """Hide up to 10 messages for so many seconds from now, each; returns those that are not.

        Raises: OperatorNeeded, Unavailable.
        """
        ...


class ShardReader(Protocol):
    """Reads one shard from one place on, in order. Holds the iterator; reopens an expired one by itself."""

    async def read(self, limit: int) -> Read:
        """The next records, at most `limit`; empty when there is nothing new.

        After `has_ended` it must not be called again.
        Raises: PositionLost (trimmed: open again at TrimHorizon), ShardGone, OperatorNeeded, Unavailable.
        """
        ...


class StreamSource(Protocol):
    """One Kinesis or DynamoDB stream."""

    read_bytes_max: int
    """The most that the answer to one `read` can hold."""
    reads_per_s_busy: float
    """Reads a second and shard while records come."""
    reads_per_s_idle: float
    """Reads a second and shard while none come."""

    async def facts(self) -> StreamFacts:
        """Identity and retention. Raises: OperatorNeeded (no such stream, no permission), Unavailable."""
        ...

    async def shards(self) -> list[Shard]:
        """A complete listing, all pages. Raises: OperatorNeeded, Unavailable."""
        ...

    async def exists(self, shard_id: str) -> bool:
        """Whether a shard absent from the listing can still be read (asked with GetShardIterator).

        Raises: OperatorNeeded, Unavailable.
        """
        ...

    async def children(self, shard_id: str) -> list[Shard] | None:
        """The children of a shard that has ended; None where the source cannot be asked for them alone."""
        ...

    async def first_from(self, shard_id: str, sequence: str) -> StreamRecord | None:
        """The first record at or after a sequence number; None where the shard does not know it, or none comes.

        Raises: ShardGone, OperatorNeeded, Unavailable.
        """
        ...

    def open(self, shard_id: str, position: Position) -> ShardReader:
        """A reader from `position` on. Does no I/O."""
        ...


class Destination(Protocol):
    """Where notices go: of given-up records, and of what became of asynchronous events."""

    async def send(self, notice: AnyNotice, document: bytes) -> None:
        """Deliver one notice; the same one may be sent again.

        Raises: OperatorNeeded, Unavailable: the caller tries again; NoticeTooLarge: only a smaller document can help.
        """
        ...

    async def check(self) -> None:
        """Ask whether it is there, without sending. Raises: OperatorNeeded, Unavailable."""
        ...


class Store(Protocol):
    """Compare-and-swap over small values. A version is never used again for a key, also after delete.

    Every method raises Unavailable when the store cannot be reached; the change may then have happened or not, and
    the adapter that learns so reports its own write as a success.
    """

    async def get(self, key: Key) -> Stored | None:
        """The value, strongly consistent."""
        ...

    async def scan(self, kind: str, owner: str, after: str | None = None, limit: int = 1000) -> Page:
        """Part of a partition in item order, from the item after `after` on.

        It shows every write that was answered before the call; the pages of a partition are not of one moment.
        """
        ...

    async def put(self, key: Key, value: bytes, expected_version: int | None) -> int:
        """Write (at most 350 KB) and return the new version; `expected_version` None: the key must not exist.

        Raises: Conflict, ValueTooLarge.
        """
        ...

    async def delete(self, key: Key, expected_version: int) -> None:
        """Remove. Raises: Conflict."""
        ...

    async def aclose(self) -> None:
        """Let go of files and connections."""
        ...


class Blobs(Protocol):
    """Bytes that are too large for a store, by a name that holds their SHA-256. A blob never changes.

    Whoever names a blob writes the item that does so after the blob, and removes it before. Every method raises
    Unavailable when they cannot be reached, refused calls included.
    """

    async def put(self, blob: Blob, content: bytes | Path) -> None:
        """Keep the bytes, or those of a file, which is read a piece at a time. The same may be put again.

        Raises: ValueTooLarge (above 250 MB).
        """
        ...

    async def get(self, blob: Blob) -> bytes | None:
        """The bytes; None where there is no such blob. Raises: OperatorNeeded (they are not what was put)."""
        ...

    async def fetch(self, blob: Blob, path: Path) -> bool:
        """Write the bytes into a file, a piece at a time, which is there only when it is whole; False: no such blob.

        Raises: OperatorNeeded (they are not what was put, or the file cannot be written).
        """
        ...

    async def delete(self, blob: Blob) -> None:
        """Remove; it may be gone already."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
