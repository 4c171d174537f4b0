"""How a model is run: one class per runtime, which loads a model and gives a function that runs it once."""

import sys
from typing import Any

from .frames import OUT_OF_MEMORY, Frames, OutcomeError


class OnnxRuntime:
    """ONNX Runtime on the processor: sequential, the asked number of threads inside an operator."""

    def __init__(self) -> None:
        try:
            import numpy as np
            import onnxruntime
        except ImportError as error:
            if any(sign in str(error).lower() for sign in OUT_OF_MEMORY):
                raise
            raise OutcomeError(
                "NO_RUNTIME",
                "onnxruntime does not run in {} ({}): install it there, or name another interpreter".format(
                    sys.executable, error
                ),
            ) from error
        self.numpy = np  # type: Any
        self.onnxruntime = onnxruntime  # type: Any
        self.version = str(onnxruntime.__version__)

    def load(self, task: "dict[str, Any]") -> "Any":
        """A function that runs the model once on inputs of the asked shapes."""
        options = self.onnxruntime.SessionOptions()
        options.intra_op_num_threads = task["threads"]
        options.inter_op_num_threads = 1
        options.execution_mode = self.onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        session = self.onnxruntime.InferenceSession(task["model"], options, providers=["CPUExecutionProvider"])
        random = self.numpy.random.RandomState(task["seed"])
        feeds = {spec["name"]: self.sample(spec, random) for spec in task["inputs"]}
        run = session.run
        return lambda: run(None, feeds)

    def sample(self, spec: "dict[str, Any]", random: "Any") -> "Any":
        """Standard normal values for floating point, zeros for all else."""
        dtype = self.numpy.dtype(spec["dtype"])
        if dtype.kind == "f":
            return random.standard_normal(spec["shape"]).astype(dtype)
        return self.numpy.zeros(spec["shape"], dtype)


RUNTIMES = {"onnxruntime": OnnxRuntime}


def load_runtime(task: "dict[str, Any]") -> "Any":
    """The asked runtime, imported; raises OutcomeError (NO_RUNTIME)."""
    name = task["runtime"]
    if name not in RUNTIMES:
        known = ", ".join(sorted(RUNTIMES))
        raise OutcomeError("NO_RUNTIME", "this agent cannot drive {!r}; it knows {}".format(name, known))
    return RUNTIMES[name]()


def runtime_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":  # noqa: ARG001
    """Which version of a runtime this interpreter has."""
    return {"version": load_runtime(task).version}
