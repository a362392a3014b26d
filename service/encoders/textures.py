"""Textures: the neutral one, and each frame's from its wrinkle map.

texture = neutral · exp(log ratio), in sRGB values (TexTalker 4.2).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import Float, Float16, Float32, UInt8
from PIL import Image

from models.core import PLAIN_TEXTURE, Clip, Enlarger, Mesh
from models.resizing import resize_planes

PLAIN = (231, 231, 231)
"""Base colour of a head without a texture: the grey that `glb` gives it, 0.8 in linear light, in sRGB values."""
QUALITY = 95
JPEG = b"\xff\xd8\xff"
"""What such a file begins with: an upload's texture may be one."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An encoded image and its media type."""

    data: bytes
    media_type: str

    @property
    def extension(self) -> str:
        """Of a file that holds it, dot included."""
        return {"image/png": ".png", "image/jpeg": ".jpg"}[self.media_type]


def base_color(mesh: Mesh) -> Picture | None:
    """The texture of a mesh as it came, if it has one."""
    if mesh.base_color_png is None:
        return None
    return Picture(mesh.base_color_png, "image/jpeg" if mesh.base_color_png.startswith(JPEG) else "image/png")


class TextureComposer:
    """Textures of one clip: (size, size), row 0 at the top of the atlas.

    Where a wrinkle map is 0 for two of its own texels around, the texture is the neutral one, value for value. With an
    enlarger the map is enlarged by that, without by interpolation. Beside the network 9 bytes are held for each texel:
    0.6 GB at 8192.
    """

    def __init__(self, base_color_png: bytes | None, size: int, enlarger: Enlarger | None = None) -> None:
        self.size, self._enlarger = size, enlarger
        self.base = _base_color(base_color_png, size)

    def neutral(self) -> Picture:
        """The neutral texture: PNG, and JPEG above PLAIN_TEXTURE."""
        return small_or_jpeg(self.base)

    def log_ratio(self, wrinkles: Float[np.ndarray, "own own 3"]) -> Float16[np.ndarray, "size size 3"]:
        """A wrinkle map at the size of the textures: 0.4 GB at 8192."""
        image, start = np.empty((self.size, self.size, 3), np.float16), 0
        for ratio in self._strips(wrinkles):
            image[start : start + len(ratio)] = ratio
            start += len(ratio)
        return image

    def compose(self, wrinkles: Float[np.ndarray, "own own 3"]) -> UInt8[np.ndarray, "size size 3"]:
        """The texture of a frame."""
        texture, start = self.base.copy(), 0
        for ratio in self._strips(wrinkles):
            rows = slice(start, start + len(ratio))
            start = rows.stop
            if ratio.any():
                texture[rows] = shade(self.base[rows], ratio)
        return texture

    def picture(self, wrinkles: Float[np.ndarray, "own own 3"]) -> Picture:
        """The texture of a frame as JPEG."""
        return jpeg(self.compose(wrinkles))

    def _strips(self, wrinkles: Float[np.ndarray, "own own 3"]) -> Iterator[Float32[np.ndarray, "rows size 3"]]:
        if self._enlarger is None:
            return iter([resize(wrinkles, self.size)])
        return self._enlarger.rows(self._enlarger.image(wrinkles), self.size)


def composer_of(clip: Clip) -> TextureComposer | None:
    """What makes a clip's textures, if it has any."""
    return TextureComposer(clip.mesh.base_color_png, clip.texture, clip.enlarger) if clip.texture else None


def shade(
    neutral: UInt8[np.ndarray, "rows columns 3"], log_ratio: Float32[np.ndarray, "rows columns 3"]
) -> UInt8[np.ndarray, "rows columns 3"]:
    """A texture, or rows of one."""
    shaded = np.exp(log_ratio)
    shaded *= neutral
    np.rint(shaded, out=shaded)
    return np.clip(shaded, 0, 255, out=shaded).astype(np.uint8)


def resize(image: Float[np.ndarray, "own own channels"], size: int) -> Float32[np.ndarray, "size size channels"]:
    """An image at another size, bicubic, in float32; at its own size it is the same, value for value."""
    return resize_planes(image, size, size, Image.Resampling.BICUBIC)


def small_or_jpeg(image: UInt8[np.ndarray, "size size 3"]) -> Picture:
    """PNG up to PLAIN_TEXTURE; larger images would be too large."""
    return png(image) if len(image) <= PLAIN_TEXTURE else jpeg(image)


def png(image: UInt8[np.ndarray, "size size 3"]) -> Picture:
    """An image as PNG, at zlib's fastest level."""
    file = BytesIO()
    Image.fromarray(image).save(file, "png", compress_level=1)
    return Picture(file.getvalue(), "image/png")


def jpeg(image: UInt8[np.ndarray, "size size 3"]) -> Picture:
    """An image as JPEG, without chroma subsampling: wrinkles are redder than skin. A block of one grey stays exact."""
    file = BytesIO()
    Image.fromarray(image).save(file, "jpeg", quality=QUALITY, subsampling=0)
    return Picture(file.getvalue(), "image/jpeg")


def pixels(picture: Picture) -> UInt8[np.ndarray, "size size 3"]:
    """`png` or `jpeg` undone, as far as they can be."""
    with Image.open(BytesIO(picture.data)) as image:
        return np.asarray(image)


def _base_color(base_color_png: bytes | None, size: int) -> UInt8[np.ndarray, "size size 3"]:
    if base_color_png is None:
        return np.full((size, size, 3), PLAIN, np.uint8)
    with Image.open(BytesIO(base_color_png)) as image:
        rgb = image if image.mode == "RGB" else image.convert("RGB")  # which copies, at 8192 a quarter of a GB
        return np.asarray(rgb if rgb.width == size else rgb.resize((size, size), Image.Resampling.LANCZOS))
