"""The Extensions API of one environment: who is registered, what each waits for. Source: lambda.md 7.2.

Law: external extensions (executables below /opt/extensions) register by their file name before the runtime starts;
internal ones, which are part of the runtime, until it has asked for its first event. An extension has at most one
event of each kind to fetch. The interfaces for logs and telemetry are answered as the emulator answers them: 202, and
a text that says that they are not there.
"""

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from aiohttp import web

from esm.host.wire import ERROR_TYPE_LENGTH_MAX, accepted, body_within, refused

PREFIX = "/2020-01-01/extension/"
EXTENSIONS_MAX = 10
_BODY_BYTES_MAX = 64 * 1024
_EVENTS = frozenset({"INVOKE", "SHUTDOWN"})
_IDENTIFIER = "Lambda-Extension-Identifier"
_STATE = "Extension.InvalidExtensionState"


@dataclass(frozen=True, slots=True)
class Facts:
    """What an extension is told of its function."""

    function: str
    version: str
    handler: str
    account: str


class Phase(Enum):
    """What an extension does."""

    STARTED = "Started"
    """Its process runs, and it has not registered."""
    REGISTERED = "Registered"
    WAITING = "Ready"
    """It has asked for its next event."""
    RUNNING = "Running"
    """It has been given one."""
    FAILED = "Failed"


@dataclass(slots=True)
class _Extension:
    name: str
    is_external: bool
    identifier: str = field(default_factory=lambda: str(uuid.uuid4()))
    phase: Phase = Phase.STARTED
    events: frozenset[str] = frozenset()
    pending: list[dict[str, object]] = field(default_factory=list)
    has_news: asyncio.Event = field(default_factory=asyncio.Event)
    is_asking: bool = False
    """Whether a call of `event/next` is held open."""


class Listener(Protocol):
    """Who is told what extensions do; called in the event loop, must not wait."""

    def progressed(self) -> None:
        """One has registered, or waits for its next event."""

    def extension_failed(self, name: str, error_type: str) -> None:
        """One says that it cannot go on."""


class Extensions:
    """See the module."""

    def __init__(self, facts: Facts, external: Sequence[str], listener: Listener) -> None:
        self._facts = facts
        self._listener = listener
        self._all = {name: _Extension(name, is_external=True) for name in external}
        self._is_open = True

    @property
    def are_registered(self) -> bool:
        """Whether no external extension is still to register."""
        return all(one.phase is not Phase.STARTED for one in self._all.values())

    @property
    def are_waiting(self) -> bool:
        """Whether each has asked for its next event and has none to fetch."""
        return all(one.phase is Phase.WAITING and not one.pending for one in self._all.values())

    @property
    def want_shutdown(self) -> bool:
        """Whether one is to be told of the end."""
        return any("SHUTDOWN" in one.events for one in self._all.values())

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._all)

    def close_registration(self) -> None:
        """The runtime is initialised."""
        self._is_open = False

    def invoke(self, request_id: str, function_arn: str, deadline_ms: int, trace: str | None) -> None:
        """Tell those that want to know of an invocation."""
        event: dict[str, object] = {
            "eventType": "INVOKE", "deadlineMs": deadline_ms, "requestId": request_id,
            "invokedFunctionArn": function_arn, "tracing": {"type": "X-Amzn-Trace-Id", "value": trace or ""},
        }  # fmt: skip
        self._deliver("INVOKE", event)

    def shut_down(self, reason: str, deadline_ms: int) -> None:
        """Tell those that want to know of the end; `reason` is SPINDOWN, TIMEOUT or FAILURE."""
        event: dict[str, object] = {"eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": deadline_ms}
        self._deliver("SHUTDOWN", event)

    async def serve(self, request: web.BaseRequest) -> web.Response:  # noqa: PLR0911 - one for each refusal
        """Answer one call below `PREFIX`."""
        call = request.method, request.path[len(PREFIX) :]
        if call == ("POST", "register"):
            return await self._register(request)
        if call not in {("GET", "event/next"), ("POST", "init/error"), ("POST", "exit/error")}:
            text = f"{call[0][:20]} {request.path[:200]} is no call of the Extensions API"
            return refused(404, "NotFound", text)
        identifier = request.headers.get(_IDENTIFIER, "")
        if not identifier:
            return refused(403, "Extension.MissingExtensionIdentifier", f"Missing {_IDENTIFIER} header")
        if not _is_uuid(identifier):
            return refused(403, "Extension.InvalidExtensionIdentifier", f"Invalid {_IDENTIFIER}")
        found = [one for one in self._all.values() if one.identifier == identifier]
        if not found or found[0].phase is Phase.STARTED:
            return refused(403, "Extension.UnknownExtensionIdentifier", f"Unknown {_IDENTIFIER}")
        if call[0] == "GET":
            return await self._next(found[0])
        return self._failed(found[0], request)

    async def _register(self, request: web.BaseRequest) -> web.Response:  # noqa: PLR0911 - likewise
        name = request.headers.get("Lambda-Extension-Name", "")
        if not name or len(name) > ERROR_TYPE_LENGTH_MAX:
            return refused(403, "Extension.InvalidExtensionName", "Empty extension name")
        events = _events(await body_within(request.content.iter_any(), _BODY_BYTES_MAX))
        if events is None:
            return refused(403, "InvalidRequestFormat", 'the body must be {"events": [...]}')
        one = self._all.get(name)
        is_external = one is not None and one.is_external
        wrong = [event for event in events if event not in (_EVENTS if is_external else {"INVOKE"})]
        if wrong:
            kind = "an extension" if is_external else "an internal extension"
            return refused(403, "Extension.InvalidEventType", f"{wrong[0][:40]}: {kind} cannot register for it")
        if one is None:
            if not self._is_open:
                return refused(403, "Extension.RegistrationClosed", "Extension registration closed already")
            if len(self._all) >= EXTENSIONS_MAX:
                return refused(403, "Extension.TooManyExtensions", f"Extension limit ({EXTENSIONS_MAX}) reached")
            one = self._all[name] = _Extension(name, is_external=False)
        elif one.phase is not Phase.STARTED:
            return refused(403, _STATE, "Extension with this name already registered")
        one.phase, one.events = Phase.REGISTERED, frozenset(events)
        self._listener.progressed()
        return web.json_response(self._said(request), headers={_IDENTIFIER: one.identifier})

    def _said(self, request: web.BaseRequest) -> dict[str, str]:
        facts = self._facts
        said = {"functionName": facts.function, "functionVersion": facts.version, "handler": facts.handler}
        wants_account = "accountId" in request.headers.get("Lambda-Extension-Accept-Feature", "")
        return {**said, "accountId": facts.account} if wants_account else said

    async def _next(self, one: _Extension) -> web.Response:
        if one.phase is Phase.FAILED or one.is_asking:
            return refused(403, _STATE, f"next is not allowed while extension {one.name[:64]} is {one.phase.value}")
        one.phase, one.is_asking = Phase.WAITING, True
        try:
            if not one.pending:
                self._listener.progressed()
            while not one.pending:
                one.has_news.clear()
                await one.has_news.wait()
        finally:
            one.is_asking = False
        one.phase = Phase.RUNNING
        headers = {"Lambda-Extension-Event-Identifier": str(uuid.uuid4())}
        return web.json_response(one.pending.pop(0), headers=headers)

    def _failed(self, one: _Extension, request: web.BaseRequest) -> web.Response:
        error_type = request.headers.get("Lambda-Extension-Function-Error-Type", "")
        if not error_type:
            return refused(
                403, "Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found"
            )  # fmt: skip
        is_init = request.path.endswith("init/error")
        if one.phase is Phase.FAILED or (is_init and one.phase is not Phase.REGISTERED):
            return refused(403, _STATE, f"extension {one.name[:64]} is {one.phase.value}")
        one.phase = Phase.FAILED
        self._listener.extension_failed(one.name, "Extension.InitError" if is_init else "Extension.ExitError")
        return accepted()

    def _deliver(self, kind: str, event: dict[str, object]) -> None:
        for one in self._all.values():
            if kind in one.events:
                one.pending.append(event)
                one.has_news.set()


def no_telemetry(path: str) -> web.Response:
    """What a subscription to logs or telemetry is told."""
    kind = "Logs" if path.endswith("logs") else "Telemetry"
    return refused(202, f"{kind}.NotSupported", f"{kind} API is not supported")


def _events(body: bytes | None) -> list[str] | None:
    try:
        given = json.loads(body or b"")
        events = given["events"]
    except (ValueError, KeyError, TypeError):
        return None
    is_list = isinstance(events, list) and all(isinstance(event, str) for event in events)
    return list(dict.fromkeys(events)) if is_list else None


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
