"""Starts the agent or one of its workers; in the zip it lies beside the package.

Compiling would leave more than half a megabyte of the device's memory in use while the agent lives. So a process of
its own compiles the modules that it consists of.
"""

import marshal
import os
import sys
import zipimport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PACKAGE = "edgeprune_agent"


class Compiled:
    """Imports modules from their code; all others of the package come from the zip."""

    def __init__(self, codes: "dict[str, Any]") -> None:
        self.codes = codes

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":  # noqa: ARG002
        if name not in self.codes:
            return None
        kind = type(sys.__spec__)  # type: Any
        spec = kind(name, self, is_package=name == PACKAGE)
        if name == PACKAGE:
            spec.submodule_search_locations.append(sys.argv[0] + "/" + PACKAGE)
        return spec

    def create_module(self, spec: "Any") -> None:
        """As always."""

    def exec_module(self, module: "Any") -> None:
        exec(self.codes.pop(module.__name__), module.__dict__)  # noqa: S102 - our own, of the zip


def compiled() -> "dict[str, Any]":
    """The code of the agent's modules by name; empty where there was no memory left for it."""
    outer, inner = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            __import__(PACKAGE + ".main")
            names = [name for name in sys.modules if name.partition(".")[0] == PACKAGE]
            archive = zipimport.zipimporter(sys.argv[0])
            codes = {name: archive.get_code(name.replace(".", "/")) for name in names}
            with os.fdopen(inner, "wb") as file:
                marshal.dump(codes, file)
        finally:
            os._exit(0)
    os.close(inner)
    with os.fdopen(outer, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    try:
        return dict(marshal.loads(data))  # noqa: S302 - from our own child
    except (EOFError, ValueError, TypeError):
        return {}


if __name__ == "__main__":
    if sys.argv[1:] != ["--worker"]:
        sys.meta_path.insert(0, Compiled(compiled()))
    sys.exit(__import__(PACKAGE + ".main", fromlist=["main"]).main(sys.argv[1:]))
