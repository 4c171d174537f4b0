"""A device whose interpreter is not the agent but something hostile, through the real command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.onnx_models import chain_of_matmuls

# An "interpreter" that says hello as the agent would, and answers a request with what the test put into `answer`.
FAKE = """#!{python} -I
import hashlib, json, sys
say = lambda frame: (sys.stdout.write(frame if isinstance(frame, str) else json.dumps(frame)), print(flush=True))
file = [name for name in sys.argv if name.endswith(".pyz")][0]
digest = hashlib.sha256(open(file, "rb").read()).hexdigest()
say({{"type": "hello", "edgeprune_agent": 1, "sha256": digest, "machine": {{"arch": {arch!r}}}}})
for line in sys.stdin:
    request = json.loads(line)
    if request["request"] == "bye":
        break
    if "id" in request:
        for frame in json.load(open({answer!r})):
            if isinstance(frame, dict):
                frame["id"] = request["id"]
            say(frame)
"""
OK = {
    "type": "result",
    "outcome": "OK",
    "latency": {"runtime": "../../x", "version": "1", "runs": 2, "warmup_runs": 1, "converged": True},
}


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (["{" + "x" * 10_000_000], "a line of more than"),
        (["Segmentation fault"], "garbled"),
        ([{"type": "samples", "ns": [-1, 5]}, OK], "samples.ns"),
        ([{"type": "samples", "ns": [1, 5, 7]}, OK], "3 of 2 samples arrived"),
        ([{**OK, "latency": 7}], "latency"),
        ([{"type": "file", "name": "../../../evil", "data": "eA=="}], "unknown frame 'file'"),
        ([OK], "0 of 2 samples arrived"),
        ([{"type": "result", "outcome": "../../OK"}], "no outcome"),
    ],
)
def test_a_hostile_agent_ends_as_lost_and_writes_nothing(tmp_path: Path, frames: list[object], text: str) -> None:
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps(frames))
    python = tmp_path / "python"
    python.write_text(FAKE.format(python=sys.executable, answer=str(answer), arch=os.uname().machine))
    python.chmod(0o755)
    model = chain_of_matmuls(tmp_path / "m.onnx", width=8, layers=1).path
    work, temporary = tmp_path / "work", tmp_path / "tmp"
    for folder in (work, temporary):
        folder.mkdir()
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    secret = "hunter2-" + "s" * 20
    done = subprocess.run(
        [sys.executable, "-m", "edgeprune", "-vv", "measure", str(model), "--target", f"local://?python={python}"],
        cwd=work,
        env={**os.environ, "TMPDIR": str(temporary), "LAB_PASSWORD": secret, "EDGEPRUNE_LOCK": str(tmp_path / "lock")},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 3, said
    assert "LOST" in said
    assert text in said
    assert "Traceback" not in said
    assert secret not in said
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
