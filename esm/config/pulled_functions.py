"""A function whose runtimes run elsewhere: where its Runtime API listens, and whom it lets in.

Law: beyond loopback, whoever reaches the address would be given the function's events. So it asks for a token, or for
a certificate, or is told that something else keeps strangers away.
"""

import re
from collections.abc import Iterable

from esm.config.asynchronous import async_rules
from esm.config.entry import FunctionEntry
from esm.config.files import Entry
from esm.config.members import PULLING, RUNTIME_API
from esm.model.function import TIMEOUT_S_DEFAULT, Function, PulledFunction
from esm.rules.addresses import is_loopback

PORT_MAX = 65_535
LOOPBACK = "127.0.0.1"
_LISTEN = re.compile(r"(?:(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):)?([0-9]{1,5})")
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - to be recognised


def pulling(entry: FunctionEntry) -> PulledFunction:
    """The function; what is wrong is noted as a problem."""
    entry.only(PULLING)
    protocol = entry.members.get("Protocol")
    if protocol != RUNTIME_API:
        word = "is needed:" if protocol is None else "with Listen must be"
        entry.say("Protocol", protocol, f"{word} {RUNTIME_API} (runtimes elsewhere come here for their events)")
    if entry.members.get("Timeout") is None:
        entry.say("Timeout", None, "is needed: the seconds that the function may run")
    host, port = _listen(entry)
    token, certificate, key, authorities = (
        entry.file(name) for name in ("TokenFile", "CertFile", "KeyFile", "ClientCaFile")
    )
    _check_tls(entry)
    _check_open(entry, host)
    arn = entry.where.function_arn(entry.key)
    entry.description(PULLING["Description"])
    return PulledFunction(
        key=entry.key,
        arn=arn,
        role=entry.role(),
        host=host,
        port=port,
        timeout_s=entry.number("Timeout", PULLING["Timeout"]) or TIMEOUT_S_DEFAULT,
        token_file=token,
        cert_file=certificate,
        key_file=key,
        client_ca_file=authorities,
        concurrency_max=entry.number("MaxConcurrency", PULLING["MaxConcurrency"]),
        has_role=entry.members.get("Role") is not None,
        asynchronous=async_rules(entry, arn),
        allows_loops=entry.allows_loops(),
        connection=entry.connection(),
    )


def check_alone(entry: Entry, function: PulledFunction, others: Iterable[Function]) -> None:
    """Note a problem where another function listens at the same address: runtimes do not say whose they are."""
    for other in others:
        if isinstance(other, PulledFunction) and other.port == function.port and _overlap(other.host, function.host):
            text = f"is where {other.key} listens, too: runtimes do not say whose they are, give each function a port"
            entry.document.problem(f"{entry.path}.Listen", entry.value.get("Listen"), text)


def _overlap(one: str, other: str) -> bool:
    return one == other or bool({one, other} & _EVERYWHERE)


def _listen(entry: FunctionEntry) -> tuple[str, int]:
    """`host:port`, or a port of loopback."""
    value = entry.members.get("Listen")
    found = entry.document.text(entry.place("Listen"), value) if not isinstance(value, int) else str(value)
    match = _LISTEN.fullmatch(found) if isinstance(found, str) and not isinstance(value, bool) else None
    if match is None or not 1 <= int(match[2]) <= PORT_MAX:
        entry.say("Listen", value, "must be host:port, such as 0.0.0.0:9001, or a port of 127.0.0.1 alone")
        return LOOPBACK, 0
    return (match[1] or LOOPBACK).strip("[]"), int(match[2])


def _check_tls(entry: FunctionEntry) -> None:
    given = [name for name in ("CertFile", "KeyFile", "ClientCaFile") if entry.members.get(name) is not None]
    missing = [name for name in ("CertFile", "KeyFile") if name not in given]
    if given and missing:
        entry.say(missing[0], None, f"is needed, too: {given[0]} means something with CertFile and KeyFile only")


def _check_open(entry: FunctionEntry, host: str) -> None:
    is_insecure = entry.flag("Insecure")
    is_guarded = any(entry.members.get(name) is not None for name in ("TokenFile", "ClientCaFile"))
    if is_insecure and is_guarded:
        entry.say("Insecure", True, "contradicts TokenFile and ClientCaFile, which let nobody else in: remove it")
    if not is_insecure and not is_guarded and not is_loopback(host):
        text = (
            "lets everybody who reaches it take the function's events: name a TokenFile, or a ClientCaFile with"
            " CertFile and KeyFile, or listen on 127.0.0.1, or say Insecure: true where something else keeps others out"
        )
        entry.say("Listen", entry.members.get("Listen"), text)
