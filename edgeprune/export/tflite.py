"""TFLite by litert-torch, in a Python of its own: one file, the same bytes for the same module.

export: {format: tflite}                  # inputs as the network has them
export: {format: {name: tflite, layout: nhwc}}  # images as (batch, height, width, channels), as cameras give them
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import atomic
from edgeprune.errors import UsageError
from edgeprune.export import manifest
from edgeprune.export.arena import planned_bytes
from edgeprune.export.base import resized
from edgeprune.export.environment import find
from edgeprune.export.fixed_batch import fixed_program, output_specs
from edgeprune.export.layout import CHANNELS_LAST
from edgeprune.export.program import ProgramError, call
from edgeprune.records.artifact import Artifact, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ENVIRONMENT", "TfliteExporter", "arena_provenance", "read_specs"]

ENVIRONMENT = "tflite"
_LAYOUTS = ("nchw", "nhwc")


class TfliteExporter:
    """`.tflite`, float32, a batch of one where the batch is free: the runtimes' kernels want fixed shapes."""

    format = "tflite"
    suffix = ".tflite"

    def __init__(self, layout: str = "nchw") -> None:
        if layout not in _LAYOUTS:
            raise UsageError(f"tflite: {layout!r} is no layout", hint=f"layouts: {', '.join(_LAYOUTS)}")
        self.layout = layout

    @staticmethod
    def check() -> None:
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
        """See `Exporter.export`; 64-bit integers become 32-bit ones. Raises UsageError without the environment, too."""
        import torch

        installation = find(ENVIRONMENT)
        examples = resized(example_inputs, 1) if batch_dynamic else example_inputs
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            folder = Path(name)
            program = fixed_program(_flat(module), examples, "TFLite")
            made = output_specs(program, output_names)
            inputs = input_names or _names(module, len(examples))
            outputs = [spec.name for spec in made]
            turned = self._turned([value.ndim for value in examples]), self._turned([len(spec.shape) for spec in made])
            torch.export.save(program, folder / "program.pt2")
            try:
                told = call(
                    installation,
                    "tflite",
                    folder,
                    do="convert",
                    inputs=inputs,
                    outputs=outputs,
                    channels_last=turned,
                )
            except ProgramError as error:
                raise UsageError(
                    f"the model cannot be exported to TFLite: {error.message}",
                    hint=error.hint or "the operator named above has no TFLite form in this version of litert-torch",
                ) from error
            data = (folder / "model.tflite").read_bytes()
        atomic.write_bytes(path, data)
        layout = [inputs[number] for number in turned[0]], [outputs[number] for number in turned[1]]
        return manifest.artifact(
            path,
            data,
            format=self.format,
            inputs=read_specs(told["inputs"]),
            outputs=read_specs(told["outputs"]),
            provenance={
                **(provenance or {}),
                "exporter": "litert-torch",
                **{str(name): str(version) for name, version in told["versions"].items()},
                **arena_provenance(told),
                **({CHANNELS_LAST: {"inputs": layout[0], "outputs": layout[1]}} if any(layout) else {}),
            },
        )

    def _turned(self, dimensions: Sequence[int]) -> list[int]:
        """Numbers of the tensors that have channels before places, where these are to come last."""
        return [number for number, count in enumerate(dimensions) if self.layout == "nhwc" and count >= 4]


def arena_provenance(told: Mapping[str, Any]) -> dict[str, Any]:
    """`arena_bytes`, which the tensors take in turns, where a program says how long each of them lives."""
    lifetimes = told.get("lifetimes")
    return {} if lifetimes is None else {"arena_bytes": planned_bytes([tuple(each) for each in lifetimes])}


def read_specs(told: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """What a program says of inputs or outputs."""
    return tuple(TensorSpec.from_json(spec) for spec in told)


def _names(module: nn.Module, count: int) -> tuple[str, ...]:
    """Of the inputs, as the module's forward calls them."""
    found: list[str] = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            found += [f"{parameter.name}_{number}" for number in range(count - len(found))]
        else:
            found.append(parameter.name)
    return tuple(found[:count])


def _flat(module: nn.Module) -> nn.Module:
    """The module with its tensors as a tuple, whatever they are nested in."""
    import torch
    from torch.utils import _pytree as pytree

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module
            self.training = module.training

        def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            return tuple(leaf for leaf in pytree.tree_leaves(self.inner(*inputs)) if isinstance(leaf, torch.Tensor))

    return Flat()
