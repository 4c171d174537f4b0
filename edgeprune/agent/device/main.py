"""The agent's command line."""

import os
import sys
import threading

from .agent import Agent
from .frames import claim_stdout
from .lifeline import Lifeline
from .lock import DeviceLock, lock_path, wait_for_lock

OPTIONS = {  # by hand: argparse would take more memory than all of this package
    "--folder": "",  # private, removed when the link breaks
    "--owner": "unknown",  # who measures, shown to others
    "--wait-s": "0",  # how long to wait for another user's measurement
    "--idle-s": "60",  # end after this long without a word
    "--root": "/",  # where proc and sys are looked for, in tests
}


def agent_main(arguments: "list[str]") -> int:
    """Serve the host on stdin and stdout until the input ends."""
    options = dict(OPTIONS)
    given = dict(zip(arguments[::2], arguments[1::2]))
    if len(arguments) % 2 or not set(given) <= set(options):
        sys.stderr.write("the agent of edgeprune, which edgeprune starts; options: {}\n".format(", ".join(options)))
        return 2
    options.update(given)
    folder = options["--folder"].rstrip("/")
    out = claim_stdout()
    os.write(out.descriptor, b"\n")  # a login banner may not have ended its line
    lock = DeviceLock(lock_path())
    lifeline = Lifeline(lock, folder, float(options["--idle-s"]))
    threading.Thread(target=lifeline.watch, daemon=True).start()
    if not wait_for_lock(lock, options["--owner"], float(options["--wait-s"]), out):
        return 0
    agent = Agent(out, options["--root"], folder)
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
