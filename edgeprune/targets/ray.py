"""A device that hangs on a node of a Ray cluster: an actor on that node reaches it, and holds it while a run measures.

The node says what it has when it joins: `ray start --resources='{"device:camera": 1}'`. As the actor takes the whole of
that resource, two runs never measure on the device at once; the second waits.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeprune import errors
from edgeprune.errors import EdgepruneError, StorageError, TargetError, UsageError
from edgeprune.targets.base import Channel, Target
from edgeprune.targets.files import checked_name
from edgeprune.targets.parse import open_target

__all__ = ["Cluster", "RayTarget", "ray_module"]

_ANSWER_S = 30.0  # beyond what a call itself may take
_LEAVE_S = 10.0


def ray_module() -> Any:
    """Ray, with its usage statistics turned off; raises UsageError where it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # edgeprune sends nothing to anybody
    try:
        import ray
    except ImportError as error:
        raise UsageError("executor.kind ray needs Ray", hint="pip install 'edgeprune[ray]'") from error
    return ray


class Cluster:
    """The connection to a cluster, a context manager; one that this process has already is used and left open."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._own = False

    def __enter__(self) -> Any:
        ray = ray_module()
        if not ray.is_initialized():
            try:
                _probe(self.address)
                with _one_try():
                    ray.init(address=self.address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            except (OSError, ValueError, RuntimeError) as error:
                raise UsageError(
                    f"no Ray cluster at {self.address!r}: {error}",
                    hint="start one (ray start --head), or name its address: executor: {address: 10.0.0.1:6379}",
                ) from error
            self._own = True
        return ray

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own:
            ray_module().shutdown()
        self._own = False


@contextmanager
def _one_try() -> Iterator[None]:
    """Where something else answers at the address, Ray tries 20 times, each for most of a minute."""
    name = "RAY_gcs_server_port_wait_time_s"
    before = os.environ.get(name)
    os.environ[name] = before or "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _probe(address: str) -> None:
    """Raise OSError or ValueError where nothing listens: Ray itself would try for minutes, and then end the process."""
    address = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if address == "auto":
        return  # Ray knows of the clusters on this machine
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise ValueError("an address is host:port")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S / 3):
        pass


class RayTarget:
    """The target `text` (with `options`) as seen from the node that has the resource "device:<device>"."""

    def __init__(
        self, device: str, address: str, text: str, options: Mapping[str, Any] | None = None, *, wait_s: float = 600.0
    ) -> None:
        self.name = f"{text} at {device}"
        self._resource = f"device:{device}"
        self._cluster = Cluster(address)
        self._text, self._options = text, dict(options or {})
        self._wait_s = wait_s
        self._actor: Any = None
        self._facts: Mapping[str, str] = {}

    def __enter__(self) -> Target:
        ray = self._cluster.__enter__()
        try:
            if self._resource not in ray.cluster_resources():
                raise TargetError(
                    f"{self.name}: no node of the cluster has {self._resource!r}",
                    hint=f"join it where the device hangs: ray start --resources='{{\"{self._resource}\": 1}}'",
                    outcome="LOST",
                )
            make = ray.remote(num_cpus=0, resources={self._resource: 1}, max_concurrency=8)(_Node)
            self._actor = make.remote(self._text, self._options)
            self._facts = self._call("enter", wait_s=self._wait_s, late="BUSY")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        actor, self._actor = self._actor, None
        if actor is not None:
            ray = ray_module()
            with suppress(ray.exceptions.RayError):
                ray.get(actor.leave.remote(), timeout=_LEAVE_S if self._facts else 0)
            ray.kill(actor)
        self._facts = {}
        self._cluster.__exit__(None, None, None)

    @property
    def folder(self) -> str:
        """As the device has it."""
        return self._facts["folder"]

    @property
    def python(self) -> str:
        """As the device has it."""
        return self._facts["python"]

    @property
    def home(self) -> str:
        """As the device has it; raises TargetError."""
        return str(self._call("home"))

    def upload(self, source: Path, name: str, folder: str | None = None) -> str:
        """The file's bytes go to the node, and from there to the device."""
        try:
            data = source.read_bytes()
        except OSError as error:
            raise StorageError(f"cannot read {source}: {error.strerror}") from error
        return str(self._call("upload", data, checked_name(name), folder, wait_s=self._wait_s))

    def start(self, argv: Sequence[str]) -> Channel:
        """As Target.start."""
        return _RemoteChannel(self._call, int(self._call("start", list(argv))))

    def run(self, argv: Sequence[str], timeout_s: float) -> tuple[int, bytes]:
        """As Target.run."""
        status, output = self._call("run", list(argv), timeout_s, wait_s=timeout_s)
        return int(status), bytes(output)

    def _call(self, method: str, *arguments: Any, wait_s: float = 0.0, late: str = "TIMEOUT") -> Any:
        ray = ray_module()
        if self._actor is None:
            raise UsageError(f"{self.name}: enter the target first (with target: ...)")
        try:
            reference = self._actor.do.remote(method, *arguments)
            failure, value = ray.get(reference, timeout=wait_s + _ANSWER_S)
        except ray.exceptions.GetTimeoutError as error:
            message = f"{self.name}: no answer from its node in {wait_s + _ANSWER_S:.0f} s"
            hint = "does another run hold it? `ray status` shows what is taken" if late == "BUSY" else None
            raise TargetError(message, hint=hint, outcome=late) from error
        except ray.exceptions.RayTaskError:
            raise  # a bug
        except ray.exceptions.RayError as error:
            message = f"{self.name}: its node, or its process there, is gone: {type(error).__name__}"
            raise TargetError(message, outcome="LOST") from error
        if failure is None:
            return value
        kind, message, hint, outcome = failure
        make = getattr(errors, kind)
        raise make(message, hint=hint, **({"outcome": outcome} if issubclass(make, TargetError) else {}))


class _RemoteChannel:
    """A channel that the node holds under a number."""

    def __init__(self, call: Callable[..., Any], number: int) -> None:
        self._call = call
        self._number = number

    def send(self, data: bytes) -> None:
        self._call("send", self._number, data, wait_s=60.0)

    def receive(self, timeout_s: float) -> bytes:
        return bytes(self._call("receive", self._number, timeout_s, wait_s=timeout_s))

    def close(self) -> None:
        with suppress(EdgepruneError):
            self._call("close", self._number)

    @property
    def diagnostics(self) -> str:
        try:
            return str(self._call("diagnostics", self._number))
        except EdgepruneError as error:
            return error.message


class _Node:
    """The actor: methods by name, what they raise as data."""

    def __init__(self, text: str, options: Mapping[str, Any]) -> None:
        self._target = open_target(text, **options)
        self._channels: list[Channel] = []

    def do(self, method: str, *arguments: Any) -> tuple[tuple[str, str, str | None, str | None] | None, Any]:
        try:
            return None, getattr(self, f"_{method}")(*arguments)
        except EdgepruneError as error:
            return (type(error).__name__, error.message, error.hint, getattr(error, "outcome", None)), None

    def leave(self) -> None:
        self._target.__exit__(None, None, None)

    def _enter(self) -> Mapping[str, str]:
        self._target.__enter__()
        return {"folder": self._target.folder, "python": self._target.python}

    def _home(self) -> str:
        return self._target.home

    def _upload(self, data: bytes, name: str, folder: str | None) -> str:
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as here:
            source = Path(here) / checked_name(name)
            source.write_bytes(data)
            return self._target.upload(source, name, folder)

    def _start(self, argv: Sequence[str]) -> int:
        self._channels.append(self._target.start(argv))
        return len(self._channels) - 1

    def _run(self, argv: Sequence[str], timeout_s: float) -> tuple[int, bytes]:
        return self._target.run(argv, timeout_s)

    def _send(self, number: int, data: bytes) -> None:
        self._channels[number].send(data)

    def _receive(self, number: int, timeout_s: float) -> bytes:
        return self._channels[number].receive(timeout_s)

    def _close(self, number: int) -> None:
        self._channels[number].close()

    def _diagnostics(self, number: int) -> str:
        return self._channels[number].diagnostics
