"""Members of a function that is hosted here: code, layers, storage, network, provisioned concurrency.

Source: lambda.md 7.6, 7.7, 7.8.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

from esm.config.entry import FunctionEntry
from esm.config.members import HOSTED
from esm.model.function import EPHEMERAL_MB_DEFAULT
from esm.rules.shapes import Members

LAYERS_MAX = 5
RUNTIME = re.compile(r"[a-z]{2,20}[0-9a-z.]{0,20}")
RUNTIMES = "the name of a runtime, such as python3.11, nodejs20.x or provided.al2023"
_HANDLER = re.compile(r"(?=.{3,128}$)[^\s]+\.[^\s.]+")
_ANY_HANDLER = re.compile(r"[^\s]{0,128}")
_MOUNT = re.compile(r"/mnt/[a-zA-Z0-9_.-]{1,152}")


def handler(entry: FunctionEntry) -> str:
    """`Handler`; a bootstrap of the code's own needs none."""
    if str(entry.members.get("Runtime")).startswith("provided"):
        text = entry.text("Handler") or ""
        if not _ANY_HANDLER.fullmatch(text):
            entry.say("Handler", text, "must have at most 128 characters and no spaces")
        return text
    return entry.formed("Handler", _HANDLER, "module.function, such as app.handler")


def code(entry: FunctionEntry) -> str:
    """`CodeUri`: a folder or a zip file, relative to the file."""
    uri = entry.members.get("CodeUri")
    if not isinstance(uri, str) or not uri:
        entry.say("CodeUri", uri, "is needed: the folder or zip file with the code, relative to this file")
        return ""
    return _package(entry, "CodeUri", uri)


def layers(entry: FunctionEntry) -> tuple[str, ...]:
    """`Layers`: paths of folders or zip files, relative to the file; later ones lie above earlier ones."""
    given = entry.members.get("Layers")
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(one, str) and one for one in given):
        entry.say(
            "Layers", given, "must be a list of paths of folders or zip files: layers of AWS are downloaded first"
        )
        return ()
    if len(given) > LAYERS_MAX:
        entry.say("Layers", None, f"Cannot reference more than {LAYERS_MAX} layers.")
    return tuple(_package(entry, f"Layers[{number}]", uri) for number, uri in enumerate(given))


def ephemeral_mb(entry: FunctionEntry) -> int:
    """`EphemeralStorage.Size`."""
    return _number_in(entry, "EphemeralStorage", "Size") or EPHEMERAL_MB_DEFAULT


def provisioned(entry: FunctionEntry, reserved: int | None) -> int:
    """`ProvisionedConcurrencyConfig`; not above what is reserved."""
    member = "ProvisionedConcurrentExecutions"
    count = _number_in(entry, "ProvisionedConcurrencyConfig", member) or 0
    if reserved is not None and count > reserved:
        text = f"is above ReservedConcurrentExecutions ({reserved}): reserve more, or keep fewer ready"
        entry.say(f"ProvisionedConcurrencyConfig.{member}", count, text)
    return count


def file_systems(entry: FunctionEntry) -> tuple[tuple[str, str], ...]:
    """`FileSystemConfigs`: folders here, and where below /mnt the function sees each."""
    given = entry.members.get("FileSystemConfigs")
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        entry.say("FileSystemConfigs", given, "must be a list of {Path: folder, LocalMountPath: /mnt/name}")
        return ()
    found = [_file_system(entry, f"FileSystemConfigs[{number}]", one) for number, one in enumerate(given)]
    mounts = [mount for _, mount in found]
    if len(set(mounts)) < len(mounts):
        entry.say("FileSystemConfigs", None, "name one LocalMountPath twice: give each its own")
    return tuple(found)


def has_network(entry: FunctionEntry) -> bool:
    """`Network`: `host` or `none`."""
    value = entry.members.get("Network")
    if value not in {None, "host", "none"}:
        entry.say("Network", value, "must be host or none")
    return value != "none"


def _file_system(entry: FunctionEntry, place: str, table: dict[str, Any]) -> tuple[str, str]:
    for name in table:
        if name not in {"Path", "LocalMountPath"}:
            entry.say(f"{place}.{name}", None, "is not known here: name a folder of this machine with Path")
    path, mount = table.get("Path"), table.get("LocalMountPath")
    if not isinstance(path, str) or not path:
        entry.say(f"{place}.Path", path, "is needed: the folder, relative to this file")
        path = "."
    if not isinstance(mount, str) or not _MOUNT.fullmatch(mount) or set(mount.removeprefix("/mnt/")) <= {"."}:
        entry.say(f"{place}.LocalMountPath", mount, "must be /mnt/ and a name")
        mount = ""
    return str((entry.document.path.parent / path).absolute()), mount


def _number_in(entry: FunctionEntry, name: str, member: str) -> int | None:
    shape = HOSTED[name]
    assert isinstance(shape, Members)
    table = entry.table(name, shape)
    return entry.number(f"{name}.{member}", shape.of[member], table)


def _package(entry: FunctionEntry, name: str, uri: str) -> str:
    try:
        place = (entry.document.path.parent / uri).resolve()
        is_there = place.is_dir() or (place.is_file() and zipfile.is_zipfile(place))
    except (OSError, RuntimeError, ValueError):
        entry.say(name, uri, "names no folder or zip file that can be looked at: check its name and permissions")
        return ""
    if not is_there:
        entry.say(name, uri, f"there is no folder or zip file {place}")
    return str(Path(place))
