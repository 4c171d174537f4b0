"""Boards as they are: dropbear without SFTP, users that are not root, any login shell, noise, Android's folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.errors import TargetError, UsageError
from edgeprune.targets.base import Target
from edgeprune.targets.parse import open_target
from edgeprune.testing.targets import TargetContract, read_all, run
from tests.targets.board import PYTHON, UID, Board, board

NOISE = "echo 'Welcome to the board'; echo 'warning: battery low' >&2\n"
START_UP = {".bashrc": NOISE, ".zshenv": NOISE, ".config/fish/config.fish": NOISE, ".tcshrc": NOISE}


@pytest.fixture(scope="module")
def dropbear() -> Iterator[Board]:
    with board("dropbear") as made:
        yield made


class TestDropbear(TargetContract):
    """As a user that is not root, without an SFTP server."""

    @pytest.fixture(autouse=True)
    def _board(self, dropbear: Board) -> Iterator[None]:
        self.url = dropbear.url()
        yield
        assert dropbear.left_behind() == []
        assert dropbear.programs() == []

    def make(self) -> Target:
        return open_target(self.url)


def test_longest_command_line(dropbear: Board) -> None:
    with open_target(dropbear.url()) as target:
        words = ["x" * 3000, "y" * 3000]
        assert json.loads(run(target, "import json, sys; print(json.dumps(sys.argv[1:]))", *words)) == words
        with pytest.raises(UsageError, match="too long"):
            target.run(["echo", "x" * 9000], 20)
        assert target.run(["echo", "still there"], 20) == (0, b"still there\n")


def test_user_is_not_root(dropbear: Board) -> None:
    with open_target(dropbear.url()) as target:
        assert json.loads(run(target, "import os; print(os.getuid())")) == UID
        assert target.home == f"{dropbear.home}/.cache/edgeprune"


@pytest.mark.parametrize("server", ["dropbear", "sshd"])
@pytest.mark.parametrize(
    "shell", ["/bin/dash", "/bin/bash", "/bin/mksh", "/bin/zsh", "/usr/bin/fish", "/bin/tcsh", "ash"]
)
def test_login_shells_and_their_noise(server: str, shell: str, tmp_path: Path) -> None:
    words = ["a b", "'", "\\", "$(id)", "a\nb", "!x", "ä"]
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 1000)
    with board(server, shell=shell, files=START_UP) as made, open_target(made.url()) as target:
        if Path(shell).name in {"bash", "zsh", "fish", "tcsh"}:
            noise = target._link.open("true")
            assert noise.receive(20) == b"Welcome to the board\n"
            noise.status(20)
            noise.close()
        assert json.loads(run(target, "import json, sys; print(json.dumps(sys.argv[1:]))", *words)) == words
        code, output = target.run([target.python, "-c", "print('clean')"], 20)
        assert (code, output) == (0, b"clean\n")
        path = target.upload(source, "it's $(here)")
        channel = target.start(["cat", path])
        assert read_all(channel) == source.read_bytes()
        channel.close()
        assert target.home.startswith(str(made.home))


def test_folders_with_odd_names(tmp_path: Path) -> None:
    """What the device's environment says reaches no shell unquoted either."""
    odd = 'a b\'s "$(touch ~/pwned)" `touch ~/pwned`; touch ~/pwned #*\\n'
    environment = {"TMPDIR": f"~/{odd.replace('~/', '')}", "XDG_CACHE_HOME": f"~/cache {odd.replace('~/', '')}"}
    source = tmp_path / "source"
    source.write_bytes(b"content")
    with board(files={f"{odd.replace('~/', '')}/x": ""}, environment=environment) as made:
        with open_target(made.url()) as target:
            assert Path(target.folder).parent == made.home / odd.replace("~/", "")
            assert target.home == f"{made.home}/cache {odd.replace('~/', '')}/edgeprune"
            for folder in (target.folder, target.home):
                path = target.upload(source, "-n $x", folder)
                assert path == f"{folder}/-n $x"
                assert target.run(["cat", path], 20) == (0, b"content")
            channel = target.start(["pwd"])
            assert read_all(channel).decode() == f"{target.folder}\n"
            channel.close()
        assert made.left_behind() == []
        assert not list(made.folder.rglob("pwned"))
        assert made.programs() == []


def test_shell_that_prints_without_end_is_cut_off() -> None:
    files = {".bashrc": "while :; do echo noise noise noise noise noise noise noise noise noise; done\n"}
    with board("sshd", shell="/bin/bash", files=files) as made:
        with pytest.raises(TargetError, match="prints without end") as caught:
            open_target(made.url()).__enter__()
        assert caught.value.outcome == "LOST"


def test_shell_that_begins_to_print_without_end() -> None:
    files = {".bashrc": "while [ -e ~/noisy ]; do echo noise noise noise noise noise noise noise noise; done\n"}
    with board("sshd", shell="/bin/bash", files=files) as made:
        with open_target(made.url()) as target:
            (made.home / "noisy").touch()
            channel = target.start(["cat"])
            with pytest.raises(TargetError, match="prints without end") as caught:
                channel.receive(20)
            assert caught.value.outcome == "LOST"
            (made.home / "noisy").unlink()
        assert made.left_behind() == []
        assert made.programs() == []


def test_shell_that_is_no_shell_says_so() -> None:
    with board("sshd", shell="/usr/sbin/nologin") as made:
        with pytest.raises(TargetError, match="currently not available") as caught:
            open_target(made.url()).__enter__()
        assert caught.value.outcome == "LOST"


def test_android_folders(tmp_path: Path) -> None:
    """As in Termux: no /tmp, no mktemp, Python in $PREFIX/bin alone, which is not on the path."""
    python = Path(str(PYTHON)).resolve()
    settings = {
        "hidden": ["/tmp", "/usr/bin/mktemp", str(python)],
        "copies": {"usr/bin/python3": str(python)},
        "files": {"usr/tmp/x": ""},
        "environment": {"PREFIX": "~/usr", "TMPDIR": ""},
    }
    source = tmp_path / "source"
    source.write_bytes(b"content")
    with board(**settings) as made:
        with open_target(made.url(python=None)) as target:
            folder = Path(target.folder)
            assert target.python == f"{made.home}/usr/bin/python3"
            assert folder.parent == made.home / "usr" / "tmp"
            assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (UID, 0o700)
            assert target.run(["cat", target.upload(source, "file")], 20) == (0, b"content")
            assert target.home == f"{made.home}/.cache/edgeprune"
        assert not folder.exists()
        assert made.left_behind() == []


def test_no_python() -> None:
    python = Path(str(PYTHON)).resolve()
    with board(hidden=[str(python)]) as made:
        with pytest.raises(TargetError, match="there is no python3 or python") as caught:
            open_target(made.url(python=None)).__enter__()
        assert caught.value.outcome == "NO_RUNTIME"
        assert made.left_behind() == []


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        ("rm -rf ~/.cache/edgeprune; mkdir -p ~/.cache ~/elsewhere; ln -s ~/elsewhere ~/.cache/edgeprune", "is a link"),
        ("mkdir -p ~/.cache/edgeprune; chmod 777 ~/.cache/edgeprune", "others may write"),
        ("rm -rf ~/.cache/edgeprune; mkdir -p ~/.cache; echo > ~/.cache/edgeprune", "File exists"),
    ],
)
def test_home_that_is_not_private_is_refused(dropbear: Board, plant: str, why: str) -> None:
    with open_target(dropbear.url()) as target:
        try:
            assert target.run(["sh", "-c", plant.replace("~", str(dropbear.home))], 20)[0] == 0
            with pytest.raises(TargetError, match=why) as caught:
                _ = target.home
            assert caught.value.outcome == "LOST"
        finally:
            target.run(["rm", "-rf", f"{dropbear.home}/.cache", f"{dropbear.home}/elsewhere"], 20)


def test_home_of_someone_else_is_refused(dropbear: Board) -> None:
    cache = dropbear.home / ".cache"
    (cache / "edgeprune").mkdir(parents=True)  # by root
    with open_target(dropbear.url()) as target, pytest.raises(TargetError, match="belongs to someone else"):
        _ = target.home
    (cache / "edgeprune").rmdir()
    cache.rmdir()


def test_home_that_others_may_read_is_closed(dropbear: Board) -> None:
    with open_target(dropbear.url()) as target:
        target.run(["mkdir", "-p", f"{dropbear.home}/.cache/edgeprune"], 20)
        target.run(["chmod", "755", f"{dropbear.home}/.cache/edgeprune"], 20)
        assert Path(target.home).stat().st_mode & 0o777 == 0o700
        target.run(["rm", "-rf", f"{dropbear.home}/.cache"], 20)
