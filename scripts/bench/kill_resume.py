"""Kill runs of the digits example, or what they need, at random moments; compare with a run nobody disturbed.

    python scripts/bench/kill_resume.py --kills 20 --strategy milp --of driver worker link
    python scripts/bench/kill_resume.py --kills 10 --strategy milp --of driver node     # needs edgeprune[ray]

driver   the run's process group, which is then resumed
worker   a process that builds candidates; the run must go on
link     the SSH server's processes of the run's connection to the device; the run goes on, or is resumed
node     a node of a real Ray cluster of three, with its workers, which a new one replaces; the run must go on

The budget limits size and accuracy, which have no noise: every run must come to the same trials, the same candidate
and the same bytes. A run that ends before its moment comes is compared, and a new one begun. Every kill is a SIGKILL.
Prints JSON; exit code 0 if nothing was lost, repeated or half-written, and every run chose the same.
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from edgeprune.records import codec
from edgeprune.records.result import Result
from edgeprune.search.journal import read_trials
from edgeprune.testing.sshd import Sshd

BUDGET = "budget: {size: 50% of dense, accuracy: {max_drop: 2pp}}\n"
EDGEPRUNE = [sys.executable, "-m", "edgeprune"]


KINDS = ("driver", "worker", "link", "node")
TRIES = 3  # to end a run whose link was broken
_NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strategy", default="uniform")
    parser.add_argument("--of", nargs="+", choices=KINDS, default=["driver"], metavar="KIND", help="/".join(KINDS))
    options = parser.parse_args()
    draw = random.Random(options.seed)
    # A short path: Ray's sockets lie there.
    with tempfile.TemporaryDirectory(prefix="edgeprune-kill-") as folder, ExitStack() as open_things:
        os.environ["EDGEPRUNE_LOCK"] = f"{folder}/device.lock"
        linked = "link" in options.of
        server = open_things.enter_context(Sshd({"EDGEPRUNE_LOCK": f"{folder}/device.lock"})) if linked else None
        cluster = open_things.enter_context(ray_cluster(f"{folder}/ray")) if "node" in options.of else None
        bench = Bench(Path(folder), tuple(options.of), draw, server, cluster)
        report = bench.measure(options.kills, options.strategy)
    about = {"kills": options.kills, "of": options.of, "seed": options.seed, "strategy": options.strategy}
    print(json.dumps({**about, **report}, indent=2))
    return 0 if report["same"] and not report["faults"] else 1


@contextmanager
def ray_cluster(folder: str) -> Iterator[Any]:
    """A head that does no work, and two nodes that build."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", TMPDIR=folder)  # where the nodes write
    Path(folder).mkdir()
    from ray.cluster_utils import Cluster

    health = {"initial_delay_ms": 0, "period_ms": 500, "timeout_ms": 5000, "failure_threshold": 3}
    told = {f"health_check_{name}": value for name, value in health.items()}
    head = {**_NODE, "num_cpus": 0, "include_dashboard": False, "_system_config": told}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(**_NODE)
        yield cluster
    finally:
        cluster.shutdown()


@dataclass
class Bench:
    """Runs in one folder, and what there is to be killed."""

    folder: Path
    kinds: tuple[str, ...]
    draw: random.Random
    server: Sshd | None  # where links are killed
    cluster: Any
    moments: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    resumed: int = 0

    def measure(self, kills: int, strategy: str) -> dict[str, Any]:
        """An undisturbed run, then runs that are disturbed at moments drawn from half of its length."""
        project = self.project(strategy)
        started = time.monotonic()
        if self.run(project, self.folder / "smooth").wait() != 0:
            raise SystemExit((self.folder / "log").read_text()[-2000:])
        seconds = time.monotonic() - started
        smooth = outcome(self.folder / "smooth")
        outcomes: list[dict[str, Any]] = []
        while len(self.moments) < kills:
            run_dir = self.folder / f"killed-{len(outcomes) + 1}"
            self.disturbed(project, run_dir, kills, seconds / 2)
            outcomes.append(outcome(run_dir))
            self.faults += half_written(run_dir)
            self.faults += [f"left behind: {path.relative_to(run_dir)}" for path in run_dir.rglob(".*")]
            shutil.rmtree(run_dir)
        return {
            "undisturbed_s": round(seconds, 1),
            "moments": self.moments,
            "runs": len(outcomes),
            "resumed": self.resumed,
            "chosen": smooth["chosen"],
            "trials": len(smooth["trials"]),
            "same": all(found == smooth for found in outcomes),
            "different": [found for found in outcomes if found != smooth],
            "faults": self.faults,
        }

    def project(self, strategy: str) -> Path:
        """The digits example with what is to be killed in it."""
        project = self.folder / "digits"
        subprocess.run([*EDGEPRUNE, "init", str(project), "--example", "digits"], check=True, stdout=subprocess.DEVNULL)
        settings = (project / "edgeprune.yaml").read_text()
        start = settings.index("budget:")
        end = settings.index("search:")
        search = re.sub(r"strategy: \w+", f"strategy: {strategy}", settings[end:])
        executor = ""
        if self.cluster is not None:
            executor = f"executor: {{kind: ray, workers: 2, address: '{self.cluster.address}'}}\n"
        elif "worker" in self.kinds:
            executor = "executor: {workers: 2}\n"
        (project / "edgeprune.yaml").write_text(settings[:start] + BUDGET + executor + search)
        return project

    def run(self, project: Path, run_dir: Path) -> subprocess.Popen[bytes]:
        """A run of the project in a process group of its own; it goes on with what is in the folder."""
        target = [] if self.server is None else ["--target", self.server.url]
        command = [*EDGEPRUNE, "run", str(project), "--resume", "--run-dir", str(run_dir), *target]
        with (run_dir.parent / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def disturbed(self, project: Path, run_dir: Path, kills: int, most_s: float) -> None:
        """A run to its end, with kills in it until there are enough of them."""
        process = self.run(project, run_dir)
        broken = 0
        while True:
            if len(self.moments) < kills:
                kind, moment = self.draw.choice(self.kinds), self.draw.uniform(0, most_s)
                before = trials(run_dir)
                if self.kill(kind, process, moment):
                    broken += kind == "link"
                    after = trials(run_dir)
                    self.moments.append({"of": kind, "after_s": round(moment, 2), "trials": len(after)})
                    if after[: len(before)] != before:
                        self.faults.append(f"{run_dir.name}: {len(before)} trials before a kill are not those after it")
                    if kind == "driver":
                        self.faults += half_written(run_dir)
                        self.resumed += 1
                        process = self.run(project, run_dir)
                    continue
            if process.wait() == 0:
                return
            if not 0 < broken <= TRIES:
                self.faults.append(f"{run_dir.name} did not end well: {(self.folder / 'log').read_text()[-500:]}")
                raise SystemExit(json.dumps(self.faults))
            broken += 1
            self.resumed += 1
            process = self.run(project, run_dir)

    def kill(self, kind: str, process: subprocess.Popen[bytes], moment: float) -> bool:
        """Kill one of the kind after so many seconds, as soon as there is one; False where the run ended before."""
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            pass
        else:
            return False
        while process.poll() is None:
            if kind == "driver":
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return True
            if kind == "node":
                node = self.draw.choice(sorted(self.cluster.worker_nodes, key=lambda node: str(node.node_id)))
                self.cluster.remove_node(node, allow_graceful=False)
                self.cluster.add_node(**_NODE)
                return True
            if kind == "link" and self.server is not None and self.server.drop_connections():
                return True
            if kind == "worker" and (workers := self.workers(process)):
                with suppress(psutil.NoSuchProcess):
                    self.draw.choice(workers).kill()
                return True
            time.sleep(0.02)
        return False

    def workers(self, process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """The processes that build candidates."""
        if self.cluster is not None:
            return [found for found in psutil.process_iter() if "ray::_task" in _command(found)]
        children = _children(process.pid)
        return [found for found in children if "edgeprune.pipeline.executors.worker" in _command(found)]


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


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
