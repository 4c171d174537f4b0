"""What brings a runtime onto a device, run there: standard-library Python 3.6, no pip, no network.

One command, JSON lines on stdin and stdout: `facts`, `install`, `golden` (runs a model), `remove`. All of it lives in
~/.cache/edgeprune (0700; `Target.home`): wheels that came, until they are installed, and a folder of packages for each
kind of interpreter. The agent's workers look there as well.
"""

import base64
import csv
import glob
import hashlib
import io
import json
import os
import platform
import shutil
import stat
import struct
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

MARK = "edgeprune_bootstrap"
BLOCK = 1 << 18
STAMP = "edgeprune.json"
SIGNATURES = ("RECORD", "RECORD.jws", "RECORD.p7s")  # what a wheel's RECORD need not list


class BootstrapError(Exception):
    """Ends the command with a named outcome."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


def home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return Path(cache if cache.startswith("/") else os.path.expanduser("~/.cache")) / "edgeprune"


def site() -> Path:
    """Packages for this kind of interpreter; the agent's worker knows the same place."""
    return home() / ("site-" + str(sys.implementation.cache_tag))


def private_home() -> Path:
    """The folder, made where it is not there; nobody else may have put a hand on it."""
    folder = home()
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    seen = os.lstat(str(folder))
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & 0o022:
        raise BootstrapError("NO_RUNTIME", f"{folder} is not a folder that only this user may write to; move it away")
    os.chmod(str(folder), 0o700)
    return folder


def libc() -> "tuple[str, str]":
    """("glibc", "2.36"), ("musl", "1.2.3") or ("", "")."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        if name == "glibc":
            return name, version
    except (ValueError, OSError):
        name = ""  # musl does not know the name
    for loader in sorted(glob.glob("/lib/ld-musl-*.so.1")):
        done = subprocess.Popen([loader], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = done.communicate()[0].decode("utf-8", "replace")
        lines = [line.split()[1] for line in said.splitlines() if line.startswith("Version ")]
        return "musl", lines[0] if lines else ""
    return "", ""


def installed() -> Any:
    """What the last installation wrote of itself, or None."""
    try:
        return json.loads((site() / STAMP).read_text())
    except (OSError, ValueError):
        return None


def facts() -> "dict[str, Any]":
    libc_name, libc_version = libc()
    parent = next(folder for folder in (home(), *home().parents) if folder.is_dir())
    return {
        "machine": platform.machine(),
        "bits": struct.calcsize("P") * 8,
        "libc": libc_name,
        "libc_version": libc_version,
        "python": list(sys.version_info[:2]),
        "implementation": sys.implementation.name,
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "interpreter": sys.executable,
        "home": str(home()),
        "free_bytes": shutil.disk_usage(str(parent)).free,
        "folder_free_bytes": shutil.disk_usage(os.path.dirname(os.path.abspath(sys.argv[0]))).free,
        "time": time.time(),
        "installed": installed(),
    }


def say(**frame: Any) -> None:
    frame[MARK] = 1
    sys.stdout.write(json.dumps(frame) + "\n")
    sys.stdout.flush()


# --- installing


def receive(wheel: "dict[str, Any]", source: Any, incoming: Path) -> Path:
    """The wheel, from the host where it is not here yet; what came of it earlier is not asked for again."""
    digest = str(wheel["sha256"])
    whole = incoming / (digest + ".whl")
    if whole.exists() and whole.stat().st_size == wheel["size"]:
        say(want=digest, offset=wheel["size"])
        return whole
    part = incoming / (digest + ".part")
    offset = min(part.stat().st_size, wheel["size"]) if part.exists() else 0
    say(want=digest, offset=offset)
    left = wheel["size"] - offset
    with part.open("ab") as file:
        file.truncate(offset)
        while left:
            data = source.read(min(BLOCK, left))
            if not data:
                raise BootstrapError("LOST", "the host has gone")
            file.write(data)
            left -= len(data)
        file.flush()
        os.fsync(file.fileno())
    if file_digest(part) != digest:
        part.unlink()
        raise BootstrapError("LOST", "{} did not arrive as it was sent".format(wheel["name"]))
    part.rename(whole)
    return whole


def file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def destination(name: str, data_folder: str) -> "str | None":
    """Where a file of a wheel goes below the site folder; None for what is not imported (scripts, headers)."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or not parts or ":" in parts[0]:
        raise BootstrapError("NO_RUNTIME", f"a wheel names a file outside of itself: {name!r}")
    if parts[0] != data_folder:
        return "/".join(parts)
    return "/".join(parts[2:]) if len(parts) > 2 and parts[1] in ("purelib", "platlib") else None


def unpack(path: Path, target: Path) -> None:
    """A wheel's files into `target` (PEP 427), each checked against RECORD."""
    with zipfile.ZipFile(str(path)) as archive:
        infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
        folders = {info.filename.split("/")[0] for info in infos if info.filename.count("/") == 1}
        names = sorted(name for name in folders if name.endswith(".dist-info"))
        if len(names) != 1:
            raise BootstrapError("NO_RUNTIME", f"not a wheel: it has {len(names)} .dist-info folders")
        check_version(archive, names[0])
        record = read_record(archive, names[0])
        seen = [info.filename for info in infos]
        if len(set(seen)) != len(seen):
            raise BootstrapError("NO_RUNTIME", "a wheel holds a file twice")
        missing = sorted(set(record) - set(seen))
        if missing:
            raise BootstrapError("NO_RUNTIME", f"a wheel lacks {missing[0]}, which its RECORD lists")
        for info in infos:
            place = destination(info.filename, names[0][: -len(".dist-info")] + ".data")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise BootstrapError("NO_RUNTIME", "a wheel holds something else than files: " + info.filename)
            if place is not None:
                write_file(archive, info, target / place, record, names[0])


def check_version(archive: zipfile.ZipFile, info_folder: str) -> None:
    try:
        text = archive.read(info_folder + "/WHEEL").decode("utf-8")
    except KeyError:
        raise BootstrapError("NO_RUNTIME", "not a wheel: it has no WHEEL file") from None
    versions = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Wheel-Version:")]
    if not versions or not versions[0].startswith("1."):
        raise BootstrapError("NO_RUNTIME", f"a wheel of an unknown version: {versions}")


def read_record(archive: zipfile.ZipFile, info_folder: str) -> "dict[str, str]":
    """By file its hash as RECORD writes it."""
    try:
        text = archive.read(info_folder + "/RECORD").decode("utf-8")
    except KeyError:
        raise BootstrapError("NO_RUNTIME", "not a wheel: it has no RECORD") from None
    return {row[0]: row[1] for row in csv.reader(io.StringIO(text)) if row and len(row) > 1}


def write_file(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, record: "dict[str, str]", info_folder: str
) -> None:
    kind, _, wanted = record.get(info.filename, "").partition("=")
    signature = info.filename in {info_folder + "/" + name for name in SIGNATURES}
    if not signature and kind not in ("sha256", "sha384", "sha512"):
        raise BootstrapError("NO_RUNTIME", f"{info.filename} has no hash in its wheel's RECORD")
    if path.exists():
        raise BootstrapError("NO_RUNTIME", f"two wheels hold {info.filename}")
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.new("sha256" if signature else kind)
    with archive.open(info) as source, path.open("xb") as file:
        for block in iter(lambda: source.read(BLOCK), b""):
            digest.update(block)
            file.write(block)
    if not signature and base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode() != wanted.rstrip("="):
        raise BootstrapError("NO_RUNTIME", f"{info.filename} is not what its wheel's RECORD says")
    if (info.external_attr >> 16) & 0o111:
        path.chmod(0o755)


def install(request: "dict[str, Any]", source: Any) -> None:
    """All wheels of the request as the one site folder, in place of an earlier one; whole or not at all."""
    incoming = private_home() / "incoming"
    incoming.mkdir(exist_ok=True)
    for leftover in home().glob("*.part"):
        shutil.rmtree(str(leftover))
    wanted = {wheel["sha256"] for wheel in request["wheels"]}
    for old in incoming.iterdir():
        if old.stem not in wanted:
            old.unlink()  # of another version
    here = sum(path.stat().st_size for path in incoming.iterdir())
    needed = request["unpacked_bytes"] + sum(wheel["size"] for wheel in request["wheels"]) - here + (4 << 20)
    free = shutil.disk_usage(str(home())).free
    if free < needed:
        message = "{} needs {:.0f} MB more in {}, and {:.0f} MB are free"
        raise BootstrapError("NO_SPACE", message.format(request["runtime"], needed / 1e6, home(), free / 1e6))
    paths = [receive(wheel, source, incoming) for wheel in request["wheels"]]
    part = home() / (site().name + ".part")
    part.mkdir()
    for wheel, path in zip(request["wheels"], paths):
        say(unpacking=wheel["name"])
        unpack(path, part)
    stamp = {name: request[name] for name in ("runtime", "version", "wheels")}
    (part / STAMP).write_text(json.dumps(stamp))
    os.sync()  # a power cut must not leave a whole folder of empty files
    if site().exists():
        shutil.rmtree(str(site()))
    part.rename(site())
    shutil.rmtree(str(incoming))
    say(done=stamp)


# --- running, removing


def golden(request: "dict[str, Any]") -> None:
    """The model's outputs for given inputs, in the runtime that measurements use."""
    if site().is_dir():
        sys.path.insert(0, str(site()))
        sys.dont_write_bytecode = False  # into the site folder: without, each measurement would compile NumPy anew
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it would leave an identifier in ~/.cache, and send usage data
    try:
        import numpy as np
        import onnxruntime
    except ImportError as error:
        raise BootstrapError("NO_RUNTIME", f"onnxruntime does not run in {sys.executable}: {error}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = base64.b64decode(request["model"])
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {
        name: np.array(tensor["values"], np.float32).reshape(tensor["shape"])
        for name, tensor in request["inputs"].items()
    }
    outputs = [output.ravel().tolist() for output in session.run(None, feeds)]
    say(done={"outputs": outputs, "version": str(onnxruntime.__version__), "place": onnxruntime.__file__})


def remove() -> None:
    """All that was installed, the folder itself, and the one above where nothing else is in it."""
    folder = home()
    if folder.is_symlink():
        raise BootstrapError("NO_RUNTIME", f"{folder} is a symbolic link; remove it yourself")
    there = folder.exists()
    if there:
        shutil.rmtree(str(folder))
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
    say(done={"removed": there, "folder": str(folder)})


def main(command: str) -> int:
    source = sys.stdin.buffer
    try:
        if command == "facts":
            say(done=facts())
        elif command == "remove":
            remove()
        elif command == "golden":
            golden(json.loads(source.readline().decode()))
        else:
            install(json.loads(source.readline().decode()), source)
    except BootstrapError as error:
        say(outcome=error.outcome, message=str(error))
    except zipfile.BadZipFile as error:
        say(outcome="LOST", message=f"a wheel is damaged: {error}")
    except OSError as error:
        outcome = "NO_SPACE" if error.errno in (28, 122) else "CRASHED"
        say(outcome=outcome, message=f"{error.filename or home()}: {error.strerror or error}")
    except Exception as error:
        say(outcome="CRASHED", message=f"{type(error).__name__}: {error}")
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(sys.argv[1]))
