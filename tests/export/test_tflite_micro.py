from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgeprune.errors import UsageError
from edgeprune.export import manifest
from edgeprune.export.tflite_micro import TfliteMicroModels
from edgeprune.export.tflite_runner import TfliteRunner
from edgeprune.records.artifact import TensorSpec
from edgeprune.records.operators import AttentionSignature, ConvSignature, LinearSignature, MatMulSignature, MicroModel
from tests.export.tflite_models import needed


def computed(model: MicroModel, folder: Path, *inputs: np.ndarray) -> np.ndarray:
    """What the file computes, in LiteRT."""
    path = folder / "operator.tflite"
    path.write_bytes(model.data)
    out = (TensorSpec("y", "float32", ()),)
    runner = TfliteRunner(manifest.artifact(path, model.data, format="tflite", inputs=model.inputs, outputs=out))
    found = runner({spec.name: array for spec, array in zip(model.inputs, inputs, strict=True)})
    runner.close()
    return found[0]


@pytest.fixture(scope="module")
def models() -> TfliteMicroModels:
    needed("tflite")
    return TfliteMicroModels()


def weights(*shape: int) -> torch.Tensor:
    return torch.full(shape, 1 / math.sqrt(math.prod(shape[1:])))


@pytest.mark.parametrize(
    "conv",
    [
        ConvSignature(3, 5, (8, 8), (3, 3), padding=(1, 1), activation="relu"),
        ConvSignature(
            3, 5, (9, 8), (3, 3), stride=(2, 2), padding=(1, 1), activation="silu"
        ),  # SAME would pad otherwise
        ConvSignature(6, 6, (7, 7), (3, 3), padding=(2, 2), dilation=(2, 2), groups=6, activation="hard_swish"),
        ConvSignature(8, 4, (6, 6), (1, 1), groups=2, activation="leaky_relu", batch=2),
        ConvSignature(4, 8, (20,), (5,), stride=(2,), padding=(2,), activation="relu6"),
    ],
)
def test_convolutions_are_those_of_torch(models: TfliteMicroModels, conv: ConvSignature, tmp_path: Path) -> None:
    model = models(conv)
    two = len(conv.kernel) == 2
    x = torch.randn(conv.batch, conv.in_channels, *conv.in_size)
    w = weights(conv.out_channels, conv.in_channels // conv.groups, *conv.kernel)
    y = (F.conv2d if two else F.conv1d)(x, w, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    known = {"relu": F.relu, "silu": F.silu, "hard_swish": F.hardswish, "leaky_relu": F.leaky_relu, "relu6": F.relu6}
    wanted = known[conv.activation](y)
    images = x if two else x[:, :, None]
    got = torch.from_numpy(computed(model, tmp_path, images.movedim(1, -1).contiguous().numpy())).movedim(-1, 1)
    torch.testing.assert_close(got if two else got[:, :, 0], wanted, rtol=1e-4, atol=1e-5)
    assert model.suffix == ".tflite"
    assert models(conv).data == model.data


def test_linear_layers_products_and_attention(models: TfliteMicroModels, tmp_path: Path) -> None:
    x = torch.randn(6, 10)
    got = computed(models(LinearSignature(6, 10, 4, activation="gelu")), tmp_path, x.numpy())
    np.testing.assert_allclose(got, F.gelu(x @ weights(4, 10).T).numpy(), rtol=1e-2, atol=1e-3)
    left, right = torch.randn(2, 3, 5), torch.randn(2, 5, 4)
    got = computed(models(MatMulSignature(2, 3, 5, 4)), tmp_path, left.numpy(), right.numpy())
    np.testing.assert_allclose(got, (left @ right).numpy(), rtol=1e-4, atol=1e-5)
    q, k, v = (torch.randn(1, 2, 7, 4) for _ in range(3))
    got = computed(models(AttentionSignature(1, 2, 7, 4)), tmp_path, q.numpy(), k.mT.contiguous().numpy(), v.numpy())
    np.testing.assert_allclose(got, F.scaled_dot_product_attention(q, k, v).numpy(), rtol=1e-4, atol=1e-5)


def test_what_there_is_no_file_of_is_said(models: TfliteMicroModels) -> None:
    turned = ConvSignature(3, 5, (8, 8), (3, 3), transposed=True)
    assert "transposed" in models.why_not(turned)
    with pytest.raises(UsageError, match="no TFLite file is made of a transposed convolution"):
        models(turned)
    assert models.why_not(ConvSignature(3, 5, (8, 8), (3, 3))) == ""
