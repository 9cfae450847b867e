"""Functions whose runtimes run elsewhere and pull their invocations from here: one Runtime API each, at its `Listen`.

Law: an address belongs to its function, not to one version of its configuration: what waits and runs there goes on
when the function's timeout, bound or tokens change.
"""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable

from esm.errors import OperatorNeeded
from esm.host.doorway import Doorway, Guarding, Rounds, Tls, Tokens
from esm.host.meeting import VERSION, Meeting
from esm.host.metrics import HostMetrics, Runtimes
from esm.model.arn import Arn
from esm.model.function import Function, FunctionFacts, PulledFunction
from esm.model.invocation import Ending, Invocation, Misconfigured, Throttled
from esm.ports import Target
from esm.telemetry import Telemetry
from esm.watched import Watched, read_file

_TOKEN = re.compile(rb"[A-Za-z0-9._~-]{16,256}")
"""It may stand in a URL's path as it is."""


_Key = tuple[Arn, str, int]


def _key(function: PulledFunction) -> _Key:
    return function.arn, function.host, function.port


class _Place:
    """One address, whichever definitions of its function are in use."""

    def __init__(self, function: PulledFunction, meeting: Meeting, doorway: Doorway, *, serves: bool) -> None:
        self.meeting = meeting
        self.doorway = doorway
        self.users = 0
        self._serves = serves
        self._opening = asyncio.Lock()
        self._problem: str | None = None
        self._take(function)

    def _take(self, function: PulledFunction) -> None:
        self.function = function
        self._tokens = _tokens(function)
        self._tls = _tls(function)

    def follow(self, function: PulledFunction) -> None:
        """The function is defined like this now."""
        if function != self.function:
            self._take(function)
            self.meeting.follow(function)
            self.doorway.follow(function)

    async def open(self) -> None:
        """Listen, with files as they are now. Raises: OperatorNeeded."""
        async with self._opening:
            self._tokens()
            context = self._tls()
            if self._serves:
                await self.doorway.open(self._tokens, context)

    async def look(self) -> str | None:
        """As `open`; returns what is wrong when that is news."""
        before = self._problem
        try:
            await self.open()
            self._problem = None
        except OperatorNeeded as error:
            self._problem = str(error)
        return None if self._problem == before else self._problem

    @property
    def runtimes(self) -> Runtimes:
        meeting = self.meeting
        return Runtimes(self.function.key, meeting.waiting, meeting.working, meeting.resting())

    async def aclose(self) -> None:
        self.meeting.close()
        await self.doorway.aclose()


class Elsewhere:
    """Makes targets of such functions. Needs a running asyncio loop from the first target on."""

    def __init__(
        self, telemetry: Telemetry, metrics: HostMetrics, guarding: Guarding,
        *, serves: bool, shares_port: bool = False, rounds: Rounds | None = None,
    ) -> None:  # fmt: skip
        """`serves` False: functions are only looked at, and no address is taken. The others as in `Doorway`."""
        self._telemetry = telemetry
        self._metrics = metrics
        self._guarding = guarding
        self._serves = serves
        self._shares_port = shares_port
        self._rounds = rounds
        self._places: dict[_Key, _Place] = {}
        self._declared: set[_Key] = set()
        metrics.runtimes = self.runtimes

    def declare(self, functions: Iterable[Function]) -> None:
        """These are the functions of the configuration: `listen` serves their addresses, invoked or not."""
        pulled = [one for one in functions if isinstance(one, PulledFunction)]
        self._declared = {_key(one) for one in pulled}
        for function in pulled:
            self._place(function).follow(function)

    def target(self, function: PulledFunction) -> Target:
        """What runs `function`. Does no I/O: `facts()`, or `listen()`, opens its address."""
        key, place = _key(function), self._place(function)
        place.follow(function)
        place.users += 1
        return _Pulled(function, place, self._metrics, lambda: self._leave(key, place))

    async def listen(self) -> None:
        """Serve every address that is declared or has a target, with files as they are now, and close the others.

        What hinders is said once, and tried again at the next call.
        """
        for key, place in tuple(self._places.items()):
            if not place.users and key not in self._declared:
                await self._close(key, place)
            elif (problem := await place.look()) is not None:
                self._telemetry.warned("runtime api is not served", problem=problem)

    async def aclose(self) -> None:
        """Close every address."""
        for key, place in tuple(self._places.items()):
            await self._close(key, place)

    def drain(self) -> None:
        """The worker stops: what runs goes on, and nobody waits where no runtime is."""
        for place in self._places.values():
            place.meeting.drain()

    def runtimes(self) -> Iterable[Runtimes]:
        """Those of every function."""
        return [place.runtimes for place in self._places.values()]

    def present(self, function: PulledFunction) -> int:
        """How many runtimes serve a function from here."""
        place = self._places.get(_key(function))
        return 0 if place is None else place.meeting.present

    def _place(self, function: PulledFunction) -> _Place:
        key = _key(function)
        if key not in self._places:
            meeting = Meeting(function, self._metrics)
            doorway = Doorway(
                function, meeting, self._telemetry, self._guarding, shares_port=self._shares_port, rounds=self._rounds
            )  # fmt: skip
            self._places[key] = _Place(function, meeting, doorway, serves=self._serves)
        return self._places[key]

    async def _leave(self, key: _Key, place: _Place) -> None:
        place.users -= 1
        if not place.users and key not in self._declared:
            await self._close(key, place)

    async def _close(self, key: _Key, place: _Place) -> None:
        if self._places.get(key) is place:
            del self._places[key]
            await place.aclose()


class _Pulled:
    """A `Target` for one definition of a function."""

    def __init__(
        self, function: PulledFunction, place: _Place, metrics: HostMetrics, leave: Callable[[], Awaitable[None]]
    ) -> None:
        self._function = function
        self._place = place
        self._metrics = metrics
        self._leave = leave
        self._is_closed = False

    @property
    def concurrency(self) -> int | None:
        """Its runtimes, at most `MaxConcurrency`, at least 1."""
        most, present = self._function.concurrency_max, self._place.meeting.present
        return max(1, present if most is None else min(most, present))

    async def facts(self) -> FunctionFacts:
        """As configured; from then on its address is served. Raises: OperatorNeeded (port, tokens, certificate)."""
        self._place.follow(self._function)
        await self._place.open()
        return FunctionFacts(self._function.timeout_s, self._function.role)

    async def wait_free(self) -> None:
        """See `ports.Target`; returns also where no runtime can initialise: the invocation will say so."""
        meeting = self._place.meeting
        while not (meeting.can_start or (meeting.problem is not None and not meeting.present)):
            await meeting.wait_change()

    async def invoke(self, invocation: Invocation) -> Ending:
        """See `ports.Target`. Waits for a runtime until `start_by`; cancelled, its runtime's connection is ended."""
        place, meeting = self._place, self._place.meeting
        if not place.doorway.is_open:
            try:
                await place.open()
            except OperatorNeeded as error:
                return Misconfigured(invocation.request_id, str(error))
        if meeting.problem is not None and not meeting.present:
            return Misconfigured(invocation.request_id, meeting.problem)
        now = asyncio.get_running_loop().time()
        is_too_late = invocation.start_by is not None and invocation.start_by <= now
        if self._is_closed or is_too_late or not (invocation.waits or meeting.can_start):
            self._metrics.throttled(self._function.key, VERSION)
            return Throttled(invocation.request_id)
        return await meeting.run(invocation)

    async def aclose(self) -> None:
        """Let go of the address; the last one closes it."""
        if not self._is_closed:
            self._is_closed = True
            await self._leave()


def _tokens(function: PulledFunction) -> Tokens:
    """The tokens of a function, one a line of its file: an old one may stay until every runtime has the new one."""
    path = function.token_file
    if path is None:
        return tuple

    def read() -> tuple[bytes, ...]:
        assert path is not None
        found = tuple(line.strip() for line in read_file(path).splitlines() if line.strip())
        if not found or not all(_TOKEN.fullmatch(token) for token in found):
            raise OperatorNeeded(
                f"TokenFile {path} of the function {function.key} must hold one token a line, each of 16 to 256"
                " letters, digits, and . _ ~ -"
            )
        return found

    return Watched((path,), read).value


def _tls(function: PulledFunction) -> Tls:
    """The context of its server; files that have changed make another one."""
    certificate, key, authorities = function.cert_file, function.key_file, function.client_ca_file
    if certificate is None or key is None:
        return lambda: None

    def read() -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate, key, password=_no_password)
            if authorities is not None:
                context.load_verify_locations(authorities)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:
            files = ", ".join(one for one in (certificate, key, authorities) if one is not None)
            raise OperatorNeeded(
                f"CertFile, KeyFile and ClientCaFile of the function {function.key} ({files}) are no certificate with"
                f" its key, and authorities ({error}): give a chain, an unencrypted key and a bundle in PEM."
            ) from error
        return context

    return Watched(tuple(one for one in (certificate, key, authorities) if one is not None), read).value


def _no_password() -> str:
    """Instead of a question at the terminal."""
    msg = "the key is encrypted"
    raise ValueError(msg)
