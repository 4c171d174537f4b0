"""The checkpoint of a fine-tuning: one safetensors file, replaced as a whole after every epoch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from edgeprune import atomic
from edgeprune.errors import StorageError
from edgeprune.records.recovery import FineTuneSettings

__all__ = ["SCHEMA", "State", "fingerprint", "load", "parameters", "save"]

SCHEMA = "edgeprune.finetune/1"
_MODEL, _MOMENTUM = "model/", "momentum/"


@dataclass(frozen=True, slots=True)
class State:
    """Where a fine-tuning stands after `epoch` epochs. `steps_per_epoch` fixes the schedule."""

    fingerprint: str
    epoch: int
    steps: int
    steps_per_epoch: int
    final_loss: float
    seconds: float


def parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, each once."""
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def fingerprint(module: nn.Module, settings: FineTuneSettings, seed: int, *extra: object) -> str:
    """What a checkpoint must agree on to be continued: settings, seed, and the state that training starts from."""
    digest = hashlib.sha256(json.dumps([SCHEMA, asdict(settings), seed, *extra], sort_keys=True).encode())
    for name, value in sorted(_state(module).items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Write the checkpoint atomically; raises StorageError."""
    tensors = {_MODEL + name: value.detach().cpu().contiguous() for name, value in _state(module).items()}
    for name, parameter in parameters(module).items():
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[_MOMENTUM + name] = momentum.detach().cpu().contiguous()
    metadata = {"schema": SCHEMA, "state": json.dumps(asdict(state))}
    atomic.write_bytes(path, safetensors.torch.save(tensors, metadata))


def load(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, wanted: str) -> State | None:
    """Put a checkpoint of the `wanted` fingerprint into module and optimizer; None, and no change, where it is another.

    Raises StorageError where the file cannot be read.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("schema") != SCHEMA:
                return None
            state = State(**json.loads(metadata["state"]))
            if state.fingerprint != wanted:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise StorageError(
            f"cannot read the checkpoint {path}: {error}", hint="delete it to start the fine-tuning anew"
        ) from error
    with torch.no_grad():
        for name, value in _state(module).items():
            value.copy_(tensors[_MODEL + name])
        for name, parameter in parameters(module).items():
            if _MOMENTUM + name in tensors:
                optimizer.state[parameter]["momentum_buffer"] = tensors[_MOMENTUM + name].to(parameter.device)
    return state


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once under its first name: safetensors refuses tensors that share memory."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
