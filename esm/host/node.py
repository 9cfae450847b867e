"""Node.js for hosted functions, with AWS's runtime client `aws-lambda-ric`, wherever npm has put it.

Law: an interpreter is taken only after it has run, and a client only after its compiled part was loaded by it.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from esm.errors import OperatorNeeded
from esm.host.runtimes import Mapped

_CHECK_WITHIN_S = 30.0
_CLIENT = "aws-lambda-ric"
_PLACES = ("/usr/local/lib/node_modules", "/usr/lib/node_modules", "/opt/nodejs/node_modules")
_RUNTIME = re.compile(r"nodejs(\d+)\.x")
_LOAD = "require(process.argv[1])"


def find_node(runtime: str, path: str | None, mapped: Mapped | None) -> tuple[str, Path, str]:
    """Executable, folder of the client, and major version, for `nodejsN.x` or a mapped name.

    Raises: OperatorNeeded, with what was found and what to install.
    """
    wanted = _RUNTIME.fullmatch(runtime)
    folders = os.get_exec_path() if path is None else path.split(os.pathsep)
    names = [mapped.interpreter] if mapped else [str(Path(folder) / "node") for folder in folders if folder]
    tried: list[str] = []
    for place in dict.fromkeys(name for name in names if shutil.which(name)):
        version = _version(place)
        if version and (mapped or (wanted is not None and wanted[1] == version)):
            return place, _client(runtime, place, mapped), version
        tried.append(f"{place} is nodejs{version}.x" if version else f"{place} does not run")
    found = "; ".join(tried) or "there is no node on the PATH of esm"
    raise OperatorNeeded(
        f"Runtime {runtime}: no such interpreter runs here; {found}: install that version of Node.js, or map it with"
        f" ESM_RUNTIMES={runtime}=/path/of/node"
    )


def _version(place: str) -> str:
    said = _run([place, "-p", "JSON.stringify(process.versions.node.split('.')[0])"])
    try:
        return str(json.loads(said or ""))
    except ValueError:
        return ""


def _client(runtime: str, executable: str, mapped: Mapped | None) -> Path:
    looked: list[str] = []
    for place in [Path(mapped.client)] if mapped and mapped.client else list(_places(executable)):
        if not (place / "bin" / "index.mjs").is_file():
            looked.append(f"{place} is not there" if mapped and mapped.client else "")
        elif _run([executable, "-e", _LOAD, str(place / "dist" / "rapid-client.node")]) is None:
            looked.append(f"{place} cannot be loaded: its compiled part is missing or of another version")
        else:
            return place
    said = "; ".join(filter(None, looked)) or f"it is in none of {', '.join(map(str, _places(executable)))}"
    raise OperatorNeeded(
        f"Runtime {runtime}: AWS's runtime client {_CLIENT} is needed ({said}): install it with 'npm install"
        f" --global {_CLIENT}', which compiles it, or say where it is with"
        f" ESM_RUNTIMES={runtime}={executable}:/path/of/client"
    )


def _places(executable: str) -> Iterator[Path]:
    beside = Path(executable).resolve().parent.parent / "lib" / "node_modules"
    for folder in dict.fromkeys([str(beside), *_PLACES]):
        yield Path(folder) / _CLIENT


def _run(command: Sequence[str]) -> str | None:
    """What it writes; None where it fails."""
    try:
        answer = subprocess.run(  # noqa: S603 - what the operator installed
            command, capture_output=True, timeout=_CHECK_WITHIN_S, check=True, text=True,
            env={"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout
