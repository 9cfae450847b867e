"""What a host is: an address, this machine alone, or a name that somebody else decides on."""

import ipaddress

_LOCAL = "localhost"


def is_address(host: str) -> bool:
    """Whether a host is localhost or an address, without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == _LOCAL
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host; another name than localhost may be anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == _LOCAL
