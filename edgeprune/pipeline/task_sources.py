"""Which files a task is written in, so that a resumed run can tell that they changed."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["source_digests"]


def source_digests(file: Path) -> dict[str, str]:
    """SHA-256 of a Python file and of all that it imports from its own folder or package, by path from there.

    The imports are read from the text: what is imported only now and then counts as well.
    """
    root = file.parent
    while (root / "__init__.py").exists():
        root = root.parent
    found: dict[str, str] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix()
        if name in found:
            continue
        content = path.read_bytes()
        found[name] = hashlib.sha256(content).hexdigest()
        for module in _imports(content, path, root):
            places = (place / module for place in (root, file.parent))
            candidates = (p for place in places for p in (place.with_suffix(".py"), place / "__init__.py"))
            waiting.extend(p for p in candidates if p.is_file() and p.is_relative_to(root))
    return found


def _imports(content: bytes, path: Path, root: Path) -> Iterator[Path]:
    """The modules that a file names in its imports, as paths below the root: "package/module"."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # beside a task that was imported: nothing of it runs
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = list(path.parent.relative_to(root).parts)
            above = above[: len(above) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" if base else alias.name for alias in node.names)]
        else:
            continue
        for parts in (tuple(name.split(".")) for name in names if name):
            yield from (Path(*parts[:length]) for length in range(1, len(parts) + 1))  # packages run first
