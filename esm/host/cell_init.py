"""The first process of a sandbox: starts the others when told, and stops their time.

Law: nothing of ours is imported, and of the standard library only what is compiled in and costs no time, since every
cold start waits for it (the socket module is loaded where a port has to be handed out). Its first argument is the
number of a socket to the daemon, whose interpreter is the same. Told: a length of four bytes and a marshalled tuple,
`("listen",)` (bind the Runtime API's port here and hand the socket out), `("start", NAME, COMMAND, VARIABLES)`,
`("signal", NAME, NUMBER)`, `("all", NUMBER)`. Says lines: `exited STATUS NAME`, `failed 127 NAME`. When the daemon's
end closes, it ends, and the kernel ends everything else in its process space with it.
"""

import marshal
import os
import resource
import select
import sys

_PORT = 9001
"""The Runtime API's, where the network is the sandbox's own."""
_OPEN_FILES_MAX = 1024
_PROCESSES_MAX = 1024
"""Lambda's own. Source: lambda.md 7.7."""
_SIGKILL = 9
_LENGTH_BYTES = 4


class Init:
    """See the module."""

    def __init__(self, control: int) -> None:
        self._control = control
        self._children: dict[int, tuple[int, str]] = {}
        """By file descriptor of the process: its number and its name."""
        self._held = b""
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def run(self) -> None:
        """Until the daemon's end closes."""
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._control:
                    self._reap(fd)
                elif not self._read():
                    return

    def _read(self) -> bool:
        data = os.read(self._control, 65536)
        self._held += data
        while len(self._held) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._held[:_LENGTH_BYTES], "big")
            if len(self._held) < end:
                break
            order, self._held = self._held[_LENGTH_BYTES:end], self._held[end:]
            self._obey(*marshal.loads(order))  # noqa: S302 - the daemon's own words
        return bool(data)

    def _obey(self, what: str, *rest: object) -> None:
        match what, rest:
            case "listen", ():
                self._listen()
            case "start", (str(name), list(command), dict(variables)):
                self._start(name, command, variables)
            case "signal", (str(name), int(number)):
                for pid in [pid for pid, own in self._children.values() if own == name]:
                    _send(-pid if number == _SIGKILL else pid, number)  # it leads its group
            case "all", (int(number),):
                _send(-1, number)  # everything in this process space but its first process and this one

    def _listen(self) -> None:
        import socket  # noqa: PLC0415 - only here

        with (
            socket.create_server(("127.0.0.1", _PORT)) as listening,
            socket.socket(fileno=os.dup(self._control)) as way,
        ):
            socket.send_fds(way, [b"bound 0 \n"], [listening.fileno()])

    def _start(self, name: str, command: list[str], variables: dict[str, str]) -> None:
        try:
            closes = [(os.POSIX_SPAWN_CLOSE, self._control)]
            pid = os.posix_spawn(command[0], command, variables, setsid=True, file_actions=closes)
            fd = os.pidfd_open(pid)
        except (OSError, ValueError):
            self._say(f"failed 127 {name}")
        else:
            self._children[fd] = pid, name
            self._poll.register(fd, select.POLLIN)

    def _reap(self, fd: int) -> None:
        pid, name = self._children.pop(fd)
        self._poll.unregister(fd)
        os.close(fd)
        _, status = os.waitpid(pid, 0)
        self._say(f"exited {os.waitstatus_to_exitcode(status)} {name}")

    def _say(self, line: str) -> None:
        os.write(self._control, line.encode() + b"\n")


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _main() -> None:
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES_MAX)
    _limit(resource.RLIMIT_NPROC, _PROCESSES_MAX)
    _limit(resource.RLIMIT_CORE, 0)
    control, *data_bytes_max = sys.argv[1:]
    if data_bytes_max:
        _limit(resource.RLIMIT_DATA, int(data_bytes_max[0]))
    Init(int(control)).run()


if __name__ == "__main__":
    _main()
