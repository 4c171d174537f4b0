"""explain, on networks whose groups and blocks are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeprune.cli.main import run_cli
from edgeprune.graph.capture import capture
from edgeprune.graph.storage import save
from tests.graph.models import build


def test_explain_says_what_is_prunable_and_why_the_rest_is_not(
    saved_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["explain", str(saved_model), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    # 6 x 32 + 32 and 32 x 4 of 356; the last bias (4) is frozen
    assert report["params"] == 356
    assert report["reachable_share"]["groups"] == pytest.approx(352 / 356)
    (group,) = report["groups"]
    assert (group["name"], group["units"], group["params_share"]) == ("0", 32, pytest.approx(352 / 356))
    assert group["members"][2] == {"parameter": "2.weight", "dim": 1, "role": "consumer"}
    assert {g["name"]: g["reason"] for g in report["frozen"]}["2"] == "is the model's output"
    assert report["blocks"] == []
    assert run_cli(["explain", str(saved_model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "356 parameters; channel groups reach 98.9% of them, with blocks 98.9%"
    assert "    2.weight dim 1 (consumer)" in lines
    assert "frozen 2: 4 units: is the model's output" in lines


def test_explain_lists_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captured = capture(*build("resnet"))
    save(captured, tmp_path / "model.pt2")
    assert run_cli(["explain", str(tmp_path / "model.pt2"), "--json"]) == 0
    blocks = json.loads(capsys.readouterr().out)["blocks"]
    assert [(b["name"], b["params"]) for b in blocks] == [("blocks.0", 1184), ("blocks.2", 4672)]
    assert blocks[0]["macs_share"] == pytest.approx(captured.blocks[0].macs_share)


def test_prune_drops_the_blocks_that_explain_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, small = tmp_path / "model.pt2", tmp_path / "small.pt2"
    save(capture(*build("resnet")), model)
    command = ["prune", str(model), "-o", str(small), "--ratio", "0", "--drop", "blocks.2", "--json"]
    assert run_cli(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["params"]["before"] - report["params"]["after"] == 4672
    assert report["dropped_blocks"] == ["blocks.2"]
    assert run_cli(["verify", str(model), str(small)]) == 0
    assert run_cli([*command[:-2], "blocks.1"]) == 2
    assert "no block is named 'blocks.1'" in capsys.readouterr().err


def test_prune_warns_where_nothing_was_removed(
    saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["prune", str(saved_model), "-o", str(tmp_path / "small.pt2"), "--ratio", "0.3"]
    assert run_cli([*command, "--round-to", "100"]) == 0
    assert "nothing was removed at the ratio 0.3: --round-to kept every channel" in capsys.readouterr().err
    assert run_cli(command) == 0
    assert "nothing was removed" not in capsys.readouterr().err
