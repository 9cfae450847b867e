"""Functions as the configuration describes them: hosted here, behind a URL, pulling from here, or in AWS Lambda."""

from dataclasses import dataclass, field

from esm.model.arn import Arn

TIMEOUT_S_DEFAULT = 3
"""Lambda's own default. Source: lambda.md 7.7."""

MEMORY_MB_DEFAULT = 128
"""Lambda's own default. Source: lambda.md 7.7."""


EPHEMERAL_MB_DEFAULT = 512
"""Lambda's own default. Source: lambda.md 7.7."""

ASYNC_RETRIES_DEFAULT = 2
"""Lambda's own default. Source: lambda.md 5."""

ASYNC_AGE_MAX_S_DEFAULT = 21_600
"""Lambda's own default. Source: lambda.md 5."""


@dataclass(frozen=True, slots=True)
class AsyncRules:
    """What becomes of a function's asynchronous events: `EventInvokeConfig` and `DeadLetterConfig`."""

    retries_max: int = ASYNC_RETRIES_DEFAULT
    age_max_s: int = ASYNC_AGE_MAX_S_DEFAULT
    on_success: Arn | None = None
    on_failure: Arn | None = None
    dead_letter: Arn | None = None
    """`DeadLetterConfig.TargetArn`: SQS or SNS."""


@dataclass(frozen=True, slots=True)
class HostedFunction:
    """Code that runs here, in processes of its own, behind the Lambda Runtime API."""

    key: str
    arn: Arn
    """Unqualified."""
    role: str
    runtime: str
    """Lambda's name: `python3.N`, `nodejsN.x`, `provided.al2023`, or one that `ESM_RUNTIMES` maps."""
    handler: str
    """`module.function`; the module may lie in a folder: `pkg/module.function` or `pkg.module.function`.

    Empty where a bootstrap needs none.
    """
    code: str
    """Absolute path of the folder, or of the zip file, that holds the code."""
    timeout_s: int = TIMEOUT_S_DEFAULT
    memory_mb: int = MEMORY_MB_DEFAULT
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Name and value, sorted by name. Never shown: values may be secrets."""
    reserved_concurrency: int | None = None
    """None: the daemon's default for one function (`ESM_HOST_CONCURRENCY`)."""
    provisioned_concurrency: int = 0
    """How many environments are kept initialised; at most the concurrency."""
    version: str = "$LATEST"
    """What it is told to be, and answers as the executed version."""
    layers: tuple[str, ...] = ()
    """Absolute paths of folders or zip files, merged under `/opt` in this order."""
    ephemeral_mb: int = EPHEMERAL_MB_DEFAULT
    """Size of `/tmp`."""
    file_systems: tuple[tuple[str, str], ...] = ()
    """Absolute path of a folder here, and where below `/mnt` the function sees it."""
    has_network: bool = True
    """Whether it has the machine's network; without, it reaches nothing but its Runtime API."""
    has_role: bool = False
    """Whether `role` was configured: only then do its mappings poll with it."""
    asynchronous: AsyncRules = AsyncRules()
    allows_loops: bool = False
    """`RecursiveLoop` is `Allow`."""
    connection: str | None = None
    """`Connection`: a key of `connections:`, for its asynchronous destinations."""


@dataclass(frozen=True, slots=True)
class UrlFunction:
    """A function behind HTTP."""

    key: str
    arn: Arn
    """Unqualified."""
    role: str
    url: str
    protocol: str
    """`rie` (Runtime Interface Emulator), `web-adapter` (Lambda Web Adapter) or `http` (any URL)."""
    timeout_s: int
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Name and value, sorted by name; `Headers` and `HeadersFrom` variables, already read. Never shown."""
    header_files: tuple[tuple[str, str], ...] = ()
    """Name and absolute path of the file that holds the value; read again when it changes."""
    bearer_token_file: str | None = None
    """Absolute path; read again when it changes."""
    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None
    concurrency_max: int | None = None
    """`MaxConcurrency`; None: the protocol's own bound."""
    error_statuses: tuple[tuple[int, int], ...] | None = None
    """`ErrorStatusCodes`: first and last of each range, sorted; None: the protocol's own rule."""
    has_role: bool = False
    """Whether `role` was configured: only then do its mappings poll with it."""
    asynchronous: AsyncRules = AsyncRules()
    allows_loops: bool = False
    """`RecursiveLoop` is `Allow`."""
    connection: str | None = None
    """`Connection`: a key of `connections:`, for its asynchronous destinations."""


@dataclass(frozen=True, slots=True)
class PulledFunction:
    """A function whose runtimes run elsewhere and pull their invocations from a Runtime API that is served here."""

    key: str
    arn: Arn
    """Unqualified."""
    role: str
    host: str
    """Where the Runtime API listens: a name or an address."""
    port: int
    timeout_s: int
    token_file: str | None = None
    """Absolute path of the tokens that let runtimes in; read again when it changes. None: everybody is let in."""
    cert_file: str | None = None
    """TLS is spoken: the chain, with `key_file`."""
    key_file: str | None = None
    client_ca_file: str | None = None
    """Who must have signed a client's certificate."""
    concurrency_max: int | None = None
    """`MaxConcurrency`, of one worker; None: as many as there are runtimes."""
    has_role: bool = False
    """Whether `role` was configured: only then do its mappings poll with it."""
    asynchronous: AsyncRules = AsyncRules()
    allows_loops: bool = False
    """`RecursiveLoop` is `Allow`."""
    connection: str | None = None
    """`Connection`: a key of `connections:`, for its asynchronous destinations."""


@dataclass(frozen=True, slots=True)
class LambdaFunction:
    """A function in AWS Lambda, or behind any endpoint that speaks Lambda's API."""

    key: str
    arn: Arn
    """As configured: with its qualifier, if it has one."""
    allows_loops: bool = False
    """`RecursiveLoop` is `Allow`."""
    connection: str | None = None
    """`Connection`: a key of `connections:`."""


Function = HostedFunction | UrlFunction | PulledFunction | LambdaFunction


@dataclass(frozen=True, slots=True)
class FunctionFacts:
    """What a target knows of its function once it has asked."""

    timeout_s: int | None
    """None where asking was not allowed: the check against the queue's visibility is skipped."""
    role: str
    """Role ARN: `invokeIdentityArn` in Kinesis records."""
