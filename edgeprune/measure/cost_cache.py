"""What operators cost on a kind of device, kept on this machine: nothing is timed twice.

One file of JSON lines for each processor, runtime and setting, only ever appended to. Each line names the setting that
it was measured under, so that none is taken for another's.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import TargetError
from edgeprune.measure.cost_drift import outdated, sampled, speed, visits
from edgeprune.progress import SILENT, Progress
from edgeprune.records.measurement import Outcome
from edgeprune.records.operators import MicroModel, OperatorSignature, OperatorTiming, TimingPolicy

if TYPE_CHECKING:
    from edgeprune.measure.operators import OperatorSession

__all__ = ["CostCache", "cache_folder", "timings"]

Build = Callable[[OperatorSignature], MicroModel]
_SCHEMA = "edgeprune.costs/1"
_FINGERPRINT = ("board", "cpu", "cpus", "arch")
_BATCH = 48  # micro models in one worker: well under a minute
_DAY_S = 86_400.0
_LONE = {Outcome.CRASHED, Outcome.OOM, Outcome.TIMEOUT}  # that one model can bring upon all others of its batch


def cache_folder(of: str = "costs") -> Path:
    """`$XDG_CACHE_HOME/edgeprune/costs`, else `~/.cache/edgeprune/costs`; or the folder beside it of that name."""
    told = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(told) if told.startswith("/") else Path("~/.cache").expanduser()) / "edgeprune" / of


class CostCache:
    """Timings by signature key, for one machine, runtime and setting. What goes wrong with it is told in `warnings`."""

    def __init__(self, path: Path, identity: Mapping[str, Any], expiry_days: float) -> None:
        self.path = path
        self.warnings: tuple[str, ...] = ()
        self._identity = identity
        self._mark = _digest(identity)
        self._oldest = time.time() - expiry_days * _DAY_S
        self._entries: dict[str, OperatorTiming] = {}
        self._timed_at: dict[str, float] = {}
        self._read()

    @classmethod
    def open(
        cls,
        machine: Mapping[str, Any],
        runtime: str,
        version: str,
        threads: int,
        cores: Sequence[int] | str = (),
        *,
        folder: Path | None = None,
        expiry_days: float = 90.0,
    ) -> CostCache:
        """The cache for a machine as the agent describes it; entries of more than `expiry_days` do not count."""
        identity = {
            "schema": _SCHEMA,
            **{name: machine.get(name) for name in _FINGERPRINT},
            "runtime": runtime,
            "version": version,
            "threads": threads,
            "cores": cores if isinstance(cores, str) else list(cores),
        }
        path = (folder or cache_folder()) / f"{_digest(identity)}.jsonl"
        return cls(path, identity, expiry_days)

    @classmethod
    def for_session(
        cls, session: OperatorSession, *, folder: Path | None = None, expiry_days: float = 90.0
    ) -> CostCache:
        """The cache for the device, runtime and setting of a session."""
        policy = session.policy
        version = str((session.runtimes.get(policy.runtime) or {}).get("version", ""))
        return cls.open(
            session.machine,
            policy.runtime,
            version,
            policy.threads,
            policy.cores,
            folder=folder,
            expiry_days=expiry_days,
        )

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> OperatorTiming | None:
        """The latest timing under the key of a signature, or None."""
        return self._entries.get(key)

    def timed_at(self, key: str) -> float:
        """When that timing was made, in Unix time, s; raises KeyError for one that is not known."""
        return self._timed_at[key]

    def put_all(self, found: Mapping[str, OperatorTiming], *, agent_sha256: str = "") -> None:
        """Keep what is stable and has figures, on disk at once. Several processes may write at the same time."""
        kept = {key: timing for key, timing in found.items() if timing.stable and not timing.error}
        if not kept:
            return
        now = time.time()
        self._entries.update(kept)
        self._timed_at.update(dict.fromkeys(kept, now))
        lines = [
            {"of": self._mark, "key": key, "at": now, "agent": agent_sha256, **_figures(timing)}
            for key, timing in kept.items()
        ]
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "r+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = file.seek(0, os.SEEK_END)
                head = b"" if size else _line(self._identity)
                if size:
                    file.seek(size - 1)
                    head = b"" if file.read(1) == b"\n" else b"\n"  # whoever wrote before was killed in mid-line
                _write(file.fileno(), head + b"".join(map(_line, lines)))
                os.fsync(file.fileno())
        except OSError as error:
            self.warnings += (f"the operator costs could not be kept in {self.path}: {error.strerror}",)

    def _read(self) -> None:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            self.warnings += (f"the operator costs in {self.path} cannot be read: {error.strerror}",)
            return
        damaged = 0
        for line in data.split(b"\n"):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                if "schema" in entry:
                    continue
                if entry["of"] == self._mark and entry["at"] >= self._oldest:
                    key = str(entry["key"])
                    self._entries[key] = _timing(entry)
                    self._timed_at[key] = float(entry["at"])
            except (ValueError, TypeError, KeyError):
                damaged += 1
        if damaged:
            lines = "a damaged line was" if damaged == 1 else f"{damaged} damaged lines were"
            self.warnings += (f"{self.path}: {lines} left out; what they held is timed again",)


def timings(
    session: OperatorSession,
    signatures: Iterable[OperatorSignature],
    cache: CostCache | None = None,
    *,
    build: Build,
    progress: Progress = SILENT,
    timing: TimingPolicy | None = None,
) -> dict[str, OperatorTiming]:
    """The timing of each signature, by its key: from the cache, else measured, in batches that are kept at once.

    `build` makes the small model of a signature: edgeprune.export.micro.micro_model for ONNX. A timing whose passes
    disagree is repeated once, and not kept where they still do. What was timed when the device was faster or slower
    than it is now is timed again, unless all is of then. An operator that cannot be timed carries its error.
    Raises TargetError where the device is lost; what was timed before is in the cache.
    """
    wanted = {signature.key: signature for signature in signatures}
    found: dict[str, OperatorTiming] = {}
    for key in wanted:
        known = None if cache is None else cache.get(key)
        if known is not None:
            found[key] = known
    new = [key for key in wanted if key not in found]
    if cache is not None and found:
        measure = partial(_batch, session, cache=None, build=build, timing=timing)
        for keys, ratio in _outdated({key: wanted[key] for key in found}, cache, bool(new), measure):
            when = datetime.fromtimestamp(cache.timed_at(keys[0])).strftime("%Y-%m-%d %H:%M")
            slower = f"{abs(ratio - 1):.0%} {'slower' if ratio > 1 else 'faster'}"
            progress.say(f"{session.target.name} is {slower} than on {when}: what was timed then is timed again")
            for key in keys:
                del found[key]
        new = [key for key in wanted if key not in found]
    if wanted:
        progress.say(f"operator costs: {len(found)} known, {len(new)} to be timed on {session.target.name}")
    for start in range(0, len(new), _BATCH):
        batch = {key: wanted[key] for key in new[start : start + _BATCH]}
        found |= _batch(session, batch, cache, build, timing)
    again = {key: wanted[key] for key in new if not found[key].error and not found[key].stable}
    found |= {key: second for key, second in _batch(session, again, cache, build, timing).items() if second.stable}
    return {key: found[key] for key in wanted}


def _outdated(
    known: Mapping[str, OperatorSignature],
    cache: CostCache,
    others: bool,
    measure: Callable[[Mapping[str, OperatorSignature]], Mapping[str, OperatorTiming]],
) -> Iterator[tuple[tuple[str, ...], float]]:
    """The visits that must be timed again, and how long operators take now beside then; `others` will be timed now."""
    then = {key: one for key in known if (one := cache.get(key)) is not None}
    earlier, current = visits({key: cache.timed_at(key) for key in then}, time.time())
    others = others or bool(current)
    if len(earlier) + others < 2:
        return
    samples = [sampled(keys, then) for keys in earlier]
    now = measure({key: known[key] for keys in samples for key in keys})
    speeds = [speed(keys, then, now) for keys in samples]
    for keys, ratio, again in zip(earlier, speeds, outdated(speeds, current=others), strict=True):
        if again:
            yield keys, ratio


def _batch(
    session: OperatorSession,
    signatures: Mapping[str, OperatorSignature],
    cache: CostCache | None,
    build: Build,
    timing: TimingPolicy | None,
) -> dict[str, OperatorTiming]:
    """One request; halved where a model ended the worker, until that one stands alone."""
    models = {key: build(signature) for key, signature in signatures.items()}
    retries = session.policy.throttle_retries
    while True:
        try:
            found = session.operators(models, timing=timing)
        except TargetError as error:
            if error.outcome == Outcome.THROTTLED.value and retries > 0:
                retries -= 1
                continue
            if not session.connected or error.outcome not in {outcome.value for outcome in _LONE}:
                raise
            if len(models) == 1:
                return {key: OperatorTiming(error=f"{error.outcome}: {error.message}") for key in models}
            keys = list(models)
            halves = [keys[: len(keys) // 2], keys[len(keys) // 2 :]]
            parts = [_batch(session, {key: signatures[key] for key in half}, cache, build, timing) for half in halves]
            return parts[0] | parts[1]
        if cache is not None:
            cache.put_all(found, agent_sha256=session.agent_sha256)
        return found


def _figures(timing: OperatorTiming) -> dict[str, Any]:
    figures = asdict(timing)
    del figures["error"]
    return figures


def _timing(entry: Mapping[str, Any]) -> OperatorTiming:
    """Raises ValueError, TypeError or KeyError where the figures are none."""
    kernel = entry["kernel_ns"]
    found = OperatorTiming(
        run_ns=float(entry["run_ns"]),
        kernel_ns=None if kernel is None else float(kernel),
        lower_quartile_ns=float(entry["lower_quartile_ns"]),
        runs=int(entry["runs"]),
        medians_ns=tuple(float(value) for value in entry["medians_ns"]),
    )
    figures = [found.run_ns, found.lower_quartile_ns, *found.medians_ns, *([] if kernel is None else [found.kernel_ns])]
    if not found.stable or any(value is None or not 0 < value < float("inf") for value in figures):
        raise ValueError("no figures")
    return found


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
