"""YAML with substitutions -> plain values, every problem in one go.

`${VAR}`, `${VAR:-default}` and `${file:/path}` are replaced inside scalars, after the YAML was read, so that a value
cannot bring structure along; `$${` is a literal `${`. A plain scalar that holds a substitution is read again by YAML's
rules (`Timeout: ${T:-30}` is a number); a quoted one stays a string. Problems show what the file says, never what was
put in its place.
"""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from esm.errors import ConfigurationRefused, Problem

NODES_MAX = 100_000
"""Values of one file, aliases counted as often as they are used: a file cannot blow up by repetition."""

DEPTH_MAX = 50

_SUBSTITUTION = re.compile(r"\$\$\{|\$\{(?P<body>[^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass
class Document:
    """A file as plain values, with what must be known to speak about it."""

    path: Path
    value: Any
    placeholders: dict[str, str] = field(default_factory=dict)
    """What the file says at each place whose value was substituted."""
    files: list[Path] = field(default_factory=list)
    """Every file that was read, this one first."""
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: str, value: object, text: str) -> None:
        """Note a problem at a place; a substituted value is shown as its placeholder."""
        shown = self.placeholders.get(path, value)
        if any(place.startswith((path + ".", path + "[")) for place in self.placeholders):
            shown = None
        self.problems.append(Problem(str(self.path), path, shown, text))


def read(path: Path, environ: Mapping[str, str]) -> Document:
    """The file. Raises: ConfigurationRefused where it cannot be read as YAML at all."""
    document = Document(path, None, files=[path])
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationRefused(
            [Problem(str(path), "", None, f"cannot be read: {reason}. Name the file with -c or ESM_CONFIG.")]
        ) from error
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            document.value = None if node is None else _Reader(document, environ, loader).value(node, "", 0)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError) as error:
        words = " ".join(str(error).split())[:400]
        raise ConfigurationRefused([Problem(str(path), "", None, f"is not YAML: {words}")]) from error
    return document


class _Reader:
    """Walks the nodes of one file."""

    def __init__(self, document: Document, environ: Mapping[str, str], loader: yaml.SafeLoader) -> None:
        self._document = document
        self._environ = environ
        self._loader = loader
        self._left = NODES_MAX

    def value(self, node: yaml.Node, path: str, depth: int) -> Any:  # noqa: ANN401 - whatever the file holds
        self._left -= 1
        if self._left < 0 or depth > DEPTH_MAX:
            raise yaml.YAMLError(f"more than {NODES_MAX} values, or nested deeper than {DEPTH_MAX}")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        return self._mapping(node, path, depth)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        self._refuse_twice(node, path)
        self._loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self._document.problem(path, None, "a key must be a plain word")
                continue
            found[key] = self.value(value_node, f"{path}.{key}" if path else key, depth + 1)
        return found

    def _refuse_twice(self, node: yaml.MappingNode, path: str) -> None:
        seen: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            line = key_node.start_mark.line + 1
            if key is not None and key in seen:
                place = f"{path}.{key}" if path else str(key)
                text = f"stands twice, in lines {seen[key]} and {line}: keep one"
                self._document.problem(place, None, text)
            seen.setdefault(key, line)

    def _scalar(self, node: yaml.ScalarNode, path: str) -> Any:  # noqa: ANN401
        text = str(node.value)
        if "${" not in text:
            return self._constructed(node, path)
        self._document.placeholders[path] = text
        replaced = _SUBSTITUTION.sub(lambda match: self._substitute(match, path), text)
        is_plain = node.style is None
        tag = _plain_tag(self._loader, replaced) if is_plain else node.tag
        return self._constructed(yaml.ScalarNode(tag, replaced, node.start_mark, node.end_mark), path)

    def _constructed(self, node: yaml.ScalarNode, path: str) -> Any:  # noqa: ANN401
        try:
            return self._loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            words = " ".join(str(error).split())[:200]
            self._document.problem(path, None, f"cannot be read as YAML's {node.tag}: {words}")
            return None

    def _substitute(self, match: re.Match[str], path: str) -> str:
        body = match.group("body")
        if body is None:
            return "${"
        if body.startswith("file:"):
            return self._file(body.removeprefix("file:"), path)
        name, has_default, default = body.partition(":-")
        if not _NAME.fullmatch(name):
            self._document.problem(
                path, None, f"${{{body}}} is no substitution: ${{VAR}}, ${{VAR:-default}}, ${{file:/path}}"
            )
            return ""
        value = self._environ.get(name) or (default if has_default else self._environ.get(name))
        if value is None:
            self._document.problem(
                path, None, f"the variable {name} is not set: set it, or give a default, ${{{name}:-value}}"
            )
            return ""
        return value

    def _file(self, name: str, path: str) -> str:
        target = self._document.path.parent / name
        self._document.files.append(target)
        try:
            return target.read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self._document.problem(path, None, f"the file {target} cannot be read: {reason}")
            return ""


def _plain_tag(loader: yaml.SafeLoader, text: str) -> str:
    tag: str = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag
