#!/usr/bin/env python
"""How long does it take to learn what a network costs on a device? MobileNet-V2 at 224 x 224, cold and warm; as JSON.

    scripts/bench/cost_table.py                            # this machine
    scripts/bench/cost_table.py --target ssh://pi@board

`cold` begins with an empty cache, `warm` is the next run on the same device: it times again what was not stable, which
is more on a busy machine. `operators` are those that the model needs, `seconds` the whole, from the captured network to
the model of its latency.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from search_cell import WAIT_S
from search_models import InvertedResidual
from torch import Tensor, nn

from edgeprune.cli.progress import open_progress
from edgeprune.graph.capture import capture
from edgeprune.importance.base import ImportanceContext
from edgeprune.importance.magnitude import L1
from edgeprune.measure.session import Session
from edgeprune.pipeline.costs import cost_model
from edgeprune.pipeline.planning import device_timer, thinned
from edgeprune.pipeline.space import search_space
from edgeprune.records.budget import Budget
from edgeprune.records.figures import Figure
from edgeprune.records.operators import OperatorSignature, OperatorTiming
from edgeprune.records.profile import load_profile
from edgeprune.targets.parse import open_target

_BUDGET = Budget.parse({"latency": {"p50": "50% of dense"}})


class MobileNetV2(nn.Module):
    """Sandler et al. 2018 (arXiv:1801.04381, table 2), width 1; the first block has an expansion layer, too."""

    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self) -> None:
        super().__init__()
        width = 32
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6()]
        for expansion, channels, count, stride in self.STAGES:
            for index in range(count):
                layers.append(InvertedResidual(width, channels, stride if index == 0 else 1, expansion))
                width = channels
        layers += [nn.Conv2d(width, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 224, 224) -> (N, 1000)."""
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="local")
    parser.add_argument("--profile", default="host")
    options = parser.parse_args()
    torch.manual_seed(0)
    captured = capture(MobileNetV2().eval(), (torch.randn(1, 3, 224, 224),))
    profile = load_profile(options.profile)
    scores = L1().score(captured.module, captured.groups, ImportanceContext())
    space = search_space(captured, scores, round_to=profile.alignment, min_width=profile.alignment)
    space = replace(space, groups=tuple(thinned(group) for group in space.groups))
    found: dict[str, Any] = {"groups": len(space.groups), "widths": sum(len(group.widths) for group in space.groups)}
    with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as folder, open_progress() as progress:
        os.environ["XDG_CACHE_HOME"] = folder
        with Session(open_target(options.target), profile, progress=progress, wait_s=WAIT_S) as session:
            for when in ("cold", "warm"):
                timed: list[int] = []
                timer = device_timer(session, progress)

                def counting(
                    wanted: Sequence[OperatorSignature], timer: Any = timer, timed: list[int] = timed
                ) -> Mapping[str, OperatorTiming]:
                    times: Mapping[str, OperatorTiming] = timer(wanted)
                    timed += [len(times), sum(bool(time.error) for time in times.values())]
                    return times

                started = time.monotonic()
                cost_model(captured, space, _BUDGET, {"latency.p50": Figure(100.0)}, counting)
                seconds = round(time.monotonic() - started, 1)
                found[when] = {"operators": timed[0], "failed": timed[1], "seconds": seconds}
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
