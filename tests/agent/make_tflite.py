"""A .tflite file by hand: a chain of fully connected layers. Runs in an interpreter that has ai-edge-litert.

make_tflite.py WEIGHTS.npy MODEL.tflite, where the weights are (layers, outputs, inputs) float32 matrices.
"""

import sys
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def tensor(name, shape, buffer, signature=None):
    made = schema.TensorT()
    made.name, made.shape, made.buffer, made.type = name, list(shape), buffer, schema.TensorType.FLOAT32
    made.shapeSignature = signature
    return made


def buffer(data=None):
    made = schema.BufferT()
    made.data = None if data is None else np.frombuffer(data, np.uint8)
    return made


def layer(number):
    made = schema.OperatorT()
    made.opcodeIndex = 0
    made.inputs, made.outputs = [2 * number, 2 * number + 1, -1], [2 * number + 2]  # no bias
    made.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    made.builtinOptions = schema.FullyConnectedOptionsT()
    made.builtinOptions.keepNumDims = True
    return made


def model(weights):
    graph = schema.SubGraphT()
    free = [-1, weights[0].shape[1]]  # any batch
    graph.tensors = [tensor("y0", (1, free[1]), 0, free)]
    buffers = [buffer()]
    for number, weight in enumerate(weights):
        buffers.append(buffer(weight.tobytes()))
        graph.tensors.append(tensor(f"w{number}", weight.shape, len(buffers) - 1))
        graph.tensors.append(tensor(f"y{number + 1}", (1, len(weight)), 0, [-1, len(weight)]))
    graph.inputs, graph.outputs = [0], [2 * len(weights)]
    graph.operators = [layer(number) for number in range(len(weights))]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    made = schema.ModelT()
    made.version, made.operatorCodes, made.subgraphs, made.buffers = 3, [code], [graph], buffers
    return made


if __name__ == "__main__":
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model(np.load(sys.argv[1])).Pack(builder), b"TFL3")
    Path(sys.argv[2]).write_bytes(builder.Output())
