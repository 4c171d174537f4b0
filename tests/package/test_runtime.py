"""A C program that links the package and ONNX Runtime's C library computes what Python computes.

The library is that of the wheel, which comes without its header: the few functions that are needed are declared here,
by their places in `OrtApi`. That table only ever grows at its end, so they hold for every version.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgeprune.package.base import Model
from edgeprune.package.build import build
from edgeprune.package.c import CPackager
from edgeprune.package.write import write_folder
from edgeprune.records.artifact import TensorSpec
from edgeprune.testing.packagers import example_lock
from tests.package.building import STRICT, call, contents, needs

MAIN = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include "net.h"

typedef struct Status Status;
typedef const struct Api { void (*functions[70])(void); } Api;
typedef struct { Api *(*get)(uint32_t); const char *(*version)(void); } Base;
const Base *OrtGetApiBase(void);

static Api *api;
static void check(Status *status) {
  if (status) {
    fputs(((const char *(*)(Status *))api->functions[2])(status), stderr);
    exit(1);
  }
}

int main(void) {
  static const int64_t shape[] = {NET_INPUT_0_SHAPE}, batch[] = {1, 2, 6, 6};
  const char *inputs[] = {NET_INPUT_0_NAME}, *outputs[] = {NET_OUTPUT_0_NAME};
  void *env, *options, *session, *memory, *in, *out = NULL, *values;
  static float image[NET_INPUT_0_BYTES / sizeof(float)];
  if (shape[0] != -1 || fread(image, 1, sizeof image, stdin) != sizeof image) return 2;
  api = OrtGetApiBase()->get(1);
  if (!api) return 3;
  check(((Status * (*)(int, const char *, void **)) api->functions[3])(3, "test", &env));
  check(((Status * (*)(void **)) api->functions[10])(&options));
  check(((Status * (*)(void *, int)) api->functions[24])(options, 1));
  check(((Status * (*)(void *, const void *, size_t, void *, void **)) api->functions[8])(
      env, net_data, net_size, options, &session));
  check(((Status * (*)(int, int, void **)) api->functions[69])(1, 0, &memory));
  check(((Status * (*)(void *, void *, size_t, const int64_t *, size_t, int, void **)) api->functions[49])(
      memory, image, sizeof image, batch, NET_INPUT_0_RANK, 1, &in));
  check(((Status * (*)(void *, void *, const char **, void **, size_t, const char **, size_t, void **))
             api->functions[9])(session, NULL, inputs, &in, 1, outputs, 1, &out));
  check(((Status * (*)(void *, void **)) api->functions[51])(out, &values));
  fwrite(values, 1, NET_OUTPUT_0_BYTES, stdout);
  return 0;
}
"""


def network() -> bytes:
    """A convolution, a pooling and a linear layer with random weights, as an ONNX file."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(3, 2, 3, 3)).astype(np.float32),
        "v": random.normal(size=(3, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "v"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(deterministic=True)


def test_the_packaged_model_computes_the_same_in_c(tmp_path: Path) -> None:
    import onnxruntime as ort

    needs(("gcc", "make"))
    libraries = list((Path(ort.__file__).parent / "capi").glob("libonnxruntime.so*"))
    if not libraries:
        pytest.skip("the wheel of ONNX Runtime has no shared library")
    data = network()
    lock = example_lock(data)
    given = TensorSpec("image", "float32", ("batch", 2, 6, 6))
    taken = TensorSpec("logits", "float32", ("batch", 5))
    artifact = type(lock.artifact)(lock.artifact.path, "onnx", lock.artifact.sha256, len(data), (given,), (taken,))
    made = contents(Model("net", example_lock(data, artifact=artifact), data))
    folder = tmp_path / "package"
    write_folder(build(CPackager(), made), folder)
    call("make", cwd=folder)
    (tmp_path / "main.c").write_text(MAIN)
    (tmp_path / "libonnxruntime.so.1").symlink_to(libraries[0])  # the name that it calls itself by
    linked = (folder / "lib/libdigits.a", libraries[0], f"-Wl,-rpath,{tmp_path}")
    call("gcc", *STRICT, "-std=c11", "-I", folder / "include", tmp_path / "main.c", *linked, "-o", tmp_path / "program")

    image = np.random.default_rng(1).normal(size=(1, 2, 6, 6)).astype(np.float32)
    (tmp_path / "image").write_bytes(image.tobytes())
    call("bash", "-c", f"{tmp_path / 'program'} < {tmp_path / 'image'} > {tmp_path / 'logits'}")
    in_c = np.frombuffer((tmp_path / "logits").read_bytes(), np.float32)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    (in_python,) = session.run(None, {"image": image})
    assert np.abs(in_python).max() > 0.1
    np.testing.assert_array_equal(in_c, in_python[0])
    assert sys.byteorder == "little"  # or the files would mean something else
