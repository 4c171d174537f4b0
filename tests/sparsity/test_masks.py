"""Masked models: what is zero stays zero, through training, saving, surgery and export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

import edgeprune as ep
from edgeprune.errors import TaskError, UsageError
from edgeprune.graph.captured import Captured, Pruned
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.recovery.finetune import finetune
from edgeprune.sparsity.masks import has_masks, zero_shares
from edgeprune.training_data import ImportanceContext


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.b(F.relu(self.n(self.a(x))))).mean((2, 3)))


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 3, 8, 8, generator=generator), torch.arange(8) % 4) for _ in range(3)]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def net() -> Captured:
    torch.manual_seed(0)
    return ep.capture(Net().eval(), torch.randn(2, 3, 8, 8))


WEIGHTS = ("a.weight", "b.weight", "fc.weight")


def values(model: Pruned, name: str) -> Tensor:
    weight, mask = model.module.get_parameter(name), dict(model.module.named_buffers()).get(f"{name}_mask")
    return weight.detach() if mask is None else weight.detach() * mask


def test_each_layer_loses_its_share_and_the_largest_stay() -> None:
    dense = net()
    sparse = ep.sparsify(dense, "unstructured", ratio=0.75)
    for name in WEIGHTS:
        before, after = dense.module.get_parameter(name).detach(), values(sparse, name)
        count = before.numel() - int(0.75 * before.numel())
        threshold = before.abs().flatten().sort(descending=True).values[count - 1]
        torch.testing.assert_close(after, torch.where(before.abs() >= threshold, before, 0.0), rtol=0, atol=0)
    assert zero_shares(sparse) == {"a.weight": 0.75, "b.weight": 0.75, "fc.weight": 0.75}
    assert sparse.candidate.sparsity["b.weight"] == "unstructured magnitude"
    assert not has_masks(dense)
    assert dense.module.get_parameter("a.weight").count_nonzero() == 8 * 27


def test_lamp_by_hand() -> None:
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0, 3.0, 4.0]]))
    model = nn.Sequential(layer, nn.Linear(1, 1, bias=False))
    dense = ep.capture(model.eval(), torch.randn(2, 4))
    from edgeprune.sparsity.criteria import score
    from edgeprune.sparsity.weights import find_weights

    scores = score(dense.module, find_weights(dense.module), "lamp", ImportanceContext())
    np.testing.assert_allclose(scores["0.weight"].ravel(), [1 / 30, 4 / 29, 9 / 25, 1.0])
    assert scores["1.weight"].ravel().tolist() == [1.0]  # the only weight of its layer goes last


def test_wanda_by_hand() -> None:
    layer = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]]))
    dense = ep.capture(layer.eval(), torch.randn(2, 3))
    inputs = torch.tensor([[1.0, 2.0, 10.0], [1.0, 2.0, 10.0]])
    context = ImportanceContext(batches=lambda: [inputs], loss=lambda model, batch: model(batch).sum())
    sparse = ep.sparsify(dense, "unstructured", ratio=0.34, criterion="wanda", context=context)
    # |w| times the inputs: 3, 4, 10 and 1, 2, 10; the lowest of each row goes.
    assert (values(sparse, "weight") != 0).int().tolist() == [[0, 1, 1], [0, 1, 1]]


def test_wanda_without_data_says_what_it_needs() -> None:
    with pytest.raises(TaskError, match="wanda"):
        ep.sparsify(net(), "2:4", criterion="wanda")


@pytest.mark.parametrize("pattern", ["2:4", "unstructured", "block 1x4"])
def test_zeros_survive_fine_tuning(pattern: str) -> None:
    ratio = None if pattern == "2:4" else 0.5
    sparse = ep.sparsify(net(), pattern, ratio=ratio)
    before = {name: values(sparse, name) for name in WEIGHTS}
    settings = FineTuneSettings(epochs=2, learning_rate=0.1, momentum=0.9, weight_decay=0.01, distillation=0.0)
    finetune(sparse.module, batches, loss, settings=settings, teacher=None, seed=0)
    optimizer = torch.optim.AdamW(sparse.module.parameters(), lr=0.01, weight_decay=0.1)
    for batch in batches():
        optimizer.zero_grad()
        loss(sparse.module, batch).backward()
        optimizer.step()
    plain = ep.make_permanent(sparse)
    for name, old in before.items():
        new = plain.module.get_parameter(name).detach()
        assert bool((new[old == 0] == 0).all())
        assert bool((new[old != 0] != old[old != 0]).all())


def test_permanent_zeros_are_plain_and_compute_the_same(tmp_path: Path) -> None:
    sparse = ep.sparsify(net(), "2:4")
    plain = ep.make_permanent(sparse)
    x = batches()[0][0]
    torch.testing.assert_close(plain.module(x), sparse.module(x), rtol=0, atol=0)
    assert not has_masks(plain)
    assert not [name for name, _ in plain.module.named_buffers() if name.endswith("_mask")]
    assert sorted(dict(plain.module.named_parameters())) == sorted(dict(net().module.named_parameters()))
    sparse.save(tmp_path / "sparse.pt2")
    again = ep.make_permanent(ep.load(tmp_path / "sparse.pt2"))
    torch.testing.assert_close(again.module(x), sparse.module(x), rtol=0, atol=0)
    assert zero_shares(again) == zero_shares(plain)


def test_the_exported_file_holds_zeros(tmp_path: Path) -> None:
    artifact = ep.export(ep.sparsify(net(), "unstructured", ratio=0.5), tmp_path / "sparse.onnx")
    model = onnx.load(artifact.path)
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    shares = sorted(float((array == 0).mean()) for array in arrays if array.ndim >= 2)
    assert shares == [0.5, 0.5, 0.5]
    assert all(node.op_type != "Mul" for node in model.graph.node)


def test_channels_go_after_single_weights_and_before() -> None:
    first = ep.sparsify(net(), "unstructured", ratio=0.5)
    then = first.prune(first.uniform(0.5))
    assert then.verification is not None
    assert then.verification.relative_error <= 1e-9
    assert then.module.get_parameter("b.weight").shape == (8, 4, 3, 3)
    assert dict(then.module.named_buffers())["b.weight_mask"].shape == (8, 4, 3, 3)
    dense = net()
    small = dense.prune(dense.uniform(0.5))
    sparse = ep.sparsify(small, "2:4")
    assert zero_shares(sparse) == {"a.weight": 0.0, "b.weight": 0.5, "fc.weight": 0.5}
    assert sparse.candidate.kept == small.candidate.kept


def test_ignored_weights_stay_dense() -> None:
    assert set(ep.sparsify(net(), "2:4", ignored="fc.*").candidate.sparsity) == {"a.weight", "b.weight"}
    with pytest.raises(UsageError, match="no weight"):
        ep.sparsify(net(), "2:4", ignored="*")


def test_a_weight_used_twice_has_one_mask_and_an_embedding_none() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.mix = nn.Embedding(10, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            y = self.mix(F.relu(self.mix(self.words(x))))
            return F.linear(y, self.words.weight)

    torch.manual_seed(0)
    sparse = ep.sparsify(ep.capture(Tied().eval(), torch.randint(0, 10, (2, 3))), "unstructured", ratio=0.5)
    assert dict(sparse.candidate.sparsity) == {"mix.weight": "unstructured magnitude"}
    assert zero_shares(sparse)["mix.weight"] == 0.5


def test_sparser_in_a_second_step() -> None:
    once = ep.sparsify(net(), "unstructured", ratio=0.5)
    twice = ep.sparsify(once, "unstructured", ratio=0.75)
    for name in WEIGHTS:
        assert bool((values(twice, name)[values(once, name) == 0] == 0).all())
    assert set(zero_shares(twice).values()) == {0.75}


@pytest.mark.parametrize(
    ("pattern", "ratio", "message"),
    [("2:4", 0.5, "says itself"), ("unstructured", None, "needs a ratio"), ("1x4", 1.0, "not between")],
)
def test_ratio_and_pattern_must_fit(pattern: str, ratio: float | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ep.sparsify(net(), pattern, ratio=ratio)
