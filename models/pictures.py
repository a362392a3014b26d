"""Pictures that strangers send: what their header claims is checked before anything is decoded."""

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from models.errors import MalformedInput, OutOfRange, TooLarge, UnsupportedMedia
from models.png import SIGNATURE

DEPTH_AT = 24
"""Byte of a PNG that holds the bits of a channel."""
CODE = "bad_texture"
START_OF_SCAN = b"\xff\xda"
MAX_SCANS = 100
"""Of a JPEG: encoders write about ten."""
BLOCK = 1 << 20
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, OverflowError, KeyError, struct.error, zlib.error)
"""What Pillow raises on a damaged file."""


@dataclass(frozen=True)
class PictureLimits:
    """Pixels along a picture's sides."""

    largest: int
    smallest: int = 1


def picture_size(file: BinaryIO, limits: PictureLimits) -> int:
    """The width of a square PNG or JPEG, from its header alone.

    UnsupportedMedia for what is neither; MalformedInput for a picture that is damaged, not square, animated, or has 16
    bits a channel, which Pillow would cut to 8; TooLarge and OutOfRange for one outside the limits, and for a JPEG of
    more than MAX_SCANS scans, each of which costs a pass over all pixels.
    """
    width, height = _size(file, limits)
    if width != height:
        raise MalformedInput(f"a texture of {width} by {height} pixels; wanted a square one: crop or pad it", code=CODE)
    if width < limits.smallest:
        raise OutOfRange(f"a texture of {width} pixels; wanted at least {limits.smallest}: send it larger")
    return width


def decode_picture(file: BinaryIO, limits: PictureLimits) -> UInt8[np.ndarray, "size size 3"]:
    """sRGB values. Grey and palettes become red, green and blue; transparency is dropped. Refuses what `picture_size`
    does, and what only decoding shows to be damaged.
    """
    picture_size(file, limits)
    return np.asarray(_decoded(file, limits))


def decode_squared(file: BinaryIO, limits: PictureLimits) -> UInt8[np.ndarray, "size size 3"]:
    """A picture of any aspect on a square, as uvs see it: what `decode_picture` gives of one that is square and large
    enough, else resized to the power of two that holds the longer side. Refuses what `decode_picture` does but shape
    and smallness.
    """
    width, height = _size(file, limits)
    image = _decoded(file, limits)
    if width != height or width < limits.smallest:
        side = min(max(1 << (max(width, height) - 1).bit_length(), limits.smallest), limits.largest)
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _size(file: BinaryIO, limits: PictureLimits) -> tuple[int, int]:
    """Width and height by the header, within the largest."""
    with _open(file, limits) as image:
        width, height = image.size
    if max(width, height) > limits.largest:
        raise TooLarge(f"a texture of {max(width, height)} pixels; the limit is {limits.largest}: send it smaller")
    return width, height


def _decoded(file: BinaryIO, limits: PictureLimits) -> Image.Image:
    try:
        with _open(file, limits) as image:
            image.load()
            image.info.pop("transparency", None)
            return image if image.mode == "RGB" else image.convert("RGB")  # convert copies
    except _BROKEN as error:
        raise _damaged(error) from error


def _open(file: BinaryIO, limits: PictureLimits) -> Image.Image:
    file.seek(0)
    head = file.read(DEPTH_AT + 1)
    if head.startswith(SIGNATURE) and head[DEPTH_AT:] == b"\x10":
        raise MalformedInput("a PNG with 16 bits a channel; wanted 8: save it with 8", code=CODE)
    file.seek(0)
    try:
        image = Image.open(file, formats=("PNG", "JPEG"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(
            f"a texture of far more than {limits.largest} pixels along a side, the limit; send it smaller"
        ) from error
    except UnidentifiedImageError as error:
        raise UnsupportedMedia(
            "a texture that is neither PNG nor JPEG, or empty; send one of them", code=CODE
        ) from error
    except _BROKEN as error:
        raise _damaged(error) from error
    if image.format == "JPEG" and _scans(file) > MAX_SCANS:
        raise TooLarge(f"a JPEG of more than {MAX_SCANS} scans, the limit; save it anew", code=CODE)
    if image.format == "PNG" and getattr(image, "is_animated", False):
        raise MalformedInput("an animated PNG; wanted one picture: send one frame", code=CODE)
    return image


def _scans(file: BinaryIO) -> int:
    """Scans of a JPEG, an embedded thumbnail's among them; what is compressed holds no such marker."""
    file.seek(0)
    count, last = 0, b""
    while block := file.read(BLOCK):
        count += (last + block).count(START_OF_SCAN)
        last = block[-1:]
    return count


def _damaged(error: Exception) -> MalformedInput:
    return MalformedInput(f"a texture that does not decode ({error}); send PNG or JPEG", code=CODE)
