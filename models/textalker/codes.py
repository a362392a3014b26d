"""Codes as bytes: each moment's indices, in as many bits as the codebook needs, and no more."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8, UInt16

from models.core import CodeSpace

RATE_HZ = 30
"""Moments a second: TexTalker's own frames, whatever the rate that is asked for."""


def bits_of(entries: int) -> int:
    """Bits of an index into a codebook."""
    return (entries - 1).bit_length()


def moment_layout(spaces: Mapping[str, CodeSpace]) -> np.dtype[np.void]:
    """A moment as bytes: how far the lips close, then each part's codes, packed: 320 bytes for 16 × 16 of 1024."""
    sizes = {part: -(-(space.grid**2) * bits_of(space.entries) // 8) for part, space in spaces.items()}
    return np.dtype([("contact", "<f4"), *((part, np.uint8, (size,)) for part, size in sizes.items())])


def pack(codes: UInt16[np.ndarray, "moments rows columns"], entries: int) -> UInt8[np.ndarray, "moments bytes"]:
    """Indices row by row, lowest bit first, filling bytes from their lowest bit on; zeros fill the last byte."""
    bits = codes.reshape(len(codes), -1, 1) >> np.arange(bits_of(entries), dtype=np.uint16) & 1
    return np.packbits(bits.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")


def unpack(
    packed: UInt8[np.ndarray, "moments bytes"], entries: int, grid: int
) -> UInt16[np.ndarray, "moments rows columns"]:
    """`pack` undone. What came is not checked: an index may lie beyond the entries."""
    width = bits_of(entries)
    bits = np.unpackbits(packed, axis=1, count=grid * grid * width, bitorder="little")
    weights = 1 << np.arange(width, dtype=np.uint16)
    return np.asarray((bits.reshape(len(packed), grid, grid, width) * weights).sum(-1, dtype=np.uint16))
