"""A C program that links a package and ONNX Runtime's C library, which has to compute what Python computes.

The library is that of the wheel, which comes without its header: the few functions that are needed are declared here,
by their places in `OrtApi`. That table only ever grows at its end, so they hold for every version.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from tests.package.building import STRICT, call, needs

__all__ = ["in_c", "in_python"]

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
  int64_t shape[] = {NET_INPUT_0_SHAPE}; /* what is free becomes 1, as in the number of bytes */
  const char *inputs[] = {NET_INPUT_0_NAME}, *outputs[] = {NET_OUTPUT_0_NAME};
  void *env, *options, *session, *memory, *in, *out = NULL, *values;
  static float image[NET_INPUT_0_BYTES / sizeof(float)];
  for (size_t i = 0; i < NET_INPUT_0_RANK; ++i) {
    if (shape[i] < 0) shape[i] = 1;
  }
  if (fread(image, 1, sizeof image, stdin) != sizeof image) return 2;
  api = OrtGetApiBase()->get(1);
  if (!api) return 3;
  check(((Status * (*)(int, const char *, void **)) api->functions[3])(3, "test", &env));
  check(((Status * (*)(void **)) api->functions[10])(&options));
  check(((Status * (*)(void *, int)) api->functions[24])(options, 1));
  check(((Status * (*)(void *, const void *, size_t, void *, void **)) api->functions[8])(
      env, net_data, net_size, options, &session));
  check(((Status * (*)(int, int, void **)) api->functions[69])(1, 0, &memory));
  check(((Status * (*)(void *, void *, size_t, const int64_t *, size_t, int, void **)) api->functions[49])(
      memory, image, sizeof image, shape, NET_INPUT_0_RANK, 1, &in));
  check(((Status * (*)(void *, void *, const char **, void **, size_t, const char **, size_t, void **))
             api->functions[9])(session, NULL, inputs, &in, 1, outputs, 1, &out));
  check(((Status * (*)(void *, void **)) api->functions[51])(out, &values));
  fwrite(values, 1, NET_OUTPUT_0_BYTES, stdout);
  return 0;
}
"""


def in_c(package: Path, library: str, image: NDArray[np.float32], folder: Path) -> NDArray[np.float32]:
    """What the model `net` of a C package gives for one image, as a program in `folder` computes it."""
    needs(("gcc", "make"))
    found = list((Path(ort.__file__).parent / "capi").glob("libonnxruntime.so*"))
    if not found:
        pytest.skip("the wheel of ONNX Runtime has no shared library")
    call("make", f"BUILD={folder}", cwd=package)
    (folder / "main.c").write_text(MAIN)
    (folder / "libonnxruntime.so.1").symlink_to(found[0])  # the name that it calls itself by
    linked = (folder / f"lib{library}.a", found[0], f"-Wl,-rpath,{folder}")
    call("gcc", *STRICT, "-std=c11", "-I", package / "include", folder / "main.c", *linked, "-o", folder / "program")
    (folder / "image").write_bytes(image.astype("<f4").tobytes())
    call("bash", "-c", f"'{folder / 'program'}' < '{folder / 'image'}' > '{folder / 'outputs'}'")
    return np.frombuffer((folder / "outputs").read_bytes(), "<f4")


def in_python(data: bytes, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the model gives for one image."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {session.get_inputs()[0].name: image})
    computed: NDArray[np.float32] = outputs.ravel()
    return computed
