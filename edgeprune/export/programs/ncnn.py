"""Runs in an interpreter with pnnx and ncnn, not in edgeprune: converts an ONNX file for ncnn, and runs what came out.

Files lie in the working folder. pnnx's program is called; nothing of its package is imported, which would need torch.
"""

import importlib.util
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIGNS = ("not supported", "unsupported")  # in what pnnx prints, of an operator that stays as it is
loaded: "dict[str, Any]" = {}  # the last model, by its sha256


def convert(shapes: "Sequence[Sequence[int]]", half: bool) -> "dict[str, Any]":
    """model.onnx -> model.param and model.bin, with 16-bit weights where `half`; what pnnx complains about."""
    found = importlib.util.find_spec("pnnx")
    if found is None or not found.submodule_search_locations:
        raise ImportError("pnnx is not installed")
    program = Path(found.submodule_search_locations[0]) / "pnnx"
    inputs = ",".join(f"[{','.join(map(str, shape))}]f32" for shape in shapes)
    command = [str(program), "model.onnx", f"inputshape={inputs}", f"fp16={int(half)}"]
    command += ["ncnnparam=model.param", "ncnnbin=model.bin"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    said = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode != 0 or not Path("model.param").is_file() or not Path("model.bin").is_file():
        raise RuntimeError(f"pnnx ended ({done.returncode}): {' '.join(said[-1:])}")
    return {"complaints": sorted({line.strip() for line in said if any(sign in line for sign in SIGNS)})}


def run(model: str, sha256: str, inputs: "Sequence[str]", outputs: "Sequence[str]") -> "dict[str, Any]":
    """feeds.npz -> results.npz: sample by sample, with 32-bit arithmetic. The arrays are in the order of the names."""
    import ncnn
    import numpy as np

    net = opened(model, sha256)
    with np.load("feeds.npz", allow_pickle=False) as arrays:
        feeds = [arrays[f"arr_{number}"] for number in range(len(inputs))]
    rows: list[list[Any]] = []
    for row in range(len(feeds[0])):
        extractor = net.create_extractor()
        mats = [ncnn.Mat(np.ascontiguousarray(array[row])).clone() for array in feeds]
        for name, mat in zip(inputs, mats):
            extractor.input(name, mat)
        found = [extractor.extract(name) for name in outputs]
        failed = [name for name, (code, _) in zip(outputs, found) if code != 0]
        if failed:
            raise RuntimeError(f"ncnn cannot compute {', '.join(failed)}")
        rows.append([np.array(mat) for _, mat in found])
    np.savez("results.npz", *(np.stack(column) for column in zip(*rows)))
    return {}


def opened(model: str, sha256: str) -> Any:
    """The net of an .ncnn file."""
    import ncnn

    if sha256 not in loaded:
        loaded.clear()
        net = ncnn.Net()
        net.opt.num_threads = 1
        for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed"):
            if hasattr(net.opt, f"use_{option}"):
                setattr(net.opt, f"use_{option}", False)
        with zipfile.ZipFile(model) as archive:
            for name, load in (("model.param", net.load_param), ("model.bin", net.load_model)):
                Path(name).write_bytes(archive.read(name))
                if load(name) != 0:
                    raise RuntimeError(f"ncnn cannot load {name}")
        loaded[sha256] = net
    return loaded[sha256]


OPERATIONS = {"convert": convert, "run": run}
