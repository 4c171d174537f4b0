"""Check a saved pruned model against the saved model that it was pruned from (`edgeprune verify`, `ep.verify`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import ParityError, UsageError, VerificationError

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from edgeprune.graph.verify import Verification
    from edgeprune.records.candidate import Candidate

__all__ = ["Verified", "verify"]


@dataclass(frozen=True, slots=True)
class Verified:
    """What was removed, how the check went, and which parameters have been trained since."""

    candidate: Candidate
    verification: Verification
    trained: tuple[str, ...]


def verify(dense: Path | str, pruned: Path | str, *, trained: bool = False) -> Verified:
    """Prove that `pruned` computes what `dense` does without what its candidate removes; both are .pt2 files.

    The candidate is the one that `Pruned.save` wrote into the file. Weights must be those of the dense model; with
    `trained` they may differ, biases may have been added (`reconstruct` does so), and the graph is checked with those
    of the dense model. Raises ParityError where the two disagree, UsageError where the file holds no candidate or is no
    pruning of `dense`, CaptureError.
    """
    import torch

    from edgeprune.graph.blocks import named_blocks
    from edgeprune.graph.captured import Captured
    from edgeprune.graph.labels import Left
    from edgeprune.graph.storage import load, read_candidate
    from edgeprune.graph.surgery import slice_tensor

    for path in (Path(dense), Path(pruned)):
        if path.suffix != ".pt2":
            hint = "give the .pt2 files of the model and of what `edgeprune prune` made of it"
            raise UsageError(f"{path.name}: only .pt2 files can be verified", hint=hint)
    candidate, granularity = read_candidate(Path(pruned))
    loaded, smaller = load(dense), load(pruned)
    dynamic = loaded.batch_dynamic
    original = Captured(loaded.module, loaded.example_inputs, batch_dynamic=dynamic, granularity=granularity)
    coupling, keep = original.kept_atoms(candidate)
    left = Left(keep)
    blocks = named_blocks(original.blocks, candidate.dropped_blocks)
    before = dict(original.module.state_dict(keep_vars=True))
    changed = []
    with torch.no_grad():
        for name, tensor in smaller.module.state_dict(keep_vars=True).items():
            if name not in before and _is_added_bias(smaller.module, name):
                changed.append(name)
                tensor.zero_()
                continue
            if name not in before or name not in coupling.parameters:
                raise ParityError(f"{name!r} of {pruned} is not in {dense}", hint=_HINT)
            expected = slice_tensor(before[name], coupling.parameters[name], left)
            if expected.shape != tensor.shape:
                shapes = f"{tuple(tensor.shape)}, not {tuple(expected.shape)}"
                raise ParityError(f"{name!r} of {pruned} has the shape {shapes}", hint=_HINT)
            if not torch.equal(expected, tensor):
                changed.append(name)
                tensor.copy_(expected)
    if changed and not trained:
        raise ParityError(
            f"{len(changed)} weights differ from those of {dense}: {', '.join(changed[:3])}"
            + (", …" if len(changed) > 3 else ""),
            hint="if it was trained or reconstructed (which may add biases) after it was pruned, --trained "
            "(trained=True) checks its graph alone",
        )
    try:
        checked = original.check(smaller.module, keep, blocks)
    except VerificationError as error:
        raise ParityError(f"{pruned} against {dense}: {error.message}", hint=_HINT) from error
    return Verified(candidate, checked, tuple(changed))


def _is_added_bias(module: GraphModule, name: str) -> bool:
    """Whether the graph only adds it: what reconstruction gives to a layer that had no bias."""
    from edgeprune.graph.operators import argument_names, is_operator

    users = [
        user for node in module.graph.nodes if node.op == "get_attr" and node.target == name for user in node.users
    ]
    places = [
        argument_names(user)[user.args.index(node)]
        for user in users
        if is_operator(user)
        for node in user.args
        if getattr(node, "target", None) == name
    ]
    return bool(users) and len(places) == len(users) and set(places) <= {"bias"}


_HINT = "the file was changed, or was pruned from another model"
