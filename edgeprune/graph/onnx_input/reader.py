"""Reading an ONNX file: checked, only known operators, its external data beside it; no code is run from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model
from onnx.inliner import inline_local_functions

from edgeprune.errors import CaptureError
from edgeprune.graph.onnx_input.folding import fold_movement
from edgeprune.graph.onnx_input.operators.table import OPERATORS, Host, Operator

__all__ = ["OnnxGraph", "OnnxTensor", "read"]

_OLDEST = 7
_MAX_BYTES = 2**31 - 1  # protobuf's limit for one message
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")  # fmt: skip  # noqa: E501


@dataclass(frozen=True, slots=True)
class OnnxTensor:
    """An input of the graph: its name, element type and sizes (a name, or None, where a size is not fixed)."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """What a file describes: nodes in the order of computation, constants by name, inputs and outputs."""

    path: Path
    nodes: tuple[Operator, ...]
    constants: dict[str, Host]
    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[str, ...]


def read(path: Path) -> OnnxGraph:
    """Read and check an ONNX file; raises CaptureError that names what cannot be captured and what to do."""
    model = _checked(path)
    versions = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    opset = versions.get("ai.onnx")
    if opset is None:
        raise CaptureError(f"{path}: no version of the standard operators (opset_import)", hint="export it again")
    if opset < _OLDEST:
        raise CaptureError(
            f"{path}: opset {opset} is older than {_OLDEST}",
            hint="convert it: onnx.version_converter.convert_version(model, 13)",
        )
    graph = model.graph
    if graph.sparse_initializer:
        raise CaptureError(f"{path}: sparse initializers are not supported", hint="store the weights dense")
    constants = {}
    for initializer in graph.initializer:
        constants[initializer.name] = _array(path, initializer)
        initializer.ClearField("raw_data")
    nodes = []
    for position, node in enumerate(graph.node):
        operator = _operator(path, node, position, opset)
        if operator.kind == "Constant":
            constants[operator.outputs[0]] = _constant(operator)
        elif operator.kind == "Identity" and operator.inputs[0] in constants:
            # Exporters write weights of equal values once; to the network they are different ones.
            constants[operator.outputs[0]] = constants[operator.inputs[0]]
        else:
            nodes.append(operator)
    outputs = tuple(value.name for value in graph.output)
    nodes = _own_statistics(fold_movement(nodes, constants, outputs), constants)
    inputs = tuple(_input(path, value) for value in graph.input if value.name not in constants)
    return OnnxGraph(path, tuple(nodes), constants, inputs, outputs)


def _own_statistics(nodes: list[Operator], constants: dict[str, Host]) -> list[Operator]:
    """Statistics of batch norms under names of their own, where a weight of equal values shares the file's copy."""
    uses = Counter(name for node in nodes for name in node.inputs)
    result = []
    for node in nodes:
        inputs = list(node.inputs)
        for position, word in ((3, "mean"), (4, "var")) if node.kind == "BatchNormalization" else ():
            if inputs[position] in constants and uses[inputs[position]] > 1:
                own = f"{node.name}.running_{word}"
                constants[own] = constants[inputs[position]]
                inputs[position] = own
        result.append(replace(node, inputs=tuple(inputs)))
    return result


def _checked(path: Path) -> onnx.ModelProto:
    hint = "give an .onnx file as an exporter wrote it"
    if not path.is_file():
        raise CaptureError(f"{path}: no such file", hint=hint)
    if path.stat().st_size > _MAX_BYTES:
        raise CaptureError(f"{path} is larger than 2 GiB", hint="store its weights as external data beside it")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # whatever protobuf trips over
        raise CaptureError(f"{path} is not a readable ONNX file: {error}", hint=hint) from error
    _check_external(path, model)
    try:
        load_external_data_for_model(model, str(path.parent))
        if model.functions:
            model = inline_local_functions(model)
        _refuse_nodes(path, model)
        onnx.checker.check_model(model)
    except CaptureError:
        raise
    except Exception as error:
        raise CaptureError(f"{path} is not a valid ONNX file: {error}", hint=hint) from error
    return model


def _check_external(path: Path, model: onnx.ModelProto) -> None:
    """Data may lie beside the file only, and must be there."""
    folder = path.resolve().parent
    for tensor in _tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        info = ExternalDataInfo(tensor)
        where = PurePosixPath(info.location)
        resolved = (folder / where).resolve()
        if where.is_absolute() or ".." in where.parts or not resolved.is_relative_to(folder):
            raise CaptureError(
                f"{path}: the data of {tensor.name!r} are at {info.location!r}, outside of the file's folder",
                hint="save the model again with its data beside it",
            )
        if not resolved.is_file():
            raise CaptureError(
                f"{path}: the external data of {tensor.name!r} are missing: no file {resolved}",
                hint=f"copy {where.name} beside {path.name}",
            )
        if (info.offset or 0) + (info.length or 0) > resolved.stat().st_size:  # type: ignore[redundant-expr]  # None where it is not given
            raise CaptureError(f"{path}: {resolved} is too short for {tensor.name!r}", hint="copy the whole file")


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    return [
        *graph.initializer,
        *(attribute.t for attribute in attributes if attribute.HasField("t")),
        *(tensor for attribute in attributes for tensor in attribute.tensors),
    ]


def _refuse_nodes(path: Path, model: onnx.ModelProto) -> None:
    for position, node in enumerate(model.graph.node):
        where = f"{path}: node {node.name or position!r}"
        opset = next((o.version for o in model.opset_import if o.domain == node.domain), "unknown")
        label = f"operator {node.op_type} (domain {node.domain or 'ai.onnx'!r}, opset {opset})"
        if node.domain not in ("", "ai.onnx"):
            raise CaptureError(
                f"{where}: custom {label}",
                hint="export the model with standard operators, or capture the PyTorch model",
            )
        if node.op_type in _CONTROL_FLOW:
            raise CaptureError(
                f"{where}: control flow, {label}",
                hint="make the model's flow static (onnxsim folds branches that never change), and export again",
            )
        if node.op_type in _QUANTISED:
            raise CaptureError(
                f"{path} is quantised already: node {node.name or position!r}, {label}",
                hint="give the float network: prune and export that, and quantise the result",
            )
        if node.op_type not in OPERATORS and node.op_type not in ("Constant", "Shape", "Size"):
            raise CaptureError(
                f"{where}: {label} is not supported", hint="export the model without it, or capture the PyTorch model"
            )


def _operator(path: Path, node: onnx.NodeProto, position: int, opset: int) -> Operator:
    attributes = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = _array(path, value)
        attributes[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return Operator(
        node.op_type,
        node.name or f"{node.op_type}_{position}",
        opset,
        tuple(node.input),
        tuple(node.output),
        attributes,
    )


def _constant(operator: Operator) -> Host:
    ((name, value),) = operator.attributes.items()
    if name == "value":
        return np.asarray(value)
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if name not in kinds:
        raise operator.refuse(f"has {name}, which is no tensor")
    return np.asarray(value, kinds[name])


def _array(path: Path, tensor: onnx.TensorProto) -> Host:
    try:
        array: Host = numpy_helper.to_array(tensor)
    except Exception as error:
        raise CaptureError(f"{path}: tensor {tensor.name!r} cannot be read: {error}", hint="export it again") from error
    return array


def _input(path: Path, value: onnx.ValueInfoProto) -> OnnxTensor:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise CaptureError(f"{path}: input {value.name!r} is not a tensor with a shape", hint="export it with shapes")
    sizes: list[int | str | None] = [
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None) for dim in kind.shape.dim
    ]
    return OnnxTensor(value.name, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)), tuple(sizes))
