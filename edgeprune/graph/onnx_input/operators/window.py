"""Sliding windows: kernel, strides, dilations and the paddings that `auto_pad` asks for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from edgeprune.graph.onnx_input.operators.table import Operator

__all__ = ["Window", "pad", "split_pads", "window_of"]


@dataclass(frozen=True, slots=True)
class Window:
    """The window of a convolution or pooling, each per spatial dimension."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]


def window_of(op: Operator, x: torch.Tensor, kernel: tuple[int, ...]) -> Window:
    """The window of a node over `x` (batch, channels, spatial dimensions)."""
    rank = len(kernel)
    strides = tuple(op.get("strides", [1] * rank))
    dilations = tuple(op.get("dilations", [1] * rank))
    auto = op.get("auto_pad", "NOTSET")
    begin, end = (0,) * rank, (0,) * rank
    if auto == "NOTSET":
        pads = op.get("pads", [0] * 2 * rank)
        begin, end = tuple(pads[:rank]), tuple(pads[rank:])
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
            for size, stride, width, dilation in zip(x.shape[2:], strides, kernel, dilations, strict=True)
        ]
        small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
        begin, end = (small, large) if auto == "SAME_UPPER" else (large, small)
    elif auto != "VALID":
        raise op.refuse(f"auto_pad {auto!r} is not one of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    return Window(kernel, strides, dilations, begin, end)


def split_pads(x: torch.Tensor, window: Window, value: float) -> tuple[tuple[int, ...], torch.Tensor]:
    """The padding for torch's operator, which is the same at both ends, and the input, padded where it is not."""
    if window.begin == window.end and all(size >= 0 for size in window.begin):
        return window.begin, x
    return (0,) * len(window.kernel), pad(x, window, value)


def pad(x: torch.Tensor, window: Window, value: float) -> torch.Tensor:
    """The input with the window's padding around its spatial dimensions."""
    amounts = [size for pair in reversed(list(zip(window.begin, window.end, strict=True))) for size in pair]
    return F.pad(x, amounts, value=value)
