"""Steps of random programs with layers, reductions and products."""

from __future__ import annotations

import math

from tests.graph.random_generator import LIMIT, WIDTHS, Generator
from tests.graph.random_nets import POOLS, REDUCTIONS, UNARY, UNIFORM


def weights(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    width = make.choose((*WIDTHS, shape[-1], shape[1]))
    bias = make.choose((width, width, 0))
    spatial = len(shape) - 2
    if spatial not in (1, 2) or make.choose((True, False)):
        make.step("linear", [x], layer=make.layer("weights", (width, shape[-1]), bias))
        return
    kernel = make.choose((1, 3, 2))
    kernel = kernel if min(shape[2:]) >= kernel else 1
    channels = shape[1]
    groups = make.choose([g for g in range(1, channels + 1) if channels % g == 0])
    width = groups * make.choose((1, 2, 3)) if groups > 1 else width
    bias = width if bias else 0
    if make.choose((True, True, False)):
        padding = kernel // 2
        stride = make.choose((1, 1, 2)) if kernel > 1 else 1
        dilation = make.choose((1, 2)) if min(shape[2:]) + 2 * padding > 2 * (kernel - 1) else 1
        layer = make.layer("weights", (width, channels // groups, *[kernel] * spatial), bias)
        make.step(f"conv{spatial}d", [x], stride, padding, dilation, groups, layer=layer)
    elif math.prod(shape) < LIMIT // 2:
        layer = make.layer("weights", (channels, width // groups, *[kernel] * spatial), bias)
        make.step(f"conv_transpose{spatial}d", [x], min(kernel, make.choose((1, 2))), groups, layer=layer)


def normal(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    op = make.choose(("batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"))
    if op in ("layer_norm", "rms_norm"):
        make.step(op, [x], layer=make.layer("scale", shape[-1]))
    elif op == "batch_norm" and len(shape) < 5:
        make.step(op, [x], layer=make.layer("batch_norm", shape[1]))
    elif op == "group_norm" and len(shape) > 2:
        groups = make.choose([g for g in range(1, shape[1] + 1) if shape[1] % g == 0])
        make.step(op, [x], groups, layer=make.layer("scale", shape[1]))
    elif op == "instance_norm" and 2 < len(shape) < 5 and math.prod(shape[2:]) > 1:
        make.step(op, [x], layer=make.layer("scale", shape[1]))


def reduce(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    dims = {make.dim(x) for _ in range(make.choose((1, 1, 2)))}
    keep = make.choose((True, False))
    if not keep and len(shape) - len(dims) < 2:
        return
    make.step(make.choose(list(REDUCTIONS)), [x], tuple(sorted(dims)), keep)


def constant(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    d = make.dim(x)
    sizes = [1] * (len(shape) - 1) if make.choose((True, False)) else list(shape[1:])
    sizes[d - 1] = shape[d]
    name = make.choose(("buffer", "weight"))
    layer = make.layer("buffer", tuple(sizes)) if name == "buffer" else make.layer("weights", tuple(sizes), 0)
    make.step(f"{make.choose(('add', 'mul', 'where', 'maximum', 'masked_fill'))}_constant", [x], name, layer=layer)


def spatial(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    if len(shape) not in (3, 4):
        return
    op = make.choose(list(POOLS))
    small = op in ("nearest", "linear_resize") and math.prod(shape) < LIMIT // 4
    if small or op == "adaptive" or min(shape[2:]) > 1:
        make.step(op, [x])


def mix(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    op = make.choose((*UNIFORM, "glu", "prelu"))
    d = make.dim(x)
    if op == "glu" and shape[d] % 2 == 0:
        make.step(op, [x], d)
    elif op == "prelu":
        make.step(op, [x], layer=make.layer("weights", (shape[1],), 0))
    elif op in UNIFORM:
        make.step(op, [x], d)


def residual(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    """A branch of two linear layers that comes back to the same shape."""
    width = make.choose(WIDTHS)
    y = make.step("linear", [x], layer=make.layer("weights", (width, shape[-1]), width))
    y = make.step(make.choose(UNARY), [y])
    y = make.step("linear", [y], layer=make.layer("weights", (shape[-1], width), shape[-1]))
    make.step(make.choose(("add", "add_", "mul")), [x, y])


def attend(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        return
    heads, size = make.choose((2, 4)), make.choose((2, 3))
    shared = make.choose([n for n in (1, 2, 4) if heads % n == 0])
    q, k, v = (
        make.step("linear", [x], layer=make.layer("weights", (n * size, shape[-1]), make.choose((n * size, 0))))
        for n in (heads, shared, shared)
    )
    if make.choose((True, False)) and heads == shared:  # in one
        joined = make.step("linear", [x], layer=make.layer("weights", (3 * heads * size, shape[-1]), 3 * heads * size))
        q, k, v = (make.step("chunk", [joined], 2, 3, (i,)) for i in range(3))
    form = make.choose(("inferred", "batch", "literal"))
    each = []
    for y, n in ((q, heads), (k, shared), (v, shared)):
        y = make.step("view", [y], form, (shape[1], n, size))  # noqa: PLW2901
        each.append(make.step("transpose", [y], 1, 2))
    if shared == heads and make.choose((True, False)):
        scores = make.step("scores", each[:2])
        y = make.step("matmul", [make.step("softmax", [scores], 3), each[2]])
    else:
        causal = make.choose((True, False))
        masked = not causal and make.choose((True, False))
        mask = make.layer("mask", make.choose(((shape[1], shape[1]), (heads, 1, shape[1])))) if masked else ""
        y = make.step("attention", each, causal, layer=mask)
    y = make.step("transpose", [y], 1, 2)
    y = make.step(*(("flatten", [y], 2, 3) if form == "literal" else ("view", [y], form, (shape[1], heads * size))))
    make.step("linear", [y], layer=make.layer("weights", (shape[-1], heads * size), shape[-1]))


def recur(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    if len(shape) == 3:
        hidden = make.choose((2, 3, 4))
        kind, layers, both = make.choose(("LSTM", "GRU", "RNN")), make.choose((1, 1, 2)), make.choose((False, True))
        make.step("recurrent", [x], layer=make.layer(kind, shape[-1], hidden, layers, both))


def product(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    values = range(len(make.inputs), len(make.shapes))
    op = make.choose(("matmul", "bmm", "matmul_parameter", "einsum", "einsum_parameter"))
    width = make.choose(WIDTHS)
    if op == "matmul_parameter":
        make.step(op, [x], layer=make.layer("weights", (shape[-1], width), 0))
    elif op == "einsum_parameter":
        letters = "bcdefg"[: len(shape)]
        d = make.dim(x)
        equation = f"{letters},z{letters[d]}->{letters.replace(letters[d], 'z')}"
        make.step(op, [x], equation, layer=make.layer("weights", (width, shape[d]), 0))
    elif op == "einsum" and len(shape) == 3:
        others = [i for i in values if len(make.shapes[i]) == 3 and make.shapes[i][2] == shape[2]]
        make.step(op, [x, make.choose(others)], make.choose(("btc,bsc->bts", "btc,bsc->bst")))
    else:
        others = [
            i for i in values
            if len(make.shapes[i]) == len(shape) and make.shapes[i][-2] == shape[-1]
            and make.shapes[i][1:-2] == shape[1:-2] and (len(shape) == 3 or op == "matmul") and len(shape) > 2
        ]  # fmt: skip
        if others:
            make.step(op, [x, make.choose(others)])
