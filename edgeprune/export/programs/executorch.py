"""Runs in the environment `executorch`, not in edgeprune: lowers a captured program to XNNPACK, quantises it, runs it.

Files lie in the working folder. Nothing is unpickled: programs are .pt2 (read with weights only), arrays .npz.
"""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

loaded: "dict[str, Any]" = {}  # the last model, by its sha256


def convert() -> "dict[str, Any]":
    """program.pt2 -> model.pte; which operators XNNPACK left to ExecuTorch's portable kernels."""
    import torch

    return lowered(torch.export.load("program.pt2"))


def quantise(batches: int, per_channel: bool) -> "dict[str, Any]":
    """program.pt2 -> model.pte in int8, calibrated by the rows of batch-0.npz, batch-1.npz, ..."""
    import torch
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    program = torch.export.load("program.pt2")
    quantizer = xnnpack.XNNPACKQuantizer()
    quantizer.set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=per_channel))
    with torch.no_grad():
        prepared = prepare_pt2e(program.module(), quantizer)
        examples = program.example_inputs[0]
        for row in rows(batches, examples):
            prepared(*row)
        converted = convert_pt2e(prepared)
        targets = [str(node.target) for node in converted.graph.nodes if node.op == "call_function"]
        if not any("quantize_per" in target for target in targets):
            return {"quantised": False}
        return {"quantised": True, **lowered(torch.export.export(converted, examples, strict=False))}


def lowered(program: Any) -> "dict[str, Any]":
    """Write model.pte of a program."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    nodes = [node for node in edge.exported_program().graph.nodes if node.op == "call_function"]
    calls = [target.name() if hasattr(target, "name") else str(target) for target in (node.target for node in nodes)]
    Path("model.pte").write_bytes(edge.to_executorch().buffer)
    portable = sorted({call for call in calls if "getitem" not in call and "delegate" not in call})
    return {"portable": portable, "versions": {name: version(name) for name in ("torch", "executorch")}}


def rows(batches: int, examples: "Sequence[Any]") -> "Iterator[list[Any]]":
    """The calibration data, as many rows at a time as the examples have."""
    import numpy as np
    import torch

    size = next((len(value) for value in examples if value.ndim), 1)
    for number in range(batches):
        with np.load(f"batch-{number}.npz", allow_pickle=False) as arrays:
            batch = [torch.from_numpy(arrays[f"arr_{position}"]) for position in range(len(examples))]
        count = next((len(value) for value in batch if value.ndim), 1)
        for start in range(0, count - size + 1, size):
            yield [value[start : start + size] if value.ndim and len(value) == count else value for value in batch]


def run(model: str, sha256: str, inputs: "Sequence[str]", outputs: "Sequence[str]") -> "dict[str, Any]":
    """feeds.npz -> results.npz, as many rows at a time as the file has. The arrays are in the order of the names."""
    import numpy as np
    import torch

    method = opened(model, sha256)
    with np.load("feeds.npz", allow_pickle=False) as arrays:
        feeds = [torch.from_numpy(arrays[f"arr_{number}"]) for number in range(len(inputs))]
    sizes = method.metadata.input_tensor_meta(0).sizes()
    size, count = (sizes[0], len(feeds[0])) if sizes else (1, 1)
    parts = []
    for start in range(0, count, size):
        row = [value[start : start + size] if value.ndim and len(value) == count else value for value in feeds]
        parts.append([value.numpy().copy() for value in method.execute([value.contiguous() for value in row])])
    if len(parts[0]) != len(outputs):
        raise ValueError(f"the file has {len(parts[0])} outputs, not {len(outputs)}")
    np.savez("results.npz", *(c[0] if len(parts) == 1 else np.concatenate(c) for c in map(list, zip(*parts))))
    return {}


def opened(model: str, sha256: str) -> Any:
    """The method of a .pte file, on one thread."""
    if sha256 not in loaded:
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        loaded.clear()
        portable_lib._unsafe_reset_threadpool(1)  # noqa: SLF001  the only way; before a model is loaded
        program = Runtime.get().load_program(model)
        loaded[sha256] = program.load_method("forward")
    return loaded[sha256]


OPERATIONS = {"convert": convert, "quantise": quantise, "run": run}
