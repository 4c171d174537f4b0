"""An Android-like device for Debian's `adb`: the ADB protocol over TCP, a shell of mksh and toybox.

Messages and shell protocol as in packages/modules/adb of the Android Open Source Project: protocol.txt, SERVICES.TXT
and shell_protocol.h.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType

import pytest

_BLOCK = 32 * 1024
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_TOOLS = ["awk", "python3"]  # Android has toybox's own awk since 14; Debian's toybox is older


def missing() -> str:
    """Why no device can be had here, or ""."""
    absent = [name for name in ("adb", "mksh", "toybox") if not shutil.which(name)]
    return f"missing: {', '.join(absent)} (Debian: {' '.join(absent)})" if absent else ""


class AdbDevice:
    """A context manager: entering starts the device, and an adb server of its own for this process."""

    def __init__(self, *, authorized: bool = True, features: str = "shell_v2,cmd") -> None:
        self._authorized = authorized
        self._features = features
        self._listener = socket.socket()
        self._connections: list[_Connection] = []
        self._environment = pytest.MonkeyPatch()
        self.received = 0
        self.cut_after: int | None = None  # bytes, then the link breaks, once
        self.folder = Path()

    @property
    def serial(self) -> str:
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    @property
    def url(self) -> str:
        return f"adb://{self.serial}"

    def __enter__(self) -> AdbDevice:
        self.folder = Path(tempfile.mkdtemp(prefix="android-"))
        for name in ("bin", "data", "tmp", "host"):
            (self.folder / name).mkdir()
        toybox = shutil.which("toybox")
        for name in subprocess.run([str(toybox)], check=True, capture_output=True, text=True).stdout.split():
            (self.folder / "bin" / name).symlink_to(str(toybox))
        (self.folder / "bin" / "sh").symlink_to(str(shutil.which("mksh")))
        for name in _TOOLS:
            (self.folder / "bin" / name).unlink(missing_ok=True)
            (self.folder / "bin" / name).symlink_to(os.path.realpath(str(shutil.which(name, path="/usr/bin:/bin"))))
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._environment.setenv("ANDROID_ADB_SERVER_PORT", str(probe.getsockname()[1]))
        self._environment.setenv("HOME", str(self.folder / "host"))  # adb keeps its keys there
        self._environment.setenv("TMPDIR", str(self.folder / "host"))  # and its log
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["adb", "kill-server"], check=False, capture_output=True, timeout=20)
        self._environment.undo()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        shutil.rmtree(self.folder)

    def drop(self) -> None:
        """Break all connections."""
        for connection in self._connections:
            connection.close()

    @property
    def environment(self) -> dict[str, str]:
        """Of every command on the device."""
        data, tmp = self.folder / "data", self.folder / "tmp"
        names = {"PATH": self.folder / "bin", "HOME": data, "TMPDIR": tmp, "EDGEPRUNE_LOCK": data / "lock"}
        return {name: str(value) for name, value in names.items()}

    def arrived(self, count: int) -> None:
        """Count what came in; break the link where it is time to."""
        self.received += count
        if self.cut_after is not None and self.received >= self.cut_after:
            self.cut_after = None
            self.drop()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(self, accepted, self._authorized, self._features)
            self._connections.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()


class _Connection:
    def __init__(self, device: AdbDevice, accepted: socket.socket, authorized: bool, features: str) -> None:
        self._device = device
        self._socket = accepted
        self._authorized = authorized
        self._features = features
        self._lock = threading.Lock()
        self._shells: dict[int, _Shell] = {}

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        word = struct.unpack("<I", command)[0]
        header = struct.pack("<6I", word, first, second, len(data), sum(data) & 0xFFFFFFFF, word ^ 0xFFFFFFFF)
        with self._lock:
            self._socket.sendall(header + data)

    def serve(self) -> None:
        try:
            while True:
                command, first, second, size, _, _ = struct.unpack("<4s5I", self._read(24))
                self._handle(command, first, second, self._read(size))
        except (OSError, EOFError):
            pass
        finally:
            for shell in list(self._shells.values()):
                shell.hang_up()
            self.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            block = self._socket.recv(size - len(data))
            if not block:
                raise EOFError
            data += block
        return data

    def _handle(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command in {b"CNXN", b"AUTH"}:
            if not self._authorized:
                self.send(b"AUTH", 1, 0, bytes(20))  # a token to sign; no key is known here
                return
            banner = f"device::ro.product.name=stand-in;ro.product.model=Stand_in;features={self._features}"
            self.send(b"CNXN", 0x01000001, 256 * 1024, banner.encode())
        elif command == b"OPEN":
            service = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
            if not service.startswith("shell,v2"):
                self.send(b"CLSE", 0, first)
                return
            number = max(self._shells, default=0) + 1
            self.send(b"OKAY", number, first)
            self._shells[number] = _Shell(self, number, first, service.partition(":")[2])
        elif shell := self._shells.get(second):
            if command == b"WRTE":
                self._device.arrived(len(data))
                shell.feed(data)
                self.send(b"OKAY", second, first)
            elif command == b"OKAY":
                shell.acknowledged.put(True)
            elif command == b"CLSE":
                shell.hang_up()

    def start(self, line: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(self._device.folder / "bin" / "sh"), "-c", line],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._device.environment,
            cwd=self._device.folder,
            start_new_session=True,
        )

    def ended(self, number: int, remote: int) -> None:
        self._shells.pop(number, None)
        with contextlib.suppress(OSError):
            self.send(b"CLSE", number, remote)


class _Shell:
    """The shell protocol: packets of a kind, a size and data, over the stream's messages."""

    def __init__(self, connection: _Connection, number: int, remote: int, line: str) -> None:
        self._connection = connection
        self._number = number
        self._remote = remote
        self._lock = threading.Lock()
        self._buffer = b""
        self._input: queue.Queue[bytes | None] = queue.Queue()
        self.acknowledged: queue.Queue[bool] = queue.Queue()
        self._process = connection.start(line)
        threading.Thread(target=self._write, daemon=True).start()
        threading.Thread(target=self._serve, daemon=True).start()

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 5:
            kind, size = struct.unpack("<BI", self._buffer[:5])
            if len(self._buffer) < 5 + size:
                return
            data, self._buffer = self._buffer[5 : 5 + size], self._buffer[5 + size :]
            if kind == _STDIN:
                self._input.put(data)
            elif kind == _CLOSE_STDIN:
                self._input.put(None)

    def hang_up(self) -> None:
        """The client is gone: as adbd, a hang-up for the shell."""
        self._input.put(None)
        self.acknowledged.put(False)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGHUP)

    def _write(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(OSError):
            while (data := self._input.get()) is not None:
                stdin.write(data)
                stdin.flush()
        with contextlib.suppress(OSError):
            stdin.close()

    def _serve(self) -> None:
        pumps = [
            threading.Thread(target=self._pump, args=(self._process.stdout, _STDOUT), daemon=True),
            threading.Thread(target=self._pump, args=(self._process.stderr, _STDERR), daemon=True),
        ]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        status = self._process.wait()
        self._input.put(None)
        self._packet(_EXIT, bytes([status & 0xFF if status >= 0 else 128 - status]))
        self._connection.ended(self._number, self._remote)

    def _pump(self, stream: object, kind: int) -> None:
        with stream:  # type: ignore[attr-defined]
            while data := stream.read1(_BLOCK):  # type: ignore[attr-defined]
                self._packet(kind, data)

    def _packet(self, kind: int, data: bytes) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._connection.send(b"WRTE", self._number, self._remote, struct.pack("<BI", kind, len(data)) + data)
            self.acknowledged.get()
