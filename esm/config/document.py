"""YAML with substitutions -> plain values, every problem in one go.

`${VAR}`, `${VAR:-default}` and `${file:path}` (relative to the file) are replaced inside scalars, after the YAML was
read, so that a value cannot bring structure along; `$${` is a literal `${`. Names of members are never substituted.

What a substituted scalar is: a quoted one, and one that is but partly a substitution, is a string. A plain scalar that
is one substitution as a whole (`Timeout: ${T:-30}`) becomes the number or boolean that YAML would read there, and
a string otherwise; where a string is asked for, `Document.text` gives the text itself, so that neither a password nor
an account of digits alone needs quotes. An empty value is the empty string, never null: it does not mean "left out".

Problems show what the file says, never what was put in its place: a substituted value is replaced by its `${...}` in
every text, at its own place always, elsewhere if it has six characters or more.

Times stay the strings that they are. Tags and values that JSON does not know (`!Ref`, `!!binary`) are refused.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from esm.errors import ConfigurationRefused, Problem

NODES_MAX = 100_000
"""Values of one file, aliases counted as often as they are used: a file cannot blow up by repetition."""

DEPTH_MAX = 50

FILE_BYTES_MAX = 64 * 1024
"""The longest content of a `${file:...}`."""

_SUBSTITUTION = re.compile(r"\$\$\{|\$\{(?P<body>[^}]*)(?P<end>\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAG = "tag:yaml.org,2002:"
_PLAIN = frozenset(_TAG + name for name in ("int", "float", "bool"))
_CLOUDFORMATION = frozenset({
    "!Ref", "!GetAtt", "!Sub", "!Join", "!ImportValue", "!FindInMap", "!If", "!Select", "!Split", "!Base64", "!Cidr",
    "!GetAZs", "!Transform", "!And", "!Or", "!Not", "!Equals", "!Condition", "!ToJsonString", "!Length",
})  # fmt: skip
_HIDDEN_EVERYWHERE_LENGTH = 6
"""A shorter value is hidden at its own place only: it is no secret, and stands in other texts by chance."""


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
    lines: dict[str, int] = field(default_factory=dict)
    """The line of each place."""
    written: dict[str, str] = field(default_factory=dict)
    """The text of each scalar that YAML reads as something else than a string."""
    replaced: dict[str, str] = field(default_factory=dict)
    """The text that was put in each place that is a substitution as a whole."""
    unread: set[str] = field(default_factory=set)
    """Places whose problem has been said: what follows from it is not worth a second one."""
    hidden: dict[str, dict[str, str]] = field(default_factory=dict)
    """For each place that was substituted: text that must not be shown, and what is shown instead."""
    others: "list[Document]" = field(default_factory=list, repr=False)
    """The other files of the configuration: what was substituted there is not shown here either."""

    def problem(self, path: str, value: object, text: str) -> None:
        """Note a problem at a place; a substituted value is shown as its placeholder."""
        if path in self.unread:
            return
        shown = self.placeholders.get(path, value)
        if any(_lies_in(place, path) and place != path for place in self.placeholders):
            shown = None
        self.problems.append(Problem(str(self.path), path, shown, self._scrubbed(path, text), self._line(path)))

    def cannot_read(self, path: str, text: str) -> None:
        """Note that there is no value at a place, and why: nothing else is said of it."""
        self.problem(path, None, text)
        self.unread.add(path)

    def text(self, path: str, value: object) -> object:
        """The value where a string is asked for: what was substituted, even if YAML would read a number there."""
        return self.replaced.get(path, value)

    def _line(self, path: str) -> int | None:
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path)

    def _scrubbed(self, path: str, text: str) -> str:
        shown: dict[str, str] = {}
        for document in (*self.others, self):
            for place, hidden in document.hidden.items():
                is_near = document is self and (_lies_in(place, path) or _lies_in(path, place))
                shown |= {
                    value: instead
                    for value, instead in hidden.items()
                    if is_near or (len(value) >= _HIDDEN_EVERYWHERE_LENGTH and value not in instead)
                }
        if not shown:
            return text
        forms = sorted(shown, key=len, reverse=True)
        whole = [
            re.escape(form) if len(form) >= _HIDDEN_EVERYWHERE_LENGTH else rf"(?<!\w){re.escape(form)}(?!\w)"
            for form in forms
        ]
        kept = [re.escape(instead) for instead in sorted(set(shown.values()), key=len, reverse=True)]
        return re.sub("|".join([*kept, *whole]), lambda match: shown.get(match.group(), match.group()), text)


def read(path: Path, environ: Mapping[str, str]) -> Document:
    """The file. Raises: ConfigurationRefused where it cannot be read as YAML at all."""
    document = Document(path, None, files=[path])
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationRefused(
            [Problem(str(path), "", None, f"cannot be read: {_reason(error)}. Name the file with -c or ESM_CONFIG.")],
            document.files,
        ) from error
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            document.value = None if node is None else _Reader(document, environ, loader).value(node, "", 0)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        words = " ".join(str(error).split())[:400]
        problem = Problem(str(path), "", None, f"is not YAML: {words}{_flow_hint(error, text)}", _line_of(error))
        raise ConfigurationRefused([problem], document.files) from error
    return document


class _Reader:
    """Walks the nodes of one file."""

    def __init__(self, document: Document, environ: Mapping[str, str], loader: yaml.SafeLoader) -> None:
        self._document = document
        self._environ = environ
        self._loader = loader
        self._left = NODES_MAX
        self._members_of: dict[int, dict[str, tuple[yaml.Node, yaml.Node]]] = {}

    def value(self, node: yaml.Node, path: str, depth: int) -> Any:  # noqa: ANN401 - whatever the file holds
        self._left -= 1
        if self._left < 0 or depth > DEPTH_MAX:
            raise yaml.YAMLError(f"more than {NODES_MAX} values, or nested deeper than {DEPTH_MAX}")
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in {_TAG + "map", _TAG + "seq"}:
            self._document.cannot_read(path, _of_tag(node.tag))
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        self._refuse_keys(node, path)
        found: dict[str, Any] = {}
        for key, (key_node, value_node) in self._members(node, depth).items():
            place = _joined(path, key)
            self._document.lines[place] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, place, depth + 1)
        return found

    def _refuse_keys(self, node: yaml.MappingNode, path: str) -> None:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            if not _is_word(key_node):
                self._document.problem(path, None, "a key must be a plain word")
                continue
            line = key_node.start_mark.line + 1
            if key_node.value in seen:
                text = f"stands twice, in lines {seen[key_node.value]} and {line}: keep one"
                self._document.problem(_joined(path, key_node.value), None, text)
            seen.setdefault(key_node.value, line)

    def _members(self, node: yaml.MappingNode, depth: int) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Key and value of every member, those of `<<` included; what stands in the table itself wins."""
        known = self._members_of.get(id(node))
        if known is not None:
            return known
        if depth > DEPTH_MAX:
            raise yaml.YAMLError(f"nested deeper than {DEPTH_MAX}")
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    if not isinstance(source, yaml.MappingNode):
                        raise yaml.YAMLError(f"<< in line {key_node.start_mark.line + 1} must name a table")
                    merged = {**self._members(source, depth + 1), **merged}
            elif _is_word(key_node):
                own[key_node.value] = (key_node, value_node)
        self._members_of[id(node)] = {**merged, **own}
        return self._members_of[id(node)]

    def _scalar(self, node: yaml.ScalarNode, path: str) -> Any:  # noqa: ANN401
        text = str(node.value)
        if "${" not in text or node.tag in _CLOUDFORMATION or ".Fn::Sub" in path:
            return self._constructed(node, path)
        self._document.placeholders[path] = text
        hidden = self._document.hidden.setdefault(path, {})
        replaced = _SUBSTITUTION.sub(lambda match: self._substitute(match, path), text)
        if path in self._document.unread:
            return None
        match = _SUBSTITUTION.fullmatch(text)
        is_whole = match is not None and match.group("body") is not None
        tag = node.tag
        if node.style is None:
            resolved = _plain_tag(self._loader, replaced)
            tag = resolved if is_whole and resolved in _PLAIN else _TAG + "str"
        if is_whole:
            self._document.replaced[path] = replaced
        if replaced != text:
            hidden.update(dict.fromkeys(_forms(replaced), text))
        value = self._constructed(yaml.ScalarNode(tag, replaced, node.start_mark, node.end_mark), path)
        if isinstance(value, int | float) and not isinstance(value, bool):
            hidden[str(value)] = text
        return value

    def _constructed(self, node: yaml.ScalarNode, path: str) -> Any:  # noqa: ANN401
        if node.tag == _TAG + "timestamp":
            return str(node.value)
        try:
            value = self._loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, OverflowError, KeyError, IndexError):
            is_ours = node.tag in _CLOUDFORMATION
            text = f"cannot be read as {_short(node.tag)}: write it without the tag"
            self._document.cannot_read(path, _of_tag(node.tag) if is_ours else text)
            return None
        if isinstance(value, int) and value.bit_length() > 64:  # noqa: PLR2004 - what JSON's readers bear
            self._document.cannot_read(path, "is a number of more than 64 bits")
            return None
        if isinstance(value, str) and not _is_unicode(value):
            self._document.cannot_read(path, "holds half of a surrogate pair, which is no character")
            return None
        if value is None or isinstance(value, str | int | float):
            if not isinstance(value, str):
                self._document.written[path] = str(node.value)
            return value
        self._document.cannot_read(path, f"has the tag {_short(node.tag)}, which means nothing here: remove it")
        return None

    def _substitute(self, match: re.Match[str], path: str) -> str:
        body = match.group("body")
        if body is None:
            return "${"
        if not match.group("end"):
            self._document.cannot_read(path, "has a ${ without its }: close it, or write $${ for a literal one")
            return ""
        value, problem = self._value_of(body)
        if value is None:
            self._document.cannot_read(path, problem)
            return ""
        if not body.partition(":-")[1] or value != body.partition(":-")[2]:
            self._document.hidden[path].update(dict.fromkeys(_forms(value), match.group()))
        return value

    def _value_of(self, body: str) -> tuple[str | None, str]:
        """What takes the place of `${body}`; None, and why there is nothing."""
        if body.startswith("file:"):
            return self._file(body.removeprefix("file:"))
        name, has_default, default = body.partition(":-")
        if not _NAME.fullmatch(name) or "${" in default:
            forms = "${VAR}, ${VAR:-default}, ${file:/path}, and none within another"
            return None, f"${{{body}}} is no substitution: {forms}"
        value = self._environ.get(name) or (default if has_default else self._environ.get(name))
        if value is None:
            return None, f"the variable {name} is not set: set it, or give a default, ${{{name}:-value}}"
        return value, ""

    def _file(self, name: str) -> tuple[str | None, str]:
        target = self._document.path.parent / name
        try:
            with target.open("rb") as file:
                content = file.read(FILE_BYTES_MAX + 1)
            text = content.decode("utf-8")
        except (OSError, ValueError) as error:
            return None, f"the file {name!r} cannot be read: {_reason(error)}"
        finally:
            self._document.files.append(target)
        if len(content) > FILE_BYTES_MAX:
            return None, f"the file {name!r} holds more than {FILE_BYTES_MAX} bytes"
        return text.removesuffix("\r\n" if text.endswith("\r\n") else "\n"), ""


def _plain_tag(loader: yaml.SafeLoader, text: str) -> str:
    tag: str = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag


def _is_word(node: yaml.Node) -> TypeGuard[yaml.ScalarNode]:
    return isinstance(node, yaml.ScalarNode) and str(node.value).isprintable()


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _forms(value: str) -> list[str]:
    """How a value may look within a text: as it is, as Python quotes it, and as JSON does."""
    return [form for form in {value, repr(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]} if form]


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _lies_in(place: str, path: str) -> bool:
    return not path or place == path or place.startswith((path + ".", path + "["))


def unresolved(function: str) -> str:
    """What to do about a function of CloudFormation's, which nothing here can resolve."""
    return (
        f"is CloudFormation's {function:.80}, which only CloudFormation resolves: write the value that it stands for,"
        " such as the ARN from the stack's resources or outputs, or ${VAR}"
    )


def _of_tag(tag: str) -> str:
    return (
        unresolved(tag) if tag in _CLOUDFORMATION else f"has the tag {tag!r:.80}, which means nothing here: remove it"
    )


def _short(tag: str) -> str:
    return "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else f"{tag!r:.80}"


def _line_of(error: Exception) -> int | None:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return None if mark is None else mark.line + 1


def _flow_hint(error: Exception, text: str) -> str:
    line = _line_of(error)
    if line is None or "${" not in "".join(text.splitlines()[line - 1 : line]):
        return ""
    return " (within { } and [ ] a ${...} must stand in quotes)"


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return error.strerror or "it is no file" if isinstance(error, OSError) else "its name is none"
