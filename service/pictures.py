"""Pictures on their way out: PNG strip by strip, WebP whole."""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from models.png import png_chunks

LEVEL = 3
"""Of PNG's compression: a third of the time of zlib's own choice, 6, for a quarter more bytes."""

Strips = Iterable[UInt8[np.ndarray, "rows size 3"]]
Chunks = Generator[bytes, None, None]


def webp_chunks(size: int, strips: Strips) -> Chunks:
    """A square sRGB image without loss, as `png_chunks` writes it, but in one piece, after an empty chunk a strip."""
    image, top = np.empty((size, size, 3), np.uint8), 0
    for strip in strips:
        image[top : top + len(strip)] = strip
        top += len(strip)
        yield b""
    file = BytesIO()
    Image.fromarray(image).save(file, "webp", lossless=True, quality=0, method=0)  # more effort takes minutes at 8192²
    yield file.getvalue()


@dataclass(frozen=True)
class PictureFormat:
    """How a picture is written: `chunks` of its size and its strips of rows from the top."""

    extension: str
    chunks: Callable[[int, Strips], Chunks]


PICTURES: Mapping[str, PictureFormat] = {
    "image/png": PictureFormat(".png", partial(png_chunks, level=LEVEL)),
    "image/webp": PictureFormat(".webp", webp_chunks),
}
"""By media type; the first is what `Accept: */*` means."""
