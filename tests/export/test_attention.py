from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as attention

from edgeprune.export import parity
from edgeprune.export.attention import in_four_dimensions
from edgeprune.export.onnx import OnnxExporter
from edgeprune.graph.capture import capture
from edgeprune.pipeline.export import export
from tests.export.running import largest_error

SIZE = 5 * 2 * 6 * 4  # of one row
_MASKS = torch.Generator().manual_seed(0)
SQUARE = torch.rand(6, 6, generator=_MASKS) > 0.4
WINDOWS = torch.randn(5, 1, 6, 6, generator=_MASKS)


def windows(x: Tensor) -> Tensor:
    """(batch, window, head, length, size)"""
    return x.reshape(-1, 5, 2, 6, 4)


def heads(x: Tensor) -> Tensor:
    return x.reshape(-1, 4, 6, 10)


def per_row(x: Tensor) -> Tensor:
    return windows(x).mean(-1, keepdim=True).mul(windows(x).transpose(-1, -2)[..., :1, :])


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "five dimensions": lambda x: attention(windows(x), windows(x).flip(-1), windows(x)),
    "six dimensions": lambda x: attention(*[x.reshape(-1, 5, 2, 2, 3, 4)] * 3),
    "causal, scaled": lambda x: attention(*[windows(x)] * 3, is_causal=True, scale=0.3),
    "boolean mask": lambda x: attention(*[windows(x)] * 3, attn_mask=SQUARE),
    "mask of each window": lambda x: attention(*[windows(x)] * 3, attn_mask=WINDOWS),
    "mask of each row": lambda x: attention(*[windows(x)] * 3, attn_mask=per_row(x)),
    "fewer heads of key and value": lambda x: attention(*[windows(x), *[windows(x)[:, :, :1]] * 2], enable_gqa=True),
    "one key and value of all windows": lambda x: attention(windows(x), *[windows(x)[:, 1:2]] * 2),
    "no heads": lambda x: attention(x.reshape(-1, 6, 40), x.reshape(-1, 6, 40).flip(-1), x.reshape(-1, 6, 40)),
    "no heads, masked": lambda x: attention(*[x.reshape(-1, 6, 40)] * 3, attn_mask=x.reshape(-1, 6, 40)[..., :6]),
    "key without batch": lambda x: attention(heads(x), WINDOWS.reshape(-1)[:60].reshape(1, 6, 10), heads(x)),
    "two ranks in one": lambda x: attention(*[heads(x)] * 3).reshape(-1, 240) * attention(*[windows(x)] * 3).flatten(1),
}


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("case", CASES)
def test_any_number_of_dimensions(case: str, tmp_path: Path) -> None:
    module = Function(CASES[case])
    artifact = OnnxExporter().export(module, (torch.randn(2, SIZE),), tmp_path / "net.onnx")
    assert artifact.outputs[0].shape[0] == "batch"
    for batch in (1, 2, 5):
        assert largest_error(artifact, module, torch.randn(batch, SIZE)) < 1e-5


def test_without_a_batch(tmp_path: Path) -> None:
    module = Function(lambda x: attention(x, x.flip(-1), x))
    example = (torch.randn(6, 4),)
    artifact = OnnxExporter().export(module, example, tmp_path / "net.onnx", batch_dynamic=False)
    assert artifact.outputs[0].shape == (6, 4)
    assert parity.check(artifact, module, example) < 1e-5


def test_four_dimensions_are_left_alone() -> None:
    program = torch.export.export(Function(lambda x: attention(*[heads(x)] * 3)), (torch.randn(2, SIZE),))
    assert in_four_dimensions(program) is program


class Windows(nn.Module):
    """Attention within windows of a sequence, as the hierarchical vision transformers do it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(8, 48), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        q, k, v = self.qkv(x).reshape(rows, 4, 3, 3, 4, 4).permute(3, 0, 4, 1, 2, 5).unbind(0)
        mixed = attention(q, k, v).transpose(1, 3).reshape(rows, 3, 4, 16).transpose(1, 2)
        return self.head((x + self.out(mixed.reshape(rows, 12, 16))).mean(1))


def test_pruned_windows_go_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    captured = capture(Windows(), torch.randn(1, 12, 8))
    pruned = captured.prune(captured.uniform(0.5))
    assert pruned.cost().params < captured.cost().params
    artifact = export(pruned, tmp_path / "net.onnx")
    for batch in (1, 2, 5):
        assert largest_error(artifact, pruned.module, torch.randn(batch, 12, 8)) < 1e-5
