"""The ledger: what was written, what the handlers took, what was given up. Nothing may be missing at the end."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path


class Account:
    """The records of one source, by id."""

    def __init__(self) -> None:
        self.written: set[str] = set()
        self.taken: Counter[str] = Counter()
        self.given_up: set[str] = set()

    @property
    def missing(self) -> set[str]:
        """Written, but neither taken nor given up: lost, or not there yet."""
        return self.written - self.taken.keys() - self.given_up

    @property
    def taken_count(self) -> int:
        """Different records taken, those sent by hand with them."""
        return len(self.taken)

    @property
    def taken_again(self) -> int:
        """How many of the written records were taken more than once."""
        return sum(1 for one in self.written if self.taken[one] > 1)


class Ledger:
    """One account a source. Handlers append ids to files `<source>-<pid>.log` of one folder, a line each."""

    def __init__(self, folder: Path, sources: Iterable[str]) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}
        self.accounts = {source: Account() for source in sources}

    def read(self) -> None:
        """Take over what the handlers have noted since. A line that is not complete yet waits."""
        for path in sorted(self._folder.glob("*.log")):
            source = path.name.rsplit("-", 1)[0]
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                lines, newline, _ = file.read().rpartition(b"\n")
            self._offsets[path] = self._offsets.get(path, 0) + len(lines) + len(newline)
            self.accounts[source].taken.update(line.decode() for line in lines.split(b"\n") if line)

    @property
    def missing(self) -> int:
        """Records that are neither taken nor given up, over all sources."""
        return sum(len(account.missing) for account in self.accounts.values())
