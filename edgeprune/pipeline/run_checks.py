"""What of a run can be refused before it has cost anything, and whether a resumed run is still the same one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeprune import registry
from edgeprune.errors import ConfigError, UsageError
from edgeprune.pipeline.calibration import check_file
from edgeprune.pipeline.export import check_ready
from edgeprune.pipeline.quantisation import quantizer_of, scheme_of
from edgeprune.pipeline.runtimes import local_options
from edgeprune.progress import Progress
from edgeprune.records.budget import Budget
from edgeprune.records.figures import format_figure
from edgeprune.records.profile import DeviceProfile, load_profile
from edgeprune.records.project import DeviceSettings, ExportSettings, Project
from edgeprune.records.yaml_reader import read_document
from edgeprune.search.journal import Journal
from edgeprune.targets.base import Target
from edgeprune.targets.parse import open_target
from edgeprune.targets.ray import RayTarget

__all__ = [
    "check_project",
    "check_same_device",
    "check_same_task",
    "check_settings",
    "effective_budget",
    "run_settings",
    "targets_of",
]

_ROUND_OFF = 1e-6  # of a metric: the same data and the same weights give the same one


def check_settings(project: Project, run_dir: Path | None, *, resume: bool) -> None:
    """Refuse what needs neither the task nor the device to be seen as wrong: settings, address, the run's folder.

    `run_dir` None stands for a new folder. Raises UsageError and its kinds, StorageError.
    """
    budget = effective_budget(project, load_profile(project.device.profile))
    check_project(project)
    if run_dir is not None:
        Journal.check(run_dir.absolute(), run_settings(project, budget), resume=resume)


def check_project(project: Project) -> None:
    """Refuse an address, or the name of a part, that is wrong; raises UsageError."""
    targets_of(project)
    registry.check("strategies", project.search.strategy)
    for kind, spec in (("exporters", project.export.format), ("importances", project.search.importance)):
        registry.create(kind, spec)  # its parameters are its own to judge
    check_ready(project.export.format)
    export = project.export
    if export.is_quantised:
        quantizer = quantizer_of(export.format)
        if export.scheme is not None:
            scheme_of(quantizer, export.scheme)
        if export.calibration is not None:
            check_file(export.calibration)


def effective_budget(project: Project, profile: DeviceProfile) -> Budget:
    """The project's limits, over the profile's default ones; raises UsageError where there are none."""
    budget = profile.budget.override(project.budget)
    if not any(not limit.is_accuracy for limit in budget.limits):
        raise _empty_budget(project.path)
    return budget


def targets_of(project: Project) -> tuple[Target, ...]:
    """The project's device, or several, not yet connected; raises UsageError where one is no address."""
    device = project.device
    if device.targets and device.target != DeviceSettings().target:
        raise UsageError("the project names both `target` and `targets`", hint="name all devices in `targets`")
    keys = {"identity": device.identity_file, "known_hosts": device.known_hosts}
    addresses = device.targets or (device.target,)
    if len(set(addresses)) < len(addresses):
        raise UsageError(f"a device is named twice: {', '.join(addresses)}", hint="name each device once")
    executor = project.executor
    if executor.device is not None:
        if executor.kind != "ray" or device.targets:
            raise UsageError(
                "executor.device is one device on a node of a Ray cluster",
                hint="write executor: {kind: ray, device: camera}, and name one device: {target: ...}",
            )
        given = {name: str(value) for name, value in keys.items() if value is not None and addresses[0][:4] == "ssh:"}
        return (RayTarget(executor.device, executor.address, addresses[0], given),)
    own = {text: keys if text.startswith("ssh:") else local_options(text, project.export.format) for text in addresses}
    return tuple(open_target(text, **own[text]) for text in addresses)


def run_settings(project: Project, budget: Budget) -> dict[str, Any]:
    """Of what a run depends on, what the project says. `max_trials` is left out: a run may be given more of them."""
    targets = project.device.targets
    return {
        "budget": budget.to_json(),
        "device": {
            "profile": project.device.profile,
            "target": project.device.target,
            **({"targets": list(targets), "judge": project.device.judge} if targets else {}),
        },
        "search": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(project.search).items()
            if name != "max_trials"
        },
        "recovery": asdict(project.recovery),
        "export": _export_settings(project.export),
    }


def _export_settings(export: ExportSettings) -> dict[str, Any]:
    """Float says the format alone, as runs of before int8 do."""
    settings: dict[str, Any] = {"format": export.format}
    if export.is_quantised:
        calibration = None if export.calibration is None else str(export.calibration)
        settings |= {"quantize": export.quantize, "scheme": export.scheme, "calibration": calibration}
    return settings


def check_same_device(journal: Journal, device: Mapping[str, Any]) -> None:
    """Refuse to go on with measurements of another device or runtime."""
    recorded = journal.trials[0].details.get("device", device) if journal.trials else device
    different = [
        f"{name} was {recorded.get(name)!r}, is {value!r}"
        for name, value in device.items()
        if recorded.get(name) != value
    ]
    if different:
        raise UsageError(
            f"{journal.path.parent}: this run was measured on another device: {'; '.join(different)}",
            hint="resume it with the device it was started with, or start a new run",
        )


def check_same_task(
    journal: Journal, sources: Mapping[str, str], evaluate: Callable[[], float], progress: Progress
) -> None:
    """Refuse to go on where the dense model is judged otherwise than when the run began; say where code changed.

    A task may be mended in the middle of a run, so that other code alone is no reason: the metric of the dense model
    decides. `sources` are the SHA-256 of the task's files, `evaluate` gives that metric as of now.
    """
    if not journal.trials:
        return
    dense = journal.trials[0]
    recorded = dense.details.get("sources", sources)
    changed = sorted(name for name in {*recorded, *sources} if recorded.get(name) != sources.get(name))
    if changed:
        progress.say(f"warning: changed since the run began: {', '.join(changed)}")
    with progress.step("evaluating the dense model again"):
        now = evaluate()
    figure = dense.figures.get("accuracy")
    before = None if figure is None else figure.value
    if before is None or abs(now - before) <= _ROUND_OFF:
        return
    cause = f"{', '.join(changed)} changed" if changed else "its data changed, or evaluate() draws random numbers"
    raise UsageError(
        f"{journal.path.parent}: evaluate() gave the dense model {format_figure('accuracy', before)} when this run "
        f"began, and gives {format_figure('accuracy', now)} now: {cause}",
        hint="put the task and its data back as they were, or start a new run: the trials would not compare",
    )


def _empty_budget(path: Path) -> UsageError:
    message = "the budget limits nothing that the device measures"
    hint = 'add a limit on latency, peak_memory, size or energy, like "latency: {p50: 60% of dense}"'
    try:
        document = read_document(path)
        return document.table().get("budget", document).error(message, hint=hint)
    except ConfigError:  # a run that was not begun from a file
        return UsageError(message, hint=hint)
