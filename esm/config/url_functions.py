"""A function behind a URL: its protocol, what is sent along, and whom it trusts.

Law: values of `Headers`, and what `HeadersFrom` reads, may be secrets: no problem shows them.
"""

from collections.abc import Mapping as Table

from esm.config.asynchronous import async_rules
from esm.config.entry import FunctionEntry
from esm.config.members import BEHIND_URL, HEADER_FROM, PROTOCOLS, RUNTIME_API
from esm.config.statuses import FORM, statuses
from esm.config.urls import url_problem
from esm.model.function import TIMEOUT_S_DEFAULT, UrlFunction
from esm.rules.http_headers import name_problem, value_problem


def behind_url(entry: FunctionEntry, environ: Table[str, str]) -> UrlFunction:
    """The function; what is wrong is noted as a problem."""
    entry.only(BEHIND_URL)
    url = _url(entry)
    protocol = entry.members.get("Protocol")
    if protocol == RUNTIME_API:
        entry.say("Protocol", protocol, "goes with Listen instead of Url: its runtimes come here for their events")
    elif protocol not in PROTOCOLS:
        text = "rie (AWS's base images and their emulator), web-adapter (Lambda Web Adapter) or http (any)"
        entry.say("Protocol", protocol, f"{'is needed:' if protocol is None else 'must be'} {text}")
    if entry.members.get("Timeout") is None:
        entry.say("Timeout", None, "is needed: the seconds that the function may run")
    headers, header_files = _headers(entry, environ)
    token, ca, certificate, key = (
        entry.file(name) for name in ("BearerTokenFile", "CaFile", "ClientCertFile", "ClientKeyFile")
    )
    _check_trust(entry, url)
    arn = entry.where.function_arn(entry.key)
    entry.description(BEHIND_URL["Description"])
    return UrlFunction(
        key=entry.key,
        arn=arn,
        role=entry.role(),
        url=url,
        protocol=str(protocol),
        timeout_s=entry.number("Timeout", BEHIND_URL["Timeout"]) or TIMEOUT_S_DEFAULT,
        headers=tuple(sorted(headers.items())),
        header_files=tuple(sorted(header_files.items())),
        bearer_token_file=token,
        ca_file=ca,
        client_cert_file=certificate,
        client_key_file=key,
        concurrency_max=entry.number("MaxConcurrency", BEHIND_URL["MaxConcurrency"]),
        error_statuses=_statuses(entry, protocol),
        has_role=entry.members.get("Role") is not None,
        asynchronous=async_rules(entry, arn),
        allows_loops=entry.allows_loops(),
        connection=entry.connection(),
    )


def _url(entry: FunctionEntry) -> str:
    url = entry.members.get("Url")
    problem = url_problem(url) if isinstance(url, str) else "must be http://host:port"
    if problem is not None:
        entry.say("Url", url, problem)
    return str(url)


def _check_trust(entry: FunctionEntry, url: str) -> None:
    given = [name for name in ("CaFile", "ClientCertFile", "ClientKeyFile") if entry.members.get(name) is not None]
    if given and not url.startswith("https://"):
        entry.say(given[0], None, "means something with an https:// Url only: change the Url, or remove this")
    if ("ClientCertFile" in given) != ("ClientKeyFile" in given):
        missing = "ClientKeyFile" if "ClientCertFile" in given else "ClientCertFile"
        entry.say(missing, None, "is needed, too: a certificate and its key come together")


def _statuses(entry: FunctionEntry, protocol: object) -> tuple[tuple[int, int], ...] | None:
    name = "ErrorStatusCodes"
    value = entry.members.get(name)
    if value is None:
        return None
    if protocol == "rie":
        entry.say(name, None, "means nothing with Protocol rie, which marks errors in its answers: remove it")
        return None
    found = statuses(entry.document.text(entry.place(name), value))
    if found is None:
        entry.say(name, value, FORM)
    return found


def _headers(entry: FunctionEntry, environ: Table[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Values, and files of values, by the header's name."""
    seen = {"authorization"} if entry.members.get("BearerTokenFile") is not None else set()
    values: dict[str, str] = {}
    for name in _names(entry, "Headers", seen):
        place = f"Headers.{name}"
        text = entry.document.text(entry.place(place), entry.members["Headers"][name])
        if not isinstance(text, str):
            entry.say(place, None, "must be a string: put it in quotes")
        else:
            values[name] = _clean(entry, place, text)
    files: dict[str, str] = {}
    for name in _names(entry, "HeadersFrom", seen):
        _from(entry, environ, name, values, files)
    return values, files


def _from(
    entry: FunctionEntry, environ: Table[str, str], name: str, values: dict[str, str], files: dict[str, str]
) -> None:  # fmt: skip
    place = f"HeadersFrom.{name}"
    source = entry.members["HeadersFrom"][name]
    if not isinstance(source, dict) or len(source) != 1 or not source.keys() <= HEADER_FROM.keys():
        entry.say(place, None, "must be {Env: VARIABLE} or {File: path}")
        return
    ((kind, _),) = source.items()
    text = entry.text(f"{place}.{kind}", source)
    if text is None:
        entry.say(place, None, "must be {Env: VARIABLE} or {File: path}")
    elif kind == "File":
        files[name] = entry.path_of(f"{place}.{kind}", text) or ""
    elif not environ.get(text):
        entry.say(f"{place}.{kind}", text, "names a variable that is not set in the daemon's environment: set it")
    else:
        values[name] = _clean(entry, place, environ[text])


def _names(entry: FunctionEntry, section: str, seen: set[str]) -> list[str]:
    """The names of a section of headers; those that cannot be used are noted as problems."""
    table = entry.members.get(section)
    if table is None:
        return []
    if not isinstance(table, dict):
        entry.say(section, None, "must be a table: a header's name, then its value")
        return []
    for name in table:
        problem = name_problem(name)
        if problem is not None:
            entry.say(f"{section}.{name}", None, problem)
        elif name.lower() in seen:
            text = "is set twice (names of headers know no case, and BearerTokenFile sets Authorization): keep one"
            entry.say(f"{section}.{name}", None, text)
        seen.add(name.lower())
    return list(table)


def _clean(entry: FunctionEntry, place: str, text: str) -> str:
    problem = value_problem(text)
    if problem is not None:
        entry.say(place, None, problem)
    return text
