"""TensorRT by NVIDIA's own program: an engine is built on the board, from ONNX, and timed there, by trtexec.

An engine fits one version of TensorRT on one kind of chip, so that none is sent: a .tensorrt file is a zip, not
compressed, of model.onnx and build.json with the arguments that it is to be built with. The engine lies beside it, and
is built again where trtexec or the arguments are others. Options and output: NVIDIA TensorRT documentation, "trtexec".
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

from .frames import OutcomeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec")  # JetPack; by hand
# Of the options of trtexec those that change what is computed; none names a file, or a library to be loaded.
ARGUMENT = re.compile(
    r"--(fp16|bf16|int8|best|noTF32|stronglyTyped|allowGPUFallback|useDLACore=\d+|builderOptimizationLevel=[0-5]"
    r"|sparsity=enable|hardwareCompatibilityLevel=(none|ampere\+))"
)
BANNER = re.compile(r"\[TensorRT v(\d+)\]")
NAME = re.compile(r"[^,:'\"]+")
IN_SERIES = "trtexec runs a model in series of its own, in which {} is not measured"


def find() -> str:
    """Where trtexec is; "" where it is not."""
    found = shutil.which("trtexec")
    return found or next((place for place in PLACES if os.access(place, os.X_OK)), "")


def version(program: str) -> str:
    """As the program's first line says it: v8502 is 8.5.2, v100300 is 10.3.0."""
    found = BANNER.search(call([program, "--help"]))
    if found is None:
        return "unknown"
    number = int(found.group(1))
    base = 10000 if number >= 10000 else 1000
    return "{}.{}.{}".format(number // base, number % base // 100, number % 100)


def call(command: "list[str]") -> str:
    """What a program prints; raises ValueError with its errors where it fails. It ends when this process does."""
    from .worker import die_with_parent

    parent = os.getpid()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: die_with_parent(parent),  # noqa: PLW1509  a worker has one thread here
    )
    said = process.communicate()[0].decode("utf-8", "replace")
    if process.returncode != 0:
        errors = [line for line in said.splitlines() if "[E]" in line] or said.splitlines()[-1:]
        raise ValueError("trtexec failed ({}): {}".format(process.returncode, " ".join(errors[:5])))
    return said


@contextlib.contextmanager
def scratch(model: Path, suffix: str) -> "Iterator[Path]":
    """A place beside the model. What a killed worker leaves there is a plain file, which the cache removes in time."""
    path = model.with_name(model.name + suffix)
    try:
        yield path
    finally:
        if path.exists():
            path.unlink()


def engine(program: str, model: Path) -> Path:
    """The engine of a model, built where it is not there yet; raises ValueError."""
    with zipfile.ZipFile(str(model)) as archive:
        arguments = json.loads(archive.read("build.json").decode())["arguments"]
    bad = [argument for argument in arguments if not ARGUMENT.fullmatch(argument)]
    if bad:
        raise ValueError("{}: trtexec is not called with {}".format(model.name, " ".join(bad)))
    seen = os.stat(program)
    key = json.dumps([program, seen.st_size, seen.st_mtime, arguments])
    built = model.with_name("{}-{}.engine".format(model.stem, hashlib.sha256(key.encode()).hexdigest()[:16]))
    if built.is_file():
        os.utime(str(built))  # what is used stays longest in the cache
        return built
    from .runtimes import extract

    with scratch(model, ".onnx.part") as source, scratch(model, ".engine.part") as made:
        extract(model, ".onnx", source)
        options = [
            "--iterations=1",
            "--duration=0",
            "--warmUp=0",
        ]  # not --skipInference: old versions call it otherwise
        call([program, "--onnx={}".format(source), "--saveEngine={}".format(made)] + options + arguments)
        os.replace(str(made), str(built))
    return built


class EngineRun:
    """A model that cannot be run once, but in series."""

    def __init__(self, program: str, task: "dict[str, Any]") -> None:
        self.program = program
        self.warmup_ms = int(1000 * task.get("warmup_s", 0.2))
        self.engine = engine(program, Path(task["model"]))

    def __call__(self) -> None:
        raise OutcomeError("NO_FIGURE", IN_SERIES.format("memory or energy"))

    def series(self, seconds: float, runs: int) -> "list[int]":
        """The latencies in ns, transfers included, of at least so many runs in at least so much time."""
        with scratch(self.engine, ".times.part") as times:
            call(
                [
                    self.program,
                    "--loadEngine={}".format(self.engine),
                    "--warmUp={}".format(self.warmup_ms),
                    "--duration={}".format(max(1, int(seconds + 0.999))),
                    "--iterations={}".format(runs),
                    "--exportTimes={}".format(times),
                ]
            )
            found = json.loads(times.read_text())
        # Some versions export the runs of the warm-up as well.
        timed = [entry["latencyMs"] for entry in found if entry["startComputeMs"] >= self.warmup_ms]
        if not timed:
            raise ValueError("trtexec timed no run")
        return [int(1e6 * ms + 0.5) for ms in timed]


def outputs(program: str, task: "dict[str, Any]", arrays: "list[Any]", numpy: "Any") -> "list[tuple[str, Any]]":
    """What the engine computes, named; trtexec prints six digits."""
    built = engine(program, Path(task["model"]))
    names = [spec["name"] for spec in task["inputs"]]
    if not all(NAME.fullmatch(name) for name in names):
        raise ValueError("trtexec takes no input called {}".format(", ".join(names)))
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(scratch(built, ".{}.part".format(number))) for number in range(len(arrays))]
        for path, array in zip(files, arrays):
            path.write_bytes(array.tobytes())
        given = ",".join("{}:{}".format(name, path) for name, path in zip(names, files))
        told = stack.enter_context(scratch(built, ".outputs.part"))
        options = ["--iterations=1", "--duration=0", "--warmUp=0", "--loadInputs=" + given]
        call([program, "--loadEngine={}".format(built), "--exportOutput={}".format(told)] + options)
        found = json.loads(told.read_text())
    return [
        (
            entry["name"],
            numpy.array(entry["values"], "float32").reshape([int(n) for n in entry["dimensions"].split("x")]),
        )
        for entry in found
    ]
