"""Which files a task is written in."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeprune.pipeline.task import check_task, load_task
from edgeprune.pipeline.task_sources import source_digests

PARTS = "class T:\n    def model(self): ...\n    def example_inputs(self): ...\n    def evaluate(self, model): ...\n"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_file_and_what_it_imports_from_its_folder(tmp_path: Path) -> None:
    write(
        tmp_path,
        task="import json\nimport torch\ndef f():\n    from data import load\n",  # imported only when it is called
        data="import parts.sizes\nimport task\n",
        parts__in____init__="",
        parts__in__sizes="from . import more\n",
        parts__in__more="",
        unused="",
        broken="(",
    )
    found = source_digests(tmp_path / "task.py")
    assert sorted(found) == ["data.py", "parts/__init__.py", "parts/more.py", "parts/sizes.py", "task.py"]
    assert found["data.py"] == hashlib.sha256((tmp_path / "data.py").read_bytes()).hexdigest()


def test_a_module_of_a_package_names_its_files_from_the_package(tmp_path: Path) -> None:
    write(tmp_path, pkg__in____init__="", pkg__in__task="from .data import load\nimport pkg.extra\n")
    write(tmp_path, pkg__in__data="(", pkg__in__extra="")
    assert sorted(source_digests(tmp_path / "pkg/task.py")) == [
        "pkg/__init__.py", "pkg/data.py", "pkg/extra.py", "pkg/task.py",
    ]  # fmt: skip


def test_a_task_knows_its_files_however_it_is_given(tmp_path: Path) -> None:
    write(tmp_path, task="from base import T\n\ndef make():\n    return T()\n", base=PARTS)
    assert sorted(load_task("task.py:make", tmp_path).sources) == ["base.py", "task.py"]

    class Here:
        def model(self) -> None: ...
        def example_inputs(self) -> None: ...
        def evaluate(self, model: object) -> None: ...

    assert any(name.endswith("test_task_sources.py") for name in check_task(Here()).sources)
    namespace: dict[str, type] = {"__name__": "typed"}
    exec(PARTS, namespace)
    assert check_task(namespace["T"]()).sources == {}
