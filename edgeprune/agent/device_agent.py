"""The agent on the device: one file of standard-library Python 3.6, which imports nothing of edgeprune.

JSON lines on stdin and stdout. The first line it writes is `hello` (machine, runtimes) or `busy` (who holds the
device); requests are `measure`, `probe`, `ping` and `bye`. Every measurement runs in fresh worker processes (this same
file with `--worker`). While it lives it holds a lock, so that two users never measure at once. When its input ends,
or nothing was heard for `--idle-s`, it kills its workers and itself; without a `bye` it removes its folder first.
"""

import argparse
import array
import fcntl
import hashlib
import json
import math
import os
import platform
import queue
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

PROTOCOL = 1
MAX_LINE = 1 << 20  # bytes of one request
CHUNK = 500  # samples in one line
HEARTBEAT_S = 5.0
FOLDER_PREFIX = "edgeprune-"
STDERR_TAIL = 2000
OUT_OF_MEMORY = ("out of memory", "failed to allocate", "bad_alloc", "bad allocation", "cannot allocate memory")


class OutcomeError(Exception):
    """A measurement ended with a named outcome other than OK."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Frames:
    """JSON lines to a file descriptor; safe from several threads."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lock = threading.Lock()

    def send(self, **frame: "Any") -> None:
        data = json.dumps(frame, separators=(",", ":")).encode() + b"\n"
        with self.lock:
            while data:
                data = data[os.write(self.descriptor, data) :]


def claim_stdout() -> Frames:
    """Frames on the real stdout; whatever else prints goes to stderr from now on."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return Frames(descriptor)


# --- what the device says of itself -----------------------------------------------------------------------------


def read_text(path: Path) -> str:
    """The file's text without its ends (NUL, newline); "" where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def read_table(path: Path) -> "dict[str, str]":
    """ "Name: value" lines, the first of each name (/proc/meminfo, /proc/cpuinfo, /proc/self/status)."""
    table = {}  # type: dict[str, str]
    for line in read_text(path).splitlines():
        name, colon, value = line.partition(":")
        if colon:
            table.setdefault(name.strip(), value.strip())
    return table


def kib(table: "dict[str, str]", name: str) -> "int | None":
    """Bytes of a "1234 kB" entry, or None."""
    number = table.get(name, "").partition(" ")[0]
    return int(number) * 1024 if number.isdigit() else None


def numbers(root: Path, pattern: str) -> "dict[str, int]":
    """All files that match and hold an integer, by their path below the root."""
    found = {}
    for path in sorted(root.glob(pattern)):
        text = read_text(path)
        if text.lstrip("-").isdigit():
            found[str(path.relative_to(root))] = int(text)
    return found


def boot_id(root: Path) -> str:
    """Another one after every start of the kernel."""
    return read_text(root / "proc/sys/kernel/random/boot_id")


def machine(root: Path) -> "dict[str, Any]":
    """The fingerprint of the device."""
    cpu = read_table(root / "proc/cpuinfo")
    memory = read_table(root / "proc/meminfo")
    return {
        "hostname": platform.node(),
        "system": platform.system(),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "libc": "-".join(platform.libc_ver()),
        "python": platform.python_version(),
        "boot_id": boot_id(root),
        "board": read_text(root / "proc/device-tree/model") or cpu.get("Model", "") or cpu.get("Hardware", ""),
        "cpu": cpu.get("model name", "") or cpu.get("CPU part", ""),
        "cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": kib(memory, "MemTotal"),
    }


def throttled_flags() -> "int | None":
    """Raspberry Pi firmware: bits 0 to 3 under-voltage, frequency capped, throttled, soft limit, now; 16 to 19 ever."""
    command = shutil.which("vcgencmd", path=os.environ.get("PATH", "") + ":/usr/bin:/opt/vc/bin")
    if command is None:
        return None
    try:
        answer = subprocess.check_output([command, "get_throttled"], stderr=subprocess.DEVNULL, timeout=5)
        return int(answer.decode().partition("=")[2], 16)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def cooling_states(root: Path) -> "dict[str, int]":
    """Processor cooling devices that the kernel's thermal governor uses now (0: none): its way to throttle."""
    states = {}
    for path in sorted(root.glob("sys/class/thermal/cooling_device*")):
        kind = read_text(path / "type")
        state = read_text(path / "cur_state")
        if "cpufreq" in kind.lower() and state.isdigit():
            states[kind + "/" + path.name] = int(state)
    return states


def conditions(root: Path) -> "dict[str, Any]":
    """Load, temperatures, clocks, memory, swap and throttle flags, as far as they can be read."""
    memory = read_table(root / "proc/meminfo")
    swap_total, swap_free = kib(memory, "SwapTotal"), kib(memory, "SwapFree")
    load = read_text(root / "proc/loadavg").split()[:3]
    throttles = numbers(root, "sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")
    return {
        "load": [float(value) for value in load],
        "memory_available_bytes": kib(memory, "MemAvailable"),
        "swap_used_bytes": None if swap_total is None or swap_free is None else swap_total - swap_free,
        "temperature_c": {
            path + ":" + read_text((root / path).parent / "type"): value / 1000.0
            for path, value in numbers(root, "sys/class/thermal/thermal_zone*/temp").items()
        },
        "governor": sorted(
            {read_text(path) for path in root.glob("sys/devices/system/cpu/cpufreq/policy*/scaling_governor")}
        ),
        "frequency_khz": numbers(root, "sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq"),
        "throttle_count": sum(throttles.values()),
        "cooling": cooling_states(root),
        "throttled": throttled_flags(),
    }


def throttle_reason(before: "dict[str, Any]", after: "dict[str, Any]", cooling: "dict[str, int]") -> str:
    """Why the measurement must not count, or "". `cooling` holds the highest states seen while it ran."""
    flags = after["throttled"]
    if flags is not None:
        names = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
        risen = flags & ~(before["throttled"] or 0) & 0xF0000
        hit = [name for bit, name in names.items() if flags & (1 << bit) or risen & (1 << (bit + 16))]
        if hit:
            return "the firmware reports {} (get_throttled={:#x})".format(", ".join(hit), flags)
    active = sorted(name for name, state in cooling.items() if state > 0)
    return "the kernel slows the processor to cool it ({})".format(", ".join(active)) if active else ""


def out_of_memory_kills() -> "int | None":
    """How many processes the kernel has killed for want of memory since it started; None before Linux 4.13."""
    for line in read_text(Path("/proc/vmstat")).splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return None


# --- the worker: one per pass of a measurement -------------------------------------------------------------------


def clock_ns() -> int:
    """CLOCK_MONOTONIC_RAW: no clock adjustment reaches it."""
    if hasattr(time, "clock_gettime_ns"):
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    return int(time.clock_gettime(time.CLOCK_MONOTONIC_RAW) * 1e9)


class OnnxRuntime:
    """ONNX Runtime on the processor: sequential, the asked number of threads inside an operator."""

    def __init__(self) -> None:
        try:
            import numpy as np
            import onnxruntime
        except ImportError as error:
            if any(sign in str(error).lower() for sign in OUT_OF_MEMORY):
                raise
            raise OutcomeError(
                "NO_RUNTIME",
                "onnxruntime does not run in {} ({}): install it there, or name another interpreter".format(
                    sys.executable, error
                ),
            ) from error
        self.numpy = np  # type: Any
        self.onnxruntime = onnxruntime  # type: Any
        self.version = str(onnxruntime.__version__)

    def load(self, task: "dict[str, Any]") -> "Any":
        """A function that runs the model once on inputs of the asked shapes."""
        options = self.onnxruntime.SessionOptions()
        options.intra_op_num_threads = task["threads"]
        options.inter_op_num_threads = 1
        options.execution_mode = self.onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        session = self.onnxruntime.InferenceSession(task["model"], options, providers=["CPUExecutionProvider"])
        random = self.numpy.random.RandomState(task["seed"])
        feeds = {spec["name"]: self.sample(spec, random) for spec in task["inputs"]}
        run = session.run
        return lambda: run(None, feeds)

    def sample(self, spec: "dict[str, Any]", random: "Any") -> "Any":
        """Standard normal values for floating point, zeros for all else."""
        dtype = self.numpy.dtype(spec["dtype"])
        if dtype.kind == "f":
            return random.standard_normal(spec["shape"]).astype(dtype)
        return self.numpy.zeros(spec["shape"], dtype)


RUNTIMES = {"onnxruntime": OnnxRuntime}


def load_runtime(task: "dict[str, Any]") -> "Any":
    """The asked runtime, imported; raises OutcomeError (NO_RUNTIME)."""
    name = task["runtime"]
    if name not in RUNTIMES:
        known = ", ".join(sorted(RUNTIMES))
        raise OutcomeError("NO_RUNTIME", "this agent cannot drive {!r}; it knows {}".format(name, known))
    return RUNTIMES[name]()


def runtime_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":  # noqa: ARG001
    """Which version of a runtime this interpreter has."""
    return {"version": load_runtime(task).version}


def median_settled(samples: "array.array[int]", share: float) -> bool:
    """True where the 95 % interval of the median (order statistics, normal approximation) is within `share` of it."""
    count = len(samples)
    rank = int((count - 1.96 * math.sqrt(count)) / 2)
    if rank < 1:
        return False
    ordered = sorted(samples)
    median = ordered[count // 2]
    return max(ordered[count - rank] - median, median - ordered[rank - 1]) <= share * median


def latency_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":
    """Warm up, then time single runs until the median is known well enough, or to a cap."""
    import gc

    runtime = load_runtime(task)
    run = runtime.load(task)
    warmup, start = 0, clock_ns()
    while warmup < task["warmup_runs"] or clock_ns() - start < task["warmup_s"] * 1e9:
        run()
        warmup += 1
    samples = array.array("q")
    next_check = task["min_runs"]
    converged = False
    gc.collect()
    gc.disable()
    start = clock_ns()
    while not converged:
        begin = clock_ns()
        run()
        end = clock_ns()
        samples.append(end - begin)
        count, elapsed_s = len(samples), (end - start) / 1e9
        capped = count >= task["max_runs"] or elapsed_s >= task["max_s"]
        if capped or (count >= next_check and elapsed_s >= task["min_s"]):
            converged = median_settled(samples, task["ci_share"])
            next_check = count + max(10, count // 10)
        if capped:
            break
    gc.enable()
    for first in range(0, len(samples), CHUNK):
        out.send(type="samples", ns=samples[first : first + CHUNK].tolist())
    return {"version": runtime.version, "warmup_runs": warmup, "converged": converged, "runs": len(samples)}


def own_memory() -> "dict[str, int]":
    """Bytes of this process: peak and present resident size, anonymous and file-backed, swapped out."""
    table = read_table(Path("/proc/self/status"))
    names = {"peak": "VmHWM", "resident": "VmRSS", "anonymous": "RssAnon", "file": "RssFile", "swapped": "VmSwap"}
    values = {name: kib(table, entry) for name, entry in names.items()}
    return {name: value for name, value in values.items() if value is not None}


def reset_peak() -> bool:
    """Set VmHWM back to the present size (proc(5), clear_refs); False where that is not allowed."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def memory_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":  # noqa: ARG001
    """Sizes of this process: with the runtime alone, and, where a model is named, after load and after runs."""
    runtime = load_runtime(task)
    sizes = {"idle": own_memory()}  # type: dict[str, Any]
    if "peak" not in sizes["idle"]:
        raise OutcomeError("NO_VMHWM", "this kernel does not tell VmHWM in /proc/self/status")
    if task["model"] is not None:
        run = runtime.load(task)
        sizes["loaded"] = own_memory()
        sizes["reset"] = reset_peak()
        before = own_memory()
        for _ in range(3):
            run()
        sizes["ran"] = own_memory()
        sizes["peak"] = max(sizes["loaded"]["peak"], sizes["ran"]["peak"])
        sizes["inference"] = sizes["ran"]["peak"] - before["resident"] if sizes["reset"] else None
    return sizes


WORKER_TASKS = {"runtime": runtime_task, "latency": latency_task, "memory": memory_task}


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (prctl PR_SET_PDEATHSIG), however that ends."""
    import ctypes

    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (OSError, AttributeError):
        return  # no libc with prctl: the agent still kills its workers when its input ends
    if os.getppid() != parent:
        os._exit(1)


def worker_main() -> int:
    """One pass of a measurement, described by one JSON line on stdin."""
    out = claim_stdout()
    task = json.loads(sys.stdin.readline())
    die_with_parent(task["parent"])
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")  # the kernel shall take this process, and no other
    except OSError as error:
        print("oom_score_adj:", error, file=sys.stderr)
    try:
        result = WORKER_TASKS[task["task"]](task, out)
    except OutcomeError as failure:
        out.send(type="failed", outcome=failure.outcome, message=str(failure))
    except Exception as error:
        text = "{}: {}".format(type(error).__name__, error)
        short = isinstance(error, MemoryError) or any(sign in text.lower() for sign in OUT_OF_MEMORY)
        out.send(type="failed", outcome="OOM" if short else "CRASHED", message=text[:STDERR_TAIL])
    else:
        out.send(type="done", result=result)
    return 0


# --- the agent ---------------------------------------------------------------------------------------------------


class Pass:
    """One worker process and what it has said so far."""

    running = False

    def __init__(self, task: "dict[str, Any]") -> None:
        self.kills_before = out_of_memory_kills()
        self.frame = None  # type: Any
        self.samples = []  # type: list[list[int]]
        self.tail = b""
        self.rest = b""
        Pass.running = True
        command = [sys.executable, "-B", str(Path(__file__).resolve()), "--worker"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self.stdout, self.stderr = self.process.stdout, self.process.stderr  # type: Any, Any
        stdin = self.process.stdin  # type: Any
        try:
            stdin.write(json.dumps(dict(task, parent=os.getpid())).encode() + b"\n")
            stdin.close()
        except BrokenPipeError:
            self.rest = b""  # it died at once: `outcome` says how

    def take(self, stream: "Any") -> bool:
        """Read what a stream has; False at its end."""
        data = os.read(stream.fileno(), 1 << 16)
        if stream is self.stderr:
            self.tail = (self.tail + data)[-STDERR_TAIL:]
            return bool(data)
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            frame = json.loads(line.decode())
            if frame["type"] == "samples":
                self.samples.append(frame["ns"])
            else:
                self.frame = frame
        return bool(data)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        Pass.running = False
        for stream in (self.stdout, self.stderr):
            stream.close()

    def result(self) -> "Any":
        """What the worker found; raises OutcomeError with the outcome that its end stands for."""
        if self.frame is not None and self.frame["type"] == "done":
            return self.frame["result"]
        if self.frame is not None:
            raise OutcomeError(self.frame["outcome"], self.frame["message"])
        code = self.process.returncode
        text = self.tail.decode("utf-8", "replace").strip()
        ending = "exit status {}".format(code) if code >= 0 else signal.Signals(-code).name
        if code == -signal.SIGKILL:
            kills = out_of_memory_kills()
            if kills is None or self.kills_before is None:
                raise OutcomeError("OOM", "the worker was killed (SIGKILL), most likely for want of memory")
            if kills > self.kills_before:
                raise OutcomeError("OOM", "the kernel killed the worker for want of memory")
        if any(sign in text.lower() for sign in OUT_OF_MEMORY):
            raise OutcomeError("OOM", "the worker ran out of memory ({}): {}".format(ending, text))
        raise OutcomeError("CRASHED", "the worker ended with {}{}".format(ending, ": " + text if text else ""))


def run_pass(task: "dict[str, Any]", deadline: float, beat: "Any") -> Pass:
    """A worker to its end; `beat()` is called every HEARTBEAT_S. Raises OutcomeError."""
    worker = Pass(task)
    try:
        streams = [worker.stdout, worker.stderr]
        while streams:
            left = deadline - time.monotonic()
            if left <= 0 and worker.frame is None:
                raise OutcomeError("TIMEOUT", "the {} pass did not end within the deadline".format(task["task"]))
            if left <= 0:
                break
            ready = select.select(streams, [], [], min(left, HEARTBEAT_S))[0]
            streams = [stream for stream in streams if stream not in ready or worker.take(stream)]
            if worker.frame is not None:
                deadline = min(deadline, time.monotonic() + 5)  # to shut down; the result is already here
            beat()
        if not streams:
            try:
                worker.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired as error:
                if worker.frame is None:
                    raise OutcomeError("TIMEOUT", "the {} pass did not end".format(task["task"])) from error
        worker.result()
    finally:
        worker.kill()
    return worker


class Agent:
    """Answers requests, one at a time."""

    def __init__(self, out: Frames, root: Path, folder: "Path | None" = None) -> None:
        self.out = out
        self.root = root
        self.folder = folder

    def hello(self) -> None:
        runtimes = {}
        for name in sorted(RUNTIMES):
            try:
                found = run_pass({"task": "runtime", "runtime": name}, time.monotonic() + 60, lambda: None)
                runtimes[name] = found.result()
            except OutcomeError as failure:
                runtimes[name] = {"missing": str(failure), "outcome": failure.outcome}
        digest = hashlib.sha256(Path(__file__).resolve().read_bytes()).hexdigest()
        self.out.send(
            type="hello",
            edgeprune_agent=PROTOCOL,
            sha256=digest,
            pid=os.getpid(),
            machine=machine(self.root),
            runtimes=runtimes,
            requests=["measure", "probe", "ping", "bye"],
        )

    def answer(self, request: "dict[str, Any]") -> None:
        name, number = request.get("request"), request.get("id")
        if name == "probe":
            self.out.send(type="result", id=number, machine=machine(self.root), conditions=conditions(self.root))
        elif name == "measure":
            try:
                self.out.send(type="result", id=number, **self.measure(request))
            except OutcomeError as failure:
                after = conditions(self.root)
                self.out.send(
                    type="result", id=number, outcome=failure.outcome, message=str(failure), conditions={"after": after}
                )
            except (KeyError, TypeError, ValueError) as error:
                self.out.send(type="error", id=number, message="cannot use this request: {!r}".format(error))
        else:
            self.out.send(type="error", id=number, message="unknown request {!r}".format(name))

    def measure(self, request: "dict[str, Any]") -> "dict[str, Any]":
        """Latency in one worker, memory in several; samples go out in lines of their own."""
        for name in request.get("discard", []):  # artifacts that the host does not expect here any more
            if self.folder is not None and (self.folder / Path(name).name).exists():
                (self.folder / Path(name).name).unlink()
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
                idle = run_pass(dict(task, task="memory", model=None), deadline, beat).result()
                used = run_pass(dict(task, task="memory"), deadline, beat).result()
                memory.append(dict(used, idle=idle["idle"]))
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


def lock_path() -> Path:
    """One place for all users of the device; EDGEPRUNE_LOCK names another."""
    if os.environ.get("EDGEPRUNE_LOCK"):
        return Path(os.environ["EDGEPRUNE_LOCK"])
    for folder in (Path("/run/lock"), Path("/var/lock")):
        if folder.is_dir() and folder.stat().st_mode & 0o1777 == 0o1777:  # sticky, for everyone
            return folder / "edgeprune-device.lock"
    return Path(tempfile.gettempdir()) / "edgeprune-device.lock"


class DeviceLock:
    """An flock that lasts as long as the agent. The file is removed on release, so its inode is checked on taking."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1

    def try_take(self, owner: str) -> "dict[str, Any] | None":
        """None where the lock is ours now, else who holds it."""
        descriptor = self.open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, 1000, 0).decode("utf-8", "replace")
            os.close(descriptor)
            try:
                return dict(json.loads(text))
            except ValueError:
                return {"owner": "unknown"}
        held = os.fstat(descriptor)
        try:
            current = self.path.stat().st_ino == held.st_ino
        except FileNotFoundError:
            current = False
        if not current:
            os.close(descriptor)
            return {"owner": "released just now"}
        if not stat.S_ISREG(held.st_mode) or held.st_nlink != 1:
            os.close(descriptor)
            return {"owner": "{} is not a plain file; remove it".format(self.path)}
        self.descriptor = descriptor
        if os.access(str(self.path), os.W_OK):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"owner": owner, "pid": os.getpid(), "since": time.time()}).encode(), 0)
        return None

    def open(self) -> int:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW
        for mode, extra in ((os.O_RDWR, 0), (os.O_RDONLY, 0), (os.O_RDWR, os.O_CREAT)):
            try:
                descriptor = os.open(str(self.path), mode | extra | flags, 0o666)
            except (FileNotFoundError, PermissionError):
                if extra:
                    raise
                continue
            if extra:
                try:
                    os.fchmod(descriptor, 0o666)  # past the umask: other users of the device lock it as well
                except PermissionError:
                    return descriptor  # another user created it between our two tries
            return descriptor
        raise FileNotFoundError(str(self.path))

    def release(self) -> None:
        if self.descriptor >= 0:
            try:
                self.path.unlink()
            except OSError as error:
                print("lock:", error, file=sys.stderr)  # another user's file in a sticky folder: free all the same
            os.close(self.descriptor)
            self.descriptor = -1


class Lifeline:
    """Reads requests from stdin in a thread; the end of input, or silence, ends the agent and all its workers."""

    def __init__(self, lock: DeviceLock, folder: "Path | None", idle_s: float) -> None:
        self.lock = lock
        self.folder = folder
        self.idle_s = idle_s
        self.requests = queue.Queue()  # type: queue.Queue[dict[str, Any]]
        self.own_group = False
        if os.getpgrp() != os.getpid():
            os.setsid()
        self.own_group = os.getpgrp() == os.getpid()

    def watch(self) -> None:
        rest = b""
        heard = time.monotonic()
        while True:
            if not select.select([0], [], [], min(5.0, self.idle_s))[0]:
                if time.monotonic() - heard > self.idle_s:
                    self.end(keep_folder=False)
                continue
            data = os.read(0, 1 << 16)
            heard = time.monotonic()
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            if not data or len(rest) > MAX_LINE:
                self.end(keep_folder=False)
            for line in lines:
                self.dispatch(line)

    def dispatch(self, line: bytes) -> None:
        try:
            request = json.loads(line.decode())
            name = request["request"]
        except (ValueError, KeyError, TypeError):
            self.requests.put({"request": "unreadable"})
            return
        if name == "bye":
            self.end(keep_folder=True)
        elif name != "ping":
            self.requests.put(request)

    def end(self, keep_folder: bool) -> None:
        folder = self.folder
        if not keep_folder and folder is not None and folder.name.startswith(FOLDER_PREFIX):
            shutil.rmtree(str(folder), ignore_errors=True)
        self.lock.release()
        if self.own_group and Pass.running:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(0)  # where the group is not ours, the kernel kills the worker (die_with_parent)


def wait_for_lock(lock: DeviceLock, owner: str, wait_s: float, out: Frames) -> bool:
    """Take the lock, waiting up to `wait_s`; says `waiting` and at last `busy` with the owner."""
    end = time.monotonic() + wait_s
    said = -HEARTBEAT_S
    while True:
        holder = lock.try_take(owner)
        if holder is None:
            return True
        now = time.monotonic()
        if now >= end:
            out.send(type="busy", edgeprune_agent=PROTOCOL, holder=holder)
            return False
        if now - said >= HEARTBEAT_S:
            said = now
            out.send(type="waiting", edgeprune_agent=PROTOCOL, holder=holder)
        time.sleep(0.2)


def agent_main(arguments: "list[str]") -> int:
    """Serve the host on stdin and stdout until the input ends."""
    parser = argparse.ArgumentParser(description="edgeprune's agent; speaks JSON lines with the edgeprune on the host")
    parser.add_argument("--folder", type=Path, help="private folder, removed when the link breaks")
    parser.add_argument("--owner", default="unknown", help="who measures, shown to others")
    parser.add_argument("--wait-s", type=float, default=0.0, help="how long to wait for another user's measurement")
    parser.add_argument("--idle-s", type=float, default=60.0, help="end after this long without a word")
    options = parser.parse_args(arguments)
    out = claim_stdout()
    os.write(out.descriptor, b"\n")  # a login banner may not have ended its line
    lock = DeviceLock(lock_path())
    lifeline = Lifeline(lock, options.folder, options.idle_s)
    threading.Thread(target=lifeline.watch, daemon=True).start()
    if not wait_for_lock(lock, options.owner, options.wait_s, out):
        return 0
    agent = Agent(out, Path("/"), options.folder)
    try:
        agent.hello()
        while True:
            agent.answer(lifeline.requests.get())
    except BrokenPipeError:
        lifeline.end(keep_folder=False)
    return 0


if __name__ == "__main__":
    sys.exit(worker_main() if sys.argv[1:] == ["--worker"] else agent_main(sys.argv[1:]))
