"""Importing the user's Python file, and saying where in it something went wrong."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import linecache
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeprune.errors import EdgepruneError, TaskError

__all__ = ["import_object", "near_name", "on_path", "source_line", "user_frame"]

_ABSENT = object()


def import_object(reference: str, base: Path) -> tuple[Any, Path | None]:
    """What "file.py:Name" or "package.module:Name" names, and the file it is in, if any; raises TaskError."""
    module_text, _, name = reference.rpartition(":")
    if not module_text or not name:
        raise TaskError(f"{reference!r} does not name a task", hint='write it like "task.py:Digits" (file:class)')
    if module_text.endswith(".py") or "/" in module_text:
        module = _import_file((base / module_text).resolve(), module_text)
    else:
        module = _import_module(module_text, base)
    thing: Any = module
    for attribute in name.split("."):
        thing = getattr(thing, attribute, _ABSENT)
    if thing is _ABSENT:
        own = [key for key, value in vars(module).items() if _is_own(value, module) and not key.startswith("_")]
        near = near_name(name, own)
        asks = f"did you mean {near!r}? " if near else ""
        has = f"it defines {', '.join(sorted(own))}" if own else "it defines no class"
        raise TaskError(f"{module_text} has no {name!r}\n  at {module.__file__}", hint=asks + has)
    return thing, Path(module.__file__).resolve() if module.__file__ else None


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """The user's folder first on the import path, so that a task can import the files beside it."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def near_name(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` is a likely misspelling of."""
    return next(iter(difflib.get_close_matches(name, sorted(candidates), n=1, cutoff=0.75)), None)


def source_line(thing: Any) -> str:
    """ "task.py:12" of a class or function, "" where it has no source."""
    try:
        file = inspect.getsourcefile(thing)
        return f"{file}:{inspect.getsourcelines(thing)[1]}" if file else ""
    except (OSError, TypeError):
        return ""


def user_frame(error: BaseException, folder: Path) -> str:
    """ "task.py:12 in evaluate: `return 1 / 0`": the innermost frame of the error that lies in the user's folder."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: `{(error.text or '').strip()}`"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_inside(frame.filename, folder)]
    if not own:
        return ""
    frame = own[-1]
    code = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    return f"{frame.filename}:{frame.lineno} in {frame.name}: `{code}`"


def _is_inside(filename: str, folder: Path) -> bool:
    # A virtual environment inside the project's folder holds other people's code.
    path = Path(filename)
    return path.is_absolute() and path.is_relative_to(folder) and "site-packages" not in path.parts


def _is_own(value: Any, module: ModuleType) -> bool:
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__


def _import_file(path: Path, text: str) -> ModuleType:
    if not path.is_file():
        others = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        near = near_name(path.name, others)
        asks = f"did you mean {near!r}? " if near else ""
        raise TaskError(f"no such file: {path}", hint=f"{asks}name it as file.py:Class, relative to the project")
    # Unique by path: two projects may both have a task.py, and neither may shadow an installed module.
    name = f"edgeprune_task_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look modules up by name
    try:
        with on_path(path.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script without a __main__ guard may end itself
        del sys.modules[name]
        raise _import_failed(text, error, path.parent) from error
    return module


def _import_module(name: str, base: Path) -> ModuleType:
    try:
        with on_path(base):
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a script without a __main__ guard may end itself
        raise _import_failed(name, error, base) from error


def _import_failed(text: str, error: Exception | SystemExit, folder: Path) -> EdgepruneError:
    if isinstance(error, EdgepruneError):
        return error
    where = user_frame(error, folder)
    hint = "-v shows the whole traceback"
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"install the package that provides {error.name!r}, or put {error.name}.py beside the task"
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    at = f"\n  at {where}" if where else ""
    return TaskError(f"{text} cannot be imported: {type(error).__name__}: {message}{at}", hint=hint)
