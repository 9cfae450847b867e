"""What every store refuses, so that a value that one takes, all take."""

from esm.errors import ValueTooLarge
from esm.model.stored import BLOB_BYTES_MAX, VALUE_BYTES_MAX, Blob, Key


def check_value(key: Key, value: bytes) -> None:
    """Refuse what is too large. Raises: ValueTooLarge."""
    if len(value) > VALUE_BYTES_MAX:
        raise ValueTooLarge(
            f"The value of {key.kind} {key.item!r} has {len(value)} bytes, and a store takes {VALUE_BYTES_MAX}:"
            " split it."
        )


def check_blob(blob: Blob) -> None:
    """Refuse what is too large. Raises: ValueTooLarge."""
    if blob.size_bytes > BLOB_BYTES_MAX:
        raise ValueTooLarge(f"The blob of {blob.owner} has {blob.size_bytes} bytes, and {BLOB_BYTES_MAX} are the most.")
