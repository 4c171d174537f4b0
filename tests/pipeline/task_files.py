"""Task files to read, whole or with parts that are wrong."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

from edgeprune.pipeline.task import CheckedTask, load_task

GOOD = {
    "model": "def model(self): return nn.Linear(3, 2)",
    "example_inputs": "def example_inputs(self): return (torch.ones(2, 3),)",
    "evaluate": "def evaluate(self, model): return 0.9",
    "train_batches": "def train_batches(self): yield torch.ones(4, 3)",
    "loss": "def loss(self, model, batch): return model(batch).square().mean()",
}


def write(folder: Path, *, remove: tuple[str, ...] = (), before: str = "", **parts: str) -> Path:
    """A task.py with the good parts, some replaced, some removed."""
    body = [text for name, text in {**GOOD, **parts}.items() if name not in remove]
    head = "import math\nimport torch\nfrom torch import nn\n" + dedent(before)
    text = head + "class Mine:\n" + "\n".join(indent(dedent(part), "    ") for part in body) + "\n"
    path = folder / "task.py"
    path.write_text(text, encoding="utf-8")
    return path


def line_of(path: Path, text: str) -> str:
    number = next(i for i, line in enumerate(path.read_text().splitlines(), 1) if text in line)
    return f"{path}:{number}"


def load(folder: Path) -> CheckedTask:
    return load_task("task.py:Mine", folder)
