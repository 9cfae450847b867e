"""IP addresses and ranges of them. A range of one family holds no address of the other.

Source: CIDR of AWS's rule engine: decimal parts, leading zeros allowed; an IPv4-mapped IPv6 address is the IPv4
address; a mask leaves at least one bit open.
"""

import re
from ipaddress import IPv6Address
from typing import NamedTuple

_V4 = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
_V6 = re.compile(r"[0-9a-fA-F:]*:[0-9a-fA-F:]*")
V4_CHARACTERS_MAX = 15
V6_CHARACTERS_MAX = 39
V4_PART_MAX = 255


class Address(NamedTuple):
    """An address as a number, and how many bits its family has."""

    bits: int
    value: int


def address(text: str) -> Address | None:
    """The address that the text writes; None where it writes none."""
    if len(text) <= V4_CHARACTERS_MAX and _V4.fullmatch(text):
        parts = [int(part) for part in text.split(".")]
        if max(parts) > V4_PART_MAX:
            return None
        return Address(32, int.from_bytes(bytes(parts)))
    if len(text) <= V6_CHARACTERS_MAX and _V6.fullmatch(text):
        try:
            found = IPv6Address(text)
        except ValueError:
            return None
        mapped = found.ipv4_mapped
        return Address(128, int(found)) if mapped is None else Address(32, int(mapped))
    return None


class Network(NamedTuple):
    """All addresses that share the leading bits of one."""

    base: Address
    open_bits: int

    def holds(self, other: Address) -> bool:
        """Whether an address is in the range."""
        return other.bits == self.base.bits and other.value >> self.open_bits == self.base.value >> self.open_bits


def network(text: str) -> Network:
    """The range that `address/mask` writes. Raises: ValueError, saying what is wrong."""
    written, slash, mask = text.partition("/")
    if not slash or "/" in mask:
        msg = f"{text!r} is no CIDR: it has one '/'"
        raise ValueError(msg)
    if not re.fullmatch(r"\+?[0-9]{1,9}", mask):
        msg = f"{text!r} is no CIDR: the mask {mask!r} is no whole number"
        raise ValueError(msg)
    base = address(written)
    if base is None:
        msg = f"{text!r} is no CIDR: {written!r} is no IP address"
        raise ValueError(msg)
    if int(mask) >= base.bits:
        msg = f"{text!r} is no CIDR: the mask is less than {base.bits}"
        raise ValueError(msg)
    return Network(base, base.bits - int(mask))
