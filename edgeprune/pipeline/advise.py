"""`edgeprune advise`: what each way of making the model smaller is really worth on a device, measured.

dense -> structured, 2:4, unstructured, int8, structured + int8 -> each: file, quality, measurement, comparison in turn
with the dense model -> recommendation
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import CannotMeasureError, TargetError, UsageError
from edgeprune.measure.session import Session
from edgeprune.pipeline.recommendation import Method, Ratio, Recommendation, ratio_of, recommend
from edgeprune.progress import SILENT, Progress
from edgeprune.records import codec
from edgeprune.records.budget import Budget
from edgeprune.records.figures import Figure, Figures, figures_of
from edgeprune.records.measurement import Measurement, Outcome
from edgeprune.records.profile import DeviceProfile, load_profile

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured
    from edgeprune.pipeline.task import CheckedTask
    from edgeprune.pipeline.variants import Variant, Variants
    from edgeprune.targets.base import Target

__all__ = ["METHODS", "SCHEMA", "Advice", "advise"]

SCHEMA = "edgeprune.advice/1"
METHODS = ("structured", "2:4", "unstructured", "int8")
_RATIOS = (0.3, 0.5)  # of the channels
_ZEROS = 0.8  # of the weights
_WORKERS = 5  # of each comparison: ratios are to be told apart from 1, not from each other
_BYTES = 4  # of a weight


@dataclass(frozen=True, slots=True)
class Advice:
    """The dense model's figures, every method's, and the recommendation."""

    dense: Figures
    methods: tuple[Method, ...]
    recommendation: Recommendation
    measurement: Measurement  # of the dense model
    params: int
    macs: int
    calibrated_on: str
    warnings: tuple[str, ...] = ()
    budget: Budget = field(default_factory=Budget)

    def to_json(self) -> dict[str, Any]:
        """Plain data; every figure is measured, and a missing one carries its reason."""
        return {
            "schema": SCHEMA,
            "dense": {name: asdict(figure) for name, figure in self.dense.items()},
            "methods": [_method_json(method) for method in self.methods],
            "recommendation": asdict(self.recommendation),
            "budget": self.budget.to_json(),
            "params": self.params,
            "macs": self.macs,
            "calibrated_on": self.calibrated_on,
            "measured_on": None if self.measurement.provenance is None else asdict(self.measurement.provenance),
            "warnings": list(self.warnings),
        }


def advise(
    captured: Captured,
    *,
    task: CheckedTask | None = None,
    target: Target | str = "local",
    profile: DeviceProfile | str | Path = "host",
    budget: Budget | None = None,
    methods: Sequence[str] = METHODS,
    calibration: str | Path | None = None,
    round_to: int | None = None,
    min_width: int = 8,
    ignored: Sequence[str] = (),
    format: str = "onnx",  # noqa: A002  as `export`
    workers: int = _WORKERS,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Advice:
    """Measure the dense model and what each of `methods` makes of it on one device, and say which to use.

    The budget (by default the profile's) decides what is needed. A method that cannot be made or measured is told with
    the reason. `calibration` is a file of examples for int8, and without a task for the fidelity. Nothing is left on
    disk. Raises TargetError, CannotMeasureError where the dense model cannot be measured, UsageError, TaskError,
    ParityError, VerificationError.
    """
    from edgeprune.pipeline.calibration import load_calibration
    from edgeprune.pipeline.device_check import refuse_unhealthy
    from edgeprune.pipeline.runtimes import local_options, use_runtime_for
    from edgeprune.pipeline.variants import Variants, calibration_batches
    from edgeprune.records.profile_match import check_architecture, differences
    from edgeprune.targets.parse import open_target

    kind = load_profile(profile) if isinstance(profile, (str, Path)) else profile
    limits = kind.budget.override(budget or Budget())
    device = open_target(target, **local_options(target, format)) if isinstance(target, str) else target
    examples = [] if calibration is None else load_calibration(Path(calibration), captured)
    fitted, judges, origin = calibration_batches(captured, task, examples, seed)
    energy = any(limit.figure == "energy" for limit in limits.limits)
    with (
        tempfile.TemporaryDirectory(prefix="edgeprune-") as folder,
        Session(device, kind, progress=progress, energy=energy) as session,
    ):
        check_architecture(kind, session.machine, device.name)
        use_runtime_for(session, format)
        refuse_unhealthy(session, progress)
        variants = Variants(captured, task, Path(folder), fitted, judges, format, seed, progress)
        scale = _Scale.of(variants.dense(), session, limits, workers)
        rounding = {"round_to": round_to or kind.alignment, "min_width": min_width, "ignored": ignored}
        found = _Comparison(variants, scale, rounding, progress).methods(methods)
        unlike = differences(kind, session.machine)
    cost = captured.cost()
    weights = cost.params * _BYTES
    recommendation = recommend(
        found,
        scale.figures,
        limits,
        phone=kind.system == "android",
        weights_share=weights / max(weights + cost.peak_activation_bytes, 1),
    )
    warnings = (*(f"not as the profile {kind.name!r} says: {text}" for text in unlike), *scale.measurement.warnings)
    return Advice(
        scale.figures, found, recommendation, scale.measurement, cost.params, cost.macs, origin, warnings, limits
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """The dense model, measured, and what others are held against it with."""

    variant: Variant
    measurement: Measurement
    figures: dict[str, Figure]
    session: Session
    budget: Budget
    workers: int

    @classmethod
    def of(cls, variant: Variant, session: Session, budget: Budget, workers: int) -> _Scale:
        measured = session.measure(variant.artifact)
        if not measured.outcome.is_result:
            raise CannotMeasureError(
                f"the dense model could not be measured: {measured.outcome.value}: {measured.message}",
                hint="`edgeprune device check` looks for the cause",
                outcome=measured.outcome.value,
            )
        return cls(variant, measured, _figures(measured, variant), session, budget, workers)

    def method(self, method: Method, variant: Variant) -> Method:
        """The method with all that is measured of its variant."""
        measured = self.session.measure(variant.artifact)
        figures = _figures(measured, variant)
        missing = dict(method.missing)
        ratios: dict[str, Ratio] = {}
        known = ["energy"] if (dense := self.figures.get("energy")) and dense.value is not None else []
        for name in ("peak_memory", "size", "download", *known):
            sure = name != "peak_memory" or (_spread_known(measured) and _spread_known(self.measurement))
            ratio = ratio_of(name, figures, self.figures, interval=sure)
            if ratio is not None:
                ratios[name] = ratio
            else:
                missing[name] = _reason(name, figures) or _reason(name, self.figures) or "not measured"
        if measured.outcome is not Outcome.OK or self.measurement.outcome is not Outcome.OK:
            missing["latency"] = _reason("latency.p50", figures) or _reason("latency.p50", self.figures)
        else:
            compared = self.session.compare(variant.artifact, self.variant.artifact, workers=self.workers)
            if compared.ratio is None or compared.lower is None or compared.upper is None:
                missing["latency"] = f"the comparison ended as {compared.outcome.value}: {compared.message}"
            else:
                change = {"faster": "less", "slower": "more"}.get(str(compared.verdict), "none")
                latency = Ratio(compared.ratio, compared.lower, compared.upper, change)  # type: ignore[arg-type]
                ratios = {"latency": latency, **ratios}
        judged = variant.judgement
        if measured.outcome is Outcome.OK and (otherwise := self._otherwise(variant)):
            judged = replace(judged, accuracy=None, agreement=None, relative_error=None, missing=otherwise)
            figures.pop("accuracy", None)
        if judged.missing:
            missing["accuracy"] = judged.missing
        before = self.variant.judgement.accuracy
        change_of = None if judged.accuracy is None or before is None else judged.accuracy - before
        return replace(
            method,
            figures=figures,
            ratios=ratios,
            accuracy_change=change_of,
            agreement=judged.agreement,
            relative_error=judged.relative_error,
            recovery=variant.recovery,
            check=self.budget.check(figures, self.figures),
            missing=missing,
        )

    def _otherwise(self, variant: Variant) -> str:
        """Why the figures of quality do not hold for the device: it computes something else. Empty where they do."""
        from edgeprune.pipeline.quantisation import device_difference

        return (
            "" if variant.computed is None else device_difference(self.session, variant.artifact, *variant.computed)[1]
        )


@dataclass(slots=True)
class _Comparison:
    """All methods, one after the other."""

    variants: Variants
    scale: _Scale
    rounding: Mapping[str, Any]
    progress: Progress

    def methods(self, wanted: Sequence[str]) -> tuple[Method, ...]:
        from edgeprune.pipeline.quantisation import quantizer_of

        variants, dense = self.variants, self.scale.variant
        found: list[Method] = []
        smallest: Variant | None = None
        if "structured" in wanted:
            for ratio in _RATIOS:
                blank = Method(f"structured {ratio:.0%}", "structured", trains=variants.trainable)
                method, smallest = self._tried(blank, lambda r=ratio: variants.structured(r, **self.rounding))  # type: ignore[misc]
                found.append(method)
        if "2:4" in wanted:
            blank = Method("2:4", "sparse", trains=variants.trainable)
            found.append(self._tried(blank, lambda: variants.sparse("2:4"))[0])
        if "unstructured" in wanted:
            blank = Method(f"unstructured {_ZEROS:.0%}", "sparse", trains=variants.trainable)
            found.append(self._tried(blank, lambda: variants.sparse("unstructured", _ZEROS))[0])
        if "int8" in wanted:
            schemes = {scheme.name: scheme for scheme in quantizer_of(variants.format).schemes}
            int8 = [
                self._tried(Method(scheme.name, "int8"), lambda s=scheme: variants.int8(dense, s))[0]  # type: ignore[misc]
                for scheme in schemes.values()
            ]
            found += int8
            made = [method for method in int8 if "latency" in method.ratios]
            if smallest is not None and made:
                best = min(made, key=lambda method: method.ratios["latency"].value)
                blank = Method(f"structured {_RATIOS[-1]:.0%} + {best.name}", "both", trains=variants.trainable)
                source = smallest
                found.append(self._tried(blank, lambda: variants.int8(source, schemes[best.name]))[0])
        return tuple(found)

    def _tried(self, method: Method, make: Callable[[], Variant]) -> tuple[Method, Variant | None]:
        """The method as it was measured, and its variant; or why it could not be made."""
        self.progress.say(method.name)
        try:
            variant = make()
            return self.scale.method(method, variant), variant
        except TargetError:
            raise
        except UsageError as error:
            return replace(method, missing={"": error.message}), None


def _figures(measured: Measurement, variant: Variant) -> dict[str, Figure]:
    from edgeprune.pipeline.worth import compressed_sizes

    figures = figures_of(measured, variant.artifact, variant.judgement.accuracy)
    packed = float(compressed_sizes(variant.artifact.path)["xz"])
    return {**figures, "download": Figure(packed, packed)}


def _spread_known(measured: Measurement) -> bool:
    """Whether several workers tell how far the peak of memory varies."""
    return measured.memory is not None and measured.memory.workers > 1


def _reason(name: str, figures: Figures) -> str:
    figure = figures.get(name)
    return "" if figure is None else figure.missing


def _method_json(method: Method) -> dict[str, Any]:
    data = asdict(replace(method, check=None))
    data["check"] = None if method.check is None else codec.to_json(method.check)
    data["missing"] = {name or "all": reason for name, reason in method.missing.items()}
    return data
