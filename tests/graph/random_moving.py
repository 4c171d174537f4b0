"""Steps of random programs that move data, and that combine it element by element."""

from __future__ import annotations

import math

from tests.graph.random_generator import LIMIT, WIDTHS, Generator
from tests.graph.random_nets import BINARY, MOVES, UNARY


def move(make: Generator, x: int, shape: tuple[int, ...]) -> None:  # noqa: PLR0912
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
    elif op == "repeat" and math.prod(shape) < LIMIT:
        add(op, [x], tuple(2 if i == d else 1 for i in range(ndim)))
    elif op == "repeat_interleave" and math.prod(shape) < LIMIT:
        add(op, [x], 2, d)
    elif op == "expand" and math.prod(shape) < LIMIT and ndim < 5:
        add(op, [x], d, make.choose((2, 3)))
    elif {
        "pixel_shuffle": ndim == 4 and shape[1] % 4 == 0,
        "pixel_unshuffle": ndim == 4 and all(size % 2 == 0 for size in shape[2:]),
        "channel_shuffle": shape[1] % 2 == 0,
    }.get(op, False):
        add(op, [x], 2)
    elif op == "unfold" and ndim == 4 and min(shape[2:]) > 1 and math.prod(shape) < LIMIT:
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


def reshape(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    op = make.choose(("view", "flatten", "unflatten", "batch"))
    sizes = list(shape[1:])
    if op == "batch":  # a linear layer over everything but the last dimension at once
        width = make.choose(WIDTHS)
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


def unary(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    make.step(make.choose(UNARY), [x])


def binary(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    """With another value of a shape that broadcasts, or with one of the same shape that is made from this one."""
    fitting = [i for i in range(len(make.inputs), len(make.shapes)) if broadcasts(make.shapes[i], shape)]
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


def broadcasts(other: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(other) == len(shape) and all(a in (1, b) for a, b in zip(other, shape, strict=True))


def join(make: Generator, x: int, shape: tuple[int, ...]) -> None:
    if math.prod(shape) > LIMIT:
        return
    d = make.dim(x)
    values = range(len(make.inputs), len(make.shapes))
    op = make.choose(("cat", "cat", "stack", "assign"))
    if op == "cat":
        alike = [i for i in values if but(make.shapes[i], d) == but(shape, d) and math.prod(make.shapes[i]) < LIMIT]
        others = [make.choose(alike) for _ in range(make.choose((1, 1, 2)))]
        make.step("cat", [x, *others] if make.choose((True, False)) else [*others, x], d)
        return
    same = [i for i in values if make.shapes[i] == shape]
    if op == "stack" and len(shape) < 5:
        make.step("stack", [x, make.choose(same)], make.choose(range(1, len(shape) + 1)))
    elif op == "assign" and shape[d] > 1:
        start = make.choose(range(shape[d] - 1))
        make.step("assign", [x, make.choose(same)], d, start, make.choose(range(start + 1, shape[d] + 1)))


def but(shape: tuple[int, ...], d: int) -> tuple[int, ...]:
    return (len(shape), *shape[:d], *shape[d + 1 :]) if d < len(shape) else ()
