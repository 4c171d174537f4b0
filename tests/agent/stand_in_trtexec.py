"""Stands in for NVIDIA's trtexec, which runs on NVIDIA's chips alone: its options, files and messages as documented.

`install(folder)` puts a program `trtexec` there. It computes with ONNX Runtime; an "engine" is the ONNX file behind a
mark of the version, and only the same version loads it. What it was called with is appended to calls.json beside it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

VERSION = "8502"
MARK = b"ENGINE " + VERSION.encode() + b"\n"
FLAGS = {"--noTF32", "--fp16", "--help", "--best", "--int8"}
VALUES = {
    *("--onnx", "--saveEngine", "--loadEngine", "--warmUp", "--duration", "--iterations"),
    *("--exportTimes", "--exportOutput", "--loadInputs", "--useDLACore"),
}


def install(folder: Path) -> Path:
    """The program in a folder that is to be put on the PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "trtexec"
    program.write_text(f"#!{sys.executable}\n" + Path(__file__).read_text())
    program.chmod(0o755)
    return program


def calls(program: Path) -> list[list[str]]:
    """The arguments of every call so far, without those for help."""
    log = program.with_name("calls.json")
    lines = log.read_text().splitlines() if log.exists() else []
    return [arguments for arguments in map(json.loads, lines) if arguments != ["--help"]]


def say(text: str, level: str = "I") -> None:
    write(f"[11/21/2026-10:00:00] [{level}] {text}")


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def fail(text: str) -> int:
    say(text, "E")
    write("&&&& FAILED TensorRT.trtexec")
    return 1


def main() -> int:
    arguments = sys.argv[1:]
    with Path(__file__).with_name("calls.json").open("a") as log:
        log.write(json.dumps(arguments) + "\n")
    write(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{VERSION}] # {' '.join(sys.argv)}")
    options = dict(argument.partition("=")[::2] for argument in arguments)
    unknown = [name for name in options if name not in FLAGS | VALUES]
    if unknown:
        return fail(f"Unknown option: {unknown[0]} {options[unknown[0]]}")
    if "--help" in options:
        write("=== Model Options ===")
        return 0
    if "--onnx" in options:
        model = Path(options["--onnx"]).read_bytes()
        if "--saveEngine" in options:
            Path(options["--saveEngine"]).write_bytes(MARK + model)
    else:
        content = Path(options["--loadEngine"]).read_bytes()
        if not content.startswith(MARK):
            return fail("Error Code 1: Serialization (Version tag does not match)")
        model = content[len(MARK) :]
    return infer(model, options)


def infer(model: bytes, options: dict[str, str]) -> int:
    import numpy as np
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:
        return fail(f"Failed to parse onnx file: {str(error).splitlines()[0]}")
    files = dict(pair.split(":", 1) for pair in options.get("--loadInputs", "").split(",") if pair)
    feeds = {}
    for entry in session.get_inputs():
        if entry.name in files:
            feeds[entry.name] = np.fromfile(files[entry.name], np.float32).reshape(entry.shape)
        else:
            feeds[entry.name] = np.random.default_rng(0).uniform(-1, 1, entry.shape).astype(np.float32)
    warm_up, duration = float(options.get("--warmUp", 200)), 1000 * float(options.get("--duration", 3))
    trace = []
    start = time.perf_counter()
    timed = 0
    while timed < int(options.get("--iterations", 10)) or trace[-1][1] < warm_up + duration:
        begin = 1000 * (time.perf_counter() - start)
        found = session.run(None, feeds)
        trace.append((begin, 1000 * (time.perf_counter() - start)))
        timed += begin >= warm_up
    if "--exportTimes" in options:
        lines = [traced(begin, end) for begin, end in trace]  # the warm-up too, as version 8 does
        Path(options["--exportTimes"]).write_text("[\n  " + "\n, ".join(lines) + "\n]\n")
    if "--exportOutput" in options:
        told = []
        for output, array in zip(session.get_outputs(), found, strict=True):
            values = ", ".join(f"{value:.6g}" for value in array.ravel())
            shape = "x".join(map(str, array.shape))
            told.append(f'{{ "name" : "{output.name}"\n  , "dimensions" : "{shape}"\n  , "values" : [ {values} ]\n  }}')
        Path(options["--exportOutput"]).write_text("[\n  " + "\n, ".join(told) + "\n]\n")
    write("&&&& PASSED TensorRT.trtexec")
    return 0


def traced(begin: float, end: float) -> str:
    """One run: a tenth of it is spent on each transfer."""
    part = (end - begin) / 10
    names = ("EnqMs", "H2dMs", "ComputeMs", "D2hMs")
    marks = ((begin, begin + part), (begin, begin + part), (begin + part, end - part), (end - part, end))
    times = {
        f"{word}{name}": mark
        for name, pair in zip(names, marks, strict=True)
        for word, mark in zip(("start", "end"), pair, strict=True)
    }
    times |= {"h2dMs": part, "computeMs": 8 * part, "d2hMs": part, "latencyMs": end - begin}
    return "{ " + ", ".join(f'"{name}" : {value:.6g}' for name, value in times.items()) + " }"


if __name__ == "__main__":
    sys.exit(main())
