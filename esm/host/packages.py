"""Code and layers as folders that environments can use: zips unpacked once, layers merged. Source: lambda.md 7.6.

Law: what a zip says is never believed. Nothing is written outside the folder, through a link, or beyond the limit,
whatever its names, links, sizes and counts are; what is refused leaves nothing behind. A folder is named by what it
holds, made beside its name and moved there whole, so that a name that exists is complete. Several daemons may share the
folders: each holds a lock on what it uses, and what nobody holds may be removed.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from esm.errors import OperatorNeeded

UNPACKED_BYTES_MAX = 262_144_000
"""Of code and layers together."""
LAYERS_MAX = 5
_ENTRIES_MAX = 100_000
"""A guard of our own: Lambda names no number."""
_NAME_BYTES_MAX = 1024
_LINK_BYTES_MAX = 4096
_CHUNK_BYTES = 1024 * 1024
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)
"""What zipfile raises of a zip that is broken, encrypted or packed in a way that it does not know."""


class Packages:
    """Folders below `directory`. Its methods block: for a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[str, int] = {}
        """File descriptors of the folders that are used; a lock ends with its process."""

    def code(self, source: Path) -> Path:
        """The folder of a function's code: `source` itself, or what the zip holds.

        Raises: OperatorNeeded, naming the file and what is wrong with it.
        """
        if source.is_dir():
            return source
        return self._made(f"code-{_digest(source)}", [source])

    def layers(self, sources: Sequence[Path], code: Path) -> Path | None:
        """The folder of layers, each above those before it; None where there are none.

        Raises: OperatorNeeded, also when they and the code in its folder are more than Lambda takes.
        """
        if not sources:
            return None
        if len(sources) > LAYERS_MAX:
            raise OperatorNeeded("Cannot reference more than 5 layers.")
        marks = "".join(_tree_mark(source) if source.is_dir() else _digest(source) for source in sources)
        merged = self._made(f"layers-{hashlib.sha256(marks.encode()).hexdigest()}", sources)
        size = _size(merged) + _size(code)
        if size > UNPACKED_BYTES_MAX:
            raise OperatorNeeded(
                f"code and layers hold {size} bytes: at most {UNPACKED_BYTES_MAX} are allowed; use fewer or smaller"
                " layers"
            )
        return merged

    def clear(self) -> None:
        """Remove what no daemon uses; it is made again when it is needed."""
        for place in self._directory.glob("*-*"):
            fd = _locked(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if fd is not None:
                shutil.rmtree(place, ignore_errors=True)
                os.close(fd)

    def close(self) -> None:
        """Let go of everything that is used."""
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()

    def _made(self, name: str, sources: Sequence[Path]) -> Path:
        made = self._directory / name
        while not self._holds(made):
            try:
                self._make(made, sources)
            except OSError as error:
                text = error.strerror or str(error)
                raise OperatorNeeded(f"code cannot be unpacked below {self._directory}: {text}") from error
        return made

    def _holds(self, made: Path) -> bool:
        """Hold a folder, if it is there and stays: another daemon may have been removing it."""
        if made.name in self._held and made.is_dir():
            return True
        fd = _locked(made, fcntl.LOCK_SH)
        if fd is None:
            return False
        if not made.is_dir() or not os.path.samestat(os.fstat(fd), made.stat()):
            os.close(fd)
            return False
        if made.name in self._held:
            os.close(self._held[made.name])
        self._held[made.name] = fd
        return True

    def _make(self, made: Path, sources: Iterable[Path]) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._directory, prefix=".new-", ignore_cleanup_errors=True) as new:
            root = Path(new) / "root"
            root.mkdir()
            _fill(root, sources)
            root.chmod(0o755)
            try:
                root.rename(made)
            except OSError:
                if not made.is_dir():  # else another daemon was faster
                    raise


def unpack(source: Path, root: Path, limit: int = UNPACKED_BYTES_MAX) -> int:
    """Unpack a zip into a folder; returns the bytes written. Raises: OperatorNeeded, OSError."""
    links: list[tuple[zipfile.ZipInfo, Path, str]] = []
    size = 0
    with _opened(source) as archive:
        entries = archive.infolist()
        if len(entries) > _ENTRIES_MAX:
            raise OperatorNeeded(f"{source} holds {len(entries)} files: at most {_ENTRIES_MAX} are taken")
        for entry in entries:
            parts = _parts(source, entry)
            target = root.joinpath(*parts)
            if _is_link(entry):
                links.append((entry, target, _link(source, archive, entry, parts)))
                continue
            _refuse_special(source, entry)
            _make_way(source, root, target if entry.is_dir() else target.parent)
            if not entry.is_dir():
                size += _write(source, archive, entry, target, limit - size)
    for _, target, place in links:  # last, so that nothing can be written through one
        _make_way(source, root, target.parent)
        target.unlink(missing_ok=True)
        target.symlink_to(place)
    return size


def _fill(root: Path, sources: Iterable[Path]) -> None:
    left = UNPACKED_BYTES_MAX
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, root, symlinks=True, dirs_exist_ok=True)
        elif not source.exists():
            raise OperatorNeeded(f"{source} does not exist: correct the path")
        else:
            left -= unpack(source, root, left)


@contextmanager
def _opened(source: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(source) as archive:
            yield archive
    except FileNotFoundError as error:
        raise OperatorNeeded(f"{source} does not exist: correct the path") from error
    except _BROKEN as error:
        raise OperatorNeeded(f"{source} cannot be unzipped ({error}): pack it again, without a password") from error


def _parts(source: Path, entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """The path of an entry below the root."""
    name = entry.filename
    path = PurePosixPath(name)
    is_wild = path.is_absolute() or ".." in path.parts or "\\" in entry.orig_filename or "\0" in entry.orig_filename
    if is_wild or not path.parts or len(name.encode(errors="replace")) > _NAME_BYTES_MAX:
        raise OperatorNeeded(
            f"{source} holds {entry.orig_filename[:100]!r}, which lies outside the package or is no path of one: pack"
            " it again with relative paths"
        )
    return path.parts


def _is_link(entry: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(entry.external_attr >> 16)


def _refuse_special(source: Path, entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise OperatorNeeded(f"{source} holds {entry.filename[:100]!r}, which is neither file, folder nor link")


def _link(source: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, parts: tuple[str, ...]) -> str:
    """Where a link leads. Raises: OperatorNeeded where that is outside the package."""
    with archive.open(entry) as file:
        place = os.fsdecode(file.read(_LINK_BYTES_MAX + 1))
    depth = len(parts) - 1
    leads_out = not place or place.startswith("/") or "\0" in place or len(place) > _LINK_BYTES_MAX
    for part in PurePosixPath(place).parts:
        depth += -1 if part == ".." else 1
        leads_out = leads_out or depth < 0
    if leads_out:
        raise OperatorNeeded(f"{source} holds {entry.filename[:100]!r}, a link that leads outside the package")
    return place


def _make_way(source: Path, root: Path, folder: Path) -> None:
    """Make a folder and those above it; none of them may be a link, or a file."""
    place = root
    for part in folder.relative_to(root).parts:
        place /= part
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise OperatorNeeded(
                f"{source} holds a file below {str(place.relative_to(root))[:100]!r}, which is no folder"
            )
        place.mkdir(mode=0o755, exist_ok=True)


def _write(source: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, limit: int) -> int:
    """Write one file, counting what comes out rather than what the entry says."""
    mode = (entry.external_attr >> 16) & 0o777 or 0o644
    if target.is_dir() and not target.is_symlink():
        raise OperatorNeeded(f"{source} holds {entry.filename[:100]!r} twice, as a file and as a folder")
    target.unlink(missing_ok=True)
    size = 0
    with archive.open(entry) as packed, target.open("xb") as file:
        while chunk := packed.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > limit:
                raise OperatorNeeded(
                    f"{source} holds more than {UNPACKED_BYTES_MAX} bytes unpacked: put fewer or smaller files into it"
                )
            file.write(chunk)
    target.chmod(mode | 0o444)
    return size


def _locked(folder: Path, how: int) -> int | None:
    """A descriptor of a folder with a lock on it; None where there is no folder, or another's lock forbids it."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, how)
    except OSError:
        os.close(fd)
        return None
    return fd


def _digest(source: Path) -> str:
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OperatorNeeded(
            f"{source} cannot be read ({error.strerror}): correct the path or its permissions"
        ) from error


def _tree_mark(folder: Path) -> str:
    """Changes with every file of a folder."""
    found = sorted(path for path in folder.rglob("*") if not path.is_dir())
    facts = [(str(path.relative_to(folder)), path.lstat().st_size, path.lstat().st_mtime_ns) for path in found]
    return hashlib.sha256(repr((str(folder), facts)).encode()).hexdigest()


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
