"""TFLite files of one operator, for timing the operator on a device; built in the environment that exports."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from edgeprune.errors import UsageError
from edgeprune.export.environment import find
from edgeprune.export.program import call
from edgeprune.export.tflite import ENVIRONMENT, read_specs
from edgeprune.records.operators import ConvSignature, MicroModel, OperatorSignature

__all__ = ["TfliteMicroModels"]


class TfliteMicroModels:
    """Makes a .tflite file that computes just one operator, and the activation behind it.

    Equal signatures give the same bytes. Weights are in the file: TFLite folds no constants when it loads one.
    """

    def __init__(self) -> None:
        self._installation = find(ENVIRONMENT)

    @staticmethod
    def why_not(signature: OperatorSignature) -> str:
        """Why there is none of this operator, or ""."""
        if isinstance(signature, ConvSignature) and (signature.transposed or len(signature.kernel) > 2):
            return "no TFLite file is made of a transposed convolution alone, or of one over three dimensions"
        return ""

    def __call__(self, signature: OperatorSignature) -> MicroModel:
        """The model of a signature; raises UsageError where there is none."""
        why = self.why_not(signature)
        if why:
            raise UsageError(f"{signature.key}: {why}")
        values = asdict(signature)
        if isinstance(signature, ConvSignature):
            values["out_size"] = signature.out_size
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            folder = Path(name)
            told = call(
                self._installation, "tflite_operator", folder, do="build", kind=signature.kind, signature=values
            )
            data = (folder / "operator.tflite").read_bytes()
        return MicroModel(data, read_specs(told["inputs"]), ".tflite")
