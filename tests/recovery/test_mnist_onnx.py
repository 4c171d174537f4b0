"""A network that is only there as an ONNX file, and images without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

import edgeprune as ep


@pytest.mark.needs_data
def test_half_of_the_channels_and_no_labels_leave_97_percent(data_folder: Path) -> None:
    with np.load(data_folder / "mnist" / "mnist70k.npz") as data:
        train, test, labels = (torch.from_numpy(data[name]) for name in ("x_train", "x_test", "y_test"))
    images, unseen = (x.float().reshape(-1, 1, 28, 28) for x in (train[:1024], test))
    path = data_folder / "models" / "mnist.onnx"
    captured = ep.capture(path)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"Input3": image[None].numpy()})[0] for image in images[:32]])

    pruned = captured.prune(captured.uniform(0.5, "l2"))
    report = ep.reconstruct(pruned, captured, images.split(128))
    with torch.no_grad():
        np.testing.assert_allclose(captured.module(images[:32]).numpy(), expected, rtol=1e-4, atol=1e-2)
        accuracies = [
            float((torch.cat([module(x) for x in unseen.split(500)]).argmax(1) == labels).float().mean())
            for module in (captured.module, pruned.module)
        ]

    assert [layer.name for layer in report.layers] == ["Parameter87", "Parameter193"]
    assert report.replaced == 2
    assert accuracies[0] == pytest.approx(0.9891, abs=1e-4)
    assert accuracies[1] >= 0.97
