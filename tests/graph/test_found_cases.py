"""Cases that random networks showed to be wrong once."""

from __future__ import annotations

import pytest

from tests.graph.random_checks import check
from tests.graph.random_nets import Program, Step

CASES = {
    "a grouped convolution over a fixed dimension passes its length on": Program(
        ((2, 4),),
        (
            Step("embedding", (0,), (), "a"),
            Step("conv1d", (1,), (1, 0, 1, 2), "b"),
            Step("conv1d", (2,), (1, 1, 2, 3), "c"),
            Step("adaptive", (3,)),
        ),
        {"a": ("weights", (5, 8), 0), "b": ("weights", (6, 2, 1), 6), "c": ("weights", (3, 2, 2), 3)},
        (4,),
    ),
    "so does a transposed one": Program(
        ((2, 4),),
        (
            Step("embedding", (0,), (), "a"),
            Step("conv_transpose1d", (1,), (1, 4), "b"),
            Step("norm", (2,), ((1,), False)),
            Step("amax", (3,), ((1,), True)),
        ),
        {"a": ("weights", (5, 3), 0), "b": ("weights", (4, 3, 1), 12)},
        (4,),
    ),
    "an instance norm mixes the length": Program(
        ((2, 4),),
        (Step("embedding", (0,), (), "a"), Step("instance_norm", (1,), (), "n"), Step("linear", (2,), (), "b")),
        {"a": ("weights", (5, 8), 0), "n": ("scale", 4), "b": ("weights", (3, 8), 3)},
        (3,),
    ),
    "unbind keeps as many parts as there are": Program(
        ((2, 4, 5),),
        (
            Step("linear", (0,), (), "a"),
            Step("view", (1,), ("batch", (16, 2))),
            Step("permute", (2,), ((0, 2, 1),)),
            Step("unbind", (3,), (2, (2, 7))),
            Step("bmm", (4, 3)),
            Step("linear", (5,), (), "b"),
        ),
        {"a": ("weights", (8, 5), 8), "b": ("weights", (3, 16), 3)},
        (6,),
    ),
    "pixel shuffle needs all channels of a pixel": Program(
        ((2, 3, 4, 4),),
        (Step("conv2d", (0,), (1, 1), "a"), Step("pixel_shuffle", (1,), (2,)), Step("linear", (2,), (), "b")),
        {"a": ("weights", (4, 3, 3, 3), 4), "b": ("weights", (3, 8), 3)},
        (3,),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_found(name: str) -> None:
    check(CASES[name], seed=1)
