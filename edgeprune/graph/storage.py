"""Saving and loading captured graphs as `.pt2`: an exported program, no pickle of user code, no class needed."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import is_concrete_int

from edgeprune.errors import CaptureError, StorageError
from edgeprune.graph.capture import export_program, from_program
from edgeprune.graph.captured import Captured, Prunable, Pruned
from edgeprune.graph.coupling import Granularity
from edgeprune.records.candidate import Candidate

__all__ = ["load", "read_candidate", "save"]

# What an archive may hold besides tensors: objects that are only restored by running code.
_OBJECTS = ("custom_obj", "opaque_obj")
_CANDIDATE = "edgeprune-candidate.json"
_NAMES = "edgeprune-names.json"
_HINT = "give a .pt2 file that edgeprune or torch.export.save wrote"


def save(captured: Prunable, path: Path | str) -> None:
    """Write the graph in evaluation mode; the file appears whole or not at all. Raises StorageError."""
    path = Path(path)
    module = captured.module
    training = module.training
    module.eval()
    try:
        program, _ = export_program(module, captured.example_inputs)
    finally:
        module.train(training)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of the machine that it was made on
    extra = {}
    if isinstance(captured, Pruned):
        made_by = {"candidate": captured.candidate.to_json(), "granularity": asdict(captured.granularity)}
        extra[_CANDIDATE] = json.dumps(made_by)
    if captured.input_names:
        extra[_NAMES] = json.dumps({"inputs": captured.input_names, "outputs": captured.output_names})
    try:
        # The archive names its entries after the file: the final name, in a folder of its own.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            part = Path(folder) / path.name
            torch.export.save(program, part, extra_files=extra)
            part.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        hint = "free some space or choose another folder"
        raise StorageError(f"cannot write {path}: {error}", hint=hint) from error


def load(path: Path | str) -> Captured:
    """The graph that `save` (or `torch.export.save`) wrote. Runs no code from the file.

    Raises CaptureError where it is not such a file, or holds objects that only unpickling could restore.
    """
    path = Path(path)
    if not path.is_file():
        raise CaptureError(f"{path}: no such file", hint=_HINT)
    _refuse_objects(path)
    try:
        with _tensors_only():
            program = torch.export.load(path)
    except Exception as error:  # whatever torch's reader trips over in a file that is not what it seems
        raise CaptureError(f"{path} is not a readable .pt2 file: {error}", hint=_HINT) from error
    if program.example_inputs is None:
        raise CaptureError(f"{path} holds no example inputs", hint="export it with torch.export.export(model, inputs)")
    args, _ = program.example_inputs
    inputs = program.graph_signature.user_inputs
    first = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs)
    dynamic = bool(first.meta["val"].dim()) and not is_concrete_int(first.meta["val"].shape[0])
    captured = from_program(program, tuple(args), batch_dynamic=dynamic)
    captured.input_names, captured.output_names = _names(path, len(args))
    return captured


def _names(path: Path, inputs: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of inputs and outputs that the file holds; empty where it holds none."""
    data = _extra(path, _NAMES)
    if data is None:
        return (), ()
    try:
        names = tuple(data["inputs"]), tuple(data["outputs"])
    except (KeyError, TypeError) as error:
        raise CaptureError(f"{path} is not a readable .pt2 file: {_NAMES}: {error}", hint=_HINT) from error
    if len(names[0]) != inputs or not all(isinstance(name, str) for name in (*names[0], *names[1])):
        raise CaptureError(f"{path}: {_NAMES} does not name the {inputs} inputs", hint=_HINT)
    return names


def _extra(path: Path, name: str) -> Any:
    """The JSON file of this name in the archive, or None; raises CaptureError."""
    try:
        with zipfile.ZipFile(path) as archive:
            entry = next((entry for entry in archive.namelist() if entry.endswith(f"/{name}")), None)
            return None if entry is None else json.loads(archive.read(entry))
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise CaptureError(f"{path} is not a readable .pt2 file: {error}", hint=_HINT) from error


def read_candidate(path: Path) -> tuple[Candidate, Granularity]:
    """What the pruned model in this file was made by: the candidate, of groups found at this granularity.

    Raises CaptureError where it is no .pt2 file of a pruned model.
    """
    data = _extra(path, _CANDIDATE)
    if data is None:
        raise CaptureError(
            f"{path} does not say what was pruned", hint="give a file that `edgeprune prune` or Pruned.save wrote"
        )
    try:
        return Candidate.from_json(data["candidate"]), Granularity(**data["granularity"])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CaptureError(f"{path} is not a readable .pt2 file: {error}", hint=_HINT) from error


def _refuse_objects(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            configs = [name for name in archive.namelist() if name.endswith("_config.json")]
            payloads = [entry for name in configs for entry in json.loads(archive.read(name))["config"].values()]
    except (zipfile.BadZipFile, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CaptureError(f"{path} is not a readable .pt2 file: {error}", hint=_HINT) from error
    for payload in payloads:
        if str(payload.get("path_name", "")).startswith(_OBJECTS):
            raise CaptureError(
                f"{path} holds pickled objects, which would run code when loaded",
                hint="export the model without custom classes (tensors and parameters only)",
            )


@contextmanager
def _tensors_only() -> Iterator[None]:
    """torch's reader falls back to full unpickling; this variable is its own switch to forbid that."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
