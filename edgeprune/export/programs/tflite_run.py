"""Runs in an interpreter with LiteRT or tflite-runtime, not in edgeprune: computes what .tflite files compute."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGES = {"ai-edge-litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
KEPT = 4  # models that stay loaded: what is compared is asked in turn
loaded: "dict[tuple[str, str], Any]" = {}  # by sha256 and runtime


def load(model: str, sha256: str, runtime: str) -> "dict[str, Any]":
    """Load a file."""
    opened(model, sha256, runtime)
    return {}


def run(model: str, sha256: str, runtime: str, inputs: "Sequence[str]", outputs: "Sequence[str]") -> "dict[str, Any]":
    """feeds.npz -> results.npz, as many rows at a time as the file has. The arrays are in the order of the names."""
    import numpy as np

    interpreter = opened(model, sha256, runtime)
    entries = {entry["name"]: entry for entry in interpreter.get_input_details()}
    if set(inputs) != set(entries):
        raise ValueError(f"the file's inputs are {sorted(entries)}, given were {sorted(inputs)}")
    with np.load("feeds.npz", allow_pickle=False) as arrays:
        given = [(entries[name], arrays[f"arr_{number}"]) for number, name in enumerate(inputs)]
    shape, first = given[0][0]["shape"], given[0][1]
    size = int(shape[0]) if len(shape) else 1
    rows = len(first) if first.ndim else 1
    if rows % size:
        raise ValueError(f"the file computes {size} rows at a time, given were {rows}")
    parts = []
    for start in range(0, rows, size):
        for entry, array in given:
            part = array[start : start + size] if array.ndim and len(array) == rows else array
            interpreter.set_tensor(entry["index"], part.astype(entry["dtype"], copy=False))
        interpreter.invoke()
        parts.append([interpreter.get_tensor(entry["index"]) for entry in interpreter.get_output_details()])
    if len(parts[0]) != len(outputs):
        raise ValueError(f"the file has {len(parts[0])} outputs, not {len(outputs)}")
    np.savez("results.npz", *(c[0] if len(parts) == 1 else np.concatenate(c) for c in map(list, zip(*parts))))
    return {}


def opened(model: str, sha256: str, runtime: str) -> Any:
    """The interpreter of a file, on one thread."""
    key = sha256, runtime
    if key not in loaded:
        import hashlib
        import importlib

        data = Path(model).read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("the file is not the one that its manifest tells of")
        module = importlib.import_module(PACKAGES[runtime])
        interpreter = module.Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
        while len(loaded) >= KEPT:
            del loaded[next(iter(loaded))]
        loaded[key] = interpreter
    return loaded[key]


OPERATIONS = {"load": load, "run": run}
