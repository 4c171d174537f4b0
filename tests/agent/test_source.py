"""The agent's source: for Python 3.6 and its library alone, small, and always the same file."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from edgeprune.agent.bundle import SOURCES, agent_bytes, agent_sha256

PARTS = sorted(SOURCES.glob("*.py"))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.stem)
def test_is_python_3_6_and_needs_nothing_else(part: Path) -> None:
    tree = ast.parse(part.read_text(), feature_version=(3, 6))
    imported: dict[str, bool] = {}  # by name: at the top?
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name: node in tree.body for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported[node.module or ""] = node in tree.body
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1  # the zip holds this one folder
            assert (SOURCES / f"{node.module}.py").exists()
    newer = {"dataclasses", "contextvars", "importlib.resources", "importlib.metadata", "graphlib", "tomllib"}
    foreign = {name: top for name, top in imported.items() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert not any(foreign.values())  # runtimes are imported in the worker only
    assert not foreign or part.stem == "runtimes"
    assert not set(imported) & newer


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.stem)
def test_uses_no_later_additions_to_the_library(part: Path) -> None:
    later = {"capture_output", "text", "removeprefix", "removesuffix", "missing_ok", "is_relative_to", "readlink"}
    calls = [node for node in ast.walk(ast.parse(part.read_text())) if isinstance(node, ast.Call)]
    keywords = {keyword.arg for call in calls for keyword in call.keywords}
    methods = {call.func.attr for call in calls if isinstance(call.func, ast.Attribute)}
    assert not (keywords | methods) & later
    assert "subprocess.run" not in part.read_text()
    annotations = [node.annotation for node in ast.walk(ast.parse(part.read_text())) if isinstance(node, ast.arg)]
    evaluated = [ast.unparse(note) for note in annotations if isinstance(note, (ast.Subscript, ast.BinOp))]
    assert evaluated == []  # dict[str, Any] is a string there: before Python 3.9 it cannot be evaluated


def test_is_one_small_file_and_always_the_same() -> None:
    assert len(agent_bytes()) < 60_000
    agent_bytes.cache_clear()
    before = agent_sha256()
    agent_bytes.cache_clear()
    assert agent_sha256() == before
