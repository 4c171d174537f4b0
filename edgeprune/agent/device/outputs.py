"""The outputs pass: what a model computes for given inputs, so that the host can compare it with its own runtime."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from .frames import Frames
from .runtimes import load_runtime

INPUT_LIMIT = 64 << 20  # bytes of all inputs
SENT_LIMIT = 512 << 10  # bytes of all outputs that go into one line; beyond, the sha256 alone is told


def outputs_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":  # noqa: ARG001
    """One run. `data` names a file: the inputs in order, C-contiguous, little-endian. Outputs: the same in base64.

    Raises ValueError where the file does not hold exactly what `inputs` describes.
    """
    runtime = load_runtime(task)
    run, named = runtime.prepare(task, read_arrays(runtime.numpy, Path(task["data"]), task["inputs"]))
    told = []
    left = SENT_LIMIT
    for name, array in named(run()):
        data = runtime.numpy.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        left -= len(data)
        told.append(
            {
                "name": name,
                "dtype": array.dtype.name,
                "shape": list(array.shape),
                "sha256": hashlib.sha256(data).hexdigest(),
                "data": base64.b64encode(data).decode() if left >= 0 else None,
            }
        )
    return {"runtime": runtime.name, "version": runtime.version, "outputs": told}


def read_arrays(numpy: "Any", path: Path, specs: "list[dict[str, Any]]") -> "list[Any]":
    """The inputs, in the machine's own byte order."""
    dtypes = [numpy.dtype(spec["dtype"]).newbyteorder("<") for spec in specs]
    counts = [int(numpy.prod(spec["shape"])) for spec in specs]
    wanted = sum(count * dtype.itemsize for count, dtype in zip(counts, dtypes))
    size = path.stat().st_size
    if size != wanted or size > INPUT_LIMIT:
        message = "{} holds {} bytes where the inputs are {} bytes and {} are the most"
        raise ValueError(message.format(path.name, size, wanted, INPUT_LIMIT))
    arrays = []
    with path.open("rb") as file:
        for spec, dtype, count in zip(specs, dtypes, counts):
            flat = numpy.frombuffer(file.read(count * dtype.itemsize), dtype)
            arrays.append(flat.astype(dtype.newbyteorder("=")).reshape(spec["shape"]))
    return arrays
