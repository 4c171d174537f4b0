"""`edgeprune verify DIR`: is a package or a run what it was made as? Each check is a finding; nothing in it is run
but the artifact, by its own runtime.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeprune.errors import EdgepruneError, ParityError, UsageError
from edgeprune.package.checksums import SIGNATURE, SUMS, verify_sums
from edgeprune.package.manifest import SCHEMA as PACKAGE
from edgeprune.pipeline.begun import unfinished
from edgeprune.pipeline.locking import differing, read_locked
from edgeprune.pipeline.run import RESULT
from edgeprune.pipeline.subject import Subject, subject_of
from edgeprune.progress import SILENT, Progress
from edgeprune.records import lock
from edgeprune.records.candidate import Candidate

if TYPE_CHECKING:
    from edgeprune.records.artifact import Artifact

__all__ = ["Finding", "verify_folder"]

_MANIFEST = "manifest.json"
_GRAPH = "model.pt2"
_SHOWN = 5  # names in a message
_NOISE_DB = 10.0  # by which the SQNR of a few examples may lie below the recorded one


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `unchecked` says why it could not be; only `failed` speaks against the folder."""

    name: str
    state: Literal["ok", "failed", "unchecked"]
    message: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def verify_folder(folder: Path, *, key: Path | None = None, progress: Progress = SILENT) -> tuple[Finding, ...]:
    """Look at a package that `edgeprune package` wrote, or at a run's folder.

    Sums, signature by `key` and manifest of a package; lock, artifact, measurement and parity of a run. Raises
    UsageError where the folder is neither, or the key is not usable.
    """
    if (folder / SUMS).is_file():
        return _found("sums", lambda: _sums(folder)), _signature(folder, key), _manifest(folder)
    if (folder / _MANIFEST).is_file() or (folder / SIGNATURE).is_file():
        return (Finding("sums", "failed", f"there is no {SUMS}: nothing says what the files should be"),)
    if not (folder / RESULT).is_file():
        raise unfinished(folder) or UsageError(
            f"{folder} is neither a package nor a finished run",
            hint="name a folder that `edgeprune package` wrote, or a run's; an archive is to be unpacked first",
        )
    if key is not None:
        raise UsageError("--key is about packages: a run is not signed", hint=f"package it: {_PACKAGE}")
    return tuple(_run(folder, progress))


_PACKAGE = "edgeprune package RUN --for tar --sign KEY -o DIR"


def _found(name: str, check: Callable[[], Finding]) -> Finding:
    """The check's finding; what is refused when it is read is not what it was made as."""
    try:
        return check()
    except (UsageError, ParityError) as error:
        return Finding(name, "failed", error.message)


def _sums(folder: Path) -> Finding:
    links = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink())
    found = verify_sums(folder)
    wrong = [
        f"{what}: {_some(paths)}"
        for what, paths in (
            ("changed", found.wrong),
            ("missing", found.missing),
            (f"not in {SUMS}", [path for path in found.unlisted if path not in links]),
            ("links, which no package has", links),
        )
        if paths
    ]
    if wrong or not found.ok:
        return Finding("sums", "failed", "; ".join(wrong) or f"{SUMS} lists no file")
    return Finding("sums", "ok", f"{len(found.right)} files are as {SUMS} says, and there is no other")


def _signature(folder: Path, key: Path | None) -> Finding:
    from edgeprune.package.signature import verify_signature

    signed = (folder / SIGNATURE).is_file()
    if key is None:
        message = f"{SIGNATURE} is there; --key KEY checks it" if signed else "the package is not signed"
        return Finding("signature", "unchecked", message)
    if not signed:
        return Finding("signature", "failed", f"there is no {SIGNATURE}")
    if not verify_signature(folder, key):
        return Finding("signature", "failed", f"{SIGNATURE} is not a signature of this {SUMS} by {key}")
    return Finding("signature", "ok", f"{SUMS} was signed by {key}")


def _manifest(folder: Path) -> Finding:
    """The artifacts that the manifest names, where they lie in the package as files of their own."""
    try:
        data = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if data["schema"] != PACKAGE:
            return Finding("manifest", "failed", f"{_MANIFEST} is not of schema {PACKAGE}: {data['schema']!r}")
        models = [(str(model["file"]), str(model["sha256"]), int(model["size_bytes"])) for model in data["models"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Finding("manifest", "failed", f"{_MANIFEST} cannot be read: {type(error).__name__}: {error}")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    wrong, there = [], 0
    for name, sha256, size in models:
        for path in (path for path in files if path.name == name):
            content = path.read_bytes()
            there += 1
            if (hashlib.sha256(content).hexdigest(), len(content)) != (sha256, size):
                wrong.append(path.relative_to(folder).as_posix())
    if wrong:
        return Finding("manifest", "failed", f"not the artifact that {_MANIFEST} describes: {_some(wrong)}")
    names = _some([f"{name} (sha256 {sha256[:16]}…)" for name, sha256, _ in models])
    inside = "" if there else ", inside other files of the package"
    return Finding("manifest", "ok", f"describes {names}{inside}")


def _run(folder: Path, progress: Progress) -> Iterator[Finding]:
    try:
        subject = subject_of(folder)
    except EdgepruneError as error:
        yield Finding("artifact", "failed", error.message)
        return
    artifact = subject.artifact
    yield Finding("artifact", "ok", f"{artifact.path.name} is what its manifest says (sha256 {artifact.sha256[:16]}…)")
    state: Literal["ok", "failed"] = "failed" if subject.problem else "ok"
    yield Finding("measurement", state, subject.problem or "what was measured is this file")
    yield _found("lock", lambda: _lock(folder, subject))
    with progress.step("comparing the artifact with the saved graph"):
        yield _found("parity", lambda: _parity(subject))


def _lock(folder: Path, subject: Subject) -> Finding:
    path = folder / lock.FILE
    if subject.result is None or subject.result.status != "accepted":
        return Finding("lock", "unchecked", "the run accepted nothing that could be locked")
    if not path.is_file():
        return Finding("lock", "unchecked", f"there is no {lock.FILE}; packaging writes one")
    found, _ = read_locked(path)
    names = differing(subject.result, found)
    if names:
        return Finding("lock", "failed", f"{lock.FILE} says something else than {RESULT}: {_some(names)}")
    if found.artifact.sha256 != subject.artifact.sha256:
        return Finding("lock", "failed", f"{lock.FILE} names another file than the accepted one")
    return Finding("lock", "ok", f"{lock.FILE} is that of {RESULT}, and names this file")


def _parity(subject: Subject) -> Finding:
    from edgeprune.export.parity import check
    from edgeprune.export.runner import open_runner
    from edgeprune.graph.storage import load, read_candidate

    path = subject.artifact.path.with_name(_GRAPH)
    if not path.is_file():
        state: Literal["failed", "unchecked"] = "failed" if _has_graph(subject) else "unchecked"
        return Finding("parity", state, f"there is no {_GRAPH} beside {subject.artifact.path.name} to compare with")
    best = None if subject.result is None else subject.result.best
    accepted = Candidate() if best is None else best.candidate
    if not accepted.is_dense and (saved := read_candidate(path)[0]).id != accepted.id:
        return Finding("parity", "failed", f"{_GRAPH} is of candidate {saved.id}, the run accepted {accepted.id}")
    try:
        open_runner(subject.artifact).close()
    except UsageError as error:
        return Finding("parity", "unchecked", error.message)
    if "quantised" in subject.artifact.provenance:
        return _int8_parity(subject, path)
    captured = load(path)
    difference = check(subject.artifact, captured.module, captured.example_inputs)
    return Finding(
        "parity", "ok", f"{subject.artifact.path.name} computes what {_GRAPH} does, to {difference:.2g} relative"
    )


def _has_graph(subject: Subject) -> bool:
    """Whether the run says that it saved its network."""
    files = {} if subject.result is None else subject.result.provenance.get("files", {})
    return "graph" in files


def _int8_parity(subject: Subject, path: Path) -> Finding:
    """An int8 file is not near to the graph to round-off: its noise is to be about what the run found."""
    from edgeprune.export.runtime_module import RuntimeModule
    from edgeprune.graph.storage import load
    from edgeprune.pipeline.quantisation import sqnr_db

    best = None if subject.result is None else subject.result.best
    recorded = (best.details.get("quantised") or {}).get("sqnr_db") if best is not None else None
    captured = load(path)
    artifact: Artifact = subject.artifact
    module = RuntimeModule(artifact, captured.module, captured.example_inputs)
    found = sqnr_db(module, captured, [captured.example_inputs])
    if recorded is None or found is None:
        return Finding("parity", "unchecked", f"the run recorded no SQNR of {artifact.path.name}")
    text = f"{artifact.path.name} is {found:.1f} dB from {_GRAPH} on its examples, recorded were {recorded:.1f} dB"
    return Finding("parity", "ok" if found >= recorded - _NOISE_DB else "failed", text)


def _some(names: Any) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
