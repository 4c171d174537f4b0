"""Sensitivities that were judged before, kept on this machine: plan, run and sweep judge nothing twice.

One file for each network, its inputs and seed: all that a judgement comes from is in the file's name, as a digest, so
that none is taken for another's, whatever became of the task's code or data in between. What was not added to for
90 days is removed when another file begins.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import atomic
from edgeprune.errors import StorageError
from edgeprune.measure.cost_cache import cache_folder

if TYPE_CHECKING:
    import torch

    from edgeprune.graph.captured import Captured

__all__ = ["SensitivityCache", "digest_of"]

_KEPT_S = 90 * 86_400.0
_SCHEMA = "edgeprune.judged/1"  # another one where the same candidate would be judged otherwise


class SensitivityCache:
    """Losses by candidate, of one network on the same inputs. What goes wrong with it is told in `warnings`."""

    def __init__(self, digest: str, folder: Path | None = None) -> None:
        self.path = (folder or cache_folder("sensitivities")) / f"{digest}.json"
        self.warnings: tuple[str, ...] = ()
        self._losses = self._read()

    def get(self, candidate: str) -> float | None:
        """The loss of the candidate with this id, or None."""
        return self._losses.get(candidate)

    def put(self, candidate: str, loss: float) -> None:
        """Keep a loss, on disk at once. Of several processes that write at the same time one may be forgotten."""
        self._losses[candidate] = loss
        content = {"schema": _SCHEMA, "losses": {**self._read(), **self._losses}}
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.path.exists():
                self._forget()
            atomic.write_text(self.path, json.dumps(content, allow_nan=False) + "\n")
        except (OSError, StorageError) as error:
            self._warn(f"the sensitivities could not be kept in {self.path}: {error}")

    def _forget(self) -> None:
        oldest = time.time() - _KEPT_S
        for other in self.path.parent.glob(f"{'[0-9a-f]' * 64}.json"):
            with contextlib.suppress(OSError):  # another process forgets as well; or it is none of ours
                if other.stat().st_mtime < oldest:
                    other.unlink()

    def _read(self) -> dict[str, float]:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            if data["schema"] != _SCHEMA:
                raise ValueError(f"its schema is {data['schema']!r}")
            return {str(name): _finite(value) for name, value in data["losses"].items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ArithmeticError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            self._warn(f"{self.path} is left out: {error}; what it held is judged again")
            return {}

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings += (text,)


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no loss")
    return float(value)


def digest_of(captured: Captured, inputs: Iterable[Any], seed: int) -> str:
    """SHA-256 over the network, the seed, and what the network is called with (tensors in any structure)."""
    import torch
    from torch.utils import _pytree as pytree

    from edgeprune.graph.constants import Attributes

    attributes = Attributes(captured.module)
    names = sorted(str(node.target) for node in captured.module.graph.nodes if node.op == "get_attr")
    about = (_SCHEMA, torch.__version__, captured.granularity, seed, captured.module.code)
    digest = hashlib.sha256(repr(about).encode())
    for given in (*((name, attributes[name]) for name in names), *inputs):
        leaves, structure = pytree.tree_flatten(given)
        digest.update(repr(structure).encode())
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor):
                digest.update(f"{leaf.dtype} {leaf.layout} {tuple(leaf.shape)}\n".encode())
                digest.update(_bytes(leaf))
            else:
                digest.update(repr(leaf).encode())
    return digest.hexdigest()


def _bytes(tensor: torch.Tensor) -> memoryview:
    """The elements, whatever the tensor's layout and wherever it lies."""
    import torch

    dense = tensor.detach().cpu() if tensor.layout is torch.strided else tensor.detach().cpu().to_dense()
    return dense.resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8).numpy().data
