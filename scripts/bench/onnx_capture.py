"""ONNX files of known families: captured, compared with ONNX Runtime, pruned by half and verified. One JSON line each.

    python scripts/bench/onnx_capture.py FOLDER [--make]

With --make the files are written first, by torch's two exporters with and without folded batch norms; needs timm.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reachability import reachable

import edgeprune as ep

FAMILIES = (
    "resnet18",
    "mobilenetv3_small_100",
    "densenet121",
    "efficientnet_b0",
    "vgg11",
    "convnext_atto",
    "deit_tiny_patch16_224",
    "regnety_002",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "swin_tiny_patch4_window7_224",
)
VARIANTS: dict[str, dict[str, Any]] = {
    "legacy11": {"dynamo": False, "opset_version": 11},
    "legacy11-unfolded": {
        "dynamo": False,
        "opset_version": 11,
        "do_constant_folding": False,
        "training": torch.onnx.TrainingMode.PRESERVE,
    },
    "dynamo20": {"dynamo": True, "opset_version": 20, "external_data": False},
}

_LIBRARIES: list[torch.library.Library] = []  # their operators last as long as they do


def make(folder: Path, name: str, variant: str) -> Path:
    """Write the file of a family, untrained, with a batch fixed to 1."""
    path = folder / f"{name}.{variant}.onnx"
    if not path.exists():
        torch.manual_seed(0)
        # Scaled dot-product attention came with opset 14; as matrix products it is there in 11.
        model = _model(name, fused_attention=VARIANTS[variant]["opset_version"] >= 14)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            options = dict(VARIANTS[variant])
            torch.onnx.export(model, (torch.randn(1, 3, 224, 224),), str(path), **options)
    return path


def _model(name: str, *, fused_attention: bool) -> torch.nn.Module:
    # torchvision beside a CPU torch of another build wants two operators to exist, and never calls them.
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    with contextlib.suppress(RuntimeError):
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)
    import timm
    import timm.layers
    import torchvision

    timm.layers.set_fused_attn(fused_attention)
    if name in timm.list_models():
        model: torch.nn.Module = timm.create_model(name, pretrained=False)
    else:
        model = torchvision.models.get_model(name, weights=None)
    return model.eval()


def examine(path: Path) -> dict[str, Any]:
    """Capture, compare, prune by half."""
    begin = time.perf_counter()
    captured = ep.capture(path)
    captured_s = time.perf_counter() - begin
    total = sum(parameter.numel() for parameter in captured.module.parameters())
    begin = time.perf_counter()
    pruned = captured.prune(captured.uniform(0.5))
    verification = pruned.verification
    assert verification is not None
    return {
        "capture_s": round(captured_s, 1),
        "onnxruntime_error": _error(path, captured),
        "batch_dynamic": captured.batch_dynamic,
        "reachable": round(reachable(captured), 3),
        "frozen": sorted({str(group.frozen) for group in captured.frozen if group.units > 1})[:8],
        "prune_verify_s": round(time.perf_counter() - begin, 1),
        "kept_params": round(sum(p.numel() for p in pruned.module.parameters()) / total, 3),
        "verified_to": verification.relative_error,
    }


def _error(path: Path, captured: ep.Captured) -> float:
    """The largest difference of the captured graph to ONNX Runtime on the file, of the largest output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name, inputs = session.get_inputs()[0].name, captured.example_inputs[0]
    expected = np.concatenate([session.run(None, {name: x[None].numpy()})[0] for x in inputs])
    with torch.no_grad():
        found = captured.module(inputs).numpy()
    return float(f"{abs(found - expected).max() / abs(expected).max():.2g}")


def main() -> None:
    """Examine the files one by one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--only", nargs="*", default=FAMILIES)
    options = parser.parse_args()
    if options.make:
        options.folder.mkdir(parents=True, exist_ok=True)
        files = [(name, variant) for name in options.only for variant in VARIANTS]
    else:
        files = [tuple(path.stem.rsplit(".", 1)) for path in sorted(options.folder.glob("*.onnx"))]
    for name, variant in files:
        row: dict[str, Any] = {"file": f"{name}.{variant}"}
        try:
            path = make(options.folder, name, variant) if options.make else options.folder / f"{name}.{variant}.onnx"
            row |= examine(path)
        except Exception as error:
            row |= {"error": f"{type(error).__name__}: {error}"[:300]}
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
