"""ncnn by pnnx: one file, the same bytes for the same module; the way to 32-bit boards.

    export: {format: ncnn}                          # 32-bit weights
    export: {format: {name: ncnn, storage: fp16}}   # 16-bit weights: half the size

An `.ncnn` file is a zip, not compressed, of model.param and model.bin. `unzip` it for a program that loads the two. The
conversion goes over ONNX, so that nothing is pickled.
"""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import atomic
from edgeprune.errors import UsageError
from edgeprune.export import manifest
from edgeprune.export.base import resized
from edgeprune.export.environment import Installation, find
from edgeprune.export.program import ProgramError, call
from edgeprune.records.artifact import Artifact, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

__all__ = ["ENVIRONMENT", "NcnnExporter", "renamed"]

ENVIRONMENT = "ncnn"
_STORAGES = ("fp32", "fp16")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold
_NAME = re.compile(r"[^\w.:/-]")  # what is no part of a blob's name: it ends at a blank, `=` makes a parameter of it


class NcnnExporter:
    """`.ncnn`, one sample at a time: ncnn's tensors have no batch. Inputs are called as in the graph."""

    format = "ncnn"
    suffix = ".ncnn"

    def __init__(self, storage: str = "fp32") -> None:
        if storage not in _STORAGES:
            raise UsageError(f"ncnn: {storage!r} is no storage of weights", hint=f"storages: {', '.join(_STORAGES)}")
        self.storage = storage

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

        installation = find(ENVIRONMENT)
        examples = resized(example_inputs, 1) if batch_dynamic else example_inputs
        _check(examples)
        program = _program(module, examples)
        shapes = [[int(size) for size in tensor.shape] for tensor in examples]
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            folder = Path(name)
            (folder / "model.onnx").write_bytes(_onnx(program))
            told = _converted(installation, folder, shapes, half=self.storage == "fp16")
            param = (folder / "model.param").read_text(encoding="utf-8")
            weights = (folder / "model.bin").read_bytes()
        _check_layers(param, told["complaints"])
        outputs = _outputs(program)
        names = (
            _blob_names(input_names or program.graph_signature.user_inputs, len(examples)),
            _blob_names(output_names or _numbered(len(outputs)), len(outputs)),
        )
        data = _zip({"model.param": renamed(param, *names).encode(), "model.bin": weights})
        atomic.write_bytes(path, data)
        return manifest.artifact(
            path,
            data,
            format=self.format,
            inputs=tuple(TensorSpec(own, "float32", tuple(s)) for own, s in zip(names[0], shapes, strict=True)),
            outputs=tuple(TensorSpec(own, "float32", s) for own, s in zip(names[1], outputs, strict=True)),
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


def _program(module: nn.Module, examples: tuple[Tensor, ...]) -> ExportedProgram:
    import torch

    from edgeprune.export.ncnn_graph import program_for_ncnn

    training = module.training
    try:
        module.eval()
        with torch.no_grad():
            return program_for_ncnn(module, examples)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"the model cannot be exported to ncnn: {lines[0]}") from error
    finally:
        module.train(training)


def _onnx(program: ExportedProgram) -> bytes:
    from edgeprune.export.onnx import translated

    return bytes(translated(program).SerializeToString(deterministic=True))


def _outputs(program: ExportedProgram) -> list[tuple[int, ...]]:
    """The shapes of what comes out."""
    output = next(node for node in program.graph.nodes if node.op == "output")
    wanted = set(program.graph_signature.user_outputs)
    values = [node.meta["val"] for node in output.args[0] if getattr(node, "name", None) in wanted]
    return [tuple(int(size) for size in value.shape) for value in values]


def _numbered(count: int) -> tuple[str, ...]:
    return ("output",) if count == 1 else tuple(f"output_{number}" for number in range(count))


def _blob_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    """The names as far as a .param can hold them, each once."""
    found: list[str] = []
    for name in names[:count]:
        own = _NAME.sub("_", name)
        while own in found:
            own += "_"
        found.append(own)
    return tuple(found)


def _zip(files: Mapping[str, bytes]) -> bytes:
    """Not compressed: the same bytes at any time and on any machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()
