"""YAML as policies use it: plain data, each piece with its place.

YAML is larger than what a policy needs, and what is larger than needed is read differently by different readers:

1. No aliases, anchors or tags: a rule means what stands where it stands (and a file can't unfold into a bomb).
2. No key twice in a mapping: the second would silently replace the first.
3. Plain scalars are what JSON says they are. ``no``, ``0x10``, ``1_000`` and ``10:30`` must be quoted: YAML 1.1 reads
   them as false, 16, 1000 and 630.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import yaml

from whygate.core.policy.errors import PolicyError

MAX_DEPTH: Final = 32
"""Nesting of a file. The C reader composes recursively: without a bound, a file of brackets would end the process."""

Loc = tuple[int | str, ...]

_LOADER: Final[Any] = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader  # ten times the speed, where built
_TAG: Final = "tag:yaml.org,2002:"
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)")
_FRACTION: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_QUOTED: Final = re.compile(r":\s+(['\"]).*\1\s*\S")
_HINT: Final = " (an expression that begins with a quote is quoted as a whole, or stands on the line after a `|`)"
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None, "~": None, "": None}


class Document:
    """One YAML document of one file: its ``value`` as plain data, and the place of everything in it."""

    def __init__(self, file: str, text: str, node: yaml.Node) -> None:
        self.file = file
        self.errors: list[PolicyError] = []
        self._text = text
        self._node = node
        self.value = self._plain(node, ())

    def error(self, loc: Loc, message: str, *, key: bool = False) -> PolicyError:
        """A finding at ``loc`` (at its key, if ``key``), or at the nearest place above that exists."""
        node, at_key = self._find(loc)
        return _error(self.file, at_key.start_mark if key and at_key else node.start_mark, message)

    def error_inside(self, loc: Loc, offset: int, message: str) -> PolicyError:
        """A finding at character ``offset`` of the scalar at ``loc``."""
        node, _ = self._find(loc)
        if not isinstance(node, yaml.ScalarNode):
            return self.error(loc, message)
        index = _index_of(self._text, node, offset)
        line = self._text.count("\n", 0, index) + 1
        return PolicyError(file=self.file, line=line, column=index - self._text.rfind("\n", 0, index), message=message)

    def line(self, loc: Loc) -> int:
        """The line on which ``loc`` begins."""
        return int(self._find(loc)[0].start_mark.line) + 1

    def _find(self, loc: Loc) -> tuple[yaml.Node, yaml.Node | None]:
        node, key = self._node, None
        for step in loc:
            if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node, key = node.value[step], None
                continue
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            found = next(((k, v) for k, v in pairs if k.value == step), None)
            if found is None:
                break
            key, node = found
        return node, key

    def _plain(self, node: yaml.Node, loc: Loc) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(each, (*loc, index)) for index, each in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, loc)
        # Conditions are CEL whatever YAML takes them for: `when: true` is the expression true.
        return node.value if _holds_cel(loc) else self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
                self.errors.append(_error(self.file, key.start_mark, "a key must be a text (quote it)"))
                continue
            if key.value in made:
                self.errors.append(_error(self.file, key.start_mark, f"the key `{key.value}` stands here twice"))
                continue
            made[key.value] = self._plain(value, (*loc, key.value))
        return made

    def _scalar(self, node: yaml.Node) -> Any:
        text, kind = node.value, node.tag.removeprefix(_TAG)
        if kind in {"str", "timestamp"}:
            return text
        if kind in {"bool", "null"} and text in _WORDS:
            return _WORDS[text]
        if kind == "int" and _NUMBER.fullmatch(text) and len(text) < 20:
            return int(text)
        if kind == "float" and _FRACTION.fullmatch(text):
            return float(text)
        self.errors.append(_error(self.file, node.start_mark, f"YAML would read this as a {kind}: quote it"))
        return text


def read(file: str, text: str) -> tuple[list[Document], list[PolicyError]]:
    """The documents of a file, and what is wrong with it as YAML. Empty documents are left out."""
    try:
        found = list(_refused(file, text))
        if found:
            return [], found
        nodes = [node for node in yaml.compose_all(text, Loader=_LOADER) if not _is_empty(node)]
    except yaml.YAMLError as wrong:
        return [], [_unreadable(file, text, wrong)]
    documents = [Document(file, text, node) for node in nodes]
    return documents, [error for document in documents for error in document.errors]


def _refused(file: str, text: str) -> Iterator[PolicyError]:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            yield _error(file, event.start_mark, "aliases are not supported: write it out")
            continue
        if getattr(event, "anchor", None) is not None:
            yield _error(file, event.start_mark, "anchors are not supported: write it out where it is needed")
        if getattr(event, "tag", None) not in {None, "!"}:
            yield _error(file, event.start_mark, "tags are not supported")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                yield _error(file, event.start_mark, f"nested more than {MAX_DEPTH} deep")
                return
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _is_empty(node: Any) -> bool:
    return node is None or (isinstance(node, yaml.ScalarNode) and node.value == "")


def _holds_cel(loc: Loc) -> bool:
    return (len(loc) == 2 and loc[0] == "let") or (len(loc) == 3 and loc[0] == "rules" and loc[2] == "when")


def _error(file: str, mark: Any, message: str) -> PolicyError:
    return PolicyError(file=file, line=mark.line + 1, column=mark.column + 1, message=message)


def _unreadable(file: str, text: str, wrong: yaml.YAMLError) -> PolicyError:
    mark = getattr(wrong, "problem_mark", None)
    if mark is not None:
        problem = getattr(wrong, "problem", None) or "syntax error"
        hint = (
            _HINT
            if text.splitlines()[mark.line : mark.line + 1] and _QUOTED.search(text.splitlines()[mark.line])
            else ""
        )
        return _error(file, mark, f"not readable as YAML: {problem}{hint}")
    index = getattr(wrong, "position", 0) or 0
    return PolicyError(
        file=file,
        line=text.count("\n", 0, index) + 1,
        column=index - text.rfind("\n", 0, index),
        message="not readable as YAML: a character that YAML does not allow",
    )


def _index_of(text: str, node: yaml.ScalarNode, offset: int) -> int:
    """Where in ``text`` the character ``offset`` of the scalar stands.

    Walks value and source together: what YAML drops (indentation, folding, the second of two quotes) is passed over.
    Exact but for escapes in double quotes, where it may point a few characters late.
    """
    at, end = node.start_mark.index, node.end_mark.index
    if node.style in {"|", ">"}:
        at = text.find("\n", at, end) + 1 or at
    elif node.style in {'"', "'"}:
        at += 1
    place = at
    for char in node.value[: offset + 1]:
        if char.isspace():
            place = min(at, end)
            at += 1 if text[at : at + 1] == char else 0
            continue
        found = text.find(char, at, end)
        if found < 0:
            break
        place, at = found, found + 1
    return place


class Place(msgspec.Struct, frozen=True):
    """A position within an expression: lines from 1, columns from 0, as CEL's compiler counts."""

    line: int
    column: int

    def offset(self, source: str) -> int:
        lines = source.split("\n")
        before = sum(len(line) + 1 for line in lines[: self.line - 1])
        return min(before + self.column, max(len(source) - 1, 0))
