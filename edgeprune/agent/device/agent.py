"""The agent: answers the host's requests, one at a time."""

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from .conditions import conditions, cooling_states, throttle_reason
from .frames import HEARTBEAT_S, PROTOCOL, Frames, OutcomeError
from .passes import run_pass
from .runtimes import RUNTIMES, absent
from .system import machine


class Agent:
    """Answers requests, one at a time."""

    def __init__(self, out: Frames, root: Path, folder: "Path | None" = None) -> None:
        self.out = out
        self.root = root
        self.folder = folder

    def hello(self) -> None:
        runtimes = {
            name: {"missing": absent(name, "not installed"), "outcome": "NO_RUNTIME"} for name in sorted(RUNTIMES)
        }
        installed = run_pass({"task": "installed"}, time.monotonic() + 60, lambda: None).result()
        for name in installed["names"]:
            try:
                found = run_pass({"task": "runtime", "runtime": name}, time.monotonic() + 60, lambda: None)
                runtimes[name] = found.result()
            except OutcomeError as failure:
                runtimes[name] = {"missing": str(failure), "outcome": failure.outcome}
        digest = hashlib.sha256(Path(sys.argv[0]).resolve().read_bytes()).hexdigest()
        self.out.send(
            type="hello",
            edgeprune_agent=PROTOCOL,
            sha256=digest,
            pid=os.getpid(),
            machine=machine(self.root),
            runtimes=runtimes,
            requests=["measure", "outputs", "probe", "ping", "bye"],
        )

    def answer(self, request: "dict[str, Any]") -> None:
        name, number = request.get("request"), request.get("id")
        if name == "probe":
            self.out.send(type="result", id=number, machine=machine(self.root), conditions=conditions(self.root))
        elif name in ("measure", "outputs"):
            try:
                answer = self.measure(request) if name == "measure" else self.outputs(request)
                self.out.send(type="result", id=number, **answer)
            except OutcomeError as failure:
                after = conditions(self.root)
                self.out.send(
                    type="result", id=number, outcome=failure.outcome, message=str(failure), conditions={"after": after}
                )
            except (KeyError, TypeError, ValueError) as error:
                self.out.send(type="error", id=number, message="cannot use this request: {!r}".format(error))
        else:
            self.out.send(type="error", id=number, message="unknown request {!r}".format(name))

    def outputs(self, request: "dict[str, Any]") -> "dict[str, Any]":
        """What a model computes for given inputs, for a comparison with the host's runtime."""
        task = dict(request["policy"], task="outputs", model=request["model"], inputs=request["inputs"])
        task["data"] = request["data"]
        try:
            found = run_pass(task, time.monotonic() + request["deadline_s"], lambda: None)
        finally:
            self.discard([request["data"]])
        return dict(found.result(), outcome="OK")

    def discard(self, names: "list[str]") -> None:
        """Remove what was sent, by its name inside the agent's own folder."""
        for name in names:
            if self.folder is not None and (self.folder / Path(name).name).exists():
                (self.folder / Path(name).name).unlink()

    def measure(self, request: "dict[str, Any]") -> "dict[str, Any]":
        """Latency in one worker, memory in several; samples go out in lines of their own."""
        self.discard(request.get("discard", []))  # artifacts that the host does not expect here any more
        deadline = time.monotonic() + request["deadline_s"]
        started = last = time.monotonic()
        cooling = {}  # type: dict[str, int]
        stage = "latency"

        def beat() -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= HEARTBEAT_S:
                last = now
                for name, state in cooling_states(self.root).items():
                    cooling[name] = max(state, cooling.get(name, 0))
                self.out.send(type="heartbeat", id=request["id"], stage=stage, elapsed_s=now - started)

        before = conditions(self.root)
        task = dict(request["policy"], model=request["model"], inputs=request["inputs"], seed=request["seed"])
        timed = run_pass(dict(task, task="latency"), deadline, beat)
        stage = "memory"
        missing = {}
        memory = []
        try:
            for _ in range(task["memory_workers"]):
                idle = run_pass(dict(task, task="memory", idle=True), deadline, beat, self.root).result()
                used = run_pass(dict(task, task="memory", idle=False), deadline, beat, self.root).result()
                memory.append(dict(used, idle_worker=idle))
        except OutcomeError as failure:
            if failure.outcome != "NO_VMHWM":
                raise
            missing["peak_memory"] = str(failure)
        after = conditions(self.root)
        for name, state in after["cooling"].items():
            cooling[name] = max(state, cooling.get(name, 0))
        throttled = throttle_reason(before, after, cooling)
        if throttled:
            raise OutcomeError("THROTTLED", throttled)
        for chunk in timed.samples:
            self.out.send(type="samples", id=request["id"], ns=chunk)
        return {
            "outcome": "OK",
            "latency": timed.result(),
            "memory": memory,
            "missing": missing,
            "conditions": {"before": before, "after": after},
        }
