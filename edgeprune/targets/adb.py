"""An Android device by the Android Debug Bridge: `--target adb://SERIAL`, as `adb devices` lists it.

Debian's `adb` (or that of Android's platform tools) does the talking. A device in the network is `adb://host:port`.
The agent needs a Python 3.6 or later there that the shell's user may run: `adb://SERIAL?python=/data/local/tmp/...`.
"""

from __future__ import annotations

import re
import subprocess
import time
from typing import Any
from urllib.parse import unquote

from edgeprune.errors import TargetError, UsageError
from edgeprune.targets import shell
from edgeprune.targets.link import Stream
from edgeprune.targets.parse import query_options
from edgeprune.targets.process import ChildProcess
from edgeprune.targets.remote import RemoteTarget

__all__ = ["AdbTarget"]

_SERIAL = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]*")  # nothing that adb could take for an option
_CONNECT_S = 15.0
_COMMAND_S = 30.0
_END_S = 2.0
_ADVICE = {
    "unauthorized": "unlock the device, and allow USB debugging from this computer in the dialog that it shows",
    "no permissions": "this user may not use the USB device: see the udev rules of Android's platform tools",
    "offline": "unplug it and plug it in again, or: adb reconnect",
    "not found": "adb devices -l shows those that are there; USB debugging is switched on in the developer options",
}


class AdbTarget(RemoteTarget):
    """One device that `adb` reaches. `python` names its interpreter where it is not on the shell's path."""

    def __init__(self, serial: str, *, python: str | None = None) -> None:
        super().__init__(AdbLink(serial), python=python)

    @classmethod
    def from_text(cls, text: str, **options: Any) -> AdbTarget:
        """ "adb://SERIAL?python=..."; keyword options win. Raises UsageError."""
        given = {**query_options(text, ("python",)), **options}
        for name in given:
            if name != "python":
                raise UsageError(f"{text}: {name!r} is not an option of adb", hint="options: python")
        return cls(unquote(text.partition("://")[2].partition("?")[0].rstrip("/")), **given)


class AdbLink:
    """A device of the adb server on this machine, which is started where it does not run."""

    def __init__(self, serial: str) -> None:
        if not _SERIAL.fullmatch(serial):
            raise UsageError(f"{serial!r} is not a device's serial", hint="write adb://SERIAL, as adb devices shows it")
        self._serial = serial
        self.name = f"adb://{serial}"

    def connect(self) -> None:
        """Wait for the device to be there and to let this machine in; raises TargetError."""
        self._adb("start-server")
        end = time.monotonic() + _CONNECT_S
        said = ""
        while (state := self._state())[0] != "device":
            if "unauthorized" in state[1] or "no permissions" in state[1] or time.monotonic() > end:
                raise self._absent(f"{state[1]} {said}".strip())
            if re.search(r":\d+$", self._serial):
                said = self._adb("connect", self._serial)[1]
                if "refused" in said or "cannot resolve" in said.lower() or "No route" in said:
                    raise self._absent(said)
            time.sleep(0.2)
        if "shell_v2" not in self._adb("-s", self._serial, "features")[1].split():
            raise TargetError(
                f"{self.name}: its shell tells neither exit statuses nor stderr apart",
                hint="Android 7 or later is needed",
                outcome="LOST",
            )

    def disconnect(self) -> None:
        """Nothing to do: the adb server keeps the connection, for others as well."""

    @property
    def alive(self) -> bool:
        """False where the device is gone or offline."""
        try:
            return self._state()[0] == "device"
        except TargetError:
            return False

    def open(self, line: str) -> Stream:
        """Have the device's shell run a command line."""
        return AdbStream(self.name, self._serial, line)

    def _state(self) -> tuple[str, str]:
        """ "device" where it is ready; what adb says."""
        code, said = self._adb("-s", self._serial, "get-state")
        return (said if code == 0 else ""), said

    def _absent(self, said: str) -> TargetError:
        advice = next((hint for word, hint in _ADVICE.items() if word in said), "adb devices -l says what is there")
        return TargetError(f"{self.name}: {said or 'no answer'}", hint=advice, outcome="LOST")

    def _adb(self, *arguments: str) -> tuple[int, str]:
        """Exit status of an adb command and what it said; raises UsageError where there is no adb, TargetError."""
        try:
            done = subprocess.run(
                ["adb", *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_COMMAND_S,
            )
        except FileNotFoundError as error:
            raise UsageError("there is no adb on this machine", hint="install it (Debian: apt install adb)") from error
        except subprocess.TimeoutExpired as error:
            raise TargetError(
                f"{self.name}: adb {arguments[-1]} does not answer", hint="adb kill-server", outcome="TIMEOUT"
            ) from error
        return done.returncode, done.stdout.decode("utf-8", "replace").strip()


class AdbStream(ChildProcess):
    """`adb shell`. The status comes at the end of stderr: by its own, adb does not tell a broken link from an end."""

    def __init__(self, name: str, serial: str, line: str) -> None:
        super().__init__(["adb", "-s", serial, "shell", "-T", f'({line}); echo "{shell.MARK}$?" >&2'], name)

    def receive(self, timeout_s: float) -> bytes:
        """Some bytes of stdout, b"" at its end; raises TargetError (TIMEOUT, LOST)."""
        data = super().receive(timeout_s)
        if not data:
            try:
                super().status(_END_S)
            except TargetError:
                return data  # it has closed its stdout and goes on
            self.status(0.0)
        return data

    def status(self, timeout_s: float) -> int:
        """The exit status, 128 + signal where one ended it; raises TargetError (TIMEOUT, LOST)."""
        super().status(timeout_s)
        code = self._split()[1]
        if not code.isdigit():
            raise TargetError(f"{self._name}: the connection is lost", outcome="LOST")
        return int(code)

    @property
    def diagnostics(self) -> str:
        """The end of stderr."""
        return self._split()[0]

    def _split(self) -> tuple[str, str]:
        text, _, code = super().diagnostics.rpartition(shell.MARK)
        return (text, code.strip()) if code.strip().isdigit() else (super().diagnostics, "")
