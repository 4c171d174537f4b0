"""What random programs are made with: it appends steps that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tests.graph.random_nets import Step, make_layer, run

Choose = Callable[[Sequence[Any]], Any]  # one of the given options

LIMIT = 1500  # elements of one sample of a value
WIDTHS = (2, 3, 4, 6, 8)


class Generator:
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
