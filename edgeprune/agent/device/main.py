"""The agent's command line."""

import argparse
import os
import threading
from pathlib import Path

from .agent import Agent
from .frames import claim_stdout
from .lifeline import Lifeline
from .lock import DeviceLock, lock_path, wait_for_lock


def agent_main(arguments: "list[str]") -> int:
    """Serve the host on stdin and stdout until the input ends."""
    parser = argparse.ArgumentParser(description="edgeprune's agent; speaks JSON lines with the edgeprune on the host")
    parser.add_argument("--folder", type=Path, help="private folder, removed when the link breaks")
    parser.add_argument("--owner", default="unknown", help="who measures, shown to others")
    parser.add_argument("--wait-s", type=float, default=0.0, help="how long to wait for another user's measurement")
    parser.add_argument("--idle-s", type=float, default=60.0, help="end after this long without a word")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where proc and sys are looked for, in tests")
    options = parser.parse_args(arguments)
    out = claim_stdout()
    os.write(out.descriptor, b"\n")  # a login banner may not have ended its line
    lock = DeviceLock(lock_path())
    lifeline = Lifeline(lock, options.folder, options.idle_s)
    threading.Thread(target=lifeline.watch, daemon=True).start()
    if not wait_for_lock(lock, options.owner, options.wait_s, out):
        return 0
    agent = Agent(out, options.root, options.folder)
    try:
        agent.hello()
        while True:
            agent.answer(lifeline.requests.get())
    except BrokenPipeError:
        lifeline.end(keep_folder=False)
    return 0


def main(arguments: "list[str]") -> int:
    """A worker where the only argument is `--worker`, else the agent."""
    if arguments != ["--worker"]:
        return agent_main(arguments)
    from .worker import worker_main

    return worker_main()
