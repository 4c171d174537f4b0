"""What a model computes on the device for given inputs, to be compared with what another runtime computes."""

from __future__ import annotations

import base64
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.agent.client import AgentClient
from edgeprune.errors import TargetError, UsageError
from edgeprune.targets.base import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["device_outputs"]

_GRACE_S = 30.0  # beyond the agent's own deadline


def device_outputs(
    client: AgentClient,
    target: Target,
    model: str,
    inputs: Mapping[str, NDArray[Any]],
    *,
    runtime: str = "onnxruntime",
    threads: int = 1,
    deadline_s: float = 120.0,
) -> dict[str, NDArray[Any]]:
    """The outputs by name, in the model's order; `model` is the path on the device of a file that was uploaded.

    At most 64 MiB of inputs and 512 KiB of outputs. Raises TargetError with the outcome (NO_RUNTIME, CRASHED, OOM ...),
    UsageError where the outputs are larger.
    """
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        path = Path(folder) / "inputs.bin"
        path.write_bytes(b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in inputs.values()))
        data = target.upload(path, path.name)
    described = [
        {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)} for name, array in inputs.items()
    ]
    frame = client.request(
        "outputs",
        timeout_s=deadline_s + _GRACE_S,
        model=model,
        data=data,
        inputs=described,
        policy={"runtime": runtime, "threads": threads},
        deadline_s=deadline_s,
    ).frame
    if frame.get("outcome") != "OK":
        raise TargetError(f"{target.name}: {frame.get('message')}", outcome=str(frame.get("outcome")))
    found: dict[str, NDArray[Any]] = {}
    for output in frame["outputs"]:
        if output["data"] is None:
            raise UsageError(f"{target.name}: the outputs are too large to be sent", hint="a smaller batch or model")
        block = base64.b64decode(output["data"])
        if hashlib.sha256(block).hexdigest() != output["sha256"]:
            raise TargetError(f"{target.name}: output {output['name']!r} arrived damaged", outcome="LOST")
        dtype = np.dtype(output["dtype"]).newbyteorder("<")
        found[str(output["name"])] = np.frombuffer(block, dtype).reshape(output["shape"])
    return found
