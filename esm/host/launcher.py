"""Starts AWS's Python runtime client in a process that cannot outlive the daemon. Run as a plain script, stdlib only.

Arguments: the daemon's pid, the code folder, the user's PYTHONPATH, then the runtime client's folders. The code folder
comes first on the path and the runtime client last, so that a handler never sees the daemon's libraries: the
interpreter runs isolated (-I) and without site-packages (-S).
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
OPEN_FILES_MAX = 1024
"""Lambda's RLIMIT_NOFILE. Source: lambda.md 7.7."""


def main() -> None:
    """Become the runtime."""
    parent, code, python_path, *client = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        os._exit(1)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    own = [entry for entry in python_path.split(os.pathsep) if entry]
    sys.path[:] = [code, *own, *sys.path, *client]
    sys.argv[:] = ["bootstrap", os.environ["_HANDLER"]]
    from awslambdaric.__main__ import main as run  # noqa: PLC0415 - found on the path made above

    run(sys.argv)


if __name__ == "__main__":
    main()
