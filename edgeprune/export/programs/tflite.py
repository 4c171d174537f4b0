"""Runs in the environment `tflite`, not in edgeprune: converts a captured program to .tflite, and quantises one.

Files lie in the working folder. Nothing is unpickled: programs are .pt2 (read with weights only), arrays .npz.
"""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

SIGNATURE = "serving_default"


def convert(inputs: Sequence[str], outputs: Sequence[str], channels_last: Sequence[Sequence[int]]) -> "dict[str, Any]":
    """program.pt2 (a tuple of tensors comes out) -> model.tflite, its inputs and outputs called as asked.

    `channels_last` are the numbers of the inputs, and of the outputs, that are to be (N, ..., C).
    """
    import litert_torch
    import torch

    program = torch.export.load("program.pt2")
    module, args = program.module(), program.example_inputs[0]
    if any(channels_last):
        turned_inputs, turned_outputs = channels_last
        module = litert_torch.to_channel_last_io(module, args=list(turned_inputs), outputs=list(turned_outputs))
        args = tuple(
            torch.movedim(value, 1, -1).contiguous() if number in turned_inputs else value
            for number, value in enumerate(args)
        )
    litert_torch.convert(module, args).export("converted.tflite")
    content = Path("converted.tflite").read_bytes()
    model = opened(content)
    order = (
        [f"args_{number}" for number in range(len(inputs))],
        [f"output_{number}" for number in range(len(outputs))],
    )
    name(model, order, (inputs, outputs))
    Path("model.tflite").write_bytes(packed(model))
    return {
        "versions": versions("torch", "litert-torch", "litert-converter"),
        "lifetimes": lifetimes(model),
        **specs(model),
    }


def quantise(recipe: str, names: Sequence[str], batches: int) -> "dict[str, Any]":
    """model.tflite -> int8.tflite, calibrated by the range of values in the rows of batch-0.npz, batch-1.npz, ..."""
    from ai_edge_quantizer import calibrator, qtyping, quantizer
    from ai_edge_quantizer import recipe as recipes
    from ai_edge_quantizer.utils import qsv_utils

    content = Path("model.tflite").read_bytes()
    model = opened(content)
    job = quantizer.Quantizer(content, getattr(recipes, recipe)())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):  # what goes in and out stays float
        job.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
    found = None
    if job.need_calibration:
        # The default, a moving average over batches, forgets the range of all but the last ones.
        ranges = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
        ranges.calibrate({SIGNATURE: Rows(names, batches, model)}, job._recipe_manager)  # noqa: SLF001  as its calibrate()
        found = ranges.get_model_qsvs()
        if not found:  # no operator of the model is among those that it knows
            return {"integer_weights": 0}
    result = job.quantize(found, enable_progress_bar=False, enable_progress_report=False)
    made = opened(bytes(result.quantized_model))
    name(made, *[signature_names(model)] * 2)
    Path("int8.tflite").write_bytes(packed(made))
    return {
        "versions": versions("ai-edge-quantizer"),
        "integer_weights": integer_weights(made),
        "lifetimes": lifetimes(made),
        **specs(made),
    }


class Rows:
    """The calibration data as the model takes it, by input name, at the batch that it has; read as often as asked."""

    def __init__(self, names: Sequence[str], batches: int, model: Any) -> None:
        self.names, self.batches = names, batches
        entries = dict(signature_entries(model, "inputs"))
        shape = model.subgraphs[0].tensors[entries[names[0].encode()]].shape
        self.size = int(shape[0]) if shape is not None and len(shape) else 1

    def __iter__(self) -> "Iterator[dict[str, Any]]":
        import numpy as np

        for number in range(self.batches):
            with np.load(f"batch-{number}.npz", allow_pickle=False) as arrays:
                loaded = {own: arrays[f"arr_{place}"] for place, own in enumerate(self.names)}
            first = loaded[self.names[0]]
            count = len(first) if first.ndim else 1
            for start in range(0, count - self.size + 1, self.size):
                yield {
                    own: array[start : start + self.size] if array.ndim and len(array) == count else array
                    for own, array in loaded.items()
                }


def opened(content: bytes) -> Any:
    """The flatbuffer as objects, with the data that lie behind it in their buffers."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # 0 and 1 mean that there is none
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def packed(model: Any) -> bytes:
    """The flatbuffer of the objects."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def name(
    model: Any, order: "tuple[Sequence[str], Sequence[str]]", names: "tuple[Sequence[str], Sequence[str]]"
) -> None:
    """Call inputs and outputs as asked, in that order, and all else by number: names in it are of the user's code."""
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    for number, tensor in enumerate(graph.tensors):
        tensor.name = f"tensor_{number}".encode()
    graph.name = b"main"
    for part, own, asked in zip(("inputs", "outputs"), order, names):
        entries = {entry.name.decode(): entry for entry in getattr(signature, part)}
        ordered = [entries[key] for key in own]
        for entry, text in zip(ordered, asked):
            entry.name = text.encode()
            graph.tensors[entry.tensorIndex].name = text.encode()
        setattr(signature, part, ordered)
        setattr(graph, part, [entry.tensorIndex for entry in ordered])
    model.description = b"edgeprune"


def signature_entries(model: Any, part: str) -> "list[tuple[bytes, int]]":
    """(name, number of its tensor) of the inputs or outputs."""
    return [(entry.name, entry.tensorIndex) for entry in getattr(model.signatureDefs[0], part)]


def signature_names(model: Any) -> "tuple[list[str], list[str]]":
    """Of inputs and outputs, in order."""
    own = [[key.decode() for key, _ in signature_entries(model, part)] for part in ("inputs", "outputs")]
    return own[0], own[1]


def specs(model: Any) -> "dict[str, Any]":
    """Names, types and shapes of inputs and outputs; of those that are integers for reals, scale and zero point."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = {number: kind.lower() for kind, number in vars(schema.TensorType).items() if not kind.startswith("_")}
    tensors = model.subgraphs[0].tensors
    return {
        part: [
            {
                "name": own.decode(),
                "dtype": kinds[tensors[index].type],
                "shape": [int(size) for size in ([] if tensors[index].shape is None else tensors[index].shape)],
                **quantisation(tensors[index]),
            }
            for own, index in signature_entries(model, part)
        ]
        for part in ("inputs", "outputs")
    }


def quantisation(tensor: Any) -> "dict[str, Any]":
    """What the integers of a tensor stand for, where it has one scale for all of them."""
    from ai_edge_litert import schema_py_generated as schema

    known = tensor.quantization
    scales = None if known is None else known.scale
    if tensor.type == schema.TensorType.FLOAT32 or scales is None or len(scales) != 1:
        return {}
    return {"scale": float(scales[0]), "zero_point": 0 if known.zeroPoint is None else int(known.zeroPoint[0])}


def lifetimes(model: Any) -> "list[list[int]] | None":
    """[bytes, first step, last step] of every tensor that takes its turn in memory; None where control flow decides."""
    from ai_edge_litert import schema_py_generated as schema

    if len(model.subgraphs) != 1:
        return None
    graph, types = model.subgraphs[0], schema.TensorType
    first = {int(index): 0 for index in graph.inputs}
    last = dict(first)
    for step, operator in enumerate(graph.operators, 1):
        written = [int(index) for index in operator.outputs]
        for index in written:
            first.setdefault(index, step)
        last.update((index, step) for index in [*map(int, operator.inputs), *written])
    last.update((int(index), len(graph.operators)) for index in graph.outputs)
    bits = {types.BOOL: 8, types.INT4: 4, types.INT8: 8, types.UINT8: 8, types.INT16: 16, types.UINT16: 16}
    bits.update({types.FLOAT16: 16, types.FLOAT32: 32, types.INT32: 32, types.UINT32: 32})
    bits.update({types.FLOAT64: 64, types.INT64: 64, types.UINT64: 64})
    found = []
    for index, step in sorted(first.items()):
        tensor = graph.tensors[index]
        if tensor.isVariable or model.buffers[tensor.buffer].data is not None:
            continue
        if tensor.type not in bits:
            return None
        count = 1
        for size in [] if tensor.shape is None else tensor.shape:
            count *= int(size)
        found.append([-(-count * bits[tensor.type] // 8), step, last[index]])
    return found


def integer_weights(model: Any) -> int:
    """How many tensors with data are int8."""
    from ai_edge_litert import schema_py_generated as schema

    return sum(
        tensor.type == schema.TensorType.INT8 and model.buffers[tensor.buffer].data is not None
        for graph in model.subgraphs
        for tensor in graph.tensors
    )


def versions(*names: str) -> "dict[str, str]":
    """Of distributions here."""
    return {each: version(each) for each in names}


OPERATIONS = {"convert": convert, "quantise": quantise}
