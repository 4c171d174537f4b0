"""Saving and loading captured graphs as `.pt2`: an exported program, no pickle of user code, no class needed."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import torch

from edgeprune.errors import CaptureError, StorageError
from edgeprune.graph.capture import _export, from_program
from edgeprune.graph.captured import Captured, Prunable

__all__ = ["load", "save"]


def save(captured: Prunable, path: Path) -> None:
    """Write the graph in evaluation mode; the file appears whole or not at all. Raises StorageError."""
    module = captured.module
    training = module.training
    module.eval()
    try:
        program, _ = _export(module, captured.example_inputs)
    finally:
        module.train(training)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".pt2")
    os.close(handle)
    try:
        torch.export.save(program, name)
        Path(name).replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}", hint="free some space or choose another folder"
        ) from error
    finally:
        Path(name).unlink(missing_ok=True)


def load(path: Path | str) -> Captured:
    """The graph that `save` (or `torch.export.save`) wrote; raises CaptureError where it is not such a file."""
    path = Path(path)
    if not path.is_file():
        raise CaptureError(f"{path}: no such file", hint="give a .pt2 file that edgeprune or torch.export.save wrote")
    try:
        program = torch.export.load(path)
    except (RuntimeError, ValueError, KeyError, AssertionError, zipfile.BadZipFile) as error:
        raise CaptureError(
            f"{path} is not a readable .pt2 file: {error}", hint="was it written by torch.export.save?"
        ) from error
    if program.example_inputs is None:
        raise CaptureError(f"{path} holds no example inputs", hint="export it with torch.export.export(model, inputs)")
    args, _ = program.example_inputs
    first = next(
        node
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    )
    dynamic = bool(first.meta["val"].dim()) and isinstance(first.meta["val"].shape[0], torch.SymInt)
    return from_program(program, tuple(args), batch_dynamic=dynamic)
