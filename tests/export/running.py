"""An artifact beside the module that it was made of."""

from __future__ import annotations

import onnxruntime
import torch
from torch import Tensor, nn

from edgeprune.export.parity import relative_error
from edgeprune.records.artifact import Artifact


def largest_error(artifact: Artifact, module: nn.Module, x: Tensor) -> float:
    """Relative error of the first output in ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = module(x).numpy()
    return relative_error(session.run(None, {artifact.inputs[0].name: x.numpy()})[0], expected)
