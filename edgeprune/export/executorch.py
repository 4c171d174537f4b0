"""ExecuTorch with XNNPACK, in a Python of its own: one .pte file, the same bytes for the same module.

    export: {format: executorch}

The file is made for a batch of one where the batch is free. What XNNPACK has no kernel for is left to ExecuTorch's
portable ones, which are slow; the artifact's provenance names those operators.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune import atomic
from edgeprune.errors import UsageError
from edgeprune.export import manifest
from edgeprune.export.base import FloatModel, Scheme, quantised_provenance, resized
from edgeprune.export.environment import Installation, find
from edgeprune.export.fixed_batch import fixed_program, input_specs, output_specs
from edgeprune.export.program import ProgramError, call
from edgeprune.records.artifact import Artifact

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

__all__ = ["ENVIRONMENT", "ExecuTorchExporter", "ExecuTorchQuantizer"]

ENVIRONMENT = "executorch"


class ExecuTorchExporter:
    """`.pte`, float32, lowered to XNNPACK; it has one method, `forward`."""

    format = "executorch"
    suffix = ".pte"

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
        """See `Exporter.export`; names are in the manifest alone. Raises UsageError without the environment, too."""
        installation = find(ENVIRONMENT)
        program = fixed_program(module, resized(example_inputs, 1) if batch_dynamic else example_inputs, "ExecuTorch")
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            told = _called(installation, program, Path(folder), "exported to ExecuTorch", do="convert")
            data = (Path(folder) / "model.pte").read_bytes()
        atomic.write_bytes(path, data)
        return manifest.artifact(
            path,
            data,
            format=self.format,
            inputs=input_specs(program, input_names),
            outputs=output_specs(program, output_names),
            provenance={**(provenance or {}), "exporter": "executorch", "delegate": "xnnpack", **_about(told)},
        )


class ExecuTorchQuantizer:
    """`.pte` in int8 by PT2E with the XNNPACK quantiser, from the module."""

    format = "executorch"
    schemes = (
        Scheme("per-channel", "int8 per channel, signed activations", per_channel=True, signed=True),
        Scheme("per-tensor", "int8 per tensor, signed activations", per_channel=False, signed=True),
    )

    def quantize(
        self, model: FloatModel, path: Path, batches: Sequence[tuple[Tensor, ...]], scheme: Scheme
    ) -> Artifact:
        """See `Quantizer.quantize`."""
        installation = find(ENVIRONMENT)
        examples = resized(model.example_inputs, 1) if model.batch_dynamic else model.example_inputs
        program = fixed_program(model.module, examples, "ExecuTorch")
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            folder = Path(name)
            for number, batch in enumerate(batches):
                np.savez(folder / f"batch-{number}.npz", *(tensor.detach().numpy() for tensor in batch))
            told = _called(
                installation,
                program,
                folder,
                "quantised by ExecuTorch",
                do="quantise",
                batches=len(batches),
                per_channel=scheme.per_channel,
            )
            if not told["quantised"]:
                raise UsageError(f"{model.artifact.path.name}: XNNPACK's quantiser finds nothing in it to quantise")
            data = (folder / "model.pte").read_bytes()
        atomic.write_bytes(path, data)
        return manifest.artifact(
            path,
            data,
            format=self.format,
            inputs=model.artifact.inputs,
            outputs=model.artifact.outputs,
            provenance={**quantised_provenance(model.artifact, scheme, len(batches)), **_about(told)},
        )


def _called(
    installation: Installation, program: ExportedProgram, folder: Path, what: str, *, do: str, **request: Any
) -> dict[str, Any]:
    import torch

    torch.export.save(program, folder / "program.pt2")
    try:
        return call(installation, ENVIRONMENT, folder, do=do, **request)
    except ProgramError as error:
        raise UsageError(f"the model cannot be {what}: {error.message}", hint=error.hint) from error


def _about(told: Mapping[str, Any]) -> dict[str, Any]:
    portable = {"portable_operators": list(told["portable"])} if told["portable"] else {}
    return {**{str(name): str(version) for name, version in told["versions"].items()}, **portable}
