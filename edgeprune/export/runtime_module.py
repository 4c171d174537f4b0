"""An artifact as a module: a task can evaluate what the runtime computes, int8 included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgeprune.export.runner import open_runner
from edgeprune.records.artifact import Artifact

__all__ = ["RuntimeModule"]


class RuntimeModule(nn.Module):
    """Runs an artifact in its own runtime on this machine; it is called, and answers, as `like` does.

    `example_inputs` are those of `like`, which is run once for the form of its outputs. Raises what `open_runner` does.
    """

    def __init__(self, artifact: Artifact, like: nn.Module, example_inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self._run = open_runner(artifact)
        self._inputs = tuple(spec.name for spec in artifact.inputs)
        self._outputs = tuple(spec.name for spec in artifact.outputs)
        with torch.no_grad():
            self._template, self._form = pytree.tree_flatten(like(*example_inputs))
        # Tasks ask a module's parameters where to compute.
        self.nothing = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """The outputs, in the structure of `like`'s."""
        given = (*args, *kwargs.values())
        outputs = (torch.from_numpy(output) for output in self.run(self.feeds(given)).values())
        leaves = [next(outputs) if isinstance(leaf, Tensor) else leaf for leaf in self._template]
        return pytree.tree_unflatten(leaves, self._form)

    def feeds(self, inputs: Sequence[Tensor]) -> dict[str, NDArray[Any]]:
        """The inputs as the runtime takes them, by name."""
        return {n: t.detach().contiguous().numpy() for n, t in zip(self._inputs, inputs, strict=True)}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name, in the model's order."""
        return dict(zip(self._outputs, self._run(feeds), strict=True))
