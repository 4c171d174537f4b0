"""What runs a model: one small class per runtime behind one seam, and the choice among them.

A runtime is imported when its class is made, in the worker alone. `prepare` loads a model, sets its inputs once, and
gives two functions: one runs the model once, one turns what that returned into named arrays.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from .frames import OUT_OF_MEMORY, Frames, OutcomeError


class Runtime:
    """The seam. `name` is that of the distribution to install, `package` what is imported of it."""

    name = ""
    package = ""
    suffix = ""

    def __init__(self) -> None:
        try:
            self.numpy = importlib.import_module("numpy")  # type: Any
            self.module = importlib.import_module(self.package)  # type: Any
        except ImportError as error:
            if any(sign in str(error).lower() for sign in OUT_OF_MEMORY):
                raise
            raise OutcomeError("NO_RUNTIME", absent(self.name, str(error))) from error

    @classmethod
    def missing(cls) -> str:
        """Why it is not here, and what to do; "" where the interpreter finds it, though it may still not run."""
        found = importlib.util.find_spec(cls.package.partition(".")[0]) is not None
        return "" if found else absent(cls.name, "not installed")

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    def prepare(self, task: "dict[str, Any]", arrays: "list[Any]") -> "tuple[Any, Any]":
        """(run, named): `named(run())` is a list of (name, array); `arrays` are in the order of the task's inputs."""
        raise NotImplementedError

    def load(self, task: "dict[str, Any]") -> "Any":
        """A function that runs the model once, on inputs of the asked shapes that were set once."""
        return self.prepare(task, self.samples(task))[0]

    def profiled(self, task: "dict[str, Any]", prefix: str) -> "tuple[Any, Any]":  # noqa: ARG002
        """(run, finish) as of `load`, under the runtime's profiler; `finish()` gives the path of its trace."""
        raise OutcomeError("NO_PROFILER", "{} has no profiler that this agent can read".format(self.name))

    def samples(self, task: "dict[str, Any]") -> "list[Any]":
        """An array for each input of the task; the same for the same seed."""
        random = self.numpy.random.RandomState(task["seed"])
        return [self.sample(spec, random) for spec in task["inputs"]]

    def sample(self, spec: "dict[str, Any]", random: "Any") -> "Any":
        """Standard normal values for floating point, zeros for all else."""
        dtype = self.numpy.dtype(spec["dtype"])
        if dtype.kind == "f":
            return random.standard_normal(spec["shape"]).astype(dtype)
        return self.numpy.zeros(spec["shape"], dtype)


class OnnxRuntime(Runtime):
    """ONNX Runtime on the processor: sequential, the asked number of threads inside an operator."""

    name = package = "onnxruntime"
    suffix = ".onnx"

    def session(self, task: "dict[str, Any]", profile: str = "") -> "Any":
        """The model, loaded; with the profiler on where its trace has a place to go."""
        options = self.module.SessionOptions()
        options.intra_op_num_threads = task["threads"]
        options.inter_op_num_threads = 1
        options.execution_mode = self.module.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        return self.module.InferenceSession(task["model"], options, providers=["CPUExecutionProvider"])

    def profiled(self, task: "dict[str, Any]", prefix: str) -> "tuple[Any, Any]":
        session = self.session(task, prefix)
        feeds = {spec["name"]: array for spec, array in zip(task["inputs"], self.samples(task))}
        return lambda: session.run(None, feeds), session.end_profiling

    def prepare(self, task: "dict[str, Any]", arrays: "list[Any]") -> "tuple[Any, Any]":
        session = self.session(task)
        feeds = {spec["name"]: array for spec, array in zip(task["inputs"], arrays)}
        names = [output.name for output in session.get_outputs()]
        run = session.run
        return lambda: run(None, feeds), lambda found: list(zip(names, found))


class LiteRt(Runtime):
    """LiteRT's interpreter with its default delegate, XNNPACK."""

    name = "ai-edge-litert"
    package = "ai_edge_litert.interpreter"
    suffix = ".tflite"

    @property
    def version(self) -> str:
        return package_version(self.package.partition(".")[0])

    def prepare(self, task: "dict[str, Any]", arrays: "list[Any]") -> "tuple[Any, Any]":
        interpreter = self.module.Interpreter(model_path=task["model"], num_threads=task["threads"])
        own = {entry["name"]: entry for entry in interpreter.get_input_details()}
        if len(own) != len(arrays):
            raise ValueError("the model has {} inputs, {} were given".format(len(own), len(arrays)))
        names = [spec["name"] for spec in task["inputs"]]
        entries = [own[name] for name in names] if set(names) == set(own) else list(own.values())
        for entry, array in zip(entries, arrays):
            if list(entry["shape"]) != list(array.shape):
                interpreter.resize_tensor_input(entry["index"], array.shape, strict=True)
        interpreter.allocate_tensors()
        for entry, array in zip(entries, arrays):
            interpreter.set_tensor(entry["index"], array)
        outputs = interpreter.get_output_details()
        return interpreter.invoke, lambda _: [(item["name"], interpreter.get_tensor(item["index"])) for item in outputs]


class TfliteRuntime(LiteRt):
    """The older name of LiteRT, with which 32-bit boards and old systems do."""

    name = "tflite-runtime"
    package = "tflite_runtime.interpreter"

    def __init__(self) -> None:
        super().__init__()
        if not str(self.numpy.__version__).startswith("1."):  # it imports, and fails when it loads a model
            raise OutcomeError("NO_RUNTIME", absent(self.name, "it needs NumPy 1; pip install 'numpy<2'"))


class Ncnn(Runtime):
    """ncnn: the artifact is a zip, not compressed, of one .param and one .bin. Its tensors have no batch dimension."""

    name = package = "ncnn"
    suffix = ".ncnn"

    def prepare(self, task: "dict[str, Any]", arrays: "list[Any]") -> "tuple[Any, Any]":
        net = self.module.Net()
        net.opt.num_threads = task["threads"]
        import tempfile

        with tempfile.TemporaryDirectory(dir=str(Path(task["model"]).parent)) as folder:
            for suffix, load in ((".param", net.load_param), (".bin", net.load_model)):
                path = Path(folder) / ("model" + suffix)
                extract(Path(task["model"]), suffix, path)
                if load(str(path)) != 0:
                    raise ValueError("ncnn cannot load the {} of {}".format(suffix, task["model"]))
        for spec in task["inputs"]:
            if len(spec["shape"]) > 1 and spec["shape"][0] != 1:
                raise ValueError("ncnn runs one sample at a time, not a batch of {}".format(spec["shape"][0]))
        arrays = [array[0] if array.ndim > 1 else array for array in arrays]
        mats = [self.module.Mat(array).clone() for array in arrays]
        own, outputs = list(net.input_names()), list(net.output_names())
        if len(own) != len(mats):
            raise ValueError("the model has {} inputs, {} were given".format(len(own), len(mats)))
        names = [spec["name"] for spec in task["inputs"]]
        feeds = list(zip(names if set(names) == set(own) else own, mats))

        def run() -> "Any":
            extractor = net.create_extractor()  # keeps what it computed: a new one for each inference
            for name, mat in feeds:
                extractor.input(name, mat)
            found = [extractor.extract(name) for name in outputs]
            failed = [name for name, (code, _) in zip(outputs, found) if code != 0]
            if failed:
                raise ValueError("ncnn cannot compute {}".format(", ".join(failed)))
            return found

        numpy = self.numpy
        return run, lambda found: [(name, numpy.array(mat)[None]) for name, (_, mat) in zip(outputs, found)]


class ExecuTorch(Runtime):
    """ExecuTorch's Python runtime, the method `forward`; the delegates are those that the program was lowered to."""

    name = "executorch"
    package = "executorch.runtime"
    suffix = ".pte"

    @property
    def version(self) -> str:
        return str(importlib.import_module("executorch.version").__version__)

    def prepare(self, task: "dict[str, Any]", arrays: "list[Any]") -> "tuple[Any, Any]":
        torch = importlib.import_module("torch")  # type: Any
        binding = importlib.import_module("executorch.extension.pybindings.portable_lib")  # type: Any
        binding._unsafe_reset_threadpool(task["threads"])  # noqa: SLF001  # the only way; before a model is loaded
        program = self.module.Runtime.get().load_program(task["model"])
        method = program.load_method("forward")
        tensors = [torch.from_numpy(array) for array in arrays]

        def run() -> "Any":
            return method.execute(tensors)

        return run, lambda found: [("output{}".format(n), value.numpy()) for n, value in enumerate(found)]


class TensorRt(Runtime):
    """TensorRT, driven by its program trtexec; nothing of Python is needed but NumPy, where outputs are asked for."""

    name = "tensorrt"
    suffix = ".tensorrt"

    def __init__(self) -> None:
        self.module = importlib.import_module(".tensorrt", __package__)
        self.program = self.module.find()
        if not self.program:
            raise OutcomeError("NO_RUNTIME", self.missing())
        self.numpy = importlib.import_module("numpy") if importlib.util.find_spec("numpy") else None

    @classmethod
    def missing(cls) -> str:
        from .tensorrt import PLACES, find

        where = "tensorrt does not run here: trtexec is not on the PATH, nor {}; it comes with JetPack: "
        return "" if find() else where.format(" or ".join(PLACES)) + "sudo apt install tensorrt"

    @property
    def version(self) -> str:
        return str(self.module.version(self.program))

    def load(self, task: "dict[str, Any]") -> "Any":
        return self.module.EngineRun(self.program, task)

    def prepare(self, task: "dict[str, Any]", arrays: "list[Any]") -> "tuple[Any, Any]":
        return lambda: self.module.outputs(self.program, task, arrays, self.numpy), lambda found: found


RUNTIMES = {kind.name: kind for kind in (OnnxRuntime, LiteRt, TfliteRuntime, Ncnn, ExecuTorch, TensorRt)}


def absent(name: str, reason: str) -> str:
    """What to do where a runtime is not there, or does not run."""
    way = "edgeprune device setup, or pip install" if name == OnnxRuntime.name else "pip install"
    message = "{} does not run in {} ({}): install it there ({}), or name another interpreter"
    return message.format(name, sys.executable, reason, way)


def package_version(name: str) -> str:
    """What a package says of itself, else what its metadata does (importlib.metadata needs Python 3.8)."""
    package = importlib.import_module(name)
    if hasattr(package, "__version__"):
        return str(package.__version__)
    found = [path.name.split("-")[1] for path in Path(str(package.__file__)).parent.parent.glob(name + "-*.dist-info")]
    return found[0][: -len(".dist")] if len(found) == 1 else ""


def extract(archive: Path, suffix: str, to: Path) -> None:
    """The one file of the zip that ends so."""
    import zipfile

    with zipfile.ZipFile(str(archive)) as source:
        infos = [info for info in source.infolist() if info.filename.endswith(suffix)]
        if len(infos) != 1 or infos[0].compress_type != zipfile.ZIP_STORED:
            raise ValueError("{} is to hold one {} file, not compressed".format(archive, suffix))
        with source.open(infos[0]) as content, to.open("wb") as file:
            for block in iter(lambda: content.read(1 << 20), b""):
                file.write(block)


def choose(name: str, model: str) -> "list[Any]":
    """The named runtime where it takes the model's format, else all installed ones that do.

    Raises OutcomeError (NO_RUNTIME) with those that would.
    """
    if name not in RUNTIMES:
        known = ", ".join(sorted(RUNTIMES))
        raise OutcomeError("NO_RUNTIME", "this agent cannot drive {!r}; it knows {}".format(name, known))
    suffix = Path(model).suffix
    if RUNTIMES[name].suffix == suffix:
        return [RUNTIMES[name]]
    fitting = [kind for kind in RUNTIMES.values() if kind.suffix == suffix]
    if not fitting:
        known = ", ".join(sorted({kind.suffix for kind in RUNTIMES.values()}))
        raise OutcomeError("NO_RUNTIME", "no runtime here takes {!r} files; known are {}".format(suffix, known))
    there = [kind for kind in fitting if not kind.missing()]
    if not there and len(fitting) == 1:
        raise OutcomeError("NO_RUNTIME", fitting[0].missing())
    if not there:
        raise OutcomeError("NO_RUNTIME", absent(" or ".join(kind.name for kind in fitting), "not installed"))
    return there


def load_runtime(task: "dict[str, Any]") -> "Any":
    """The runtime for the task's model, imported; raises OutcomeError (NO_RUNTIME)."""
    failure = None  # type: Any
    for kind in choose(task["runtime"], task["model"]):
        try:
            return kind()
        except OutcomeError as error:
            failure = failure or error
    raise failure


def installed_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":  # noqa: ARG001
    """Which runtimes this interpreter finds, and of which agent this is; the agent itself has no need of hashlib."""
    import hashlib

    digest = hashlib.sha256(Path(sys.argv[0]).resolve().read_bytes()).hexdigest()
    missing = {name: kind.missing() for name, kind in sorted(RUNTIMES.items())}
    names = [name for name in missing if not missing[name]]
    return {"names": names, "missing": {name: why for name, why in missing.items() if why}, "sha256": digest}


def runtime_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":  # noqa: ARG001
    """Which version of a runtime this interpreter runs."""
    return {"version": RUNTIMES[task["runtime"]]().version}
