"""Random programs, made of choices: a test's or those of a random generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.graph.random_nets import BINARY, MOVES, POOLS, REDUCTIONS, UNARY, UNIFORM, Program, Step, make_layer, run

Choose = Callable[[Sequence[Any]], Any]  # one of the given options

_LIMIT = 1500  # elements of one sample of a value
_WIDTHS = (2, 3, 4, 6, 8)


class _Generator:
    """Appends steps that fit the shapes of what is there; values are known by their shapes."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.inputs: list[tuple[int, ...]] = []
        self.steps: list[Step] = []
        self.layers: dict[str, tuple[Any, ...]] = {}
        self.shapes: list[tuple[int, ...]] = []
        self.used: set[int] = set()

    def input(self, *shape: int) -> int:
        self.inputs.append(shape)
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def layer(self, *made: Any) -> str:
        alike = [name for name, other in self.layers.items() if other == made and made[0] in ("weights", "scale")]
        if alike and self.choose((True, False, False)):
            return str(self.choose(alike))  # shared weights
        name = f"l{len(self.layers)}"
        self.layers[name] = made
        return name

    def step(self, op: str, inputs: Sequence[int], *settings: Any, layer: str = "") -> int:
        step = Step(op, tuple(inputs), settings, layer)
        module = make_layer(*self.layers[layer]).eval() if layer else None
        given = [torch.zeros(self.shapes[i], dtype=torch.int64 if op == "embedding" else None) for i in inputs]
        with torch.no_grad():
            shape = tuple(run(step, given, module).shape)
        self.steps.append(step)
        self.shapes.append(shape)
        self.used.update(inputs)
        return len(self.shapes) - 1

    def pick(self) -> int:
        """A value, one of the latest more often."""
        first = len(self.inputs)
        found = range(first, len(self.shapes))
        return int(self.choose((found[-1], found[-1], self.choose(found))))

    def dim(self, x: int) -> int:
        return int(self.choose(range(1, len(self.shapes[x]))))


def generate(choose: Choose, steps: int = 6) -> Program:
    """A random program with about so many steps between its first and its last layers."""
    make = _Generator(choose)
    kinds = [choose(("image", "image", *_INPUTS)) for _ in range(choose((1, 1, 2)))]
    for x, kind in [(make.input(*_INPUTS[kind]), kind) for kind in kinds]:
        _begin(make, x, kind)
    for _ in range(steps):
        _extend(make)
    outputs = [_end(make, len(make.shapes) - 1)]
    loose = [i for i in range(len(make.inputs), len(make.shapes)) if i not in make.used and i not in outputs]
    outputs += [_end(make, i) if choose((True, True, False)) else i for i in loose[: choose((0, 1, 2))]]
    return Program(tuple(make.inputs), tuple(make.steps), make.layers, tuple(outputs))


def inputs_of(program: Program, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    first = {step.inputs[0] for step in program.steps if step.op == "embedding"}
    return tuple(
        torch.randint(0, 5, (batch, *shape[1:]), generator=generator)
        if i in first
        else torch.randn((batch, *shape[1:]), generator=generator, dtype=torch.float64)
        for i, shape in enumerate(program.inputs)
    )


_INPUTS = {"image": (2, 3, 4, 4), "line": (2, 3, 6), "words": (2, 4), "tokens": (2, 4, 5), "row": (2, 5)}


def _begin(make: _Generator, x: int, kind: str) -> None:
    """A layer with prunable outputs on an input."""
    width = make.choose(_WIDTHS)
    if kind == "image":
        make.step("conv2d", [x], 1, 1, layer=make.layer("weights", (width, 3, 3, 3), width))
    elif kind == "line":
        make.step("conv1d", [x], 1, 1, layer=make.layer("weights", (width, 3, 3), width))
    elif kind == "words":
        make.step("embedding", [x], layer=make.layer("weights", (5, width), 0))
    else:
        make.step("linear", [x], layer=make.layer("weights", (width, 5), width))


def _end(make: _Generator, x: int) -> int:
    shape = make.shapes[x]
    if len(shape) == 1:
        return x
    how = make.choose(
        ("linear", "linear", "flat", "conv", "pool", "as it is") if len(shape) in (3, 4) else ("linear", "flat")
    )
    if how == "as it is":
        return x
    if how == "conv":
        kernel = (1,) * (len(shape) - 2)
        layer = make.layer("weights", (3, shape[1], *kernel), 3)
        return make.step("conv2d" if len(shape) == 4 else "conv1d", [x], layer=layer)
    if how == "flat":
        x = make.step("flatten", [x], 1, -1)
    if how == "pool":
        x = make.step("mean", [x], tuple(range(2, len(shape))), False)
    return make.step("linear", [x], layer=make.layer("weights", (3, make.shapes[x][-1]), 3))


def _extend(make: _Generator) -> None:
    x = make.pick()
    shape = make.shapes[x]
    families = {
        "move": _move, "reshape": _reshape, "unary": _unary, "binary": _binary, "join": _join, "weights": _weights,
        "normal": _normal, "reduce": _reduce, "constant": _constant, "spatial": _spatial, "mix": _mix,
        "residual": _residual, "attend": _attend, "recur": _recur, "product": _product,
    }  # fmt: skip
    if len(shape) < 2:
        return
    common = ["move", "reshape", "binary", "join", "weights", "weights", "move", "reshape"]
    families[make.choose([*common, *families])](make, x, shape)


def _move(make: _Generator, x: int, shape: tuple[int, ...]) -> None:  # noqa: PLR0912
    d = make.dim(x)
    n, ndim = shape[d], len(shape)
    op = make.choose([name for name in MOVES if name not in ("cat", "stack", "assign", "view", "flatten", "unflatten")])
    add = make.step
    if op == "permute" and ndim > 2:
        rest = list(range(1, ndim))
        k = make.choose(range(1, ndim - 1))
        add(op, [x], (0, *rest[k:], *rest[:k]))
    elif op in ("transpose", "movedim") and ndim > 2:
        add(op, [x], d, make.dim(x))
    elif op == "unsqueeze":
        add(op, [x], make.choose(range(1, ndim + 1)))
    elif op == "squeeze" and n == 1 and ndim > 2:
        add(op, [x], d)
    elif op == "flip":
        add(op, [x], (d,))
    elif op == "roll":
        add(op, [x], make.choose((1, -1, 2)), d)
    elif op == "slice" and n > 1:
        start = make.choose(range(min(n - 1, 3)))
        add(op, [x], d, start, make.choose((n, n, -1, None)) if n - start > 1 else n, make.choose((1, 1, 2, 3)))
    elif op == "narrow" and n > 1:
        start = make.choose(range(n - 1))
        add(op, [x], d, start, make.choose(range(1, n - start + 1)))
    elif op == "select" and ndim > 2:
        add(op, [x], d, make.choose((0, -1, n - 1)))
    elif op == "pad":
        pad = [0, 0] * (ndim - 1 - d) + [make.choose((0, 1, 2)), make.choose((0, 1, -1) if n > 2 else (0, 1))]
        add(op, [x], tuple(pad), make.choose((0.0, 0.5)))
    elif op == "repeat" and math.prod(shape) < _LIMIT:
        add(op, [x], tuple(2 if i == d else 1 for i in range(ndim)))
    elif op == "repeat_interleave" and math.prod(shape) < _LIMIT:
        add(op, [x], 2, d)
    elif op == "expand" and math.prod(shape) < _LIMIT and ndim < 5:
        add(op, [x], d, make.choose((2, 3)))
    elif {
        "pixel_shuffle": ndim == 4 and shape[1] % 4 == 0,
        "pixel_unshuffle": ndim == 4 and all(size % 2 == 0 for size in shape[2:]),
        "channel_shuffle": shape[1] % 2 == 0,
    }.get(op, False):
        add(op, [x], 2)
    elif op == "unfold" and ndim == 4 and min(shape[2:]) > 1 and math.prod(shape) < _LIMIT:
        x = add(op, [x], 2)
        if make.choose((True, False)):
            add("fold", [x], shape[2:], (2, 2))
    elif op == "windows" and n >= 3 and ndim < 5:
        add(op, [x], d, 2, make.choose((1, 2)))
    elif op == "split" and n > 2:
        first = make.choose(range(1, n - 1))
        sizes = (first, 1, n - first - 1) if n - first > 1 else (first, 1)
        order = tuple(make.choose(range(len(sizes))) for _ in range(make.choose((1, 2, 3))))
        add(op, [x], d, sizes, order)
    elif op == "chunk" and n % 2 == 0:
        add(op, [x], d, 2, make.choose(((0,), (1,), (1, 0), (0, 0))))
    elif op == "unbind" and n > 1:
        add(op, [x], d, tuple(make.choose(range(n)) for _ in range(make.choose((1, 2, 3)))))
    elif op in ("index", "index_select"):
        table = tuple(make.choose(range(n)) for _ in range(make.choose((2, 3, n))))
        add(op, [x], d, layer=make.layer("table", table))


def _reshape(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
    op = make.choose(("view", "flatten", "unflatten", "batch"))
    sizes = list(shape[1:])
    if op == "batch":  # a linear layer over everything but the last dimension at once
        width = make.choose(_WIDTHS)
        flat = make.step("view", [x], "batch", (shape[-1],))
        flat = make.step("linear", [flat], layer=make.layer("weights", (width, shape[-1]), width))
        make.step("view", [flat], "batch", (*shape[1:-1], width))
    elif op == "flatten" and len(shape) > 2:
        a = make.choose(range(1, len(shape) - 1))
        make.step(op, [x], a, make.choose(range(a + 1, len(shape))))
    else:
        i = make.choose(range(len(sizes)))
        divisors = [k for k in range(2, sizes[i]) if sizes[i] % k == 0]
        if divisors and len(sizes) < 5:
            k = make.choose(divisors)
            if op == "unflatten":
                make.step(op, [x], i + 1, make.choose(((k, sizes[i] // k), (-1, sizes[i] // k), (k, -1))))
                return
            sizes[i : i + 1] = [k, sizes[i] // k]
        if len(sizes) > 1 and make.choose((True, False)):
            j = make.choose(range(len(sizes) - 1))
            sizes[j : j + 2] = [sizes[j] * sizes[j + 1]]
        make.step("view", [x], make.choose(("inferred", "batch", "literal")), tuple(sizes))


def _unary(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
    make.step(make.choose(UNARY), [x])


def _binary(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
    """With another value of a shape that broadcasts, or with one of the same shape that is made from this one."""
    fitting = [i for i in range(len(make.inputs), len(make.shapes)) if _broadcasts(make.shapes[i], shape)]
    op = make.choose(BINARY)
    y = make.choose(fitting)
    if op == "add_" and make.shapes[y] != shape:
        op = "add"
    if make.choose((True, False)):
        d = make.dim(x)
        part = make.choose(("mean", "slice"))
        y = make.step("mean", [x], (d,), True) if part == "mean" else make.step("slice", [x], d, 0, 1, 1)
        op = op if op != "add_" else "mul"
    if op in ("addcmul", "lerp") and len(make.shapes[y]) != len(shape):
        op = "mul"
    make.step(op, [x, y] if make.choose((True, True, False)) or op == "add_" else [y, x])


def _broadcasts(other: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(other) == len(shape) and all(a in (1, b) for a, b in zip(other, shape, strict=True))


def _join(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
    if math.prod(shape) > _LIMIT:
        return
    d = make.dim(x)
    values = range(len(make.inputs), len(make.shapes))
    op = make.choose(("cat", "cat", "stack", "assign"))
    if op == "cat":
        alike = [i for i in values if _but(make.shapes[i], d) == _but(shape, d) and math.prod(make.shapes[i]) < _LIMIT]
        others = [make.choose(alike) for _ in range(make.choose((1, 1, 2)))]
        make.step("cat", [x, *others] if make.choose((True, False)) else [*others, x], d)
        return
    same = [i for i in values if make.shapes[i] == shape]
    if op == "stack" and len(shape) < 5:
        make.step("stack", [x, make.choose(same)], make.choose(range(1, len(shape) + 1)))
    elif op == "assign" and shape[d] > 1:
        start = make.choose(range(shape[d] - 1))
        make.step("assign", [x, make.choose(same)], d, start, make.choose(range(start + 1, shape[d] + 1)))


def _but(shape: tuple[int, ...], d: int) -> tuple[int, ...]:
    return (len(shape), *shape[:d], *shape[d + 1 :]) if d < len(shape) else ()


def _weights(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
    width = make.choose((*_WIDTHS, shape[-1], shape[1]))
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
    elif math.prod(shape) < _LIMIT // 2:
        layer = make.layer("weights", (channels, width // groups, *[kernel] * spatial), bias)
        make.step(f"conv_transpose{spatial}d", [x], min(kernel, make.choose((1, 2))), groups, layer=layer)


def _normal(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
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


def _reduce(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
    dims = {make.dim(x) for _ in range(make.choose((1, 1, 2)))}
    keep = make.choose((True, False))
    if not keep and len(shape) - len(dims) < 2:
        return
    make.step(make.choose(list(REDUCTIONS)), [x], tuple(sorted(dims)), keep)


def _constant(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
    d = make.dim(x)
    sizes = [1] * (len(shape) - 1) if make.choose((True, False)) else list(shape[1:])
    sizes[d - 1] = shape[d]
    name = make.choose(("buffer", "weight"))
    layer = make.layer("buffer", tuple(sizes)) if name == "buffer" else make.layer("weights", tuple(sizes), 0)
    make.step(f"{make.choose(('add', 'mul', 'where', 'maximum', 'masked_fill'))}_constant", [x], name, layer=layer)


def _spatial(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
    if len(shape) not in (3, 4):
        return
    op = make.choose(list(POOLS))
    small = op in ("nearest", "linear_resize") and math.prod(shape) < _LIMIT // 4
    if small or op == "adaptive" or min(shape[2:]) > 1:
        make.step(op, [x])


def _mix(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
    op = make.choose((*UNIFORM, "glu", "prelu"))
    d = make.dim(x)
    if op == "glu" and shape[d] % 2 == 0:
        make.step(op, [x], d)
    elif op == "prelu":
        make.step(op, [x], layer=make.layer("weights", (shape[1],), 0))
    elif op in UNIFORM:
        make.step(op, [x], d)


def _residual(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
    """A branch of two linear layers that comes back to the same shape."""
    width = make.choose(_WIDTHS)
    y = make.step("linear", [x], layer=make.layer("weights", (width, shape[-1]), width))
    y = make.step(make.choose(UNARY), [y])
    y = make.step("linear", [y], layer=make.layer("weights", (shape[-1], width), shape[-1]))
    make.step(make.choose(("add", "add_", "mul")), [x, y])


def _attend(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
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


def _recur(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
    if len(shape) == 3:
        hidden = make.choose((2, 3, 4))
        kind, layers, both = make.choose(("LSTM", "GRU", "RNN")), make.choose((1, 1, 2)), make.choose((False, True))
        make.step("recurrent", [x], layer=make.layer(kind, shape[-1], hidden, layers, both))


def _product(make: _Generator, x: int, shape: tuple[int, ...]) -> None:
    values = range(len(make.inputs), len(make.shapes))
    op = make.choose(("matmul", "bmm", "matmul_parameter", "einsum", "einsum_parameter"))
    width = make.choose(_WIDTHS)
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
