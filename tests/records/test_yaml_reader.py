"""Strict YAML: what is refused, and that every error names its place."""

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import ConfigError
from edgeprune.records.yaml_reader import Entry, merge, parse_document, read_document

FILE = Path("board.yaml")


def parse(text: str) -> Entry:
    return parse_document(text, FILE)


def test_every_value_knows_its_place_and_key() -> None:
    document = parse("name: x\ncores:\n  - count: 4\n    name: Cortex-A53\n")
    count = document.table()["cores"].content[0].table()["count"]  # type: ignore[index,union-attr]
    assert (count.key, count.line, count.column, count.key_line, count.key_column) == ("cores[0].count", 3, 12, 3, 5)
    error = count.error("wrong", hint="right")
    assert str(error) == "board.yaml:3:12: cores[0].count: wrong"
    assert (error.path, error.line, error.column, error.key, error.hint) == (FILE, 3, 12, "cores[0].count", "right")
    assert str(count.key_error("wrong")) == "board.yaml:3:5: cores[0].count: wrong"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "3:1", "a: written twice, first in line 1"),
        ("x: {a: 1, a: 2}\n", "1:11", "x.a: written twice, first in line 1"),
        ("a: &one [1]\nb: *one\n", "2:4", "aliases"),
        ("a: &a [*a]\n", "1:8", "aliases"),
        ("<<: {a: 1}\n", "1:1", "the key '<<' is not text"),
        ("1: a\n", "1:1", "the key '1' is not text"),
        ("on: a\n", "1:1", "the key 'on' is not text"),
        ("? [a]\n: b\n", "1:3", "is not text"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "1:4",
            "a: the tag tag:yaml.org,2002:python/object/apply:os.system",
        ),
        ("a: !secret x\n", "1:4", "a: the tag !secret is not read here"),
        ("a: !!set {x}\n", "1:4", "is not read here"),
        ("a: yes\n", "1:4", "a: 'yes' can mean a truth value or text"),
        ("a: 1:30\n", "1:4", "a: '1:30' is not a decimal number"),
        ("a: 010\n", "1:4", "a: '010' is not a decimal number"),
        ("a: 0x1F\n", "1:4", "is not a decimal number"),
        ("a: .inf\n", "1:4", "is not a decimal number"),
        ("a: .nan\n", "1:4", "is not a decimal number"),
        ("a: 1\n---\nb: 2\n", "2:1", "more than one document"),
        ("a: [1, 2\nb: 3\n", "2:2", "expected ',' or ']'"),
        ("a:\n\t- 1\n", "2:1", "cannot start any token"),
        ("a: b: c\n", "1:5", "mapping values are not allowed here"),
        ("- a\n", "1:1", "expected keys with values, not a list"),
        ("just text\n", "1:1", "expected keys with values, not the text 'just text'"),
        ("a: \x07\n", "1", "control character"),
        ("[" * 2000 + "]" * 2000, "1:21", "nested more than 20 deep"),
        ("a: " + "{a: " * 5000, "1:", "nested more than 20 deep"),
    ],
)
def test_refused(text: str, place: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"board.yaml:{place}")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("task: [a", "close the [ with ]"),
        ("task: {a: b", "close the { with }"),
        ("a:\n\t- 1\n", "indent with spaces: YAML takes no tabs"),
        ("a: b: c\n", "a colon goes in quotes"),
        ('a: "b\n', "a quote or bracket that is not closed"),
        ("a: 1\n b: 2\n", "indented alike"),
        ("a: @b\n", "such a character in quotes"),
    ],
)
def test_a_slip_in_the_syntax_gets_a_hint(text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert hint in (caught.value.hint or "")


def test_numbers_are_read_as_people_write_them() -> None:
    document = parse("a: 5e-4\nb: 20_000\nc: -3\nd: 0.5\ne: '5'\nf: 2026-01-01\ng: 30ms\nh: true\ni:\nj: ~\nk: 1e3\n")
    numbers = {"a": 5e-4, "b": 20000, "c": -3, "d": 0.5, "k": 1000.0}
    texts = {"e": "5", "f": "2026-01-01", "g": "30ms"}
    assert document.plain() == {**numbers, **texts, "h": True, "i": None, "j": None}
    assert isinstance(document.table()["b"].content, int)


def test_an_empty_file_is_an_empty_mapping() -> None:
    for text in ("", "# only a comment\n", "---\n"):
        if text == "---\n":
            with pytest.raises(ConfigError, match="expected keys with values, not nothing"):
                parse(text)
        else:
            assert parse(text).plain() == {}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        read_document(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_document(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\ntitle: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: not UTF-8 text"):
        read_document(latin)
    huge = tmp_path / "huge.yaml"
    huge.write_text("#" * (1 << 20) + "\na: 1\n")
    with pytest.raises(ConfigError, match="larger than"):
        read_document(huge)
    marked = tmp_path / "bom.yaml"
    marked.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_document(marked).plain() == {"a": 1}


def test_merging_is_key_by_key_and_null_removes() -> None:
    base = parse("a: 1\nb: {x: 1, y: 2}\nc: [1, 2]\nd: 4\n")
    own = parse("b: {y: 3, z: 4}\nc: [9]\nd:\n")
    assert merge(base, own).plain() == {"a": 1, "b": {"x": 1, "y": 3, "z": 4}, "c": [9]}
    assert base.plain()["d"] == 4  # the base is left as it is


trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(-1e6, 1e6)
    | st.from_regex(r"[a-z ]{1,8}", fullmatch=True),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z]{2,8}z", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(data=st.dictionaries(st.from_regex(r"[a-z]{2,8}z", fullmatch=True), trees, max_size=4), flow=st.booleans())
def test_reads_what_a_yaml_writer_writes(data: dict[str, object], flow: bool) -> None:
    class Writer(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    text = yaml.dump(data, Dumper=Writer, default_flow_style=flow)
    assert parse(text).plain() == data


@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(text).plain(), dict)
