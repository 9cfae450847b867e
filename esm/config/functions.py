"""The section `functions:` -> functions, hosted here, behind a URL, pulling from here, or in AWS Lambda.

Source: lambda.md 7.4, 7.7 (variables, limits).
"""

import re
from collections.abc import Mapping as Table

from esm.config import hosting
from esm.config.asynchronous import async_rules
from esm.config.connections import Connections
from esm.config.entry import FunctionEntry
from esm.config.files import Entry, Files
from esm.config.members import HOSTED, IN_LAMBDA
from esm.config.pulled_functions import check_alone, pulling
from esm.config.url_functions import behind_url
from esm.config.where import Where
from esm.model.arn import Arn
from esm.model.function import (
    MEMORY_MB_DEFAULT,
    TIMEOUT_S_DEFAULT,
    Function,
    HostedFunction,
    LambdaFunction,
    PulledFunction,
)

RESERVED = frozenset({
    "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
    "AWS_LAMBDA_MAX_CONCURRENCY", "AWS_LAMBDA_METADATA_API", "AWS_LAMBDA_METADATA_TOKEN",
})  # fmt: skip
"""Variables that Lambda sets itself."""

VARIABLES_BYTES_MAX = 4096
_VARIABLE = re.compile(r"[a-zA-Z][a-zA-Z0-9_]+")
_KEY = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ARN = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[a-zA-Z0-9_-]{1,140}(:(\$LATEST|[a-zA-Z0-9_-]{1,128}))?"
)


def functions(files: Files, where: Where, connections: Connections, environ: Table[str, str]) -> dict[str, Function]:
    """Every function that makes sense; what does not is noted as a problem."""
    found: dict[str, Function] = {}
    for entry in files.entries("functions", "must be a table: a name, then what the function is"):
        before = len(entry.document.problems)
        made = _function(entry, where, connections, environ)
        if isinstance(made, PulledFunction):
            check_alone(entry, made, found.values())
        if made is not None and len(entry.document.problems) == before:
            found[entry.name] = made
    return found


def function_arn(text: object) -> Arn | None:
    """A function's ARN, with or without qualifier; None where the text is none."""
    if not isinstance(text, str):
        return None
    return Arn.parse(text) if _ARN.fullmatch(text) else None


def _function(entry: Entry, where: Where, connections: Connections, environ: Table[str, str]) -> Function | None:
    if not _KEY.fullmatch(entry.name):
        entry.document.problem(entry.path, entry.name, "a function's name has 1 to 64 letters, digits, - or _")
    if not isinstance(entry.value, dict):
        entry.document.problem(entry.path, entry.value, "must be a table with Runtime, Url, Listen or Arn")
        return None
    kinds = [name for name in ("Runtime", "Url", "Listen", "Arn") if name in entry.value]
    if len(kinds) != 1:
        text = (
            "needs exactly one of Runtime (hosted here), Url (behind HTTP), Listen (its runtimes come here)"
            " and Arn (AWS Lambda)"
        )
        entry.document.problem(entry.path, None, f"{text}; it has {' and '.join(kinds) or 'none of them'}")
        return None
    one = FunctionEntry(entry, where, connections)
    match kinds[0]:
        case "Runtime":
            return _hosted(one)
        case "Url":
            return behind_url(one, environ)
        case "Listen":
            return pulling(one)
        case _:
            return _in_lambda(one)


def _hosted(entry: FunctionEntry) -> HostedFunction:
    entry.only(HOSTED)
    entry.description(HOSTED["Description"])
    arn = entry.where.function_arn(entry.key)
    reserved = entry.number("ReservedConcurrentExecutions", HOSTED["ReservedConcurrentExecutions"])
    return HostedFunction(
        key=entry.key,
        arn=arn,
        role=entry.role(),
        runtime=entry.formed("Runtime", hosting.RUNTIME, hosting.RUNTIMES),
        handler=hosting.handler(entry),
        code=hosting.code(entry),
        timeout_s=entry.number("Timeout", HOSTED["Timeout"]) or TIMEOUT_S_DEFAULT,
        memory_mb=entry.number("MemorySize", HOSTED["MemorySize"]) or MEMORY_MB_DEFAULT,
        environment=_environment(entry),
        reserved_concurrency=reserved,
        provisioned_concurrency=hosting.provisioned(entry, reserved),
        layers=hosting.layers(entry),
        ephemeral_mb=hosting.ephemeral_mb(entry),
        file_systems=hosting.file_systems(entry),
        has_network=hosting.has_network(entry),
        has_role=entry.members.get("Role") is not None,
        asynchronous=async_rules(entry, arn),
        allows_loops=entry.allows_loops(),
        connection=entry.connection(),
    )


def _in_lambda(entry: FunctionEntry) -> LambdaFunction:
    entry.only(IN_LAMBDA)
    entry.description(IN_LAMBDA["Description"])
    text = entry.members.get("Arn")
    arn = function_arn(text)
    if arn is None:
        entry.say("Arn", text, "must be a function's ARN: arn:aws:lambda:REGION:ACCOUNT:function:NAME[:QUALIFIER]")
        arn = entry.where.function_arn(entry.key)
    return LambdaFunction(entry.key, arn, allows_loops=entry.allows_loops(), connection=entry.connection())


def _environment(entry: FunctionEntry) -> tuple[tuple[str, str], ...]:
    environment = entry.members.get("Environment")
    if environment is None:
        return ()
    variables = environment.get("Variables") if isinstance(environment, dict) else environment
    is_table = isinstance(environment, dict) and not set(environment) - {"Variables"}
    if not is_table or not isinstance(variables, dict | None):
        entry.say("Environment", None, "must be {Variables: {NAME: value}}")
        return ()
    given = {name: _variable(entry, name, value) for name, value in (variables or {}).items()}
    size = sum(len(name.encode()) + len(value.encode()) for name, value in given.items())
    if size > VARIABLES_BYTES_MAX:
        entry.say("Environment.Variables", None, f"hold {size} bytes: at most {VARIABLES_BYTES_MAX} are allowed")
    return tuple(sorted(given.items()))


def _variable(entry: FunctionEntry, name: str, value: object) -> str:
    place = f"Environment.Variables.{name}"
    if name in RESERVED:
        entry.say(place, None, "is a reserved variable, which Lambda sets itself: choose another name")
    elif not _VARIABLE.fullmatch(name):
        rule = "a variable's name begins with a letter and has two or more of letters, digits and _"
        entry.say(place, None, rule)
    text = entry.document.text(entry.place(place), value)
    if not isinstance(text, str):
        entry.say(place, value, "must be a string: put it in quotes")
        return ""
    if "\0" in text:
        entry.say(place, None, "must not hold a NUL character")
    return text
