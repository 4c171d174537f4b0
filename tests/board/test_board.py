"""A bare board without network: equipped, measured on, searched on, and left as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgeprune.agent.bootstrap import Bootstrap
from edgeprune.targets.parse import open_target
from tests.board.conftest import VERSION
from tests.board.emulated import EmulatedBoard
from tests.pipeline.small_project import write_project

Cli = Callable[..., tuple[int, str, str]]

PROJECT = """
task: task.py:Small
device: {profile: emulated.yaml, target: TARGET}
budget: {peak_memory: 64MiB, size: 75% of dense, accuracy: {max_drop: 5pp}}
search: {strategy: uniform, round_to: 16, min_width: 32, max_trials: 6}
recovery: {epochs: 2}
"""


def test_a_bare_board_is_equipped_without_network(board: EmulatedBoard, wheelhouse: Path, cli: Cli) -> None:
    if board.equipped:
        pytest.skip("the board is equipped already")
    assert board.sh("python3 -c 'import numpy' 2>&1 || true; command -v pip || true", "pi").endswith("'numpy'\n")
    offline = "import socket; socket.create_connection(('10.0.2.3', 53), 2)"
    assert "Error" in board.sh(f'python3 -c "{offline}" 2>&1 || true', "pi")

    code, out, _ = cli("device", "check", board.url(), "--json")
    findings = {finding["name"]: finding for finding in json.loads(out)["findings"]}
    assert (code, json.loads(out)["healthy"]) == (3, False)
    assert [name for name, finding in findings.items() if finding["state"] == "failed"] == ["runtime"], out
    assert findings["runtime"]["fix"].startswith("edgeprune device setup ssh://pi@127.0.0.1:")
    assert "No module named 'numpy'" in findings["runtime"]["message"]
    assert board.left_behind() == []
    assert board.listing() == board.before  # looking leaves nothing

    code, out, err = cli("device", "setup", board.url(), "--wheelhouse", wheelhouse, "--json")
    assert code == 0, err
    board.equipped = True
    done = json.loads(out)
    assert (done["runtime"], done["version"], done["installed_now"]) == ("onnxruntime", VERSION, True)
    assert done["board"] == "aarch64 (64-bit userland), glibc 2.36, cpython 3.11"
    assert done["golden_error"] <= 1e-4
    assert "sending" in err
    assert board.sh("stat -c '%a %U' /home/pi/.cache/edgeprune; ls /home/pi/.cache/edgeprune /home/pi/.cache") == (
        "700 pi\n/home/pi/.cache:\nedgeprune\n\n/home/pi/.cache/edgeprune:\nsite-cpython-311\n"
    )
    code, out, err = cli("device", "setup", board.url(), "--wheelhouse", wheelhouse, "--json")
    assert (code, json.loads(out)["installed_now"], "sending" in err) == (0, False, False)


def test_the_runtime_is_found_and_healthy(equipped: EmulatedBoard, cli: Cli) -> None:
    code, out, _ = cli("device", "check", equipped.url(), "--json")
    findings = json.loads(out)["findings"]
    assert code == 0
    names = [finding["name"] for finding in findings]
    assert names == ["reachable", "lock", "runtime", "space", "clock", "heat", "swap", "load"]
    assert {finding["state"] for finding in findings if finding["name"] != "load"} == {"ok"}


def test_a_file_is_measured_over_ssh(equipped: EmulatedBoard, cli: Cli, profile: Path, small_onnx: Path) -> None:
    code, out, err = cli("measure", small_onnx, "--target", equipped.url(), "--profile", profile, "--json")
    assert code == 0, err
    measured = json.loads(out)
    measured = measured.get("measurement", measured)
    assert measured["outcome"] == "OK"
    assert measured["latency"]["samples"] >= 20
    assert measured["memory"]["process_peak_bytes"] > 10 << 20
    provenance = measured["provenance"]
    assert provenance["runtime_version"] == VERSION
    assert (provenance["machine"]["arch"], provenance["machine"]["cpu"]) == ("aarch64", "0xd08")  # a Cortex-A72
    assert equipped.left_behind() == []


def test_a_run_with_a_memory_budget(equipped: EmulatedBoard, cli: Cli, profile: Path, tmp_path: Path) -> None:
    project = write_project(tmp_path, PROJECT.replace("TARGET", f'"{equipped.url()}"'))
    (tmp_path / "emulated.yaml").write_text(profile.read_text())
    code, out, err = cli("run", project, "--run-dir", tmp_path / "run", "--json")
    assert code == 0, err
    result = json.loads(out)
    result = result.get("result", result)
    assert result["status"] == "accepted"
    model = (tmp_path / "run/best/model.onnx").read_bytes()
    x = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    (expected,) = session.run(None, {name: x})
    with open_target(equipped.url()) as target:
        inputs = {name: {"values": x.ravel().tolist(), "shape": list(x.shape)}}
        answer = Bootstrap(target).run_golden(model, inputs)
    assert np.abs(np.array(answer["outputs"][0]) - expected.ravel()).max() <= 1e-4 * max(1.0, np.abs(expected).max())
    assert equipped.left_behind() == []
