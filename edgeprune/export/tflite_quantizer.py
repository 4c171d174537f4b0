"""int8 for TFLite by ai-edge-quantizer, in the environment that exports: from the float file.

The range of an activation is the least and the largest value on the calibration data. ai-edge-quantizer's own default,
a moving average, costs a trained MobileNet 17 points of accuracy where this costs less than one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune import atomic
from edgeprune.errors import UsageError
from edgeprune.export import manifest
from edgeprune.export.base import FloatModel, Scheme, quantised_provenance
from edgeprune.export.environment import find
from edgeprune.export.layout import as_file
from edgeprune.export.program import ProgramError, call
from edgeprune.export.tflite import ENVIRONMENT, arena_provenance, read_specs
from edgeprune.records.artifact import Artifact

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TfliteQuantizer"]

STATIC = Scheme("per-channel", "int8 per channel, signed activations", per_channel=True, signed=True)
DYNAMIC = Scheme(
    "dynamic",
    "int8 weights per channel, activations quantised while it runs",
    per_channel=True,
    signed=True,
    garbage_on=("tflite-runtime",),  # 2.14: no error, and outputs that have nothing to do with the network's
)
_RECIPES = {STATIC.key: "static_wi8_ai8", DYNAMIC.key: "dynamic_wi8_afp32"}


class TfliteQuantizer:
    """`.tflite` with integer arithmetic; see `Quantizer`."""

    format = "tflite"
    schemes = (STATIC, DYNAMIC)

    def quantize(
        self, model: FloatModel, path: Path, batches: Sequence[tuple[Tensor, ...]], scheme: Scheme
    ) -> Artifact:
        """See `Quantizer.quantize`."""
        source = model.artifact
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            folder = Path(name)
            (folder / "model.tflite").write_bytes(source.path.read_bytes())
            for number, batch in enumerate(batches):
                np.savez(
                    folder / f"batch-{number}.npz", *as_file(source, [part.detach().numpy() for part in batch]).values()
                )
            try:
                told = call(
                    find(ENVIRONMENT),
                    "tflite",
                    folder,
                    do="quantise",
                    recipe=_RECIPES[scheme.key],
                    names=[spec.name for spec in source.inputs],
                    batches=len(batches),
                )
            except ProgramError as error:
                raise UsageError(
                    f"ai-edge-quantizer cannot quantise {source.path.name}: {error.message}",
                    hint=error.hint or "the operator or input named above is not supported in int8",
                ) from error
            if not told["integer_weights"]:
                raise UsageError(f"{source.path.name}: ai-edge-quantizer finds nothing in it to quantise")
            data = (folder / "int8.tflite").read_bytes()
        atomic.write_bytes(path, data)
        return manifest.artifact(
            path,
            data,
            format=self.format,
            inputs=read_specs(told["inputs"]),
            outputs=read_specs(told["outputs"]),
            provenance={
                **quantised_provenance(source, scheme, len(batches)),
                **{str(package): str(version) for package, version in told["versions"].items()},
                **arena_provenance(told),
            },
        )
