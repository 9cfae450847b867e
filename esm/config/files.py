"""A configuration in one file, in a folder of files, or in those that a pattern names, read as one.

Names that begin with a dot are passed over: a ConfigMap's folder holds such ones. Each file keeps its own places,
lines and folder; a key that two of them define is refused, naming both.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esm.config.document import Document, read
from esm.errors import ConfigurationRefused, Problem

ENDINGS = (".yaml", ".yml")
FILES_MAX = 1000
_MAGIC = "*?["


@dataclass(frozen=True, slots=True)
class Entry:
    """A named member of a section, and where it stands."""

    document: Document
    section: str
    name: str
    value: Any

    @property
    def path(self) -> str:
        """Its place in its file."""
        return f"{self.section}.{self.name}"


@dataclass
class Files:
    """Every file of a configuration; there is at least one, and each is a table."""

    documents: list[Document]

    @property
    def problems(self) -> list[Problem]:
        """Those of every file."""
        return [problem for document in self.documents for problem in document.problems]

    @property
    def paths(self) -> list[Path]:
        """Every file that was read, those that a `${file:...}` names included."""
        return [path for document in self.documents for path in document.files]

    def sole(self, key: str) -> tuple[Document, Any]:
        """The value of a key that may stand in one file only; None where none has it."""
        having = [document for document in self.documents if document.value.get(key) is not None]
        for later in having[1:]:
            later.problem(key, None, _twice(having[0]))
        document = having[0] if having else self.documents[0]
        return document, document.value.get(key)

    def sections(self, key: str, kind: type, form: str) -> Iterator[tuple[Document, Any]]:
        """A section of every file that has it; where it is of another kind that is noted as a problem."""
        for document in self.documents:
            section = document.value.get(key)
            if isinstance(section, kind):
                yield document, section
            elif section is not None:
                document.problem(key, section, form)

    def entries(self, key: str, form: str) -> Iterator[Entry]:
        """The members of a section that is a table, over all files."""
        seen: dict[str, Document] = {}
        for document, section in self.sections(key, dict, form):
            for name, value in section.items():
                if name in seen:
                    document.problem(f"{key}.{name}", None, _twice(seen[name]))
                    continue
                seen[name] = document
                yield Entry(document, key, name, value)

    def declared(self, key: str) -> set[str]:
        """The names that a section holds in any file, whatever they are worth."""
        sections = [document.value.get(key) for document in self.documents]
        return {name for section in sections if isinstance(section, dict) for name in section}


def read_all(path: Path, environ: Mapping[str, str], keys: tuple[str, ...]) -> Files:
    """Every file of a path. Raises: ConfigurationRefused where one is no table of YAML."""
    documents: list[Document] = []
    problems: list[Problem] = []
    paths: list[Path] = []
    for file in _some(path):
        try:
            documents.append(_table(read(file, environ), keys))
            paths += documents[-1].files
        except ConfigurationRefused as refused:
            problems += refused.problems
            paths += refused.files
    if problems:
        raise ConfigurationRefused(problems, paths)
    for document in documents:
        document.others = [other for other in documents if other is not document]
    return Files(documents)


def files_at(path: Path) -> list[Path]:
    """The files that a path names: itself, a folder's `*.yaml` and `*.yml`, or what a pattern finds, by name."""
    try:
        if path.is_dir():
            found = [one for one in path.iterdir() if one.suffix in ENDINGS]
        elif any(sign in str(path) for sign in _MAGIC) and not path.exists():
            found = list(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
        else:
            return [path]
        return sorted(one for one in found if not one.name.startswith(".") and not one.is_dir())
    except (OSError, ValueError):
        return [path]


def _some(path: Path) -> list[Path]:
    found = files_at(path)
    if not found:
        text = "holds no *.yaml or *.yml file. Name the file with -c or ESM_CONFIG."
        raise ConfigurationRefused([Problem(str(path), "", None, text)])
    if len(found) > FILES_MAX:
        raise ConfigurationRefused([Problem(str(path), "", None, f"names more than {FILES_MAX} files")])
    return found


def _table(document: Document, keys: tuple[str, ...]) -> Document:
    if document.value is None:
        document.value = {}
    if not isinstance(document.value, dict):
        text = f"must be a table with {', '.join(keys)}"
        raise ConfigurationRefused([Problem(str(document.path), "", None, text)], document.files)
    return document


def _twice(first: Document) -> str:
    return f"stands in {first.path}, too: keep one"
