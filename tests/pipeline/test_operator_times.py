"""Where the time of a file goes: what its figures alone would not tell."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.cli.main import run_cli
from edgeprune.errors import UsageError
from edgeprune.pipeline.operator_times import operator_times
from edgeprune.records.artifact import TensorSpec
from tests.onnx_models import chain_of_matmuls, described


def _saved(path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> Path:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "graph", tensors[:1], tensors[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_many_short_operators_are_the_profilers_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2,000 of 64 numbers each: what is short has no line, and that the profiler takes its time is told."""
    names = ["x", *(f"t{number}" for number in range(1999)), "y"]
    nodes = [helper.make_node("Sin", [a], [b]) for a, b in itertools.pairwise(names)]
    assert run_cli(["measure", str(_saved(tmp_path / "many.onnx", nodes, [])), "--operators"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("one run: p50 ")
    together = lines.index("together: Sin 100.0%")
    *alone, rest = lines[:together]
    told = re.fullmatch(r" *[\d.]+%  (\d+) operators of less than 0\.1% each", rest)
    assert told is not None
    assert int(told[1]) == 2000 - len(alone) > 1000
    assert sum(float(line.partition("%")[0]) for line in (*alone, rest)) == pytest.approx(
        100, abs=0.05 * len(alone) + 0.1
    )
    others = lines[together:]
    assert any(line.startswith("warning: all operators together take ") for line in others)


def test_a_body_is_said_to_be_in_its_whole(tmp_path: Path) -> None:
    tensor = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1, 64])
    bodies = [
        helper.make_graph([helper.make_node(operator, ["x"], ["inner"])], operator, [], [tensor])
        for operator in ("Sin", "Cos")
    ]
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=bodies[0], else_branch=bodies[1]),
    ]
    path = _saved(tmp_path / "if.onnx", nodes, [numpy_helper.from_array(np.zeros((), np.float32), "zero")])
    spec = ("float32", (1, 64))
    found = operator_times(described(path, (TensorSpec("x", *spec),), (TensorSpec("y", *spec),)), runs=20)
    assert {"ReduceSum", "Greater", "If"} < {node.op_type for node in found.nodes}
    assert [text for text in found.warnings if text.startswith("If: operators of a body are listed as well")]
    assert next(iter(found.by_type())) == max(found.by_type(), key=lambda name: found.by_type()[name])
    assert sum(found.by_type().values()) == pytest.approx(sum(node.ns for node in found.nodes))


def test_odd_names_stay_on_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("Sin", ["x"], ["y"], name="a\nb\u202e" + "c" * 200)]
    assert run_cli(["measure", str(_saved(tmp_path / "odd.onnx", nodes, [])), "--operators"]) == 0
    _, line, *_ = capsys.readouterr().out.splitlines()
    assert line.startswith("100.0%")
    assert line.endswith("Sin  a b " + "c" * 76 + " -> 1x64")


def test_what_was_worked_out_beforehand_has_no_operators(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("Sin", ["w"], ["y"])]
    weights = [numpy_helper.from_array(np.ones((1, 64), np.float32), "w")]
    assert run_cli(["measure", str(_saved(tmp_path / "folded.onnx", nodes, weights)), "--operators"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("no operator is left")


def test_no_runs_are_refused(tmp_path: Path) -> None:
    network = chain_of_matmuls(tmp_path / "chain.onnx", width=8, layers=1)
    with pytest.raises(UsageError, match="0 runs tell nothing"):
        operator_times(network, runs=0)
