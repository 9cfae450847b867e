"""The environment variables that a hosted function sees. Source: lambda.md 7.4.

Law: made from the configuration alone; nothing of the daemon's own environment is in them. HOME is /tmp, because
without it libraries ask the password file and read the daemon's own ~/.aws.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from esm.host.runtimes import Kind
from esm.model.function import HostedFunction

_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_RESERVED = frozenset({
    "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY",
    "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "AWS_LAMBDA_MAX_CONCURRENCY",
    "AWS_LAMBDA_METADATA_API", "AWS_LAMBDA_METADATA_TOKEN", *_CREDENTIALS,
})  # fmt: skip
"""What a function's own variables cannot set; the configuration refuses them by name."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are, as a function's processes see them."""

    task: str
    """Folder of the code: `/var/task` in a sandbox."""
    layers: str
    """Folder of the merged layers: `/opt` in a sandbox, and where there are none."""
    client: str
    """Folder of the runtime client: `/var/runtime` in a sandbox."""


def variables(
    function: HostedFunction, kind: Kind, version: str, places: Places, given: Mapping[str, str]
) -> dict[str, str]:
    """Everything that is the same in each environment of `function`; `given` holds what all functions get.

    `version` is the interpreter's.
    """
    task, opt = places.task, places.layers
    defaults = {
        "LANG": "en_US.UTF-8",
        "PATH": f"/usr/local/bin:/usr/bin/:/bin:{opt}/bin",
        "LD_LIBRARY_PATH": f"{task}:{task}/lib:{opt}/lib",
        "TZ": ":UTC",
        "HOME": "/tmp",  # noqa: S108 - Lambda's one writable folder
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    if kind is Kind.NODE:
        modules = f"{opt}/nodejs/node{version}/node_modules:{opt}/nodejs/node_modules"
        defaults["NODE_PATH"] = f"{modules}:{places.client}/node_modules"
    own = {name: value for name, value in function.environment if name not in _RESERVED}
    fixed = {
        "_HANDLER": function.handler,
        "AWS_REGION": function.arn.region,
        "AWS_DEFAULT_REGION": function.arn.region,
        "AWS_LAMBDA_FUNCTION_NAME": function.key,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
        "AWS_LAMBDA_FUNCTION_VERSION": function.version,
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.key}",
        "LAMBDA_TASK_ROOT": task,
        "LAMBDA_RUNTIME_DIR": places.client,
    }
    if kind is not Kind.PROVIDED:
        fixed["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{function.runtime}"
    reserved = {name: given[name] for name in _CREDENTIALS if name in given}
    return {**defaults, **given, **own, **fixed, **reserved}
