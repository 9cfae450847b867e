"""Which interpreter runs a runtime: the daemon's own, outside its virtual environment, or one on the PATH."""

import shutil
import subprocess
import sys
from functools import cache

from esm.errors import OperatorNeeded

_LOOKED_FOR = tuple(f"python3.{minor}" for minor in range(8, 21))
_PROBE = "import sys; print('python%d.%d' % sys.version_info[:2])"
PROBE_TIMEOUT_S = 10


def own() -> str:
    """The runtime that the daemon itself runs on."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


@cache
def interpreter(runtime: str) -> str:
    """The executable of `python3.N`. Raises: OperatorNeeded, naming what was found instead."""
    if runtime == own():
        return getattr(sys, "_base_executable", None) or sys.executable
    path = _working(runtime)
    if path is None:
        found = ", ".join([own(), *(name for name in _LOOKED_FOR if name != own() and _working(name))])
        raise OperatorNeeded(
            f"Runtime {runtime} is not here: found {found}. Put {runtime} on the daemon's PATH, or choose one of these."
        )
    return path


def _working(name: str) -> str | None:
    """The path of an interpreter on the PATH that runs and is what its name says."""
    path = shutil.which(name)
    if path is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - found by its fixed name
            [path, "-I", "-S", "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if answer.stdout.strip() == name else None
