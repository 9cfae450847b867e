"""The certificate of the API, read at start and again when its files change: a renewed one needs no restart."""

import ssl
from collections.abc import Callable
from pathlib import Path

from esm.errors import OperatorNeeded


class Certificate:
    """A chain and its key, as a context for servers."""

    def __init__(self, chain: Path, key: Path, on_problem: Callable[[str], None]) -> None:
        """Raises: OperatorNeeded where the files are none that fit."""
        self._chain = chain
        self._key = key
        self._on_problem = on_problem
        self._seen = self._stamp()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._load()

    def look(self) -> None:
        """Take changed files over, for connections from now on; wrong ones are reported, and the old pair goes on."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._load()
        except OperatorNeeded as error:
            self._on_problem(str(error))

    def _load(self) -> None:
        try:
            self.context.load_cert_chain(self._chain, self._key, password=_no_password)
        except (OSError, ValueError) as error:
            raise OperatorNeeded(
                f"ESM_API_TLS_CERT_FILE {self._chain} and ESM_API_TLS_KEY_FILE {self._key} are no certificate and its"
                f" key ({error}): give a chain and an unencrypted key in PEM."
            ) from error

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self._chain, self._key))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _no_password() -> str:
    """Instead of a question at the terminal."""
    msg = "the key is encrypted"
    raise ValueError(msg)
