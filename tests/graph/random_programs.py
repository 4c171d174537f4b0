"""Random programs, made of choices: a test's or those of a random generator."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.graph.random_computing import (
    attend,
    constant,
    mix,
    normal,
    product,
    recur,
    reduce,
    residual,
    spatial,
    weights,
)
from tests.graph.random_generator import WIDTHS, Choose, Generator
from tests.graph.random_moving import binary, join, move, reshape, unary
from tests.graph.random_nets import Program


def generate(choose: Choose, steps: int = 6) -> Program:
    """A random program with about so many steps between its first and its last layers."""
    make = Generator(choose)
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


def _begin(make: Generator, x: int, kind: str) -> None:
    """A layer with prunable outputs on an input."""
    width = make.choose(WIDTHS)
    if kind == "image":
        make.step("conv2d", [x], 1, 1, layer=make.layer("weights", (width, 3, 3, 3), width))
    elif kind == "line":
        make.step("conv1d", [x], 1, 1, layer=make.layer("weights", (width, 3, 3), width))
    elif kind == "words":
        make.step("embedding", [x], layer=make.layer("weights", (5, width), 0))
    else:
        make.step("linear", [x], layer=make.layer("weights", (width, 5), width))


def _end(make: Generator, x: int) -> int:
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


def _extend(make: Generator) -> None:
    x = make.pick()
    shape = make.shapes[x]
    families = {
        "move": move, "reshape": reshape, "unary": unary, "binary": binary, "join": join, "weights": weights,
        "normal": normal, "reduce": reduce, "constant": constant, "spatial": spatial, "mix": mix,
        "residual": residual, "attend": attend, "recur": recur, "product": product,
    }  # fmt: skip
    if len(shape) < 2:
        return
    common = ["move", "reshape", "binary", "join", "weights", "weights", "move", "reshape"]
    families[make.choose([*common, *families])](make, x, shape)
