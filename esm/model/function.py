"""Functions as the configuration describes them: hosted here, behind a URL, or in AWS Lambda."""

from dataclasses import dataclass, field

from esm.model.arn import Arn

TIMEOUT_S_DEFAULT = 3
"""Lambda's own default. Source: lambda.md 7.7."""

MEMORY_MB_DEFAULT = 128
"""Lambda's own default. Source: lambda.md 7.7."""


@dataclass(frozen=True, slots=True)
class HostedFunction:
    """Code that runs here, in processes of its own, behind the Lambda Runtime API."""

    key: str
    arn: Arn
    """Unqualified."""
    role: str
    runtime: str
    """`python3.N`."""
    handler: str
    """`module.function`; the module may lie in a folder: `pkg/module.function` or `pkg.module.function`."""
    code: str
    """Absolute path of the folder that holds the code."""
    timeout_s: int = TIMEOUT_S_DEFAULT
    memory_mb: int = MEMORY_MB_DEFAULT
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Name and value, sorted by name. Never shown: values may be secrets."""
    reserved_concurrency: int | None = None
    """None: the daemon's default for one function (`ESM_HOST_CONCURRENCY`)."""


@dataclass(frozen=True, slots=True)
class UrlFunction:
    """A function behind HTTP."""

    key: str
    arn: Arn
    """Unqualified."""
    role: str
    url: str
    protocol: str
    """`rie`: the Runtime Interface Emulator's path and answers."""
    timeout_s: int


@dataclass(frozen=True, slots=True)
class LambdaFunction:
    """A function in AWS Lambda, or behind any endpoint that speaks Lambda's API."""

    key: str
    arn: Arn
    """As configured: with its qualifier, if it has one."""


Function = HostedFunction | UrlFunction | LambdaFunction


@dataclass(frozen=True, slots=True)
class FunctionFacts:
    """What a target knows of its function once it has asked."""

    timeout_s: int | None
    """None where asking was not allowed: the check against the queue's visibility is skipped."""
    role: str
    """Role ARN: `invokeIdentityArn` in Kinesis records."""
