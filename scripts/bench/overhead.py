#!/usr/bin/env python
"""What measuring through the agent costs, and whether it tells the same as a loop by hand. Prints JSON.

    scripts/bench/overhead.py            # needs OpenSSH's server for the figures over SSH

`protocol_ms`: what a measurement takes beyond its worker processes, here and over loopback SSH (of 20, in ms): the
host's clock less the agent's. `paired`: p50 through the agent over p50 of the same loop by hand in one process.
"""

from __future__ import annotations

import argparse
import json
import statistics as standard
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgeprune.agent.bundle import agent_bytes
from edgeprune.measure.recording import Recording
from edgeprune.measure.session import Session
from edgeprune.records.artifact import Artifact
from edgeprune.records.profile import DeviceProfile, MeasurementPolicy
from edgeprune.targets.base import Target
from edgeprune.targets.local import LocalTarget
from edgeprune.targets.parse import open_target
from edgeprune.testing.sshd import Sshd, sshd_missing

WAIT_S = 600.0  # for another measurement on this machine
QUICK = DeviceProfile(
    "bench", measurement=MeasurementPolicy(warmup_s=0.05, min_s=0.05, max_s=0.5, min_runs=200, memory_workers=0)
)
BY_HAND = """
import sys, time, statistics
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feeds = {}
for spec in session.get_inputs():
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    feeds[spec.name] = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
end = time.monotonic() + 1
while time.monotonic() < end:
    session.run(None, feeds)
samples = []
end = time.monotonic() + 2
while time.monotonic() < end:
    begin = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    session.run(None, feeds)
    samples.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - begin)
print(statistics.median(samples) / 1e6)
"""


def main() -> int:
    """Size, memory, protocol, agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.onnx_models import chain_of_matmuls

    with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as folder:
        artifact = chain_of_matmuls(Path(folder) / "model.onnx", width=256, layers=6)
        report: dict[str, Any] = {"agent_bytes": len(agent_bytes()), "agent_rss_mib": agent_rss_mib(artifact)}
        report["protocol_ms"] = {"local": protocol_ms(LocalTarget(), artifact)}
        if sshd_missing():
            report["protocol_ms"]["ssh"] = sshd_missing()
        else:
            with Sshd() as server:
                report["protocol_ms"]["ssh"] = protocol_ms(open_target(server.url), artifact)
        report["paired"] = paired(artifact, options.pairs)
    print(json.dumps(report, indent=2))
    return 0


def agent_rss_mib(artifact: Artifact) -> float:
    """Resident memory of an agent that has measured."""
    import psutil

    recording = Recording()
    with Session(LocalTarget(), QUICK, wait_s=WAIT_S) as session:
        session.measure(artifact, recording=recording)
        return round(psutil.Process(int(recording.hello["pid"])).memory_info().rss / 2**20, 2)


def protocol_ms(target: Target, artifact: Artifact) -> dict[str, float]:
    """A measurement on the host's clock, less what the agent says its workers took."""
    beyond = []
    with Session(target, QUICK, wait_s=WAIT_S) as session:
        session.measure(artifact)  # sends the artifact
        for _ in range(20):
            recording = Recording()
            begin = time.perf_counter()
            session.measure(artifact, recording=recording)
            took = time.perf_counter() - begin
            beyond.append(1e3 * (took - float(recording.frames[-1]["pass_s"])))
    return {"median": round(standard.median(beyond), 1), "largest": round(max(beyond), 1)}


def paired(artifact: Artifact, pairs: int) -> dict[str, Any]:
    """The ratio of both ways, in turn."""
    profile = DeviceProfile("bench", measurement=MeasurementPolicy(memory_workers=0, max_s=2.0))
    ratios = []
    with Session(LocalTarget(), profile, wait_s=WAIT_S) as session:
        for number in range(pairs):
            both = {}
            for way in ("agent", "hand") if number % 2 else ("hand", "agent"):
                if way == "agent":
                    latency = session.measure(artifact).latency
                    both[way] = float("nan") if latency is None else latency.percentile_ms["p50"]
                else:
                    command = [sys.executable, "-c", BY_HAND, str(artifact.path)]
                    both[way] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            ratios.append(both["agent"] / both["hand"])
    return {"median_ratio": round(standard.median(ratios), 4), "ratios": [round(ratio, 4) for ratio in sorted(ratios)]}


if __name__ == "__main__":
    sys.exit(main())
