"""The first process of a sandbox: starts the others when told, and stops their time. Standard library.

Law: nothing of ours is imported. Its one argument is the number of a socket to the daemon, over which lines of JSON go
both ways; when the daemon's end closes, it ends, and the kernel ends everything else in its process space with it.
Told: {"listen": true} (bind the Runtime API's port here, and hand the socket out), {"start": NAME, "command": [...],
"variables": {...}}, {"signal": N, "name": NAME}, {"do": "freeze" | "thaw"}. Says: {"bound": PORT}, {"exited": NAME,
"status": N}, {"failed": NAME}.
"""

import array
import json
import os
import resource
import selectors
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

_PORT = 9001
"""The Runtime API's, where the network is the sandbox's own."""
_OPEN_FILES_MAX = 1024
_PROCESSES_MAX = 1024
"""Lambda's own. Source: lambda.md 7.7."""


class Init:
    """See the module."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._names: dict[int, str] = {}
        self._rest = b""

    def run(self) -> None:
        """Until the daemon's end closes."""
        wake, wakes = os.pipe()
        os.set_blocking(wakes, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wakes)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj == wake:
                        os.read(wake, 4096)
                        self._reap()
                    elif not self._read():
                        return

    def _read(self) -> bool:
        data = self._control.recv(65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        return bool(data)

    def _obey(self, order: dict[str, Any]) -> None:
        if "listen" in order:
            self._listen()
        elif "start" in order:
            self._start(order["start"], order["command"], order["variables"])
        elif "signal" in order:
            for pid in [pid for pid, name in self._names.items() if name == order["name"]]:
                with suppress(ProcessLookupError):
                    (os.killpg if order["signal"] == signal.SIGKILL else os.kill)(pid, order["signal"])
        else:
            number = {"freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}[order["do"]]
            with suppress(ProcessLookupError):
                os.kill(-1, number)  # everything in this process space but its first process and this one

    def _listen(self) -> None:
        listening = socket.create_server(("127.0.0.1", _PORT))
        handed = array.array("i", [listening.fileno()])
        said = json.dumps({"bound": _PORT}).encode() + b"\n"
        self._control.sendmsg([said], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handed)])
        listening.close()

    def _start(self, name: str, command: list[str], variables: dict[str, str]) -> None:
        try:
            pid = os.posix_spawn(
                command[0], command, variables, setsid=True, setsigdef=[signal.SIGTERM, signal.SIGCHLD],
                file_actions=[(os.POSIX_SPAWN_CLOSE, self._control.fileno())],
            )  # fmt: skip
        except (OSError, ValueError):
            self._say({"failed": name})
        else:
            self._names[pid] = name

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self._names.pop(pid, None)
            if name is not None:
                code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                self._say({"exited": name, "status": code})

    def _say(self, words: dict[str, Any]) -> None:
        self._control.sendall(json.dumps(words).encode() + b"\n")


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _main() -> None:
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES_MAX)
    _limit(resource.RLIMIT_NPROC, _PROCESSES_MAX)
    _limit(resource.RLIMIT_CORE, 0)
    if len(sys.argv) > 2:  # noqa: PLR2004
        _limit(resource.RLIMIT_DATA, int(sys.argv[2]))
    Init(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    _main()
