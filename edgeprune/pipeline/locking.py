"""The lock of a run: written when it ends well, read by packaging."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeprune import atomic
from edgeprune.errors import StorageError, UnreadableError, UsageError
from edgeprune.export import manifest
from edgeprune.pipeline.begun import unfinished
from edgeprune.records import codec, lock
from edgeprune.records.figures import Figure
from edgeprune.records.lock import Lock
from edgeprune.records.result import Result

__all__ = ["differing", "read_exported", "read_lock", "read_locked", "relock", "write_lock"]

_RESULT = "result.json"
_RESTORE = "restore the run's folder, or name another run"
_SUFFIX = re.compile(r"\.[A-Za-z0-9]+")


def write_lock(result: Result, run_dir: Path) -> Path | None:
    """Write edgeprune.lock of an accepted run; of any other there is none, and an older one is removed."""
    path = run_dir / lock.FILE
    file = result.provenance.get("files", {}).get("artifact")
    if result.status != "accepted" or file is None:
        path.unlink(missing_ok=True)
        return None
    artifact = replace(manifest.read(run_dir / file), path=Path(file))
    atomic.write_text(path, json.dumps(lock.to_json(lock.lock_of(result, artifact)), indent=2, sort_keys=True) + "\n")
    return path


def relock(run_dir: Path) -> Path:
    """Write the lock of a finished run that has none; raises UsageError where the run was not accepted."""
    source = run_dir / _RESULT
    try:
        result = codec.from_json(json.loads(source.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        hint = "name the folder of a run that ended well, like runs/20260101-120000"
        raise (unfinished(run_dir) or UsageError(f"there is no {lock.FILE} in {run_dir}", hint=hint)) from error
    except (OSError, ValueError) as error:
        raise UnreadableError(f"cannot read {source}: {error}", hint=_RESTORE) from error
    path = write_lock(result, run_dir) if isinstance(result, Result) else None
    if path is None:
        status = result.status if isinstance(result, Result) else "no result"
        raise UsageError(
            f"the run {run_dir} chose nothing that could be packaged: {status}",
            hint=f"see why: edgeprune report {shlex.quote(str(run_dir))}",
        )
    return path


def read_lock(path: Path) -> Lock:
    """The lock at `path`; raises UsageError where it is missing or damaged, StorageError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        hint = "name the folder of a run that ended well, or its lock"
        raise (unfinished(path.parent) or UsageError(f"there is no lock {path}", hint=hint)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableError(f"cannot read {path}: {error}", hint=_RESTORE) from error
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}", hint="restore it, or run again") from error
    return lock.from_json(data, path)


def differing(result: Result, found: Lock) -> list[str]:
    """The entries of a lock that are not what the result would have locked of the same artifact."""
    expected = lock.to_json(lock.lock_of(result, found.artifact))
    return [name for name, value in lock.to_json(found).items() if _plain(value) != _plain(expected[name])]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True))


def read_exported(path: Path) -> tuple[Lock, bytes]:
    """A file that was exported, and a lock that says of it what its manifest says; raises UsageError, StorageError.

    Nothing was measured of it, so that there are no figures but its size.
    """
    if not manifest.manifest_path(path).is_file():
        hint = "export it with edgeprune, which writes its manifest, or name the folder of a run"
        raise UsageError(f"{path} has no {manifest.manifest_path(path).name}", hint=hint)
    data = path.read_bytes()
    artifact = manifest.read(path)
    if hashlib.sha256(data).hexdigest() != artifact.sha256:
        raise UsageError(f"{path} changed while it was read", hint="wait until its export has ended")
    if not _SUFFIX.fullmatch(path.suffix):
        raise UsageError(f"{path} does not end as artifacts do", hint="like .onnx or .tflite")
    facts = artifact.provenance
    known = Lock(
        name=path.stem,
        candidate=str(facts.get("candidate", "")),
        artifact=replace(artifact, path=Path(path.name)),
        budget={},
        figures={"size": Figure(float(artifact.size_bytes), float(artifact.size_bytes))},
        versions={name: str(facts[name]) for name in ("torch", "onnx") if name in facts},
        params=facts.get("params"),
        macs=facts.get("macs"),
    )
    return known, data


def read_locked(path: Path) -> tuple[Lock, bytes]:
    """The lock at `path` and the artifact that it names, which is what it was; raises UsageError, StorageError."""
    found = read_lock(path)
    file = path.parent / found.artifact.path
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"{path} names {file}, which is not there", hint="restore the run's folder") from error
    except OSError as error:
        raise StorageError(f"cannot read {file}: {error.strerror or error}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != found.artifact.sha256 or len(data) != found.artifact.size_bytes:
        raise UsageError(
            f"{file} is not the file that {path} names: sha256 {digest[:16]}…, expected {found.artifact.sha256[:16]}…",
            hint="restore the run's folder, or run again; nothing was packaged",
        )
    return found, data
