from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgeprune.graph.capture import capture
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.recovery.batchnorm import reestimate
from edgeprune.recovery.finetune import finetune
from edgeprune.recovery.reconstruct import reconstruct
from edgeprune.training_data import reproducible
from scripts.bench.resnet20 import Cifar10, lowest_l1


@pytest.mark.needs_data
def test_each_step_of_recovery_wins_back_accuracy(data_folder: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = Cifar10(data_folder)
        dense = capture(task.model(), task.example_inputs())
        assert task.evaluate(dense.module) == 0.915
        pruned = dense.prune(dense.uniform(0.25, "l1"))
        reached = [task.evaluate(pruned.module)]
        with reproducible(0):
            reestimate(pruned.module, task.train_batches(), task.loss, max_batches=10)
        reached.append(task.evaluate(pruned.module))
        settings = FineTuneSettings(epochs=1, max_batches_per_epoch=20)
        finetune(pruned.module, task.train_batches, task.loss, settings=settings, teacher=dense.module, seed=0)
        reached.append(task.evaluate(pruned.module))
    finally:
        torch.set_num_threads(threads)
    # Over a whole recovery (6 epochs) 0.20, 0.59, 0.88.
    assert reached[0] < 0.3
    assert reached[1] > 0.5
    assert reached[2] > 0.7


@pytest.mark.needs_data
def test_reconstruction_without_labels_halves_the_loss(data_folder: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = Cifar10(data_folder)
        dense = capture(task.model(), task.example_inputs())
        pruned = dense.prune(lowest_l1(dense, 0.3))
        plain = task.evaluate(pruned.module)
        with reproducible(0):
            images = [images[:64] for (images, _), _ in zip(task.train_batches(), range(4), strict=False)]
        report = reconstruct(pruned, dense, images)
        reconstructed = task.evaluate(pruned.module)
    finally:
        torch.set_num_threads(threads)
    assert plain == 0.647
    assert report.replaced == len(report.layers) == 9
    # With 1,024 images 0.897.
    assert 0.915 - reconstructed < (0.915 - plain) / 2
