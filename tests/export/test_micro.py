"""Models of one operator: they compute what the operator does, and take the time that it takes."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch.nn import functional as F

from edgeprune.errors import UsageError
from edgeprune.export.micro import micro_model
from edgeprune.records.operators import (
    ACTIVATIONS,
    AttentionSignature,
    ConvSignature,
    LinearSignature,
    MatMulSignature,
    OperatorSignature,
)

ACTIVATED = {
    "": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "hard_swish": F.hardswish,
}
CONV = ConvSignature(8, 12, (7, 9), (3, 3), padding=(1, 1))


def session(data: bytes, optimized: Path | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run(signature: OperatorSignature) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    model = micro_model(signature)
    random = np.random.default_rng(0)
    feeds = {spec.name: random.standard_normal(spec.shape).astype(np.float32) for spec in model.inputs}
    found = session(model.data).run(None, feeds)[0]
    return {name: torch.from_numpy(value) for name, value in feeds.items()}, torch.from_numpy(found)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str) -> None:
    feeds, found = run(dataclasses.replace(CONV, activation=activation))
    weight = torch.full((12, 8, 3, 3), 1 / math.sqrt(72))
    wanted = ACTIVATED[activation](F.conv2d(feeds["x"], weight, torch.ones(12), padding=1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("signature", "shape"),
    [
        (ConvSignature(6, 4, (20,), (5,), stride=(2,), padding=(2,), dilation=(2,)), (4, 6, 5)),
        (ConvSignature(6, 12, (9, 9), (3, 3), stride=(2, 2), groups=6, bias=False), (12, 1, 3, 3)),
        (ConvSignature(6, 4, (9, 8), (3, 1), groups=2, padding=(1, 0), batch=3), (4, 3, 3, 1)),
        (
            ConvSignature(6, 4, (5, 6), (3, 3), stride=(2, 2), padding=(1, 1), transposed=True, output_padding=(1, 1)),
            (6, 4, 3, 3),
        ),
    ],
)
def test_every_kind_of_convolution(signature: ConvSignature, shape: tuple[int, ...]) -> None:
    feeds, found = run(signature)
    fan_in = signature.in_channels // signature.groups * math.prod(signature.kernel)
    weight = torch.full(shape, 1 / math.sqrt(fan_in))
    bias = torch.ones(signature.out_channels) if signature.bias else None
    settings: dict[str, Any] = {"stride": signature.stride, "padding": signature.padding, "groups": signature.groups}
    settings["dilation"] = signature.dilation
    if signature.transposed:
        wanted = F.conv_transpose2d(feeds["x"], weight, bias, output_padding=signature.output_padding, **settings)
    else:
        wanted = (F.conv1d if len(signature.kernel) == 1 else F.conv2d)(feeds["x"], weight, bias, **settings)
    assert tuple(wanted.shape[2:]) == signature.out_size
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_products() -> None:
    feeds, found = run(LinearSignature(5, 16, 24, activation="relu"))
    wanted = F.relu(F.linear(feeds["x"], torch.full((24, 16), 0.25), torch.ones(24)))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    feeds, found = run(MatMulSignature(3, 4, 5, 6))
    torch.testing.assert_close(found, feeds["x"] @ feeds["z"], rtol=1e-4, atol=1e-5)
    feeds, found = run(AttentionSignature(2, 3, 10, 16))
    wanted = F.scaled_dot_product_attention(feeds["q"], feeds["k"].mT, feeds["v"])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_keys_are_canonical_and_name_all_that_counts() -> None:
    short = ConvSignature(8, 12, (7, 9), (3, 3), (1, 1), (1, 1), (1, 1))
    assert short == CONV
    assert short.key == CONV.key
    assert CONV.key == (
        "conv in_channels=8 out_channels=12 in_size=7x9 kernel=3x3 stride=1x1 padding=1x1 dilation=1x1 groups=1 bias=1 "
        "activation= transposed=0 output_padding=0x0 batch=1"
    )
    others = [
        dataclasses.replace(CONV, **{name: value})
        for name, value in {"in_size": (9, 7), "bias": False, "activation": "relu", "batch": 2, "groups": 4}.items()
    ]
    assert len({CONV.key, *(other.key for other in others)}) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 5}, "multiples of groups"),
        ({"in_size": (1, 1), "padding": (0, 0)}, "larger than the padded input"),
        ({"kernel": (3,)}, "different lengths"),
        ({"out_channels": 0}, "out_channels = 0"),
        ({"activation": "swish"}, "unknown activation 'swish'"),
    ],
)
def test_what_no_operator_can_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(CONV, **change)


def with_weights_in_the_file(data: bytes) -> bytes:
    """The same model, its ConstantOfShape nodes replaced by initializers of random numbers."""
    model = onnx.load_from_string(data)
    shapes = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    random = np.random.default_rng(0)
    for node in [node for node in model.graph.node if node.op_type == "ConstantOfShape"]:
        values = random.standard_normal(shapes[node.input[0]]).astype(np.float32) * 0.05
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        model.graph.node.remove(node)
    for one in [one for one in model.graph.initializer if one.name.endswith("_shape")]:
        model.graph.initializer.remove(one)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "signature",
    [
        ConvSignature(64, 64, (28, 28), (3, 3), padding=(1, 1), activation="relu"),
        ConvSignature(512, 512, (4, 4), (3, 3), padding=(1, 1)),  # 9 MB of weights
        LinearSignature(8, 512, 512),
    ],
    ids=["conv", "large", "linear"],
)
def test_weights_that_do_not_travel_change_neither_graph_nor_time(signature: OperatorSignature, tmp_path: Path) -> None:
    model = micro_model(signature)
    assert len(model.data) < 1000
    files = {"folded": model.data, "real": with_weights_in_the_file(model.data)}
    sessions = {name: session(data, tmp_path / f"{name}.onnx") for name, data in files.items()}
    graphs = {name: onnx.load(tmp_path / f"{name}.onnx").graph for name in files}
    operators = {name: [node.op_type for node in graph.node] for name, graph in graphs.items()}
    assert operators["folded"] == operators["real"]
    sizes = {name: sorted(tuple(one.dims) for one in graph.initializer) for name, graph in graphs.items()}
    assert sizes["folded"] == sizes["real"]
    assert "ConstantOfShape" not in operators["folded"]
    feeds = {
        spec.name: np.random.default_rng(0).standard_normal(spec.shape).astype(np.float32) for spec in model.inputs
    }
    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(60):  # in turn: both see the same load
        for name, one in sessions.items():
            start = time.perf_counter()
            one.run(None, feeds)
            times[name].append(time.perf_counter() - start)
    middles = {name: statistics.median(sorted(values)[:30]) for name, values in times.items()}
    assert 0.75 < middles["folded"] / middles["real"] < 1.33
