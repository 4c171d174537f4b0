"""The contract of targets, as tests. Run it on your own:

from edgeprune.testing.targets import TargetContract

class TestMine(TargetContract):
    def make(self) -> Target:
        return MyTarget(...)
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

import pytest

from edgeprune.agent.bundle import agent_sha256, write_agent
from edgeprune.agent.client import AgentClient
from edgeprune.errors import TargetError, UsageError
from edgeprune.targets.base import Channel, Target

__all__ = ["TargetContract", "read_all", "run"]

_RUNNING = """import os, sys, time
def running(process):
    try:
        return ') Z' not in open('/proc/%s/stat' % process).read()
    except OSError:
        return False
end = time.time() + 5  # a killed process takes its time to be gone
while any(map(running, sys.argv[1:])) and time.time() < end:
    time.sleep(0.02)
print(*map(running, sys.argv[1:]))
"""
_S = 20.0  # no step of the contract takes as long on a sound link


def read_all(channel: Channel) -> bytes:
    """Everything until the end of stdout."""
    data = b""
    while block := channel.receive(_S):
        data += block
    return data


def run(target: Target, program: str, *arguments: str) -> bytes:
    """The stdout of a Python program on the device."""
    channel = target.start([target.python, "-c", program, *arguments])
    try:
        return read_all(channel)
    finally:
        channel.close()


def _line(channel: Channel) -> str:
    data = b""
    while not data.endswith(b"\n"):
        block = channel.receive(_S)
        assert block, channel.diagnostics
        data += block
    return data.decode()


class TargetContract:
    """Subclass it and say how a target is made."""

    def make(self) -> Target:
        """A new, closed target on a device that is there."""
        raise NotImplementedError

    def test_is_a_target(self) -> None:
        """The seam's names are all there."""
        with self.make() as target:
            assert isinstance(target, Target)
            assert isinstance(target.start([target.python, "-c", ""]), Channel)
            assert target.name

    def test_folder_is_private_and_gone_afterwards(self) -> None:
        """Mode 0700 while open, removed on leaving with all that is in it."""
        look = "import os, sys; p = sys.argv[1]; print(oct(os.stat(p).st_mode & 0o777) if os.path.exists(p) else '-')"
        with self.make() as target:
            folder = target.folder
            assert run(target, look, folder).decode().strip() == "0o700"
            run(target, "open('left-behind', 'w').close()")
        with self.make() as target:
            assert target.folder != folder
            assert run(target, look, folder).decode().strip() == "-"

    def test_target_can_be_entered_again(self) -> None:
        """Leaving and entering makes a new connection: how a session heals."""
        target = self.make()
        for word in ("first", "second"):
            with target:
                assert run(target, "import sys; print(sys.argv[1])", word).decode().strip() == word

    def test_upload_arrives_whole(self, tmp_path: Path) -> None:
        """The content is the same, under its name, with no partial file beside; a second upload replaces it."""
        digest = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
        source = tmp_path / "source"
        with self.make() as target:
            for content in (b"", bytes(range(256)) * 8000):
                source.write_bytes(content)
                path = target.upload(source, "artifact.bin")
                assert path.rpartition("/")[2] == "artifact.bin"
                assert run(target, digest, path).decode().strip() == hashlib.sha256(content).hexdigest()
            listing = run(target, "import json, os, sys; print(json.dumps(os.listdir(sys.argv[1])))", target.folder)
            assert [name for name in json.loads(listing) if name.endswith(".part")] == []

    def test_uploads_do_not_follow_links(self, tmp_path: Path) -> None:
        """A link under the file's name, or its partial one's, is replaced; what it leads to stays as it was."""
        plant = (
            "import os, sys\nopen('victim', 'w').write('as it was')\n"
            "for name in sys.argv[1:]: os.symlink('victim', name)"
        )
        source = tmp_path / "source"
        source.write_bytes(b"content")
        with self.make() as target:
            run(target, plant, "file", "file.part")
            path = target.upload(source, "file")
            look = "import os, sys; print(os.path.islink(sys.argv[1]), open(sys.argv[1]).read(), open('victim').read())"
            assert run(target, look, path).decode().strip() == "False content as it was"
            run(target, "import os; os.mkdir('place'); os.symlink('place', 'into')")
            path = target.upload(source, "into")
            look = "import os, sys; print(os.path.islink(sys.argv[1]), os.listdir('place'))"
            assert run(target, look, path).decode().strip() == "False []"

    def test_names_are_taken_as_they_are(self, tmp_path: Path) -> None:
        """Whatever a shell would make of them."""
        names = [
            "a b",
            "it's",
            '"',
            "-rf",
            "$(touch pwned)",
            "`touch pwned`",
            "a\nb",
            "*",
            "\\",
            "ä€",
            "~",
            "!x",
            "a;b",
        ]
        source = tmp_path / "source"
        with self.make() as target:
            for name in names:
                source.write_bytes(name.encode())
                path = target.upload(source, name)
                assert path == f"{target.folder}/{name}"
                assert run(target, "import sys; sys.stdout.write(open(sys.argv[1]).read())", path).decode() == name
            found = json.loads(run(target, "import json, os; print(json.dumps(os.listdir('.')))"))
            assert sorted(name for name in found if not name.startswith(".pid-")) == sorted(names)

    def test_names_with_a_folder_are_refused(self, tmp_path: Path) -> None:
        """A file cannot leave its folder."""
        source = tmp_path / "source"
        source.write_bytes(b"")
        with self.make() as target:
            for name in ("", ".", "..", "../up", "/etc/passwd", "a/b", "a\0b"):
                with pytest.raises(UsageError):
                    target.upload(source, name)

    def test_home_is_private_and_stays(self, tmp_path: Path) -> None:
        """Mode 0700, the same on the next visit, outside the session's folder; files can be put there."""
        look = "import os, sys; print(oct(os.stat(sys.argv[1]).st_mode & 0o777))"
        source = tmp_path / "source"
        source.write_bytes(b"kept")
        name = f"contract-{os.getpid()}"
        with self.make() as target:
            home = target.home
            assert home.startswith("/")
            assert not home.startswith(target.folder)
            assert run(target, look, home).decode().strip() == "0o700"
            path = target.upload(source, name, home)
            assert path == f"{home}/{name}"
        with self.make() as target:
            assert target.home == home
            assert (
                run(target, "import os, sys; print(open(sys.argv[1]).read()); os.remove(sys.argv[1])", path)
                == b"kept\n"
            )

    def test_short_programs(self) -> None:
        """Exit status and stdout as they are; stderr only to say why it failed."""
        program = "import sys; sys.stdout.write('out'); sys.stdout.flush(); sys.exit('why' if sys.argv[1:] else 0)"
        with self.make() as target:
            assert target.run([target.python, "-c", program], _S) == (0, b"out")
            code, output = target.run([target.python, "-c", program, "fail"], _S)
            assert (code, output[:3], b"why" in output) == (1, b"out", True)
            assert target.run([target.python, "-c", "import sys; sys.exit(7)"], _S)[0] == 7
            assert target.run([target.python, "-c", "import sys; print(sys.stdin.read())"], _S) == (0, b"\n")
            assert target.run([target.python, "-c", "import os; os.kill(os.getpid(), 9)"], _S)[0] != 0
            assert target.run(["no-such-program-anywhere"], _S)[0] == 127
            folder = target.run([target.python, "-c", "import os; print(os.getcwd())"], _S)[1].decode().strip()
            assert folder.endswith(target.folder)

    def test_program_that_takes_too_long_is_killed(self) -> None:
        """TargetError with the outcome TIMEOUT; the program is gone."""
        program = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(1000)"
        with self.make() as target:
            with pytest.raises(TargetError) as caught:
                target.run([target.python, "-c", program], 1.5)
            assert caught.value.outcome == "TIMEOUT"
            assert run(target, _RUNNING, run(target, "print(open('pid').read())").decode().strip()).split() == [
                b"False"
            ]

    def test_arguments_arrive_as_they_are(self) -> None:
        """No shell interprets them."""
        odd = ["", "a b", "'", '"', "$HOME", "`id`", "; exit 3", "*", "\\", "ä€", "-n", "a\nb", "%s", "!x"]
        with self.make() as target:
            assert json.loads(run(target, "import json, sys; print(json.dumps(sys.argv[1:]))", *odd)) == odd

    def test_bytes_go_both_ways(self) -> None:
        """A megabyte of every byte value through stdin and stdout."""
        data = bytes(range(256)) * 4096
        program = "import sys; d = sys.stdin.buffer.read(int(sys.argv[1])); sys.stdout.buffer.write(d)"
        with self.make() as target:
            channel = target.start([target.python, "-c", program, str(len(data))])
            channel.send(data)
            assert read_all(channel) == data
            channel.close()

    def test_silence_is_a_timeout(self) -> None:
        """Nothing within the time: TargetError with the outcome TIMEOUT, and the channel stays usable."""
        with self.make() as target:
            channel = target.start([target.python, "-c", "import sys; print(sys.stdin.readline(), flush=True)"])
            started = time.monotonic()
            with pytest.raises(TargetError) as caught:
                channel.receive(0.3)
            assert caught.value.outcome == "TIMEOUT"
            assert time.monotonic() - started < 5
            channel.send(b"still here\n")
            assert b"still here" in read_all(channel)
            channel.close()

    def test_stderr_is_kept(self) -> None:
        """For the message of an error."""
        with self.make() as target:
            channel = target.start([target.python, "-c", "import sys; sys.exit('x' * 50000 + ' the end')"])
            read_all(channel)
            channel.close()
            assert channel.diagnostics.strip().endswith("x the end")
            assert len(channel.diagnostics) <= 10_000

    def test_closing_is_the_end_of_input(self) -> None:
        """A program that heeds it ends by itself and in order."""
        program = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read(); open('in-order', 'w').close()"
        with self.make() as target:
            channel = target.start([target.python, "-c", program])
            process = _line(channel).strip()
            channel.close()
            channel.close()  # twice is once
            assert run(target, _RUNNING, process).split() == [b"False"]
            assert run(target, "import os; print(os.path.exists('in-order'))").split() == [b"True"]

    def test_closing_kills_what_does_not_end(self) -> None:
        """A program that does not heed the end of input, and its children."""
        program = (
            "import os, subprocess, time; child = subprocess.Popen(['sleep', '1000']); "
            "print(os.getpid(), child.pid, flush=True); time.sleep(1000)"
        )
        with self.make() as target:
            channel = target.start([target.python, "-c", program])
            processes = _line(channel).split()
            channel.close()
            assert run(target, _RUNNING, *processes).split() == [b"False", b"False"]

    def test_leaving_ends_the_programs(self) -> None:
        """What is still running when the target is left is ended."""
        with self.make() as target:
            program = "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"
            channel = target.start([target.python, "-c", program])
            process = _line(channel).strip()
        with self.make() as target:
            assert run(target, _RUNNING, process).split() == [b"False"]

    def test_sending_to_an_ended_program_is_lost(self) -> None:
        """TargetError with the outcome LOST."""
        with self.make() as target:
            channel = target.start([target.python, "-c", ""])
            assert read_all(channel) == b""
            with pytest.raises(TargetError) as caught:
                channel.send(b"x" * (8 << 20))  # more than any window holds
            assert caught.value.outcome == "LOST"
            channel.close()

    def test_agent_runs(self) -> None:
        """The agent starts there and names its machine."""
        with tempfile.TemporaryDirectory() as folder, self.make() as target:
            agent = target.upload(write_agent(Path(folder)), "agent.pyz")
            channel = target.start([target.python, "-S", "-B", agent, "--wait-s", "60"])
            client = AgentClient(channel, target.name)
            hello = client.hello(120)
            assert hello["sha256"] == agent_sha256()
            assert hello["machine"]["cpus"] >= 1
            client.close()
