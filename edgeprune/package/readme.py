"""The parts that the READMEs of packages share. Code blocks marked `sh` are commands that work as they stand."""

from __future__ import annotations

from edgeprune.package.base import Contents, Model
from edgeprune.package.facts import memory_facts, quantised
from edgeprune.records.artifact import TensorSpec
from edgeprune.records.figures import format_figure

__all__ = ["models_table", "verification"]


def models_table(contents: Contents) -> str:
    """What each model is, takes, gives and needs."""
    return "\n".join(_model(model) for model in contents.models)


def verification() -> str:
    """How to check that nothing was changed."""
    return """\
## Is it as it was?

```sh
sha256sum --check --quiet SHA256SUMS
```

Where there is a `SHA256SUMS.sig`, it is an Ed25519 signature of that file; with the public key of who made the package:

    openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig

`edgeprune verify . --key public.pem` does both, and refuses what was added, too: also what a build in this folder made.

`manifest.json` and `sbom.cdx.json` (CycloneDX 1.6) say for programs what this page says for people."""


def _model(model: Model) -> str:
    artifact, lock = model.artifact, model.lock
    what = (artifact.format, quantised(lock), format_figure("size", artifact.size_bytes))
    lines = [
        f"## {model.identifier}",
        "",
        f"- {', '.join(part for part in what if part)}, sha256 `{artifact.sha256}`",
        *(f"- input {_tensor(spec)}" for spec in artifact.inputs),
        *(f"- output {_tensor(spec)}" for spec in artifact.outputs),
    ]
    lines += [f"- {fact.name.replace('_', ' ')}: {fact.value} bytes ({fact.source})" for fact in memory_facts(lock)]
    shown = ("latency.p50", "latency.p95", "energy", "accuracy")
    for name in shown:
        figure = lock.figures.get(name)
        if figure is not None and figure.value is not None:
            where = lock.device.get("board") or lock.device.get("profile")
            on = "" if name == "accuracy" or where is None else f" on {where}"
            lines.append(f"- {name}: {format_figure(name, figure.value)} ({figure.kind}{on})")
    return "\n".join([*lines, ""])


def _tensor(spec: TensorSpec) -> str:
    shape = " × ".join(str(size) for size in spec.shape) or "a single value"
    said = f"`{spec.name}`: {spec.dtype}, {shape}"
    if spec.scale is None:
        return said
    return f"{said}; real = {spec.scale!r} × (value − {spec.zero_point or 0})"
