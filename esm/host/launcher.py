"""Starts a function's process. Law: a plain script, standard library only, Python 3.8 and later.

Arguments: pid of the daemon (0 in a sandbox, which dies with it by itself), the most bytes of data (0: no bound), then
either `exec` and a command, or `python`, folder of the code, folder of the layers, folder of the runtime client and
handler: AWS's runtime client then runs in this very process. The code comes first on the path, then the layers, and
the runtime client last; site-packages, the interpreter's own or the daemon's, are not on it (the interpreter runs with
-S), so a handler imports what it and its layers bring and nothing else.
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


def _limit(data_bytes_max: int) -> None:
    for kind, most in ((resource.RLIMIT_NOFILE, _OPEN_FILES_MAX), (resource.RLIMIT_DATA, data_bytes_max)):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # noqa: PLW2901
        if most:
            resource.setrlimit(kind, (most, hard if kind == resource.RLIMIT_NOFILE else most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _set_path(code: str, layers: str, client: str) -> None:
    own = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib would be loaded for this alone
    if sys.path and sys.path[0] == own:
        del sys.path[0]
    sys.path.insert(0, code)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for folder in (f"{layers}/python/lib/{version}/site-packages", f"{layers}/python"):
        if os.path.isdir(folder):  # noqa: PTH112
            sys.path.append(folder)
    sys.path.append(client)


def _main() -> None:
    daemon, data_bytes_max, kind, *rest = sys.argv[1:]
    if daemon != "0":
        _die_with(int(daemon))
    _limit(int(data_bytes_max))
    if kind == "exec":
        os.execv(rest[0], rest)  # noqa: S606 - the environment is the function's own
    code, layers, client, handler = rest
    site.setquit()  # what -S leaves out and handlers may use
    site.setcopyright()
    site.sethelper()
    _set_path(code, layers, client)
    sys.argv[1:] = [handler]
    runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
