"""Export: module -> file -> parity -> manifest."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import registry
from edgeprune.errors import ParityError, UsageError
from edgeprune.export import manifest, parity
from edgeprune.export.runner import open_runner, other_runners
from edgeprune.records.artifact import Artifact

if TYPE_CHECKING:
    from edgeprune.export.base import Exporter
    from edgeprune.graph.captured import Captured, Pruned

__all__ = ["check_folder", "check_output", "export", "exporter", "format_of"]


def exporter(format: str) -> Exporter:  # noqa: A002  as `export`
    """The exporter of "tflite", or with parameters where it takes some "tflite:layout=nhwc"; raises UsageError."""
    made: Exporter = registry.create("exporters", format)
    return made


def format_of(path: Path) -> str:
    """The format that a file's name says; raises UsageError with the endings that say one."""
    formats = {exporter(name).suffix: name for name in registry.names("exporters")}
    if path.suffix not in formats:
        what = path.suffix or "files without a suffix"
        raise UsageError(f"{path.name}: no exporter writes {what}", hint=f"endings: {', '.join(formats)}")
    return formats[path.suffix]


def check_ready(format: str) -> None:  # noqa: A002  as `export`
    """Refuse a format whose tools are not there, before anything is loaded or trained; raises UsageError."""
    check = getattr(exporter(format), "check", None)  # of those that need more than edgeprune brings
    if check is not None:
        check()


def check_output(path: Path, format: str) -> None:  # noqa: A002  as `export`
    """Refuse a file that `export` could not write, before there is a model; raises UsageError."""
    suffix = exporter(format).suffix
    if path.suffix != suffix:
        raise UsageError(
            f"{path.name}: a file of format {format!r} ends in {suffix}",
            hint=f"name it {path.with_suffix(suffix).name}; formats: {', '.join(registry.names('exporters'))}",
        )
    check_folder(path)
    check_ready(format)


def check_folder(path: Path) -> None:
    """Refuse a file in a folder that is not there; raises UsageError."""
    folder = path.absolute().parent
    if not folder.is_dir():
        hint = f"make it first: mkdir -p {shlex.quote(str(folder))}"
        raise UsageError(f"there is no folder {folder} to write {path.name} to", hint=hint)


def export(
    model: Captured | Pruned,
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002  the public API's word
    tolerance: float = 1e-3,
    provenance: Mapping[str, Any] | None = None,
) -> Artifact:
    """Write the model to `path`, check the file in its runtime, and write the manifest beside it.

    Without `format` the file's ending says it. The artifact's provenance tells the candidate, the cost and the parity
    error, by runtime. A file that fails the check is removed. Raises UsageError, ParityError, StorageError.
    """
    from edgeprune.sparsity.masks import has_masks, make_permanent

    path = Path(path).absolute()
    format = format or format_of(path)  # noqa: A001
    check_output(path, format)
    if has_masks(model):
        model = make_permanent(model)
    artifact = exporter(format).export(
        model.module,
        model.example_inputs,
        path,
        batch_dynamic=model.batch_dynamic,
        provenance={**_provenance(model), **(provenance or {})},
        **({"input_names": model.input_names, "output_names": model.output_names} if model.input_names else {}),
    )
    manifest.manifest_path(path).unlink(missing_ok=True)  # one of an older file at this place
    try:
        errors = dict(_parity(artifact, model, tolerance))
    except ParityError:
        path.unlink(missing_ok=True)
        raise
    provenance = {**artifact.provenance, "parity_error": max(errors.values()), "parity_runtimes": errors}
    artifact = replace(artifact, provenance=provenance)
    manifest.write(artifact)
    return artifact


def _parity(artifact: Artifact, model: Captured | Pruned, tolerance: float) -> Iterator[tuple[str, float]]:
    """Each runtime here that runs the file, and its error; raises ParityError."""
    for runner in (open_runner(artifact), *other_runners(artifact)):
        error = parity.check(artifact, model.module, model.example_inputs, tolerance=tolerance, runner=runner)
        yield runner.runtime, error


def _provenance(model: Captured | Pruned) -> dict[str, Any]:
    from edgeprune.graph.captured import Pruned

    cost = model.cost()
    found: dict[str, Any] = {"params": cost.params, "macs": cost.macs}
    if cost.uncounted:
        found["macs_leave_out"] = list(cost.uncounted)
    if isinstance(model, Pruned):
        found["candidate"] = model.candidate.id
        if model.verification is not None:
            found["verification_error"] = model.verification.relative_error
    return found
