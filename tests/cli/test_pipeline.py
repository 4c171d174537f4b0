"""The steps of the workflow in the README, as its shell runs them: green, red, and without the device."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeprune.records.gate_policy_reader import read_policy

README = Path(__file__).parents[2] / "README.md"

BUDGET = """
budget:
  latency: {p95: {warn: 1ns, error: 10s}}
  size: 50% of dense
  accuracy: {max_drop: 50pp}
regression: {latency.p95: +100000%, size: +2%, accuracy: -0.5pp}
"""


def yaml_blocks() -> list[str]:
    section = README.read_text().split("\n## In a pipeline\n")[1].split("\n## ")[0]
    return re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)


def steps() -> dict[str, str]:
    """What the workflow's steps run, by name."""
    workflow = next(block for block in yaml_blocks() if "jobs:" in block)
    (job,) = yaml.safe_load(workflow)["jobs"].values()
    return {step["name"]: step["run"] for step in job["steps"] if "run" in step}


@pytest.fixture(scope="module")
def repository(accepted_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with an accepted run, its budget, and the figures of the main branch, written as the README says."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(accepted_run, folder / "runs/accepted")
    (folder / "ci").mkdir()
    (folder / "ci/budget.yaml").write_text(BUDGET)
    done = shell(folder, "edgeprune check runs/accepted --budget ci/budget.yaml --json > ci/main.json")
    assert done.returncode == 0, done.stderr
    return folder


def shell(folder: Path, script: str, target: str = "local") -> subprocess.CompletedProcess[str]:
    """As the service runs a step: bash -e, with the summary's file in the environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TARGET": target, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    return subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy for one run of the pipeline."""
    shutil.copytree(repository, tmp_path / "checkout")
    return tmp_path / "checkout"


def reports(folder: Path) -> tuple[ET.Element, str, list[dict[str, Any]], dict[str, Any]]:
    suite = ET.parse(folder / "gate.xml").find("testsuite")
    assert suite is not None
    figures = json.loads((folder / "figures.json").read_text())
    return suite, (folder / "summary.md").read_text(), figures, json.loads((folder / "gate.json").read_text())


def test_the_budget_of_the_readme_is_one(tmp_path: Path) -> None:
    block = next(block for block in yaml_blocks() if "budget:" in block)
    (tmp_path / "budget.yaml").write_text(block)
    policy = read_policy(tmp_path / "budget.yaml")
    assert {limit.metric for limit in policy.budget["error"].limits} == {"latency.p95", "size", "accuracy.max_drop"}
    assert {limit.figure for limit in policy.regression["error"].limits} == {"latency.p95", "size", "accuracy"}


def test_green_within_the_budget(checkout: Path) -> None:
    (checkout / "summary.md").write_text("from a step before\n")
    for name, script in steps().items():
        done = shell(checkout, script)
        assert done.returncode == 0, f"{name}: {done.stderr}"
    suite, summary, figures, gate = reports(checkout)
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("0", "0", "1")
    assert summary.startswith("from a step before\n### edgeprune check: PASSED: 6 limits met, 1 warning\n")
    size = (checkout / "runs/accepted/best/model.onnx").stat().st_size
    assert {entry["name"]: entry["value"] for entry in figures}["size"] == size
    assert gate["status"] == "passed"
    assert gate["baseline"]["sha256"] == gate["reading"]["sha256"]


def test_red_with_the_metric_its_limit_its_value_and_what_is_left(checkout: Path) -> None:
    budget = checkout / "ci/budget.yaml"
    budget.write_text(BUDGET.replace("size: 50% of dense", "size: 20kB"))
    done = shell(checkout, steps()["gate"])
    assert done.returncode == 1
    size = (checkout / "runs/accepted/best/model.onnx").stat().st_size
    message = f"size 20kB: {size / 1000:.2f} kB is over 20.00 kB, headroom {(1 - size / 20_000) * 100:+.1f} %"
    assert f"VIOLATED: {message}" in done.stderr.splitlines()
    suite, summary, _, gate = reports(checkout)
    (failure,) = suite.iter("failure")
    assert failure.get("message") == message
    assert f"- {message}\n" in summary
    assert gate["exit_code"] == 1


def test_without_the_device_nothing_passes(checkout: Path) -> None:
    budget = checkout / "ci/budget.yaml"
    budget.write_text(BUDGET.replace("size: 50% of dense", "size: 1MB"))
    with socket.socket() as bound:  # the port is taken, and nobody listens
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        done = shell(checkout, steps()["gate"], target=f"ssh://nobody@127.0.0.1:{port}")
    assert done.returncode == 3
    assert any(line.startswith("NOT MEASURED: ") and str(port) in line for line in done.stderr.splitlines())
    suite, summary, figures, gate = reports(checkout)
    assert {case.get("name") for case in suite.iter("testcase") if case.find("error") is not None} == {
        f"measured on ssh://nobody@127.0.0.1:{port}",
        "latency.p95 10s",
        "latency.p95 +100000%",
    }
    assert summary.startswith("### edgeprune check: NOT MEASURED: ")
    assert [entry["name"] for entry in figures] == ["error rate", "size"]
    assert gate["exit_code"] == 3
