"""The link to one device: the agent, started once and again after a broken link, and the artifacts that it holds."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgeprune.agent.bundle import agent_sha256, write_agent
from edgeprune.agent.client import AgentClient
from edgeprune.errors import CannotMeasureError, StorageError, TargetError
from edgeprune.measure.waiting import waiting
from edgeprune.progress import SILENT, Progress
from edgeprune.records.artifact import Artifact, TensorSpec
from edgeprune.records.measurement import Outcome, Provenance
from edgeprune.targets.base import Target

if TYPE_CHECKING:
    from typing_extensions import Self

    from edgeprune.records.profile import DeviceProfile, MeasurementPolicy

__all__ = ["DeviceLink", "agent_inputs", "check_unchanged"]

_HELLO_S = 90.0  # a small board takes long to import its runtime
_PROBE_S = 30.0
_RETRY_S = 2.0
_KEPT_ARTIFACTS = 4  # on the device, for measuring again: the dense model and the latest
_CACHED_S = 120.0  # to read a large file from a slow card
_TRUSTED_S = 10.0  # a link that was used so lately is taken for sound


class DeviceLink:
    """What every request to a device needs; use it in a `with` statement.

    `wait_s` is how long to wait for another user's measurement to end, `reconnect_s` how long to try to reach a device
    again whose link broke, to learn whether it rebooted; `energy` asks for energy as well, where the policy leaves
    that open. Entering raises TargetError where no session can be had.
    """

    def __init__(
        self,
        target: Target,
        profile: DeviceProfile,
        *,
        policy: MeasurementPolicy | None = None,
        progress: Progress = SILENT,
        wait_s: float = 30.0,
        reconnect_s: float = 60.0,
        seed: int = 0,
        energy: bool = False,
    ) -> None:
        self.target = target
        self.profile = profile
        self.policy = policy or profile.measurement
        self._progress = progress
        self._wait_s = wait_s
        self._reconnect_s = reconnect_s
        self._seed = seed
        self._energy = energy
        self._client: AgentClient | None = None
        self._hello: Mapping[str, Any] = {}
        self._uploaded: dict[str, str] = {}
        self._last_use = 0.0

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def machine(self) -> Mapping[str, Any]:
        """The device's fingerprint, as the agent saw it at the start."""
        return dict(self._hello.get("machine", {}))

    @property
    def runtimes(self) -> Mapping[str, Any]:
        """What the agent found: by name its version, or why it is missing."""
        return dict(self._hello.get("runtimes", {}))

    @property
    def agent_sha256(self) -> str:
        """Of the agent that answers."""
        return str(self._hello.get("sha256", ""))

    @property
    def connected(self) -> bool:
        """False where the link broke and the device did not come back."""
        return self._client is not None

    def probe(self) -> Mapping[str, Any]:
        """The machine and its present conditions; raises TargetError."""
        return self._alive().request("probe", timeout_s=_PROBE_S).frame

    def _sent(self, artifact: Artifact) -> str:
        """The artifact's path on the device; sent where it is not there yet."""
        if artifact.sha256 not in self._uploaded:
            name = f"{artifact.sha256[:32]}{artifact.path.suffix}"
            kept = self._kept(artifact, name) if self.policy.keep_artifacts_bytes else None
            self._uploaded[artifact.sha256] = kept or self.target.upload(artifact.path, name)
        self._uploaded[artifact.sha256] = model = self._uploaded.pop(artifact.sha256)  # the latest
        return model

    def _kept(self, artifact: Artifact, name: str) -> str | None:
        """Its path in the cache that stays on the device, sent there where it is not; None where it would not fit."""
        folder = f"{self.target.home}/artifacts"
        size = artifact.path.stat().st_size
        limit = self.policy.keep_artifacts_bytes
        file = {"folder": folder, "name": name, "sha256": artifact.sha256, "size": size, "limit": limit}
        found = self._alive().request("cached", timeout_s=_CACHED_S, deadline_s=_CACHED_S, file=file).frame
        if found["outcome"] != Outcome.OK.value:
            raise TargetError(f"{self.target.name}: {found.get('message')}", outcome=str(found["outcome"]))
        if found["found"]:
            return f"{folder}/{name}"
        return self.target.upload(artifact.path, name, folder) if found["keep"] else None

    def _outdated(self) -> list[str]:
        """Artifacts on the device that are not wanted any more: all but the latest."""
        return [self._uploaded.pop(sha256) for sha256 in list(self._uploaded)[:-_KEPT_ARTIFACTS]]

    def _policy(self) -> dict[str, Any]:
        """What the agent needs to know of the policy for every kind of measurement."""
        policy = self.policy
        return {
            "runtime": policy.runtime,
            "threads": policy.threads,
            "cores": policy.cores,
            "warmup_runs": policy.warmup_runs,
            "warmup_s": policy.warmup_s,
            "ci_share": policy.ci_share,
        }

    @property
    def _cpus(self) -> int:
        return int(self.machine.get("usable_cpus") or 1)

    def _provenance(self, started_at: str, frame: Mapping[str, Any]) -> Provenance:
        timed = frame.get("latency") or {}
        runtime = timed.get("runtime", self.policy.runtime)
        version = timed.get("version") or (self.runtimes.get(runtime) or {}).get("version", "")
        return Provenance(
            target=self.target.name,
            profile=self.profile.name,
            machine=self.machine,
            runtime=runtime,
            runtime_version=str(version),
            threads=self.policy.threads,
            agent_sha256=self.agent_sha256,
            started_at=started_at,
            cores=tuple(timed.get("cores", ())),
        )

    # --- opening and closing

    def _open(self) -> None:
        with contextlib.ExitStack() as stack:
            self.target.__enter__()
            stack.callback(self._close)
            with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
                file = write_agent(Path(folder))
                agent = self.target.upload(file, file.name)
            owner = f"{getpass.getuser()}@{socket.gethostname()}"
            channel = self.target.start(
                [
                    self.target.python, "-S", "-B", agent,
                    "--folder", self.target.folder,
                    "--owner", owner,
                    "--wait-s", f"{self._wait_s:g}",
                ]
            )  # fmt: skip
            self._client = AgentClient(channel, self.target.name)
            with waiting(self.target.name, self._wait_s, self._progress) as on_wait:
                self._hello = self._client.hello(_HELLO_S + self._wait_s, on_wait)
            if self.agent_sha256 != agent_sha256():
                raise TargetError(f"{self.target.name}: the agent there is not the one sent", outcome="LOST")
            stack.pop_all()

    def _close(self) -> None:
        client, self._client = self._client, None
        self._uploaded.clear()
        try:
            if client is not None:
                client.close()
        finally:
            self.target.__exit__(None, None, None)

    def _alive(self) -> AgentClient:
        """The agent; started anew where the link broke, before this or while nothing was asked of it."""
        if self._client is not None and time.monotonic() - self._last_use > _TRUSTED_S:
            try:
                self._client.request("probe", timeout_s=_PROBE_S)
            except TargetError:
                self._close()
        if self._client is None:
            self._open()
        self._last_use = time.monotonic()
        if self._client is None:
            raise TargetError(f"{self.target.name}: no agent", outcome="LOST")
        return self._client

    def _diagnose(self, error: TargetError) -> tuple[Outcome, str]:
        """The outcome that a broken request stands for. The link is given up; the next request makes a new one."""
        outcome = Outcome(error.outcome or Outcome.LOST)
        message = f"{error.message} ({error.hint})" if error.hint else error.message
        if outcome in {Outcome.NO_SPACE, Outcome.BUSY, Outcome.NO_RUNTIME}:
            return outcome, message  # the device answered: the link is sound
        before = self.machine.get("boot_id")
        self._close()
        for _ in _attempts(self._reconnect_s):
            with contextlib.suppress(CannotMeasureError):
                self._open()
                if before and self.machine.get("boot_id") not in {None, "", before}:
                    return Outcome.REBOOTED, f"{self.target.name}: the device rebooted during the measurement"
                return outcome, f"{message}; the device is reachable again"
        return outcome, message


def _attempts(seconds: float) -> Iterator[int]:
    """Try at once, then every few seconds while the time lasts."""
    end = time.monotonic() + seconds
    number = 0
    while True:
        yield number
        number += 1
        if time.monotonic() + _RETRY_S > end:
            return
        time.sleep(_RETRY_S)


def agent_inputs(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    """What the agent makes inputs from: a dimension that is not fixed is 1."""
    return [
        {"name": spec.name, "dtype": spec.dtype, "shape": [n if isinstance(n, int) else 1 for n in spec.shape]}
        for spec in specs
    ]


def check_unchanged(artifact: Artifact) -> None:
    """Raises StorageError where the artifact cannot be read or is not what its record says."""
    try:
        with artifact.path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise StorageError(f"cannot read the artifact {artifact.path}: {error.strerror}") from error
    if digest.hexdigest() != artifact.sha256:
        raise StorageError(
            f"{artifact.path} is not the file that its record describes (sha256 differs)", hint="export it again"
        )
