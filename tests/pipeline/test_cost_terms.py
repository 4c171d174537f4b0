"""The cost model against the pruned networks themselves: what is linear in it must be exact."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import edgeprune
from edgeprune.errors import DamagedError
from edgeprune.graph.captured import Captured
from edgeprune.graph.schedule import schedule
from edgeprune.graph.shapes import inner_groups, operator_shapes, operators_at
from edgeprune.pipeline import cost_terms, size_terms
from edgeprune.pipeline.costs import cost_model, kept_timings
from edgeprune.pipeline.planning import thinned
from edgeprune.pipeline.signatures import signature_of
from edgeprune.pipeline.space import search_space
from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.operators import ConvSignature, OperatorSignature, OperatorTiming
from edgeprune.search.base import BlockSpace, SearchSpace
from edgeprune.search.calibration import calibrated
from edgeprune.search.costs import MetricModel
from edgeprune.search.sampling import random_candidates


class Mixed(nn.Module):
    """A depthwise and a padded shortcut, a concatenation, a residual block and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.side = nn.Conv2d(16, 24, 1)
        self.after = nn.Conv2d(40, 32, 3, stride=2)
        self.block = nn.Sequential(nn.Conv2d(32, 16, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1))
        self.wide = nn.Conv2d(32, 48, 3, padding=1)
        self.head = nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = torch.cat([self.depthwise(x), self.side(x)], 1)
        x = self.after(x)
        x = functional.relu(x + self.block(x))
        x = functional.relu(self.wide(x) + functional.pad(x, (0, 0, 0, 0, 8, 8)))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def captured() -> Captured:
    torch.manual_seed(0)
    return edgeprune.capture(Mixed().eval(), (torch.randn(2, 3, 12, 12),))


@pytest.fixture(scope="module")
def space(captured: Captured) -> SearchSpace:
    scores = {group.name: np.arange(1.0, group.units + 1) for group in captured.groups}
    found = search_space(captured, scores, round_to=8, min_width=8)
    blocks = tuple(BlockSpace(name, 0.1, groups) for name, groups in inner_groups(captured).items())
    return SearchSpace(found.groups, found.estimate, blocks)


def _ns(signature: OperatorSignature) -> float:
    """A time that nothing but the very signature tells."""
    if signature == cost_terms.NOTHING:
        return 500.0
    return 1000.0 + zlib.crc32(signature.key.encode()) % 100_000


def _timer(signatures: Sequence[OperatorSignature]) -> dict[str, OperatorTiming]:
    return {signature.key: OperatorTiming(kernel_ns=_ns(signature), run_ns=1e9) for signature in signatures}


def test_contractions_cost_what_was_timed_at_every_choice(captured: Captured, space: SearchSpace) -> None:
    assert {block.name for block in space.blocks} == {"block"}
    shapes = operator_shapes(captured)
    found = cost_terms.layers(shapes, space)
    terms, sums = cost_terms.latency_terms(shapes, found, _timer(cost_terms.wanted(found)), space)
    contractions = ("conv", "depthwise", "linear")
    metric = MetricModel("latency.p50", tuple(t for t in terms if t.kind in contractions), sums=sums)
    assert {sum(part[1] > 0 for part in total.parts) for total in sums} >= {2}  # of the concatenation, of the padding
    for candidate in random_candidates(space, 25, seed=0, drop_share=0.4):
        kept = {group: len(units) for group, units in candidate.kept.items()}
        signatures = [
            signature_of(concrete)
            for concrete in operators_at(shapes, kept, candidate.dropped_blocks).values()
            if concrete.kind in contractions
        ]
        assert len(signatures) == (8 if not candidate.dropped_blocks else 6)
        wanted = sum(_ns(signature) - 500.0 for signature in signatures if signature is not None) * 1e-6
        assert metric.predict(candidate) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("idle_ns", "left_ns"), [(2500, 7500), (12_000, 0)])
def test_what_an_operator_of_nothing_takes_is_no_operators_own(
    captured: Captured, space: SearchSpace, idle_ns: float, left_ns: float
) -> None:
    """The call of a model, and the profiler: each timing has them, a network of many operators once."""
    shapes = operator_shapes(captured)
    found = cost_terms.layers(shapes, space)
    timings = {signature.key: OperatorTiming(kernel_ns=10_000, run_ns=1e9) for signature in cost_terms.wanted(found)}
    assert cost_terms.NOTHING.key in timings
    timings[cost_terms.NOTHING.key] = OperatorTiming(kernel_ns=idle_ns, run_ns=1e9)
    terms, _ = cost_terms.latency_terms(shapes, found, timings, space)
    timed = [term for term in terms if term.name in {layer.name for layer in found}]
    assert len(timed) == 8
    for term in timed:
        assert term.table == pytest.approx(np.full(term.table.shape, left_ns * 1e-6))


class Wide(nn.Module):
    """Two convolutions of their own shapes over groups of sixteen widths."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 64, 1)
        self.layers = nn.Sequential(nn.Conv2d(64, 128, 1), nn.ReLU(), nn.Conv2d(128, 64, 3))
        self.head = nn.Conv2d(64, 10, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.first(x)).relu())  # type: ignore[no-any-return]


def _by_blocks(signature: OperatorSignature) -> OperatorTiming:
    """A kernel that works on blocks of 32 inputs and 16 outputs."""
    if not isinstance(signature, ConvSignature):
        return OperatorTiming(kernel_ns=500.0)
    blocks = -(-signature.in_channels // 32) * -(-signature.out_channels // 16)
    return OperatorTiming(kernel_ns=500.0 + 900.0 * blocks)


@pytest.mark.parametrize(("most", "asked"), [(1000, 2 * 16 * 16), (400, 2 * 87)])
def test_too_many_pairs_of_widths_are_timed_along_lines(monkeypatch: pytest.MonkeyPatch, most: int, asked: int) -> None:
    """Either way the stairs are known: of sixteen times sixteen networks each costs what its operators take."""
    monkeypatch.setattr(cost_terms, "_MOST_TIMED", most)
    captured = edgeprune.capture(Wide().eval(), (torch.randn(1, 3, 8, 8),))
    scores = {group.name: np.arange(1.0, group.units + 1) for group in captured.groups}
    space = search_space(captured, scores, round_to=4, min_width=4)
    space = replace(space, groups=tuple(thinned(group) for group in space.groups))
    assert [len(group.widths) for group in space.groups] == [16, 16, 16]
    shapes = operator_shapes(captured)
    found = cost_terms.layers(shapes, space)
    wanted = cost_terms.wanted(found)
    assert len(wanted) == asked + 16 + 16 + 1  # from the image, to the classes, and of nothing
    timings = {signature.key: _by_blocks(signature) for signature in wanted}
    terms, sums = cost_terms.latency_terms(shapes, found, timings, space)
    metric = MetricModel("latency.p50", tuple(term for term in terms if term.kind == "conv"), sums=sums)
    for candidate in random_candidates(space, 100, seed=0):
        kept = {group: len(units) for group, units in candidate.kept.items()}
        signatures = [signature_of(shape) for shape in operators_at(shapes, kept, ()).values()]
        convolutions = [signature for signature in signatures if isinstance(signature, ConvSignature)]
        assert len(convolutions) == 4
        truth = sum((_by_blocks(signature).ns or 0.0) - 500.0 for signature in convolutions) * 1e-6
        assert metric.predict(candidate) == pytest.approx(truth, rel=0.02)


def test_a_layer_that_could_not_be_timed_costs_by_its_elements(captured: Captured, space: SearchSpace) -> None:
    shapes = operator_shapes(captured)
    found = cost_terms.layers(shapes, space)
    failed = {key: OperatorTiming(error="no kernel") for key in _timer(cost_terms.wanted(found))}
    terms, _ = cost_terms.latency_terms(shapes, found, failed, space)
    after = next(shape for shape in shapes if shape.layer == "after")
    (term,) = (term for term in terms if term.name.startswith(f"{after.node}:") and term.kind == "conv")
    assert term.groups == ("after",)
    assert term.table[-1] == pytest.approx(32 * 5 * 5 * 2e-7)


def test_size_is_that_of_the_files(captured: Captured, space: SearchSpace, tmp_path: Path) -> None:
    dense = edgeprune.export(captured, tmp_path / "dense.onnx")
    model = size_terms.size_model(operator_shapes(captured), space, dense.size_bytes)
    assert model.predict(Candidate()) == pytest.approx(dense.size_bytes)
    dropping = Candidate(dropped_blocks=("block",))
    for number, candidate in enumerate([*random_candidates(space, 1, seed=1), dropping]):
        artifact = edgeprune.export(captured.prune(candidate), tmp_path / f"{number}.onnx")
        # An operator's text is shared out evenly: names and attributes are not of one length.
        slack = 250 if candidate.dropped_blocks else 60
        assert abs(model.predict(candidate) - artifact.size_bytes) < slack


def test_memory_is_weights_and_the_largest_step(captured: Captured, space: SearchSpace) -> None:
    shapes = operator_shapes(captured)
    model = size_terms.memory_model(captured, shapes, space, 2e6)
    assert model.predict(Candidate()) == pytest.approx(2e6)
    plan = schedule(captured)
    dense_bytes = size_terms.size_model(shapes, space, 0.0)
    for candidate in random_candidates(space, 10, seed=2):
        kept = {group: len(units) for group, units in candidate.kept.items()}
        less = 2.5 * (dense_bytes.predict(Candidate()) - dense_bytes.predict(candidate)) + plan.peak() - plan.peak(kept)
        assert model.predict(candidate) == pytest.approx(2e6 - less)
    small = size_terms.memory_model(captured, shapes, space, 1000.0)
    assert small.predict(Candidate()) == pytest.approx(1000.0)
    assert small.offset == 0.0


def test_every_limited_figure_has_a_model_that_is_right_for_the_dense_network(
    captured: Captured, space: SearchSpace
) -> None:
    budget = Budget.parse(
        {
            "latency": {"p50": "1ms", "p95": "2ms"},
            "energy": "3mJ",
            "size": "1MB",
            "peak_memory": "9MB",
            "accuracy": {"max_drop": "1pp"},
        }
    )
    figures = {
        "latency.p50": Figure(0.8),
        "latency.p95": Figure(1.1),
        "energy": Figure(None, missing="no sensor"),
        "size": Figure(90_000.0),
        "peak_memory": Figure(5e6),
    }
    costs = cost_model(captured, space, budget, figures, _timer)
    assert set(costs.metrics) == {"latency.p50", "latency.p95", "size", "peak_memory"}
    assert costs.predict(Candidate()) == pytest.approx(
        {"latency.p50": 0.8, "latency.p95": 1.1, "size": 90_000.0, "peak_memory": 5e6}
    )
    only_size = cost_model(captured, space, Budget.parse({"size": "1MB"}), figures, _never)
    assert set(only_size.metrics) == {"size"}


def test_conversions_of_layouts_cost_nothing_until_whole_models_show_them(
    captured: Captured, space: SearchSpace
) -> None:
    budget = Budget.parse({"latency": {"p50": "1ms"}})
    found = cost_model(captured, space, budget, {"latency.p50": Figure(0.8)}, _timer).metrics["latency.p50"]
    misaligned = {kind for kind in found.weights if kind.startswith(cost_terms.MISALIGNED)}
    assert misaligned == {"misaligned16", "misaligned32"}  # widths here are multiples of 8
    factors = {weight for kind, weight in found.weights.items() if kind not in misaligned}
    assert len(factors) == 1
    assert {found.weights[kind] for kind in misaligned} == {0.0}
    (factor,) = factors
    truth = replace(found, weights={**found.weights, "misaligned16": 40 * factor})
    *seen, last = random_candidates(space, 21, seed=3)
    assert any(abs(truth.predict(one) / found.predict(one) - 1) > 0.1 for one in seen)
    learned = calibrated(found, [(one, truth.predict(one)) for one in seen], 0.8)
    assert learned.predict(last) == pytest.approx(truth.predict(last), rel=0.02)


def _never(signatures: Sequence[OperatorSignature]) -> dict[str, OperatorTiming]:
    raise AssertionError(f"asked for {len(signatures)} operators")


def test_what_was_timed_is_kept_with_the_run(captured: Captured, space: SearchSpace, tmp_path: Path) -> None:
    wanted = cost_terms.wanted(cost_terms.layers(operator_shapes(captured), space))
    path = tmp_path / "costs.json"
    first = kept_timings(path, _timer, reuse=False)(wanted[:5])
    asked: list[str] = []

    def rest(signatures: Sequence[OperatorSignature]) -> dict[str, OperatorTiming]:
        asked.extend(signature.key for signature in signatures)
        return _timer(signatures)

    known = kept_timings(path, rest, reuse=True)(wanted)
    assert asked == [signature.key for signature in wanted[5:]]
    assert {key: known[key].ns for key in first} == {key: timing.ns for key, timing in first.items()}
    again = kept_timings(path, _never, reuse=True)(wanted)
    assert {key: timing.ns for key, timing in again.items()} == {s.key: _ns(s) for s in wanted}
    path.write_text("{}")
    with pytest.raises(DamagedError, match="cannot read the costs"):
        kept_timings(path, _never, reuse=True)(wanted)


class Hidden(nn.Module):
    """Two stages of one convolution: the second is between a width that stays dense and one of sixteen."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 64, 1), *(nn.Conv2d(64, 64, 1) for _ in range(3)), nn.Conv2d(64, 10, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


def test_pairs_of_widths_are_counted_where_a_like_layer_has_one_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_terms, "_MOST_TIMED", 200)
    captured = edgeprune.capture(Hidden().eval(), (torch.randn(1, 3, 8, 8),))
    scores = {group.name: np.arange(1.0, group.units + 1) for group in captured.groups}
    space = search_space(captured, scores, round_to=4, min_width=4)
    space = replace(space, groups=space.groups[:3])  # the last but one convolution has its inputs alone
    found = cost_terms.layers(operator_shapes(captured), space)
    assert [len(layer.groups) for layer in found] == [1, 2, 2, 1, 0]
    # 3x64 and 64x10 and all others on lines: 87 of 256; the last convolution's 16 are among them.
    assert len(cost_terms.wanted(found)) == 1 + 16 + 87 + 1
