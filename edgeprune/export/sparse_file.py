"""Store a model whose weights are mostly zero so that flash really shrinks; the format is that of `sparse_loader`."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeprune import atomic
from edgeprune.errors import StorageError
from edgeprune.export import sparse_loader
from edgeprune.records.artifact import Artifact

__all__ = ["SUFFIX", "pack", "packed", "stored"]

SUFFIX = ".sparse"
_WINDOW = 2**26  # bytes that xz looks back over at most; who loads it needs as many
_LEAST = 256  # bytes of a tensor that is worth a segment of its own
_ZEROS = 0.1  # the share from which a bitmap is worth its room


def pack(artifact: Artifact) -> tuple[Path, int]:
    """Write `<file>.sparse` beside an artifact, and tell its path and size; raises StorageError."""
    content = stored(artifact, artifact.path.read_bytes())
    path = artifact.path.with_name(artifact.path.name + SUFFIX)
    atomic.write_bytes(path, content)
    return path, len(content)


def stored(artifact: Artifact, data: bytes) -> bytes:
    """An artifact's bytes in the format; they were loaded again and compared. Raises StorageError."""
    content = packed(data, list(_tensors(artifact, data)))
    if sparse_loader.load(content) != data:
        raise StorageError(f"{artifact.path.name}: what was packed does not unpack to the same bytes")
    return content


def packed(data: bytes, tensors: list[tuple[int, int, int]]) -> bytes:
    """A file's bytes in the format; `tensors` are (start, bytes, bytes of a word), in order and apart."""
    segments: list[bytes] = []
    place = 0
    for start, size, word in tensors:
        segments += [_plain(data[place:start]), _words(data[start : start + size], word)]
        place = start + size
    segments.append(_plain(data[place:]))
    header = sparse_loader.HEADER.pack(
        sparse_loader.MAGIC, sparse_loader.VERSION, len(data), hashlib.sha256(data).digest()
    )
    plain = b"".join(segments)
    window = min(max(1 << len(plain).bit_length(), 4096), _WINDOW)
    how = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}]
    return header + lzma.compress(plain, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=how)


def _tensors(artifact: Artifact, data: bytes) -> Iterator[tuple[int, int, int]]:
    """Where the weights lie in an ONNX file; nothing of others, which are compressed as they are."""
    if artifact.format != "onnx":
        return
    import onnx

    place = 0
    model = onnx.load_model_from_string(data)
    for tensor in model.graph.initializer:
        word = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        if len(tensor.raw_data) < _LEAST or len(tensor.raw_data) % word:
            continue
        start = data.find(tensor.raw_data, place)
        if start >= 0:
            yield start, len(tensor.raw_data), word
            place = start + len(tensor.raw_data)


def _plain(data: bytes) -> bytes:
    return sparse_loader.SEGMENT.pack(0, len(data)) + data if data else b""


def _words(data: bytes, word: int) -> bytes:
    words = np.frombuffer(data, np.uint8).reshape(-1, word)
    filled = words.any(axis=1)
    if filled.mean() > 1 - _ZEROS:
        return _plain(data)
    bitmap = np.packbits(filled, bitorder="little").tobytes()
    return sparse_loader.SEGMENT.pack(word, len(words)) + bitmap + np.ascontiguousarray(words[filled].T).tobytes()
