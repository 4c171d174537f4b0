"""models/chain.pte anew, in an interpreter that has executorch with torch, lowered to XNNPACK.

make_pte.py WEIGHTS.npy MODEL.pte, where the weights are (layers, outputs, inputs) float32 matrices.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower


class Chain(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.ParameterList(torch.from_numpy(weight) for weight in weights)

    def forward(self, x):
        for weight in self.weights:
            x = torch.nn.functional.linear(x, weight)
        return x


if __name__ == "__main__":
    weights = np.load(sys.argv[1])
    program = torch.export.export(Chain(weights).eval(), (torch.zeros(1, weights.shape[2]),))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    Path(sys.argv[2]).write_bytes(lowered.to_executorch().buffer)
