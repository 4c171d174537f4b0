"""Wheels reach a device and are unpacked there without pip: whole or not at all, and nothing outside of its place."""

from __future__ import annotations

import ast
import hashlib
import random
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeprune.agent import bootstrap
from edgeprune.agent.bootstrap import Bootstrap
from edgeprune.errors import TargetError
from edgeprune.measure.session import Session
from edgeprune.records.profile import load_profile
from edgeprune.targets.base import Target
from edgeprune.targets.local import LocalChannel, LocalTarget
from tests.agent.wheel_files import make_wheel

SITE = f"site-{sys.implementation.cache_tag}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is installed; not made yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgeprune"


@pytest.fixture
def target() -> Iterator[Target]:
    with LocalTarget() as opened:
        yield opened


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_facts_are_of_the_interpreter_there_and_leave_nothing(home: Path, target: Target) -> None:
    facts = Bootstrap(target).facts()
    assert facts["python"] == list(sys.version_info[:2])
    assert (facts["bits"], facts["libc"], facts["installed"]) == (64, "glibc", None)
    assert facts["home"] == str(home) == target.home  # asking the target makes it
    home.rmdir()
    home.parent.rmdir()
    assert Bootstrap(target).facts()["free_bytes"] > 0
    assert not home.parent.exists()


def test_wheels_are_unpacked_where_they_are_imported_from(home: Path, target: Target, tmp_path: Path) -> None:
    first = make_wheel(
        tmp_path,
        "first",
        {
            "first/__init__.py": b"value = 3\n",
            "first/tool": b"#!/bin/sh\n",
            "first-1.0.data/platlib/native.so": b"\x7fELF",
            "first-1.0.data/purelib/pure.py": b"pure = 1\n",
            "first-1.0.data/scripts/first": b"#!python\n",
            "first-1.0.data/data/share/notes": b"notes\n",
        },
        modes={"first/tool": 0o100755},
    )
    second = make_wheel(tmp_path, "second", {"second.py": b"import first\n"})
    Bootstrap(target).install("first", "1.0", [first, second])
    assert tree(home / SITE) == [
        "edgeprune.json",
        *(f"first-1.0.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL")),
        "first/__init__.py",
        "first/tool",
        "native.so",
        "pure.py",
        *(f"second-1.0.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL")),
        "second.py",
    ]
    assert [path.name for path in home.iterdir()] == [SITE]
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert (home / SITE / "first/tool").stat().st_mode & 0o100
    installed = Bootstrap(target).facts()["installed"]
    assert (installed["runtime"], installed["version"]) == ("first", "1.0")
    assert {wheel["sha256"] for wheel in installed["wheels"]} == {first.sha256, second.sha256}


BAD: dict[str, tuple[dict[str, bytes], dict[str, Any], str]] = {
    "above": ({"../evil.py": b"x"}, {}, "a file outside of itself"),
    "deep": ({"bad/../../evil.py": b"x"}, {}, "a file outside of itself"),
    "absolute": ({"/tmp/evil.py": b"x"}, {}, "a file outside of itself"),
    "windows": ({"..\\evil.py": b"x"}, {}, "a file outside of itself"),
    "data": ({"bad-1.0.data/purelib/../../../evil.py": b"x"}, {}, "a file outside of itself"),
    "link": ({"evil.py": b"/etc/passwd"}, {"modes": {"evil.py": 0o120777}}, "something else than files"),
    "changed": ({"bad.py": b"x"}, {"record": {"bad.py": b"y"}}, "bad.py is not what its wheel's RECORD says"),
    "unlisted": ({"bad.py": b"x", "evil.py": b"x"}, {"record": {"evil.py": None}}, "evil.py has no hash"),
    "absent": ({"bad.py": b"x"}, {"record": {"gone.py": b"x"}}, "lacks gone.py"),
    "new": ({"bad.py": b"x"}, {"wheel_version": "2.0"}, "unknown version"),
    "twice": ({"good.py": b"x"}, {}, "two wheels hold good.py"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_a_bad_wheel_is_refused_and_what_was_there_stays(case: str, home: Path, target: Target, tmp_path: Path) -> None:
    good = make_wheel(tmp_path, "good", {"good.py": b"good = 1\n"})
    Bootstrap(target).install("good", "1.0", [good])
    files, how, said = BAD[case]
    bad = make_wheel(tmp_path, "bad", files, **how)
    before = tree(tmp_path)
    with pytest.raises(TargetError) as caught:
        Bootstrap(target).install("bad", "1.0", [good, bad])
    assert caught.value.outcome == "NO_RUNTIME"
    assert said in caught.value.message
    assert not [path for path in tmp_path.rglob("evil.py") if ".part" not in str(path)]
    assert [path for path in tree(tmp_path) if ".part/" not in path and "/incoming/" not in path] == before
    Bootstrap(target).install("good", "1.0", [good])
    assert tree(tmp_path) == before


def test_a_file_that_is_no_zip_is_refused(home: Path, target: Target, tmp_path: Path) -> None:
    good = make_wheel(tmp_path, "good", {"good.py": b"good = 1\n"})
    path = tmp_path / "no-1.0-py3-none-any.whl"
    path.write_bytes(good.path.read_bytes()[:-60])
    cut = replace(good, path=path, size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(TargetError, match="damaged"):
        Bootstrap(target).install("no", "1.0", [cut])
    assert not (home / SITE).exists()


def test_what_arrives_changed_is_not_used(home: Path, target: Target, tmp_path: Path) -> None:
    good = make_wheel(tmp_path, "good", {"good.py": b"good = 1\n"})
    with pytest.raises(TargetError) as caught:
        Bootstrap(target).install("good", "1.0", [replace(good, sha256="0" * 64)])
    assert caught.value.outcome == "LOST"
    assert "did not arrive as it was sent" in caught.value.message
    assert tree(home) == []


class Counting(LocalChannel):
    """Counts the bytes that are sent; may be interrupted after some."""

    sent = 0
    limit = 1 << 40

    def send(self, data: bytes) -> None:
        if Counting.sent > Counting.limit:
            raise KeyboardInterrupt
        Counting.sent += len(data)
        super().send(data)


class CountingTarget(LocalTarget):
    def start(self, argv: Any) -> Counting:
        channel = Counting(argv, self.folder)
        self._channels.append(channel)
        return channel


def test_an_interrupted_installation_goes_on_where_it_was(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = random.Random(0).randbytes(3 << 20)
    wheels = [make_wheel(tmp_path, name, {f"{name}.bin": noise}) for name in ("one", "two")]
    total = sum(wheel.size for wheel in wheels)
    monkeypatch.setattr(Counting, "sent", 0)
    monkeypatch.setattr(Counting, "limit", wheels[0].size + (1 << 20))
    with CountingTarget() as target, pytest.raises(KeyboardInterrupt):
        Bootstrap(target).install("two", "1.0", wheels)
    assert not (home / SITE).exists()
    assert (home / "incoming" / f"{wheels[0].sha256}.whl").stat().st_size == wheels[0].size
    kept = (home / "incoming" / f"{wheels[1].sha256}.part").stat().st_size
    assert (1 << 20) <= kept < wheels[1].size
    monkeypatch.setattr(Counting, "sent", 0)
    monkeypatch.setattr(Counting, "limit", 1 << 40)
    with CountingTarget() as target:
        Bootstrap(target).install("two", "1.0", wheels)
    assert total - wheels[0].size - kept <= Counting.sent < total - wheels[0].size - kept + 4096
    assert [(home / SITE / f"{name}.bin").read_bytes() == noise for name in ("one", "two")] == [True, True]
    assert [path.name for path in home.iterdir()] == [SITE]


def test_too_little_space_is_said_before_anything_is_sent(home: Path, target: Target, tmp_path: Path) -> None:
    good = make_wheel(tmp_path, "good", {"good.py": b"good = 1\n"})
    with pytest.raises(TargetError, match=r"MB more in .* MB are free") as caught:
        Bootstrap(target).install("good", "1.0", [replace(good, unpacked_bytes=1 << 60)])
    assert caught.value.outcome == "NO_SPACE"
    assert tree(home) == []


def test_removing_leaves_nothing(home: Path, target: Target, tmp_path: Path) -> None:
    good = make_wheel(tmp_path, "good", {"good.py": b"good = 1\n"})
    device = Bootstrap(target)
    device.install("good", "1.0", [good])
    assert device.remove() == {"removed": True, "folder": str(home)}
    assert not home.parent.exists()
    assert device.remove()["removed"] is False
    device.install("good", "1.0", [good])
    (home.parent / "of-others").touch()
    device.remove()
    assert [path.name for path in home.parent.iterdir()] == ["of-others"]


def test_a_folder_that_is_not_ours_alone_is_not_used(home: Path, target: Target, tmp_path: Path) -> None:
    good = make_wheel(tmp_path, "good", {"good.py": b"good = 1\n"})
    home.parent.mkdir()
    (tmp_path / "elsewhere").mkdir()
    home.symlink_to(tmp_path / "elsewhere")
    for attempt in (lambda: Bootstrap(target).install("good", "1.0", [good]), Bootstrap(target).remove):
        with pytest.raises(TargetError, match=r"not a folder that only this user|symbolic link"):
            attempt()
    home.unlink()
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    with pytest.raises(TargetError, match="only this user may write"):
        Bootstrap(target).install("good", "1.0", [good])
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_agents_workers_find_what_was_installed(home: Path, target: Target, tmp_path: Path) -> None:
    """A package that only looks like the runtime, in place of the interpreter's own."""
    fake = make_wheel(tmp_path, "onnxruntime", {"onnxruntime/__init__.py": b"__version__ = '0.0.fake'\n"})
    Bootstrap(target).install("onnxruntime", "0.0", [fake])
    with Session(LocalTarget(), load_profile("host")) as session:
        assert session.runtimes["onnxruntime"]["version"] == "0.0.fake"


def test_the_program_is_python_3_6() -> None:
    path = Path(bootstrap.__file__).with_name("bootstrap_device.py")
    ast.parse(path.read_text(), feature_version=(3, 6))
    assert path.stat().st_size < 16_000
    assert "import edgeprune" not in path.read_text()
    assert "from edgeprune" not in path.read_text()
