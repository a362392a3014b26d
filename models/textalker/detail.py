"""Wrinkle maps of any size, larger: what a map shows already stays, what is finer is the network's.

The network takes maps of its own size. A larger map is reduced to that; of what comes back, U, all that the map itself
shows is replaced by the map: U + enlarge(map - reduce(U)). Where no more texels are wanted than the map has, there is
nothing to add.

Maps are log-ratios here. Beside the map itself and what the network takes, a strip is all that is held.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from models.resizing import resize_planes
from models.textalker.upsampler import STRIP, Guide, MapUpsampler, guide_of

REACH = 3
"""Texels beside a window that reach into what bicubic makes of it."""

Map = Float[np.ndarray, "own own 3"]
Strip = Float32[np.ndarray, "rows size 3"]


def upsample_map(
    upsampler: MapUpsampler, wrinkles: Map, size: int, neutral: UInt8[np.ndarray, "any any 3"] | None = None
) -> Iterator[Strip]:
    """A map of log-ratios at `size`, in strips of rows from the top.

    wrinkles: of any size, float16 if that saves memory; neutral: the texture (sRGB) that guides the network, None
    leaves the map to itself. Checked at once: OutOfRange for a size that `MapUpsampler.rows` refuses.
    """
    upsampler.check_size(size)
    if size <= len(wrinkles):
        return (rows_at(wrinkles, size, rows) for rows in _strips(size))
    return _upsampled(upsampler, wrinkles, size, neutral)


def _upsampled(
    upsampler: MapUpsampler, wrinkles: Map, size: int, neutral: UInt8[np.ndarray, "any any 3"] | None
) -> Iterator[Strip]:
    own, large = upsampler.config.size, upsampler.config.large
    guide = None if neutral is None else guide_of(neutral, large)
    small = np.concatenate([rows_at(wrinkles, own, rows) for rows in _strips(own)])
    if len(wrinkles) <= own:
        yield from upsampler.rows(small, size, guide)
    else:
        yield from _corrected(upsampler, wrinkles, small, size, guide)


def _corrected(upsampler: MapUpsampler, wrinkles: Map, small: Map, size: int, guide: Guide | None) -> Iterator[Strip]:
    made = np.concatenate(list(upsampler.rows(small, upsampler.config.large, guide)))
    for rows in _strips(size):
        near = _under(rows, size, len(wrinkles))
        missing = wrinkles[near] - rows_at(made, len(wrinkles), near)
        yield rows_at(made, size, rows) + _resized(missing, near.start, size, rows)


def rows_at(image: Map, size: int, rows: slice) -> Strip:
    """Some rows of an image at another size: bicubic, or the mean over each texel's area where it becomes smaller.

    At its own size they are its own, value for value.
    """
    near = _under(rows, size, len(image))
    return _resized(image[near], near.start, size, rows)


def _resized(window: Float[np.ndarray, "near own 3"], top: int, size: int, rows: slice) -> Strip:
    """`rows_at` of a square image whose rows from `top` on are in the window, REACH more than lie under the rows."""
    own, count = window.shape[1], rows.stop - rows.start
    box = (0, rows.start * own / size - top, own, rows.stop * own / size - top)
    filter_ = Image.Resampling.BOX if size < own else Image.Resampling.BICUBIC
    return resize_planes(window, count, size, filter_, box)


def _under(rows: slice, size: int, own: int) -> slice:
    """Rows of an image of `own` that rows at another size are made of."""
    return slice(max(rows.start * own // size - REACH, 0), min(-(-rows.stop * own // size) + REACH, own))


def _strips(size: int) -> Iterator[slice]:
    return (slice(start, min(start + STRIP, size)) for start in range(0, size, STRIP))
