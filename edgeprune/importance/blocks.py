"""Importance of residual blocks: how much each one turns what flows past it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from edgeprune.errors import UsageError
from edgeprune.training_data import one_thread

if TYPE_CHECKING:
    import torch

    from edgeprune.graph.captured import Prunable

__all__ = ["block_influence"]


def block_influence(captured: Prunable, batches: Iterable[torch.Tensor | tuple[torch.Tensor, ...]]) -> dict[str, float]:
    """Per block 1 − the mean cosine similarity of what it is added to and the sum: 0 leaves the direction, 2 is most.

    A batch is the model's inputs: one tensor or a tuple. Computed in evaluation mode, on one thread, in float64; a
    sample is one vector. After the block influence of ShortGPT (Men et al. 2024, arXiv:2403.03853, equation 1), which
    averages over tokens. Raises UsageError where there is no batch.
    """
    import torch
    from torch.fx import Interpreter, Node

    additions = {block.addition: block for block in captured.blocks}
    sums = dict.fromkeys((block.name for block in captured.blocks), 0.0)
    count = 0

    class Watch(Interpreter):
        def run_node(self, n: Node) -> Any:
            block = additions.get(n.name)
            if block is None:
                return super().run_node(n)
            # Before it is run: an addition in place changes one of its terms.
            before = self.fetch_args_kwargs_from_env(n)[0][1 - block.branch].double().flatten(1)
            result = super().run_node(n)
            similarity = torch.nn.functional.cosine_similarity(before, result.double().flatten(1))
            sums[block.name] += float(similarity.sum())
            return result

    training = captured.module.training
    captured.module.eval()
    try:
        with one_thread(), torch.no_grad():
            for batch in batches:
                inputs = (batch,) if isinstance(batch, torch.Tensor) else batch
                Watch(captured.module).run(*inputs)
                count += len(inputs[0])
    finally:
        captured.module.train(training)
    if not count:
        raise UsageError("block influence needs calibration batches", hint="give at least one batch of inputs")
    return {name: 1 - total / count for name, total in sums.items()}
