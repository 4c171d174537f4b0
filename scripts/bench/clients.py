"""Many clients want one device at the same time: who measures, who is told BUSY, who waits, what is left.

Usage: python scripts/bench/clients.py [--clients 100] [--wait-s 0] [--ssh] [--hold-s 2]. Prints JSON.

Each client is a process of its own that opens a session; who has the device holds it for `--hold-s`. Without waiting
one measures and all others are BUSY; with a long wait all get their turn, one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgeprune.testing.sshd import Sshd

# A client needs neither a model nor a runtime of its own: it starts the agent as a session does, and holds the device.
CLIENT = """
import json, sys, tempfile, time
from pathlib import Path
from edgeprune.agent.bundle import write_agent
from edgeprune.agent.client import AgentClient
from edgeprune.errors import CannotMeasureError
from edgeprune.targets.parse import open_target
url, wait_s, hold_s = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
said = {"outcome": "OK", "begin": 0.0, "end": 0.0, "queued": 0.0}
def on_wait(owner):
    said["queued"] = said["queued"] or time.time()
try:
    with open_target(url) as target, tempfile.TemporaryDirectory() as folder:
        file = write_agent(Path(folder))
        agent = target.upload(file, file.name)
        argv = [target.python, "-B", agent, "--folder", target.folder, "--wait-s", str(wait_s)]
        client = AgentClient(target.start(argv), target.name)
        try:
            client.hello(300 + wait_s, on_wait)
            said["begin"] = time.time()
            client.request("probe", timeout_s=60)
            time.sleep(hold_s)
            said["end"] = time.time()
        finally:
            client.close()
except CannotMeasureError as error:
    said["outcome"] = error.outcome
print(json.dumps(said))
"""


def with_lock(lock: Path) -> list[str]:
    """Processes, by id, that run with this lock: clients, agents and workers."""
    mark = f"EDGEPRUNE_LOCK={lock}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
    return found


def clients(count: int, *, wait_s: float = 0.0, hold_s: float = 2.0, ssh: bool = False) -> dict[str, Any]:
    """What became of so many clients that were started together."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = {"EDGEPRUNE_LOCK": str(folder / "lock"), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
        url = stack.enter_context(Sshd(environment)).url if ssh else "local"
        started = time.monotonic()
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", CLIENT, url, str(wait_s), str(hold_s)],
                stdout=subprocess.PIPE,
                env={**os.environ, **environment},
            )
            for _ in range(count)
        ]
        try:
            said = [json.loads(process.communicate(timeout=900)[0] or '{"outcome": "none"}') for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        seconds = time.monotonic() - started
        for _ in range(50):
            left = with_lock(folder / "lock")
            if not left:
                break
            time.sleep(0.2)
        turns = sorted((one for one in said if one.get("begin")), key=lambda one: float(one["begin"]))
        overlaps = sum(second["begin"] < first["end"] for first, second in pairwise(turns))
        return {
            "clients": count,
            "target": "ssh" if ssh else "local",
            "wait_s": wait_s,
            "outcomes": dict(Counter(one["outcome"] for one in said)),
            "seconds": round(seconds, 1),
            "turns": len(turns),
            "overlapping_turns": overlaps,
            "processes_left": left,
            "files_left": sorted(path.name for path in folder.iterdir()),
        }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--wait-s", type=float, default=0.0)
    parser.add_argument("--hold-s", type=float, default=2.0)
    parser.add_argument("--ssh", action="store_true")
    options = parser.parse_args()
    found = clients(options.clients, wait_s=options.wait_s, hold_s=options.hold_s, ssh=options.ssh)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
