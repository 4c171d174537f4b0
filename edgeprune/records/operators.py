"""Single operators in their true shapes: what one is, the small model that stands for it, and how long it takes.

The key of a signature names everything that its time depends on, in plain text; costs are stored under it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from edgeprune.errors import UsageError
from edgeprune.records.artifact import TensorSpec

__all__ = [
    "ACTIVATIONS",
    "UNSTABLE_SHARE",
    "AttentionSignature",
    "ConvSignature",
    "LinearSignature",
    "MatMulSignature",
    "MicroModel",
    "OperatorSignature",
    "OperatorTiming",
    "TimingPolicy",
]

ACTIVATIONS = ("", "relu", "relu6", "sigmoid", "tanh", "leaky_relu", "silu", "gelu", "hard_swish")
UNSTABLE_SHARE = 0.1  # by which the medians of the two passes may differ


@dataclass(frozen=True, slots=True)
class _Signature:
    kind: ClassVar[str]

    @property
    def key(self) -> str:
        """Canonical text: "conv in_channels=64 out_channels=64 in_size=28x28 ..."; the same for equal signatures."""
        return " ".join([self.kind, *(f"{entry.name}={_text(getattr(self, entry.name))}" for entry in fields(self))])

    def _positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if any(number < 1 for number in (value if isinstance(value, tuple) else (value,))):
                raise UsageError(f"{self.kind}: {name} = {_text(value)}", hint="sizes are from 1")


@dataclass(frozen=True, slots=True)
class ConvSignature(_Signature):
    """A convolution of one or two (or three) spatial dimensions; `in_size` is the input without its padding.

    Depthwise: `groups` = `in_channels`. `transposed` with its `output_padding` is torch's ConvTranspose. Raises
    UsageError where the parts do not fit each other.
    """

    in_channels: int
    out_channels: int
    in_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    bias: bool = True
    activation: str = ""
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    batch: int = 1

    kind: ClassVar[str] = "conv"

    def __post_init__(self) -> None:
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0)):
            object.__setattr__(self, name, getattr(self, name) or (default,) * len(self.kernel))
        self._positive("in_channels", "out_channels", "in_size", "kernel", "stride", "dilation", "groups", "batch")
        _known(self.kind, self.activation)
        lengths = {len(part) for part in (self.kernel, self.in_size, self.stride, self.padding, self.dilation)}
        if len(lengths) != 1:
            raise UsageError(f"{self.key}: in_size, kernel, stride, padding and dilation have different lengths")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise UsageError(f"{self.key}: both channel counts must be multiples of groups")
        if min(self.out_size) < 1:
            raise UsageError(f"{self.key}: the kernel is larger than the padded input")

    @property
    def out_size(self) -> tuple[int, ...]:
        """Spatial size of the output (torch's documentation of Conv2d and ConvTranspose2d)."""
        parts = zip(
            self.in_size, self.kernel, self.stride, self.padding, self.dilation, self.output_padding, strict=True
        )
        if self.transposed:
            return tuple((n - 1) * s - 2 * p + d * (k - 1) + extra + 1 for n, k, s, p, d, extra in parts)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, _ in parts)


@dataclass(frozen=True, slots=True)
class LinearSignature(_Signature):
    """`rows` vectors (batch × tokens) through one weight."""

    rows: int
    in_features: int
    out_features: int
    bias: bool = True
    activation: str = ""

    kind: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        self._positive("rows", "in_features", "out_features")
        _known(self.kind, self.activation)


@dataclass(frozen=True, slots=True)
class MatMulSignature(_Signature):
    """(batch, m, k) × (batch, k, n), both computed."""

    batch: int
    m: int
    k: int
    n: int

    kind: ClassVar[str] = "matmul"

    def __post_init__(self) -> None:
        self._positive("batch", "m", "k", "n")


@dataclass(frozen=True, slots=True)
class AttentionSignature(_Signature):
    """softmax(q kᵀ / √d) v of (batch, heads, tokens, head_size), as the exporter writes it."""

    batch: int
    heads: int
    tokens: int
    head_size: int

    kind: ClassVar[str] = "attention"

    def __post_init__(self) -> None:
        self._positive("batch", "heads", "tokens", "head_size")


OperatorSignature = ConvSignature | LinearSignature | MatMulSignature | AttentionSignature


@dataclass(frozen=True, slots=True)
class MicroModel:
    """A whole model file of one operator, small enough that hundreds travel at once."""

    data: bytes
    inputs: tuple[TensorSpec, ...]
    suffix: str = ".onnx"


@dataclass(frozen=True, slots=True)
class TimingPolicy:
    """How long each micro model runs, in each of its two passes: until its median is within `ci_share`, or to a cap."""

    warmup_runs: int = 3
    warmup_s: float = 0.02
    min_runs: int = 20
    max_runs: int = 5000
    min_s: float = 0.05
    max_s: float = 0.5
    ci_share: float = 0.02
    profile_runs: int = 50  # under the runtime's profiler


@dataclass(frozen=True, slots=True)
class OperatorTiming:
    """How long one run of a micro model takes on a device.

    `run_ns` is the whole call with the runtime's overhead and changes of layout, the smaller median of two passes in
    different order; `kernel_ns` is the operator alone (its activation included), as the runtime's own profiler times
    it inside such a run, None where there is no profiler. `medians_ns` are those of the passes. `error` says why there
    are no figures.
    """

    run_ns: float | None = None
    kernel_ns: float | None = None
    lower_quartile_ns: float | None = None
    runs: int = 0
    medians_ns: tuple[float, ...] = ()
    error: str = ""

    @property
    def ns(self) -> float | None:
        """The best figure for a cost: of the operator alone where that is known."""
        return self.run_ns if self.kernel_ns is None else self.kernel_ns

    @property
    def stable(self) -> bool:
        """The passes agree within UNSTABLE_SHARE; False without figures."""
        return bool(self.medians_ns) and max(self.medians_ns) <= min(self.medians_ns) * (1 + UNSTABLE_SHARE)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return str(int(value)) if isinstance(value, bool) else str(value)


def _known(kind: str, activation: str) -> None:
    if activation not in ACTIVATIONS:
        known = ", ".join(name for name in ACTIVATIONS if name)
        raise UsageError(f"{kind}: unknown activation {activation!r}", hint=f"known are {known}, or '' for none")
