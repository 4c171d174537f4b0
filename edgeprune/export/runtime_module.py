"""An artifact as a module: a task can evaluate what the runtime computes, int8 included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgeprune.export.base import resized
from edgeprune.export.layout import as_file, as_network, fixed_batch
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
        self._artifact = artifact
        with torch.no_grad():
            self._template, self._form = pytree.tree_flatten(like(*example_inputs))
        # Tasks ask a module's parameters where to compute.
        self.nothing = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """The outputs, in the structure of `like`'s."""
        given = (*args, *kwargs.values())
        found = as_network(self._artifact, list(self.run(self.feeds(given)).values()))
        outputs = (torch.from_numpy(np.ascontiguousarray(output)) for output in found)
        leaves = [next(outputs) if isinstance(leaf, Tensor) else leaf for leaf in self._template]
        return pytree.tree_unflatten(leaves, self._form)

    def feeds(self, inputs: Sequence[Tensor]) -> dict[str, NDArray[Any]]:
        """The inputs as the file takes them, by name."""
        return as_file(self._artifact, [tensor.detach().contiguous().numpy() for tensor in inputs])

    def one_batch(self, inputs: tuple[Tensor, ...]) -> dict[str, NDArray[Any]]:
        """As `feeds`, at the batch that the file fixes, where it fixes one: what any runtime takes at once."""
        batch = fixed_batch(self._artifact)
        return self.feeds(inputs if batch is None else resized(inputs, batch))

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The file's outputs by name, in its order."""
        return dict(zip([spec.name for spec in self._artifact.outputs], self._run(feeds), strict=True))
