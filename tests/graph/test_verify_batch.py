"""A pruned graph must be right at other batches than the one it was captured with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

from edgeprune.errors import VerificationError
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured, Pruned
from tests.graph.independent import check

HEADS, SIZE = 4, 3


def heads_first(x: Tensor) -> Tensor:
    """(row, head × size) to (head × row, size)."""
    return x.reshape(x.shape[0], HEADS, SIZE).transpose(0, 1).reshape(HEADS * x.shape[0], SIZE)


def rows_again(x: Tensor, heads: int = HEADS) -> Tensor:
    """The reverse of `heads_first`."""
    return x.reshape(heads, -1, SIZE).transpose(0, 1).reshape(-1, heads * SIZE)


class Net(nn.Module):
    """Two layers with something in between. With `heads`, whole heads can be removed, else positions in all of them."""

    def __init__(self, between: Callable[[Tensor], Tensor], heads: bool = True) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, HEADS * SIZE), nn.Linear(HEADS * SIZE, 2)
        self.mix = nn.Parameter(torch.randn(SIZE, SIZE)) if heads else None
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.mix is not None:
            x = (x.view(-1, HEADS, SIZE) @ self.mix).flatten(1)
        return self.last(self.between(x))


def pruned(between: Callable[[Tensor], Tensor]) -> tuple[Captured, Pruned]:
    torch.manual_seed(0)
    captured = capture(Net(between), torch.randn(1, 5))
    assert captured.batch_dynamic
    return captured, captured.prune(captured.uniform(0.5))


def checked(captured: Captured, small: Pruned) -> None:
    small.module.recompile()
    captured.check(small.module, captured.kept_atoms(small.candidate)[1])


def node_of(small: Pruned, target: object) -> Node:
    return next(n for n in small.module.graph.nodes if n.target is target)


def test_both_batches_are_reported() -> None:
    _, small = pruned(torch.relu)
    found = small.verification
    assert found is not None
    assert found.other_batch == 3
    assert found.other_batch_error is not None
    assert max(found.relative_error, found.other_batch_error) <= 1e-12


def test_a_view_with_the_batch_of_the_example_is_caught() -> None:
    captured, small = pruned(lambda x: x.view(x.shape[0] * HEADS, SIZE).relu().view(-1, HEADS * SIZE))
    checked(captured, small)
    view = node_of(small, torch.ops.aten.view.default)
    view.update_arg(1, [4, SIZE])  # two rows × two heads
    with pytest.raises(
        VerificationError, match=r"\[3, 5\], the pruned graph fails in 'view' of '': shape|fails in 'view'"
    ):
        checked(captured, small)


def test_a_slice_with_the_batch_of_the_example_is_caught() -> None:
    captured, small = pruned(lambda x: x.view(-1, SIZE)[: x.shape[0] * HEADS].sigmoid().view(-1, HEADS * SIZE))
    checked(captured, small)
    view = node_of(small, torch.ops.aten.sigmoid.default).args[0]
    with small.module.graph.inserting_after(view):
        literal = small.module.graph.call_function(torch.ops.aten.slice.Tensor, (view, 0, 0, 4))  # two rows × two heads
    view.replace_all_uses_with(literal, lambda user: user is not literal)
    with pytest.raises(VerificationError, match="at a batch of 3 the pruned graph differs from its reference by inf"):
        checked(captured, small)


def test_a_split_with_the_batch_of_the_example_is_caught() -> None:
    torch.manual_seed(0)
    captured = capture(Net(HEADS_OUTSIDE["chunk"]), torch.randn(1, 5))
    small = captured.prune(captured.candidate({"first": [0, 3]}))
    checked(captured, small)
    split = node_of(small, torch.ops.aten.split_with_sizes.default)
    assert not any(isinstance(size, int) for size in split.args[1])
    split.update_arg(1, [2, 2])
    with pytest.raises(VerificationError, match="fails in 'split_with_sizes' on \\[3, 5\\]"):
        checked(captured, small)


def test_a_value_that_is_right_at_the_batch_of_the_example_alone_is_caught() -> None:
    """No shape gives it away: the mean over a literal number of rows."""
    captured, small = pruned(lambda x: x / x.shape[0])
    checked(captured, small)
    divided = node_of(small, torch.ops.aten.div.Tensor)
    divided.update_arg(1, 2)
    with pytest.raises(VerificationError, match="at a batch of 3 the pruned graph differs from its reference"):
        checked(captured, small)


def test_rows_that_know_of_each_other() -> None:
    _, small = pruned(lambda x: x - x.mean(0))
    assert small.verification is not None
    assert small.verification.relative_error <= 1e-12
    assert small.verification.other_batch == 3


def test_a_model_that_takes_even_batches_alone_is_checked_at_one() -> None:
    captured, small = pruned(lambda x: x.view(x.shape[0] // 2, 2, -1).flip(1).flatten(0, 1))
    assert small.verification is not None
    assert small.verification.other_batch == 4
    for batch in (2, 6):
        x = torch.randn(batch, 5)
        assert small.module(x).shape == captured.module(x).shape


def test_a_fixed_batch_is_checked_as_it_is() -> None:
    captured = capture(Net(lambda x: x + torch.ones(2, HEADS * SIZE)), torch.randn(2, 5))
    assert not captured.batch_dynamic
    found = captured.prune(captured.uniform(0.5)).verification
    assert found is not None
    assert (found.other_batch, found.other_batch_error) == (None, None)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_other_examples(batch: int) -> None:
    torch.manual_seed(0)
    captured = capture(Net(lambda x: rows_again(heads_first(x).relu())), torch.randn(batch, 5))
    found = captured.prune(captured.uniform(0.5)).verification
    assert found is not None
    assert found.other_batch == max(batch, 2) + 1


ROWS_OUTSIDE = {
    "view": lambda x: x.view(x.shape[0] * HEADS, SIZE).relu().view(x.shape[0], -1),
    "view with a size that is inferred twice": lambda x: x.view(-1, HEADS, SIZE).view(-1, SIZE).view(-1, HEADS * SIZE),
    "whole slice": lambda x: x.view(-1, SIZE)[: x.shape[0] * HEADS].relu().view(x.shape[0], -1),
    "narrow": lambda x: x.view(-1, SIZE).narrow(0, 0, x.shape[0] * HEADS).relu().view(x.shape[0], -1),
    "pad and cut": lambda x: torch.nn.functional.pad(x.view(-1, SIZE), (0, 0, 0, 2))[:-2].view(x.shape[0], -1),
    "pad before and cut": lambda x: torch.nn.functional.pad(x.view(-1, SIZE), (0, 0, 1, 0))[1:].view(x.shape[0], -1),
    "pad and split": lambda x: (
        torch.nn.functional.pad(x.view(-1, SIZE), (0, 0, 0, 2)).split([x.shape[0] * HEADS, 2])[0].view(x.shape[0], -1)
    ),
    "roll": lambda x: x.view(-1, SIZE).roll(HEADS, 0).view(x.shape[0], -1),
    "flip": lambda x: x.view(-1, SIZE).flip(0).view(x.shape[0], -1),
    "strided": lambda x: x.view(-1, SIZE)[::1].view(x.shape[0], -1),
    "batched product": lambda x: torch.bmm(x.view(-1, SIZE, 1), x.view(-1, 1, SIZE)).sum(1).view(x.shape[0], -1),
    "softmax": lambda x: x.view(-1, 1, SIZE).softmax(-1).view(x.shape[0], -1),
    "expand": lambda x: x.view(-1, SIZE, 1).expand(x.shape[0] * HEADS, SIZE, 2).sum(-1).view(x.shape[0], -1),
    "repeat": lambda x: x.view(-1, SIZE, 1).repeat(1, 1, 2).sum(-1).view(x.shape[0], -1),
    "zeros": lambda x: (x.view(-1, SIZE) + torch.zeros(x.shape[0] * HEADS, SIZE)).view(x.shape[0], -1),
    "new zeros": lambda x: (x.view(-1, SIZE) + x.new_zeros(x.shape[0] * HEADS, 1)).view(x.shape[0], -1),
    "repeated rows": lambda x: x.repeat_interleave(2, 0).view(-1, 2, HEADS, SIZE).sum(1).flatten(1),
    "unflatten": lambda x: x.view(-1, SIZE).unflatten(0, (x.shape[0], HEADS)).flatten(1),
    "chunks of the batch": lambda x: torch.cat([torch.cat([x, x]).chunk(2)[1]]),
    "rows of the batch are split": lambda x: torch.cat(torch.cat([x, x]).split([x.shape[0], x.shape[0]]))[: x.shape[0]],
    "grouped convolution": lambda x: torch.conv1d(
        x.view(1, -1, 1), torch.ones(1, 1, 1).expand(x.shape[0] * HEADS * SIZE, 1, 1), groups=x.shape[0] * HEADS * SIZE
    ).view(x.shape[0], -1),
}
HEADS_OUTSIDE = {
    "view": lambda x: rows_again(heads_first(x).relu()),
    "chunk": lambda x: rows_again(torch.cat([p.tanh() for p in heads_first(x).chunk(2)])),
    "unequal parts": lambda x: rows_again(
        torch.cat([p.tanh() for p in heads_first(x).split([x.shape[0], 3 * x.shape[0]])])
    ),
    "split": lambda x: rows_again(torch.cat([p.tanh() for p in heads_first(x).split(x.shape[0])])),
    "slices": lambda x: rows_again(torch.cat([heads_first(x)[x.shape[0] :], heads_first(x)[: x.shape[0]]]), HEADS),
    "slice in the middle": lambda x: rows_again(
        torch.cat(
            [
                heads_first(x)[: x.shape[0]],
                heads_first(x)[x.shape[0] : 3 * x.shape[0]].relu(),
                heads_first(x)[3 * x.shape[0] :],
            ]
        )
    ),
    "narrow": lambda x: rows_again(
        torch.cat(
            [
                heads_first(x).narrow(0, 0, 2 * x.shape[0]),
                heads_first(x).narrow(0, 2 * x.shape[0], 2 * x.shape[0]).tanh(),
            ]
        )
    ),
    "roll": lambda x: rows_again(heads_first(x).roll(x.shape[0], 0)),
    "flip": lambda x: rows_again(heads_first(x).flip(0)),
    "batched product": lambda x: rows_again(torch.bmm(heads_first(x).unsqueeze(2), heads_first(x).unsqueeze(1)).sum(1)),
    "view of all three": lambda x: rows_again(
        heads_first(x).view(2, 2 * x.shape[0], SIZE).relu().view(HEADS * x.shape[0], SIZE)
    ),
}
KINDS = {
    **{f"rows outside: {k}": f for k, f in ROWS_OUTSIDE.items()},
    **{f"heads outside: {k}": f for k, f in HEADS_OUTSIDE.items()},
}


FROZEN = {
    "rows outside: roll": "roll in the model itself reorders it together with the batch",
    "heads outside: roll": "roll in the model itself reorders it together with the batch",
    "rows outside: zeros": "add in the model itself meets a fixed dimension",
    "rows outside: new zeros": "add in the model itself meets a fixed dimension",
    "heads outside: split": "split in the model itself picks it out by its index",
    "rows outside: grouped convolution": "conv1d in the model itself convolves it with a fixed weight",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", [True, False])
def test_units_that_share_a_dimension_with_the_batch(kind: str, heads: bool) -> None:
    torch.manual_seed(0)
    model = Net(KINDS[kind], heads).eval()
    captured = capture(model, torch.randn(1, 5))
    assert captured.batch_dynamic
    if captured.groups:
        check(model, torch.randn(1, 5))
        again = captured.prune(captured.uniform(0.3))
        again = again.prune(again.uniform(0.5))
        for batch in (1, 7):
            assert again.module(torch.randn(batch, 5)).shape == (batch, 2)
    else:
        assert FROZEN[kind] in [str(group.frozen) for group in captured.frozen]
