"""Strict YAML: every value knows its file, line, column and dotted key, so that every error can name them.

Refused, each with its place: duplicate keys, keys that are not text, aliases and merge keys, tags that ask for
anything but plain data, several documents in one file, nesting without end. Nothing is ever constructed from a tag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import ParserError
from yaml.scanner import ScannerError

from edgeprune.errors import ConfigError

__all__ = ["Entry", "merge", "parse_document", "read_document"]

Content: TypeAlias = "bool | int | float | str | tuple[Entry, ...] | dict[str, Entry] | None"

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 20
_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# YAML 1.1 reads 010 as 8, 1:30 as 90 and 5e-4 as text; people mean YAML 1.2's decimal numbers.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Entry:
    """One value of a YAML file and its place. `key` is dotted ("measurement.runtime", "cores[0].count", "" at the top).

    `content` is None, a bool, int, float or str, a tuple of entries, or a dict of entries by key; `line` and `column`
    (from 1) are where the value stands, `key_line` and `key_column` where its key does; `written` is a scalar's text.
    """

    content: Content
    path: Path
    key: str
    line: int
    column: int
    key_line: int
    key_column: int
    written: str = ""

    def error(self, message: str, *, hint: str | None = None) -> ConfigError:
        """A ConfigError at the value; the message is prefixed with the dotted key."""
        text = f"{self.key}: {message}" if self.key else message
        return ConfigError(text, path=self.path, line=self.line, column=self.column, key=self.key, hint=hint)

    def key_error(self, message: str, *, hint: str | None = None) -> ConfigError:
        """A ConfigError at the value's key."""
        return ConfigError(
            f"{self.key}: {message}",
            path=self.path,
            line=self.key_line,
            column=self.key_column,
            key=self.key,
            hint=hint,
        )

    def table(self) -> dict[str, Entry]:
        """The entries by key; raises ConfigError where this is no mapping."""
        if not isinstance(self.content, dict):
            raise self.error(f"expected keys with values, not {self.description}")
        return self.content

    def plain(self) -> Any:
        """The content as nested dicts, lists and scalars."""
        if isinstance(self.content, dict):
            return {key: entry.plain() for key, entry in self.content.items()}
        if isinstance(self.content, tuple):
            return [entry.plain() for entry in self.content]
        return self.content

    @property
    def description(self) -> str:
        """What stands here, for error messages: "the number 30", "a list"."""
        if self.content is None:
            return "nothing"
        if isinstance(self.content, dict):
            return "keys with values"
        if isinstance(self.content, tuple):
            return "a list"
        name = {bool: "the truth value", str: "the text"}.get(type(self.content), "the number")
        return f"{name} {self.written!r}" if isinstance(self.content, str) else f"{name} {self.written}"


class _Loader(yaml.SafeLoader):
    """Composes nodes only; refuses aliases (a tree is enough) and bottomless nesting (the composer recurses)."""

    depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self.check_event(AliasEvent):
            mark = self._place()
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read; write the value out", problem_mark=mark)
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            mark = self._place()
            raise yaml.MarkedYAMLError(problem=f"nested more than {_MAX_DEPTH} deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _place(self) -> Any:
        return self.peek_event().start_mark  # type: ignore[no-untyped-call]


def read_document(path: Path) -> Entry:
    """The one document of a YAML file, a mapping; raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError("no such file", path=path, hint="check the path") from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", path=path) from error
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"larger than {_MAX_BYTES} bytes; this is no configuration file", path=path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError("not UTF-8 text", path=path, line=line, hint="save the file as UTF-8") from error
    return parse_document(text, path)


def parse_document(text: str, path: Path) -> Entry:
    """The one document of a YAML text; `path` is what errors name."""
    try:
        loader = _Loader(text)  # the reader checks for control characters here
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = error.problem or error.context or "not YAML"
        if "single document" in (error.context or ""):
            message = "more than one document (---) in the file"
        hint = _slip(message) if isinstance(error, (ParserError, ScannerError)) else None
        if mark is None:
            raise ConfigError(message, path=path, hint=hint) from error
        raise ConfigError(message, path=path, line=mark.line + 1, column=mark.column + 1, hint=hint) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError("a control character, which YAML does not allow", path=path, line=line) from error
    if node is None:
        return Entry({}, path, "", 1, 1, 1, 1)
    entry = _entry(node, path, "", node)
    entry.table()
    return entry


def _slip(problem: str) -> str:
    """What is most often behind the parser's complaint."""
    if "'\\t'" in problem:
        return "indent with spaces: YAML takes no tabs"
    if "cannot start any token" in problem:
        return "write text that begins with such a character in quotes"
    for opening, closing in ("[]", "{}"):
        if f"',' or '{closing}'" in problem:
            return f"close the {opening} with {closing}, and separate what is in it by commas"
    if "mapping values are not allowed" in problem:
        return "one `key: value` a line, all keys of one level indented alike; text with a colon goes in quotes"
    return "look for a quote or bracket that is not closed, a missing colon, or a line that is indented otherwise"


def merge(base: Entry, own: Entry) -> Entry:
    """`own` over `base`, key by key: mappings merge, anything else replaces, null removes what `base` has."""
    if not isinstance(base.content, dict) or not isinstance(own.content, dict):
        return own
    merged = dict(base.content)
    for key, entry in own.content.items():
        if key not in merged:
            merged[key] = entry
        elif entry.content is None:
            del merged[key]
        else:
            merged[key] = merge(merged[key], entry)
    return replace(own, content=merged)


def _entry(node: Node, path: Path, key: str, key_node: Node) -> Entry:
    mark, key_mark = node.start_mark, key_node.start_mark
    entry = Entry(
        None, path, key, mark.line + 1, mark.column + 1, key_mark.line + 1, key_mark.column + 1, _written(node)
    )
    tag = node.tag.removeprefix(_TAG)
    if isinstance(node, MappingNode) and tag == "map":
        return replace(entry, content=_mapping(node, entry))
    if isinstance(node, SequenceNode) and tag == "seq":
        items = (_entry(child, path, f"{key}[{index}]", child) for index, child in enumerate(node.value))
        return replace(entry, content=tuple(items))
    if isinstance(node, ScalarNode) and node.tag.startswith(_TAG):
        return replace(entry, content=_scalar(node, tag, entry))
    raise entry.error(f"the tag {node.tag} is not read here", hint="write plain text, numbers, lists or keys")


def _mapping(node: MappingNode, entry: Entry) -> dict[str, Entry]:
    content: dict[str, Entry] = {}
    for key_node, value_node in node.value:
        place = replace(entry, line=key_node.start_mark.line + 1, column=key_node.start_mark.column + 1)
        if not isinstance(key_node, ScalarNode) or key_node.tag != _TAG + "str":
            shown = _written(key_node) or "this"
            raise place.error(f"the key {shown!r} is not text", hint="write it in quotes if it is meant as text")
        name = key_node.value
        child = _entry(value_node, entry.path, f"{entry.key}.{name}" if entry.key else name, key_node)
        if name in content:
            raise child.key_error(f"written twice, first in line {content[name].key_line}", hint="keep one of the two")
        content[name] = child
    return content


def _scalar(node: ScalarNode, tag: str, entry: Entry) -> bool | int | float | str | None:
    text: str = node.value
    if node.style is not None:  # quoted, or a block of text
        return text
    if tag == "null":
        return None
    if tag == "bool":
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        raise entry.error(f"{text!r} can mean a truth value or text", hint=f'write true or false, or "{text}"')
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if tag in ("int", "float"):
        raise entry.error(f"{text!r} is not a decimal number", hint="write it like 42 or 0.5, or in quotes for text")
    return text


def _written(node: Node) -> str:
    return node.value if isinstance(node, ScalarNode) else ""
