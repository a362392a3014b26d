"""PNG files of any height, written in strips: a whole image is never held."""

import struct
import zlib
from collections.abc import Generator, Iterable
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

SIGNATURE = b"\x89PNG\r\n\x1a\n"
EIGHT_BIT_RGB = bytes([8, 2, 0, 0, 0])
HEADER_BYTES, END_BYTES = 33, 12
"""Signature and IHDR; and IEND."""
UP = 2
"""The filter: each byte less the one above it."""
PNG_LEVEL = 3
"""Of compression where somebody waits: more takes seconds at 8192."""


def write_png(file: BinaryIO, size: int, strips: Iterable[UInt8[np.ndarray, "rows size 3"]], level: int = 6) -> None:
    """A square sRGB image from strips of rows, the topmost first, `size` rows in all."""
    file.writelines(png_chunks(size, strips, level))


def png_chunks(
    size: int, strips: Iterable[UInt8[np.ndarray, "rows size 3"]], level: int = 6
) -> Generator[bytes, None, None]:
    """What `write_png` writes, in pieces: one before the first strip, one a strip, and one after the last."""
    yield SIGNATURE + _chunk(b"IHDR", struct.pack(">II", size, size) + EIGHT_BIT_RGB)
    packer, above = zlib.compressobj(level), np.zeros((1, 3 * size), np.uint8)
    for strip in strips:
        flat = strip.reshape(len(strip), -1)
        filtered = flat - np.concatenate([above, flat[:-1]])  # wraps around, as PNG wants it
        kinds = np.full((len(strip), 1), UP, np.uint8)
        yield _chunk(b"IDAT", packer.compress(np.concatenate([kinds, filtered], 1).tobytes()))
        above = flat[-1:]
    yield _chunk(b"IDAT", packer.flush()) + _chunk(b"IEND", b"")


def is_whole(path: Path, size: int) -> bool:
    """Whether a file begins as `write_png` begins an image of this size, and ends as it ends one."""
    wanted = BytesIO()
    write_png(wanted, size, ())
    beginning, end = wanted.getvalue()[:HEADER_BYTES], wanted.getvalue()[-END_BYTES:]
    if not path.is_file() or path.stat().st_size < HEADER_BYTES + END_BYTES:
        return False
    with path.open("rb") as file:
        own = file.read(HEADER_BYTES)
        file.seek(-END_BYTES, SEEK_END)
        return (own, file.read()) == (beginning, end)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
