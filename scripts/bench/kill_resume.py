"""Kill whole runs of the digits example at random moments, resume them, and compare with a run nobody disturbed.

    python scripts/bench/kill_resume.py --kills 10 --seed 0

The budget limits size and accuracy, which have no noise: every run of it must come to the same candidate. Each kill is
a SIGKILL to the run's process group; a run that ends before its moment comes is compared, and a new one begun. Prints
JSON; exit code 0 if nothing was lost, repeated or half-written, and every run chose the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgeprune.records import codec
from edgeprune.records.result import Result
from edgeprune.search.journal import read_trials

BUDGET = "budget: {size: 50% of dense, accuracy: {max_drop: 2pp}}\n"
EDGEPRUNE = [sys.executable, "-m", "edgeprune"]


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strategy", default="uniform")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeprune-kill-") as folder:
        report = measure(Path(folder), options.kills, random.Random(options.seed), options.strategy)
    about = {"kills": options.kills, "seed": options.seed, "strategy": options.strategy}
    print(json.dumps({**about, **report}, indent=2))
    return 0 if report["same"] and not report["faults"] else 1


def measure(folder: Path, kills: int, draw: random.Random, strategy: str) -> dict[str, Any]:
    """An undisturbed run, then runs that are killed at moments drawn from half of its length."""
    os.environ["EDGEPRUNE_LOCK"] = str(folder / "device.lock")
    project = folder / "digits"
    subprocess.run([*EDGEPRUNE, "init", str(project), "--example", "digits"], check=True, stdout=subprocess.DEVNULL)
    settings = (project / "edgeprune.yaml").read_text()
    start = settings.index("budget:")
    end = settings.index("search:")
    search = re.sub(r"strategy: \w+", f"strategy: {strategy}", settings[end:])
    (project / "edgeprune.yaml").write_text(settings[:start] + BUDGET + search)
    started = time.monotonic()
    run(project, folder / "smooth").wait()
    seconds = time.monotonic() - started
    smooth = outcome(folder / "smooth")

    moments: list[dict[str, Any]] = []
    faults: list[str] = []
    outcomes = []
    number = 0
    while len(moments) < kills:
        run_dir = folder / f"killed-{number}"
        number += 1
        ended = False
        while len(moments) < kills and not ended:
            before = trials(run_dir)
            process = run(project, run_dir)
            moment = draw.uniform(0, seconds / 2)
            try:
                process.wait(timeout=moment)
                ended = True
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                after = trials(run_dir)
                moments.append({"run": number, "after_s": round(moment, 2), "trials": len(after)})
                if after[: len(before)] != before:
                    faults.append(f"run {number}: {len(before)} trials before the kill are not those after it")
                faults += half_written(run_dir)
        if not ended and run(project, run_dir).wait() != 0:
            faults.append(f"run {number} did not end well")
        outcomes.append(outcome(run_dir))
        faults += half_written(run_dir)
        faults += [f"left behind: {path.relative_to(run_dir)}" for path in run_dir.rglob(".*")]
        shutil.rmtree(run_dir)
    return {
        "undisturbed_s": round(seconds, 1),
        "moments": moments,
        "runs": number,
        "chosen": smooth["chosen"],
        "trials": len(smooth["trials"]),
        "same": all(found == smooth for found in outcomes),
        "different": [found for found in outcomes if found != smooth],
        "faults": faults,
    }


def run(project: Path, run_dir: Path) -> subprocess.Popen[bytes]:
    """A run of the project in a process group of its own; it goes on with what is in the folder."""
    command = [*EDGEPRUNE, "run", str(project), "--resume", "--run-dir", str(run_dir)]
    with (run_dir.parent / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def trials(run_dir: Path) -> tuple[Any, ...]:
    """The finished trials, none where the run has not begun its journal."""
    return read_trials(run_dir) if (run_dir / "journal.jsonl").exists() else ()


def outcome(run_dir: Path) -> dict[str, Any]:
    """What two runs must have in common: the trials, the choice, the bytes of the file."""
    result = codec.from_json(json.loads((run_dir / "result.json").read_text()))
    if not isinstance(result, Result) or result.best is None:
        raise SystemExit(f"{run_dir}: the run chose nothing")
    return {
        "status": result.status,
        "chosen": result.best.candidate.id,
        "number": result.best.number,
        "accuracy": result.best.figures["accuracy"].value,
        "artifact": sha256(run_dir / "best" / "model.onnx"),
        "trials": [[t.number, t.stage.value, t.candidate.id, t.figures["accuracy"].value] for t in trials(run_dir)],
    }


def half_written(run_dir: Path) -> list[str]:
    """Files under their final names that are not whole."""
    found = []
    for path in run_dir.rglob("*.json"):
        if not path.name.startswith("."):
            try:
                data = json.loads(path.read_text())
            except ValueError as error:
                found.append(f"{path.relative_to(run_dir)}: {error}")
                continue
            if path.name.endswith(".manifest.json"):
                artifact = path.with_name(path.name.removesuffix(".manifest.json"))
                if not artifact.exists() or sha256(artifact) != data["sha256"]:
                    found.append(f"{artifact.relative_to(run_dir)}: not the file of its manifest")
    return found


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
