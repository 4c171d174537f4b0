"""Peak memory of pruning a vision transformer of 86 million parameters, verification included; prints JSON.

    scripts/bench/prune_memory.py --ratio 0.5

Counted is what the process grows beyond its imports: the model itself, its capture, surgery and verification.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(mixed.transpose(1, 2).reshape(b, t, c))
        added: Tensor = self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return x + added


class _ViT(nn.Module):
    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 196, width))
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        scores: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return scores


def _memory(field: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def main() -> int:
    """One model, one prune."""
    import edgeprune as ep

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", type=float, default=0.5, help="share of each group's units that is removed")
    options = parser.parse_args()
    warm = ep.capture(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), torch.randn(1, 8))  # imports all that is lazy
    warm.prune(warm.uniform(0.5))
    before = _memory("VmRSS")
    model = _ViT().eval()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    captured = ep.capture(model, torch.randn(1, 3, 224, 224))
    start = time.perf_counter()
    pruned = captured.prune(captured.uniform(options.ratio))
    seconds = time.perf_counter() - start
    assert pruned.verification is not None
    peak = _memory("VmHWM") - before
    print(
        json.dumps(
            {
                "parameters": sum(p.numel() for p in model.parameters()),
                "model_bytes": size,
                "peak_bytes": peak,
                "times_the_model": round(peak / size, 2),
                "prune_s": round(seconds, 2),
                "relative_error": pruned.verification.relative_error,
                "ratio": options.ratio,
            },
            indent=2,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
