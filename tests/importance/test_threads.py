"""The same inputs and seed give the same candidates and pruned weights, byte by byte, on one thread and on four.

Left to itself torch gives this network's convolutions other gradients on four threads than on one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import hashlib, json, sys
import torch
torch.set_num_threads(int(sys.argv[1]))
from torch import nn
from torch.nn import functional as F
import edgeprune as ep
from edgeprune import registry
from edgeprune.importance.base import ImportanceContext

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
    nn.Conv2d(24, 32, 3, stride=2, groups=4), nn.ReLU(),
    nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10),
).eval()
data = [(torch.randn(16, 3, 24, 24), torch.randint(0, 10, (16,))) for _ in range(2)]
captured = ep.capture(model, (data[0][0][:1],))
context = ImportanceContext(batches=lambda: data, loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]))
found = {"threads": torch.get_num_threads()}
for name in registry.names("importances"):
    scores = registry.create("importances", name).score(captured.module, captured.groups, context)
    digest = hashlib.sha256(b"".join(scores[g.name].tobytes() for g in captured.groups))
    candidate = captured.select(0.5, importance=name, compare="global", context=context)
    for key, value in sorted(captured.prune(candidate, verify=False).module.state_dict().items()):
        digest.update(key.encode() + value.numpy().tobytes())
    found[name] = [digest.hexdigest(), candidate.id]
print(json.dumps(found))
"""


def run(threads: int) -> dict[str, object]:
    environment = {key: value for key, value in os.environ.items() if key not in {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(threads)], capture_output=True, text=True, check=True, env=environment,
        cwd=Path(__file__).resolve().parents[2], timeout=120,
    )  # fmt: skip
    return json.loads(result.stdout)


def test_number_of_threads_changes_no_byte() -> None:
    one, four = run(1), run(4)
    assert (one.pop("threads"), four.pop("threads")) == (1, 4)
    assert one == four
    assert len(one) >= 10
