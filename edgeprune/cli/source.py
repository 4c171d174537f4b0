"""SOURCE, what several commands take: a captured model, an ONNX file, a task or a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured
    from edgeprune.pipeline.task import CheckedTask

__all__ = ["SOURCE", "captured_from"]

SOURCE = (
    "SOURCE is a captured model (.pt2), an ONNX file, a task (task.py:Class), or a project "
    "(its folder or edgeprune.yaml)."
)


def captured_from(source: str, *outputs: Path | None) -> tuple[Captured, CheckedTask | None]:
    """The model that SOURCE names, captured, and its task where it has one; none of `outputs` may be its file."""
    path = Path(source)
    for output in outputs:
        if output is not None and path.exists() and output.exists() and output.samefile(path):
            raise UsageError(
                f"{output} is the source itself, which would be gone",
                hint="name another file: what was pruned is verified against its source",
            )
    if path.suffix == ".pt2":
        from edgeprune.graph.storage import load

        if not path.is_file():
            raise UsageError(f"there is no file {path}")
        return load(path), None
    from edgeprune.graph.capture import capture

    if path.suffix == ".onnx":
        return capture(path), None
    task = _task(source, path)
    return capture(task.model().eval(), task.example_inputs()), task


def _task(source: str, path: Path) -> CheckedTask:
    from edgeprune.pipeline.task import load_task

    if path.is_dir() or path.suffix in (".yaml", ".yml"):
        from edgeprune.records.project import load_project

        project = load_project(path)
        return load_task(project.task, project.folder)
    if ":" not in source:
        raise UsageError(f"{source!r} is no model, task or project", hint=SOURCE)
    return load_task(source, Path.cwd())
