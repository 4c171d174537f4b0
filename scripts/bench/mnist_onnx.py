"""A network that is only there as an ONNX file, pruned and reconstructed without labels or training; prints JSON.

    scripts/bench/mnist_onnx.py --ratio 0.5

`models/mnist.onnx` (opset 7) and `mnist/mnist70k.npz` are looked for where scripts/bench/resnet20.py looks for data.
4,096 unlabelled training images calibrate; accuracy is on all 10,000 test images, the dense figure by ONNX Runtime on
the original file, the pruned one by ONNX Runtime on the exported file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from resnet20 import data_folder

import edgeprune as ep


def main() -> int:
    """Read the options, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", type=float, default=0.5, help="share of each group's units that is removed")
    parser.add_argument("--importance", default="l2")
    parser.add_argument("--images", type=int, default=4096, help="that calibrate, in batches of 128")
    options = parser.parse_args()
    folder = data_folder()
    if folder is None:
        parser.error("no data: set EDGEPRUNE_DATA")
    print(json.dumps(figures(folder, options.ratio, options.importance, options.images), indent=2))
    return 0


def figures(data: Path, ratio: float, importance: str, images: int) -> dict[str, Any]:
    """Capture, prune, reconstruct, export, evaluate; `images` calibrate."""
    model = data / "models" / "mnist.onnx"
    with np.load(data / "mnist" / "mnist70k.npz") as arrays:
        train, test, labels = arrays["x_train"], arrays["x_test"], arrays["y_test"]
    calibration = torch.split(torch.from_numpy(train[:images].astype(np.float32)).reshape(-1, 1, 28, 28), 128)
    start = time.perf_counter()
    captured = ep.capture(model)
    captured_s = time.perf_counter() - start
    pruned = captured.prune(captured.uniform(ratio, importance))
    assert pruned.verification is not None
    with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as folder:
        plain = _accuracy(ep.export(pruned, Path(folder) / "plain.onnx").path, test, labels)
        start = time.perf_counter()
        ep.reconstruct(pruned, captured, calibration)
        seconds = time.perf_counter() - start
        small = ep.export(pruned, Path(folder) / "small.onnx").path
        return {
            "ratio": ratio,
            "importance": importance,
            "images": images,
            "capture_s": round(captured_s, 2),
            "relative_error": pruned.verification.relative_error,
            "bytes": {"dense": model.stat().st_size, "pruned": small.stat().st_size},
            "macs": {"dense": captured.cost().macs, "pruned": pruned.cost().macs},
            "reconstruction_s": round(seconds, 1),
            "accuracy": {
                "dense": _accuracy(model, test, labels),
                "pruned": plain,
                "reconstructed": _accuracy(small, test, labels),
            },
        }


def _accuracy(path: Path, images: Any, labels: Any) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    fixed = isinstance(session.get_inputs()[0].shape[0], int)
    step = 1 if fixed else 500
    batches = images.astype(np.float32).reshape(-1, step, 1, 28, 28)
    found = np.concatenate([session.run(None, {name: batch})[0].argmax(1) for batch in batches])
    return float((found == labels).mean())


if __name__ == "__main__":
    sys.exit(main())
