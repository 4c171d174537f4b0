"""Channel groups: which tensor dimensions shrink together, and the units that can be removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["ChannelGroup", "Member"]

Role = Literal["producer", "consumer", "affine"]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One dimension of one parameter or buffer that belongs to a group.

    `indices` has shape (units, k), int64: the k indices of `dim` that unit u occupies are `indices[u]`.
    `role`: a producer computes the units (dimension 0 of a convolution's weight, and its bias), a consumer
    contracts them (dimension 1), affine is everything that acts on each unit apart (batch-norm, depthwise).
    """

    parameter: str  # dotted name
    dim: int
    indices: NDArray[np.int64]
    role: Role


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """A set of tensor dimensions that can only shrink together. Frozen groups say why they cannot shrink."""

    name: str
    units: int
    members: tuple[Member, ...]
    frozen: str | None = None
