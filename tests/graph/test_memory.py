"""What pruning takes, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "prune_memory.py"


def test_pruning_a_large_model_takes_less_than_three_times_its_size() -> None:
    done = subprocess.run([sys.executable, BENCH, "--ratio", "0.1"], capture_output=True, text=True, check=True)
    row = json.loads(done.stdout)
    assert row["parameters"] > 80e6
    assert row["relative_error"] <= 1e-9
    assert row["times_the_model"] < 3
