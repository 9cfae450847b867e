"""What is a URL that something can be called at."""

import re
from urllib.parse import urlsplit


def url_problem(text: str) -> str | None:
    """What is wrong with the URL of an endpoint or a function; None where nothing is. Never shows the URL."""
    form = "must be a URL: http://host:port or https://host:port"
    if not re.fullmatch(r"https?://[^\s\x00-\x1f]+", text):
        return form
    try:
        parts = urlsplit(text)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return form
    if "@" in parts.netloc:
        return "must be http(s)://host[:port][/path], without user and password"
    return None if has_host else form
