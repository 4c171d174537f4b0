"""ncnn by pnnx: one file, the same bytes for the same module; the way to 32-bit boards.

    export: {format: ncnn}                          # 32-bit weights
    export: {format: {name: ncnn, storage: fp16}}   # 16-bit weights: half the size

An `.ncnn` file is a zip, not compressed, of model.param and model.bin. `unzip` it for a program that loads the two. The
conversion goes over ONNX, so that nothing is pickled.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import atomic
from edgeprune.errors import UsageError
from edgeprune.export import manifest
from edgeprune.export.base import resized
from edgeprune.export.environment import Installation, find
from edgeprune.export.fixed_batch import fixed_program, input_specs, output_specs
from edgeprune.export.program import ProgramError, call
from edgeprune.export.stored import stored_zip
from edgeprune.records.artifact import Artifact, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ENVIRONMENT", "NcnnExporter", "renamed"]

ENVIRONMENT = "ncnn"
_STORAGES = ("fp32", "fp16")
_NAME = re.compile(r"[^\w.:/-]")  # what is no part of a blob's name: it ends at a blank, `=` makes a parameter of it


class NcnnExporter:
    """`.ncnn`, one sample at a time: ncnn's tensors have no batch. Inputs are called as in the graph."""

    format = "ncnn"
    suffix = ".ncnn"

    def __init__(self, storage: str = "fp32") -> None:
        if storage not in _STORAGES:
            raise UsageError(f"ncnn: {storage!r} is no storage of weights", hint=f"storages: {', '.join(_STORAGES)}")
        self.storage = storage

    def check(self) -> None:
        """Raises UsageError where the environment is not there."""
        find(ENVIRONMENT)

    def export(
        self,
        module: nn.Module,
        example_inputs: tuple[Tensor, ...],
        path: Path,
        *,
        batch_dynamic: bool = True,
        provenance: Mapping[str, Any] | None = None,
        input_names: tuple[str, ...] = (),
        output_names: tuple[str, ...] = (),
    ) -> Artifact:
        """See `Exporter.export`. Raises UsageError without pnnx, too."""
        import torch

        from edgeprune.export.ncnn_graph import for_ncnn
        from edgeprune.export.onnx import translated

        installation = find(ENVIRONMENT)
        examples = resized(example_inputs, 1) if batch_dynamic else example_inputs
        _check(examples)
        program = fixed_program(module, examples, "ncnn")
        inputs = _named(input_specs(program, input_names))
        outputs = _named(output_specs(program, output_names))
        shapes = [list(tensor.shape) for tensor in examples]
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            folder = Path(name)
            model = translated(for_ncnn(program, examples))
            (folder / "model.onnx").write_bytes(model.SerializeToString())
            told = _converted(installation, folder, shapes, half=self.storage == "fp16")
            param = (folder / "model.param").read_text(encoding="utf-8")
            weights = (folder / "model.bin").read_bytes()
        _check_layers(param, told["complaints"])
        param = renamed(param, [spec.name for spec in inputs], [spec.name for spec in outputs])
        data = stored_zip({"model.param": param.encode(), "model.bin": weights})
        atomic.write_bytes(path, data)
        return manifest.artifact(
            path,
            data,
            format=self.format,
            inputs=inputs,
            outputs=outputs,
            provenance={
                **(provenance or {}),
                "exporter": "pnnx",
                "pnnx": installation.versions["pnnx"],
                "torch": torch.__version__,
                "storage": self.storage,
            },
        )


def renamed(param: str, inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """A .param with its inputs, which pnnx calls in0, in1, …, and its outputs, out0, …, called so; others by number.

    ncnn/docs/developer-guide/param-and-model-file-structure.md: after two lines of counts, a line is a type, a name,
    the numbers of inputs and outputs, their blobs, and parameters.
    """
    asked = {f"in{n}": name for n, name in enumerate(inputs)} | {f"out{n}": name for n, name in enumerate(outputs)}
    taken = set(asked.values())
    head, lines = param.splitlines()[:2], []
    for line in param.splitlines()[2:]:
        kind, name, count_in, count_out, *rest = line.split()
        blobs = int(count_in) + int(count_out)
        for blob in rest[:blobs]:
            if blob not in asked:
                own = f"blob{len(asked)}"
                while own in taken:
                    own += "_"
                asked[blob] = own
        parts = (f"{kind:<24} {name:<24} {count_in} {count_out}", *(asked[blob] for blob in rest[:blobs]))
        lines.append(" ".join((*parts, *rest[blobs:])))
    return "\n".join((*head, *lines)) + "\n"


def _check(examples: Sequence[Tensor]) -> None:
    import torch

    for number, tensor in enumerate(examples):
        if tensor.dtype is not torch.float32:
            raise UsageError(f"ncnn takes 32-bit floating point, input {number} is {tensor.dtype}")
        if tensor.ndim < 2 or len(tensor) != 1:
            raise UsageError(
                f"ncnn computes one sample at a time, input {number} has the shape {tuple(tensor.shape)}",
                hint="capture the model with a batch of one, or with a free batch",
            )


def _converted(installation: Installation, folder: Path, shapes: list[list[int]], *, half: bool) -> dict[str, Any]:
    try:
        return call(installation, ENVIRONMENT, folder, do="convert", shapes=shapes, half=half)
    except ProgramError as error:
        raise UsageError(f"the model cannot be exported to ncnn: {error.message}", hint=error.hint) from error


def _check_layers(param: str, complaints: Sequence[str]) -> None:
    """Refuse what pnnx left as torch has it: "torch.unbind", "Tensor.slice", "aten::roll"."""
    kinds = [line.split()[0] for line in param.splitlines()[2:]]
    foreign = sorted({kind for kind in kinds if "." in kind or "::" in kind})
    if foreign:
        said = f" ({'; '.join(complaints)})" if complaints else ""
        raise UsageError(
            f"the model cannot be exported to ncnn: it has no form of {', '.join(foreign)}{said}",
            hint="write the operator another way, or export to another format",
        )


def _named(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """With names that a .param can hold, each once."""
    found: dict[str, TensorSpec] = {}
    for spec in specs:
        name = _NAME.sub("_", spec.name)
        while name in found:
            name += "_"
        found[name] = replace(spec, name=name)
    return tuple(found.values())
