"""Runs in an environment, not in edgeprune: `serve.py NAME` answers requests with the OPERATIONS of NAME.py beside it.

A request is a JSON line on stdin, {"folder": ..., "do": ..., ...}; the answer a JSON line on stdout, {"error": ...}
where it fails. What anything prints goes to said.txt in the folder. Ends with its input, or when nothing is asked.
"""

import importlib.util
import json
import os
import select
import sys
import traceback
from pathlib import Path
from typing import Any

IDLE_S = 300.0


def operations(name: str) -> "dict[str, Any]":
    """What the program of that name can do."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.OPERATIONS
    return found


def answer(known: "dict[str, Any]", request: "dict[str, Any]") -> "dict[str, Any]":
    """What one request comes to; an exception becomes its message."""
    folder = request.pop("folder")
    os.chdir(folder)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.close(said)
    try:
        result: dict[str, Any] = known[request.pop("do")](**request)
    except Exception as error:
        traceback.print_exc()
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        result = {"error": f"{type(error).__name__}: {line}".removesuffix(": "), "kind": type(error).__name__}
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir("/")  # the folder is about to be removed
    return result


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    known = operations(sys.argv[1])
    rest = b""
    while select.select([0], [], [], IDLE_S)[0]:
        data = os.read(0, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            answers.write(json.dumps(answer(known, json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    main()
