"""What a worker of a crew gets from its supervisor, in one argument of its command line.

Law: a worker dies with its supervisor at once, however that ends; nobody would restart it or answer for it.
"""

import ctypes
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from esm.errors import OperatorNeeded

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Place:
    """One worker's place in its crew."""

    supervisor: int
    """Process id."""
    lock: int | None
    """Descriptor of the state's lock, inherited; None where the state needs none."""
    socket: Path
    """Where this worker serves what others serve at ESM_METRICS_ADDRESS."""

    @classmethod
    def parse(cls, text: str) -> "Place":
        """What `str` made. Raises: ValueError."""
        supervisor, lock, socket = text.split(":", 2)
        return cls(int(supervisor), int(lock) if lock else None, Path(socket))

    def __str__(self) -> str:
        return f"{self.supervisor}:{'' if self.lock is None else self.lock}:{self.socket}"

    def take(self) -> None:
        """Die with the supervisor from now on; if that is dead already, now.

        Raises: OperatorNeeded: another process than the supervisor has started this one, or the system does not allow.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            raise OperatorNeeded(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
        if os.getppid() != self.supervisor:
            raise OperatorNeeded(
                f"The process {self.supervisor} is not, or no longer, the supervisor of this worker: start workers by"
                " `esm run --workers N`."
            )
