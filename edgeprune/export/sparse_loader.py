"""Loads a .sparse file: a model whose zeros take no room. Standard library alone: this file can be copied to a device.

    python sparse_loader.py model.onnx.sparse model.onnx

The file, little endian:

    0   8  "EPSPARSE"
    8   4  version, 1
    12  8  bytes of the model
    20 32  its SHA-256
    52     segments in their order, as one xz stream

A segment begins with a byte, the word size w, and 8 bytes, a count n. Where w is 0, n bytes follow as they are. Else it
stands for n words of w bytes: (n + 7) // 8 bytes of a bitmap, the lowest bit first, in which 1 is a word that is not
zero; then the words that are not zero: the first byte of each, then the second byte of each, up to w.
"""

from __future__ import annotations

import hashlib
import lzma
import struct
import sys

MAGIC = b"EPSPARSE"
VERSION = 1
HEADER = struct.Struct("<8sIQ32s")
SEGMENT = struct.Struct("<BQ")


def load(data: bytes) -> bytes:
    """The model, bit for bit; raises ValueError where the file is damaged."""
    if len(data) < HEADER.size:
        raise ValueError("no .sparse file: it is too short")
    magic, version, size, digest = HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise ValueError(f"no .sparse file of version {VERSION}")
    try:
        stream = lzma.decompress(data[HEADER.size :], lzma.FORMAT_XZ)
    except lzma.LZMAError as error:
        raise ValueError(f"damaged: {error}") from error
    parts, place, written = [], 0, 0
    while place < len(stream):
        if place + SEGMENT.size > len(stream):
            raise ValueError("damaged: a segment is cut off")
        word, count = SEGMENT.unpack_from(stream, place)
        place += SEGMENT.size
        written += count * max(word, 1)
        if written > size or place + (count if word == 0 else (count + 7) // 8) > len(stream):
            raise ValueError("damaged: a segment is longer than the model")
        if word == 0:
            parts.append(stream[place : place + count])
            place += count
        else:
            words, place = _words(stream, place, word, count)
            parts.append(words)
    model = b"".join(parts)
    if len(model) != size or hashlib.sha256(model).digest() != digest:
        raise ValueError("damaged: the model is not what was stored")
    return model


def _words(stream: bytes, place: int, word: int, count: int) -> tuple[bytes, int]:
    bitmap = stream[place : place + (count + 7) // 8]
    place += len(bitmap)
    filled = [8 * byte + bit for byte, bits in enumerate(bitmap) if bits for bit in range(8) if bits >> bit & 1]
    if (filled and filled[-1] >= count) or place + word * len(filled) > len(stream):
        raise ValueError("damaged: a bitmap does not fit its words")
    words = bytearray(word * count)
    for offset in range(word):
        for index, value in zip(filled, stream[place : place + len(filled)]):  # noqa: B905  Python 3.9 has no strict
            words[word * index + offset] = value
        place += len(filled)
    return bytes(words), place


def main(arguments: list[str]) -> int:
    """`sparse_loader.py IN OUT`."""
    if len(arguments) != 2:
        sys.stderr.write("usage: sparse_loader.py MODEL.sparse MODEL\n")
        return 2
    with open(arguments[0], "rb") as source:  # noqa: PTH123  nothing but what every Python has
        model = load(source.read())
    with open(arguments[1], "wb") as target:  # noqa: PTH123
        target.write(model)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
