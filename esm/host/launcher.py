"""Starts AWS's runtime client in a fresh process. Law: a plain script, standard library only, Python 3.8 and later.

Arguments: pid of the daemon, folder of the code, folder of the runtime client, handler. The process dies with its
daemon. The code comes first on the path and the runtime client last; site-packages, the interpreter's own or the
daemon's, are not on it (the interpreter runs with -S), so a handler imports what it brings and nothing else.
"""

import ctypes
import os
import resource
import runpy
import signal
import site
import sys

_PR_SET_PDEATHSIG = 1
_OPEN_FILES_MAX = 1024
"""Lambda's own. Source: lambda.md 7.7."""


def _die_with(daemon: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != daemon:  # it died before the wish was known
        os.kill(os.getpid(), signal.SIGKILL)


def _limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = _OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(_OPEN_FILES_MAX, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _set_path(code: str, client: str) -> None:
    own = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib would be loaded for this alone
    if sys.path and sys.path[0] == own:
        del sys.path[0]
    sys.path.insert(0, code)
    sys.path.append(client)


def _main() -> None:
    daemon, code, client, handler = sys.argv[1:]
    _die_with(int(daemon))
    _limit()
    site.setquit()  # what -S leaves out and handlers may use
    site.setcopyright()
    site.sethelper()
    _set_path(code, client)
    sys.argv[1:] = [handler]
    runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
