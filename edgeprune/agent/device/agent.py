"""The agent: answers the host's requests, one at a time."""

import os
import time

from .conditions import conditions, hottest, wait_until_cool
from .frames import PROTOCOL, Frames, OutcomeError
from .passes import run_pass
from .system import machine
from .watch import Watch

TYPE_CHECKING = False  # typing and pathlib would take a megabyte of the device's memory
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

TIMED = ("measure", "compare", "profile", "operators")  # the device is to be cool, and not to throttle
REQUESTS = TIMED + ("outputs", "cached")
COOLED_C = 2.0  # above the temperature before the first attempt


class Agent:
    """Answers requests, one at a time."""

    def __init__(self, out: Frames, root: "Path | str", folder: "Path | str" = "") -> None:
        self.out = out
        self.root = root
        self.folder = folder

    def hello(self) -> None:
        installed = run_pass({"task": "installed"}, time.monotonic() + 60, lambda: None).result()
        runtimes = {name: {"missing": why, "outcome": "NO_RUNTIME"} for name, why in installed["missing"].items()}
        for name in installed["names"]:
            try:
                found = run_pass({"task": "runtime", "runtime": name}, time.monotonic() + 60, lambda: None)
                runtimes[name] = found.result()
            except OutcomeError as failure:
                runtimes[name] = {"missing": str(failure), "outcome": failure.outcome}
        self.out.send(
            type="hello",
            edgeprune_agent=PROTOCOL,
            sha256=installed["sha256"],
            pid=os.getpid(),
            machine=machine(self.root),
            runtimes=runtimes,
            requests=[*REQUESTS, "probe", "ping", "bye"],
        )

    def answer(self, request: "dict[str, Any]") -> None:
        name, number = request.get("request"), request.get("id")
        if name == "probe":
            self.out.send(type="result", id=number, machine=machine(self.root), conditions=conditions(self.root))
        elif name in REQUESTS:
            try:
                task = getattr(self, name)
                answer = self.when_cool(task, request) if name in TIMED else task(request)
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
        watch = Watch(self.out, self.root, request["id"], "outputs")
        try:
            found = run_pass(task, time.monotonic() + request["deadline_s"], watch.beat)
        finally:
            self.discard([request["data"]])
        return dict(found.result(), outcome="OK")

    def cached(self, request: "dict[str, Any]") -> "dict[str, Any]":
        """Whether a file is in the cache that stays, and may go there; a worker reads and removes files."""
        task = dict(request["file"], task="cached")
        watch = Watch(self.out, self.root, request["id"], "cache")
        return dict(run_pass(task, time.monotonic() + request["deadline_s"], watch.beat).result(), outcome="OK")

    def discard(self, names: "list[str]") -> None:
        """Remove what was sent, by its name inside the agent's own folder."""
        for name in names:
            path = os.path.join(str(self.folder), os.path.basename(name))
            if self.folder and os.path.isfile(path):
                os.unlink(path)

    def when_cool(self, attempt: "Any", request: "dict[str, Any]") -> "dict[str, Any]":
        """The attempt, once the device is cool enough; again after cooling where it throttled, as the policy says."""
        policy = request.get("policy", {})
        below_c = policy.get("start_below_c")
        throttled = []
        for left in range(policy.get("throttle_retries", 0), -1, -1):
            hot = ""
            if below_c is not None:
                beat = Watch(self.out, self.root, request["id"], "").cooling
                hot = wait_until_cool(self.root, below_c, policy.get("cool_down_s", 0.0), beat)
            else:
                heat = hottest(self.root)
                below_c = None if heat is None else heat + COOLED_C
            try:
                answer = dict(attempt(request))
            except OutcomeError as failure:
                if failure.outcome != "THROTTLED" or not left:
                    raise
                throttled.append(str(failure))
            else:
                answer["conditions"] = dict(answer["conditions"], hot_start=hot, throttled_attempts=throttled)
                return answer
        raise AssertionError("the last attempt returns or raises")

    def measure(self, request: "dict[str, Any]") -> "dict[str, Any]":
        """Latency in one worker, memory in several; samples go out in lines of their own.

        A `sustained` measurement is of a device that may throttle: what is seen of that is told, and is no failure.
        """
        self.discard(request.get("discard", []))  # artifacts that the host does not expect here any more
        deadline = time.monotonic() + request["deadline_s"]
        sustained = bool(request.get("sustained"))
        watch = Watch(self.out, self.root, request["id"], "latency")
        task = dict(request["policy"], model=request["model"], inputs=request["inputs"], seed=request["seed"])
        timed = run_pass(dict(task, task="latency"), deadline, watch.beat_with_trace if sustained else watch.beat)
        pass_s = time.monotonic() - watch.started
        watch.stage = "memory"
        missing = {}
        memory = []
        try:
            for _ in range(task["memory_workers"]):
                idle = run_pass(dict(task, task="memory", idle=True), deadline, watch.beat, self.root).result()
                used = run_pass(dict(task, task="memory", idle=False), deadline, watch.beat, self.root).result()
                memory.append(dict(used, idle_worker=idle))
        except OutcomeError as failure:
            if failure.outcome not in ("NO_VMHWM", "NO_FIGURE"):
                raise
            missing["peak_memory"] = str(failure)
        watch.stage = "energy"
        energy, power = {}, []  # type: dict[str, Any], list[dict[str, Any]]
        if task.get("energy"):
            until = max(deadline, time.monotonic()) + task["energy"]["deadline_s"]
            from .energy import energy_pass

            energy, power = energy_pass(task, until, watch.beat_with_clock, self.root)
        throttled = watch.end()
        if throttled and not sustained:
            raise OutcomeError("THROTTLED", throttled)
        for part in power:
            self.out.send(type="power", id=request["id"], **part)
        for chunk in timed.samples:
            self.out.send(type="samples", id=request["id"], ns=chunk)
        return {
            "outcome": "OK",
            "latency": timed.result(),
            "memory": memory,
            "missing": missing,
            "pass_s": pass_s,
            "trace": watch.trace if sustained else None,
            "energy": energy,
            "conditions": watch.conditions(),
        }

    def compare(self, request: "dict[str, Any]") -> "dict[str, Any]":
        """Two models in turn, in several fresh workers: where a process happens to lie in memory moves its latency."""
        self.discard(request.get("discard", []))
        deadline = time.monotonic() + request["deadline_s"]
        watch = Watch(self.out, self.root, request["id"], "compare")
        found = []
        for number in range(request["workers"]):
            seed = request["seed"] + number
            task = dict(request["policy"], task="compare", arms=request["arms"], seed=seed)
            found.append(run_pass(task, deadline, watch.beat).result())
        throttled = watch.end()
        if throttled:
            raise OutcomeError("THROTTLED", throttled)
        return {"outcome": "OK", "workers": found, "conditions": watch.conditions()}

    def profile(self, request: "dict[str, Any]") -> "dict[str, Any]":
        """A model under its runtime's profiler; the nodes go out in lines of their own."""
        self.discard(request.get("discard", []))
        task = dict(request["policy"], task="profile", model=request["model"], inputs=request["inputs"])
        nodes = []  # type: list[Any]
        watch = Watch(self.out, self.root, request["id"], "profile")
        found = run_pass(
            dict(task, seed=request["seed"]), time.monotonic() + request["deadline_s"], watch.beat, tell=nodes.append
        ).result()
        throttled = watch.end()
        if throttled:
            raise OutcomeError("THROTTLED", throttled)
        for node in nodes:
            self.out.send(type="node", id=request["id"], **node)
        return dict(found, outcome="OK", conditions=watch.conditions())

    def operators(self, request: "dict[str, Any]") -> "dict[str, Any]":
        """Many small models in one worker; each figure goes out at once, so that none is lost."""
        task = dict(request["policy"], task="operators", file=request["file"], seed=request["seed"])
        watch = Watch(self.out, self.root, request["id"], "operators")

        def tell(part: "dict[str, Any]") -> None:
            self.out.send(type="timing", id=request["id"], **part)

        try:
            found = run_pass(task, time.monotonic() + request["deadline_s"], watch.beat, tell=tell).result()
        finally:
            self.discard([request["file"]])
        throttled = watch.end()
        if throttled:
            raise OutcomeError("THROTTLED", throttled)
        return dict(found, outcome="OK", conditions=watch.conditions())
