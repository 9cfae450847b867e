"""The section `functions:` -> functions, hosted here, behind a URL, or in AWS Lambda.

Source: lambda.md 7.4, 7.7 (variables, limits).
"""

import difflib
import re
from dataclasses import dataclass
from typing import Any

from esm.config.document import Document
from esm.config.urls import url_problem
from esm.model.arn import Arn
from esm.model.function import (
    MEMORY_MB_DEFAULT,
    TIMEOUT_S_DEFAULT,
    Function,
    HostedFunction,
    LambdaFunction,
    UrlFunction,
)

HOSTED = (
    "Runtime",
    "Handler",
    "CodeUri",
    "Timeout",
    "MemorySize",
    "ReservedConcurrentExecutions",
    "Environment",
    "Role",
)
BEHIND_URL = ("Url", "Protocol", "Timeout", "Role")
IN_LAMBDA = ("Arn",)

NOT_YET = (
    "Layers", "VpcConfig", "DeadLetterConfig", "EventInvokeConfig", "FileSystemConfigs", "EphemeralStorage",
    "Architectures", "PackageType", "ImageConfig", "ImageUri", "TracingConfig", "KMSKeyArn", "SnapStart",
    "LoggingConfig", "Headers", "HeadersFrom", "BearerTokenFile", "CaFile", "ClientCertFile", "ClientKeyFile",
    "MaxConcurrency", "ErrorStatusCodes", "Description", "Tags", "Code", "FunctionName",
)  # fmt: skip
"""Members that mean something elsewhere: refused by name."""

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
_RUNTIME = re.compile(r"python3\.[0-9]{1,2}")
_HANDLER = re.compile(r"(?=.{3,128}$)[^\s]+\.[^\s.]+")
_ROLE = re.compile(r"arn:aws[a-zA-Z-]*:iam::[0-9]{12}:role/[^\s]+")
_ARN = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[a-zA-Z0-9_-]{1,140}(:(\$LATEST|[a-zA-Z0-9_-]{1,128}))?"
)


@dataclass(frozen=True, slots=True)
class Where:
    """What functions without an ARN of their own belong to."""

    partition: str
    region: str
    account_id: str

    def function_arn(self, key: str) -> Arn:
        """The ARN of a hosted or Url function."""
        return Arn(self.partition, "lambda", self.region, self.account_id, f"function:{key}")

    def role(self, key: str) -> str:
        """The role of one that names none."""
        return f"arn:{self.partition}:iam::{self.account_id}:role/{key}"


def functions(document: Document, where: Where) -> dict[str, Function]:
    """Every function that makes sense; what does not is noted as a problem."""
    section = document.value.get("functions")
    if section is None:
        return {}
    if not isinstance(section, dict):
        document.problem("functions", section, "must be a table: a name, then what the function is")
        return {}
    found: dict[str, Function] = {}
    for key, members in section.items():
        made = _Entry(document, where, key, members).function()
        if made is not None:
            found[key] = made
    return found


class _Entry:
    """One function of the file."""

    def __init__(self, document: Document, where: Where, key: str, members: Any) -> None:  # noqa: ANN401
        self._document = document
        self._where = where
        self._key = key
        self._members = members
        self._path = f"functions.{key}"
        self._before = len(document.problems)

    def function(self) -> Function | None:
        if not _KEY.fullmatch(self._key):
            self._say("", self._key, "a function's name has 1 to 64 letters, digits, - or _")
        if not isinstance(self._members, dict):
            self._say("", self._members, "must be a table with Runtime, Url or Arn")
            return None
        kinds = [name for name in ("Runtime", "Url", "Arn") if name in self._members]
        if len(kinds) != 1:
            text = "needs exactly one of Runtime (hosted here), Url (behind HTTP) and Arn (AWS Lambda)"
            self._say("", None, f"{text}; it has {' and '.join(kinds) or 'none of them'}")
            return None
        match kinds[0]:
            case "Runtime":
                return self._kept(self._hosted())
            case "Url":
                return self._kept(self._behind_url())
            case _:
                return self._kept(self._in_lambda())

    def _kept(self, made: Function) -> Function | None:
        return made if len(self._document.problems) == self._before else None

    def _hosted(self) -> HostedFunction:
        self._only(HOSTED)
        runtime = self._text("Runtime", _RUNTIME, "python3.N, such as python3.11: this version of esm hosts Python")
        return HostedFunction(
            key=self._key,
            arn=self._where.function_arn(self._key),
            role=self._role(),
            runtime=runtime,
            handler=self._text("Handler", _HANDLER, "module.function, such as app.handler"),
            code=self._code(),
            timeout_s=self._number("Timeout", 1, 900, TIMEOUT_S_DEFAULT),
            memory_mb=self._number("MemorySize", 128, 10_240, MEMORY_MB_DEFAULT),
            environment=self._environment(),
            reserved_concurrency=self._optional("ReservedConcurrentExecutions", 0, 1000),
        )

    def _behind_url(self) -> UrlFunction:
        self._only(BEHIND_URL)
        url = self._members.get("Url")
        problem = url_problem(url) if isinstance(url, str) else "must be http://host:port"
        if problem is not None:
            self._say("Url", url, problem)
        protocol = self._members.get("Protocol")
        if protocol in ("web-adapter", "http"):
            self._say("Protocol", protocol, "is not supported by this version of esm: use rie")
        elif protocol != "rie":
            self._say("Protocol", protocol, "is needed: rie (AWS's base images and their emulator)")
        if self._members.get("Timeout") is None:
            self._say("Timeout", None, "is needed: the seconds that the function may run")
        timeout_s = self._number("Timeout", 1, 900, TIMEOUT_S_DEFAULT)
        return UrlFunction(self._key, self._where.function_arn(self._key), self._role(), str(url), "rie", timeout_s)

    def _in_lambda(self) -> LambdaFunction:
        self._only(IN_LAMBDA)
        text = self._members.get("Arn")
        arn = function_arn(text)
        if arn is None:
            self._say("Arn", text, "must be a function's ARN: arn:aws:lambda:REGION:ACCOUNT:function:NAME[:QUALIFIER]")
            arn = self._where.function_arn(self._key)
        return LambdaFunction(self._key, arn)

    def _only(self, known: tuple[str, ...]) -> None:
        for name in self._members:
            if name in known:
                continue
            if name in NOT_YET or name in (*HOSTED, *BEHIND_URL, *IN_LAMBDA):
                self._say(name, None, f"is not supported for this kind of function; it takes {', '.join(known)}")
            else:
                self._say(name, None, f"is unknown{suggestion(name, known)}")

    def _role(self) -> str:
        role = self._members.get("Role")
        if role is None:
            return self._where.role(self._key)
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            self._say("Role", role, "must be a role's ARN: arn:aws:iam::ACCOUNT:role/NAME")
        return str(role)

    def _code(self) -> str:
        uri = self._members.get("CodeUri")
        if not isinstance(uri, str) or not uri:
            self._say("CodeUri", uri, "is needed: the folder with the code, relative to this file")
            return ""
        try:
            folder = (self._document.path.parent / uri).resolve()
            is_folder = folder.is_dir()
        except (OSError, RuntimeError, ValueError):
            self._say("CodeUri", uri, "names no folder that can be looked at: check its name and permissions")
            return ""
        if not is_folder:
            text = f"there is no folder {folder}: zip files are not supported by this version of esm"
            self._say("CodeUri", uri, text)
        return str(folder)

    def _environment(self) -> tuple[tuple[str, str], ...]:
        environment = self._members.get("Environment")
        if environment is None:
            return ()
        variables = environment.get("Variables") if isinstance(environment, dict) else environment
        is_table = isinstance(environment, dict) and not set(environment) - {"Variables"}
        if not is_table or not isinstance(variables, dict | None):
            self._say("Environment", None, "must be {Variables: {NAME: value}}")
            return ()
        given = {name: self._variable(name, value) for name, value in (variables or {}).items()}
        size = sum(len(name.encode()) + len(value.encode()) for name, value in given.items())
        if size > VARIABLES_BYTES_MAX:
            self._say("Environment.Variables", None, f"hold {size} bytes: at most {VARIABLES_BYTES_MAX} are allowed")
        return tuple(sorted(given.items()))

    def _variable(self, name: str, value: object) -> str:
        place = f"Environment.Variables.{name}"
        if name in RESERVED:
            self._say(place, None, "is a reserved variable, which Lambda sets itself: choose another name")
        elif not _VARIABLE.fullmatch(name):
            rule = "a variable's name begins with a letter and has two or more of letters, digits and _"
            self._say(place, None, rule)
        text = self._document.text(f"{self._path}.{place}", value)
        if not isinstance(text, str):
            self._say(place, value, "must be a string: put it in quotes")
            return ""
        if "\0" in text:
            self._say(place, None, "must not hold a NUL character")
        return text

    def _text(self, name: str, pattern: re.Pattern[str], remedy: str) -> str:
        value = self._members.get(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self._say(name, value, f"must be {remedy}")
            return ""
        return value

    def _number(self, name: str, least: int, most: int, default: int) -> int:
        value = self._optional(name, least, most)
        return default if value is None else value

    def _optional(self, name: str, least: int, most: int) -> int | None:
        value = self._members.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self._say(name, value, f"must be a whole number from {least} to {most}, without quotes")
            return None
        return value

    def _say(self, name: str, value: object, text: str) -> None:
        self._document.problem(f"{self._path}.{name}" if name else self._path, value, text)


def function_arn(text: object) -> Arn | None:
    """A function's ARN, with or without qualifier; None where the text is none."""
    if not isinstance(text, str):
        return None
    return Arn.parse(text) if _ARN.fullmatch(text) else None


def suggestion(name: str, known: tuple[str, ...]) -> str:
    """`: did you mean X?`, or what there is."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f": did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
