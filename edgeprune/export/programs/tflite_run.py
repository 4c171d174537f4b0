"""Runs in an interpreter with LiteRT or tflite-runtime, not in edgeprune: computes what a .tflite file computes.

JSON lines on stdin: {"model": path, "runtime": name}, then {"feeds": x.npz, "names": [...], "results": y.npz} as
often as wanted; each is answered by a JSON line on stdout, {"error": ...} where it fails. What the runtime prints goes
to stderr.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

PACKAGES = {"ai-edge-litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}


class Model:
    """A loaded file."""

    def __init__(self, model: str, runtime: str) -> None:
        import importlib

        self.numpy: Any = importlib.import_module("numpy")
        module = importlib.import_module(PACKAGES[runtime])
        self.interpreter = module.Interpreter(model_content=Path(model).read_bytes(), num_threads=1)
        self.interpreter.allocate_tensors()
        self.inputs = {entry["name"]: entry for entry in self.interpreter.get_input_details()}
        self.outputs = self.interpreter.get_output_details()

    def run(self, feeds: str, names: "list[str]", results: str) -> None:
        """Run on all rows of the arrays in `feeds`, as many at a time as the file has, and write what comes out."""
        with self.numpy.load(feeds, allow_pickle=False) as arrays:
            given = {name: arrays[f"arr_{number}"] for number, name in enumerate(names)}
        if set(given) != set(self.inputs):
            raise ValueError(f"the file's inputs are {sorted(self.inputs)}, given were {sorted(given)}")
        first = next(iter(self.inputs.values()))
        size = int(first["shape"][0]) if len(first["shape"]) else 1
        rows = len(given[first["name"]]) if given[first["name"]].ndim else 1
        if rows % size:
            raise ValueError(f"the file computes {size} rows at a time, given were {rows}")
        parts = [self.once(given, start, size, rows) for start in range(0, rows, size)]
        joined = [column[0] if len(parts) == 1 else self.numpy.concatenate(column) for column in map(list, zip(*parts))]
        self.numpy.savez(results, *joined)

    def once(self, given: "dict[str, Any]", start: int, size: int, rows: int) -> "list[Any]":
        """The outputs of `size` rows."""
        for name, entry in self.inputs.items():
            array = given[name]
            part = array[start : start + size] if array.ndim and len(array) == rows else array
            self.interpreter.set_tensor(entry["index"], part.astype(entry["dtype"], copy=False))
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(entry["index"]) for entry in self.outputs]


def main() -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    model = None
    for line in sys.stdin:
        try:
            request = json.loads(line)
            if model is None:
                model = Model(**request)
            else:
                model.run(**request)
            answer = {}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
