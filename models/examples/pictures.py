"""Pictures that strangers send, and what they say of wrinkles.

A wrinkle map is the natural logarithm of a texture over the neutral one, in sRGB values, row 0 at the top of the atlas.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, UInt8
from PIL import Image

from models.errors import SHOWN, MalformedInput, TooLarge
from models.pictures import PictureLimits, decode_picture, picture_size
from models.resizing import resize_planes

MAX_SIZE = 2048
MAX_BASIS = 8
FLOOR = 4
"""Of a channel, of 255: darker than that, a ratio is noise."""
_LOG = np.log(np.maximum(np.arange(256), FLOOR) / 255).astype(np.float32)


class TextureRatios(Sequence[np.ndarray]):
    """Wrinkle maps (S, S, 3) of a sequence of textures over a neutral one, each decoded when it is asked for.

    Refuses what `picture_size` does, the limit being MAX_SIZE pixels, and a picture of another size than the neutral
    one (MalformedInput); what only decoding shows is refused then.
    """

    def __init__(self, textures: Sequence[bytes], neutral: bytes) -> None:
        self._textures, self._neutral = textures, neutral
        wanted = _size(neutral)
        for index, texture in enumerate(textures):
            if (size := _size(texture)) != wanted:
                raise MalformedInput(
                    f"texture {index} is {size} pixels wide, the neutral one {wanted}; send all at one size",
                    code="bad_texture",
                )

    def __len__(self) -> int:
        return len(self._textures)

    def __getitem__(self, index: int) -> Float32[np.ndarray, "size size 3"]:  # type: ignore[override]
        """Decode one; slices are not taken."""
        return _LOG[_decoded(self._textures[index])] - self._rest

    @cached_property
    def _rest(self) -> Float32[np.ndarray, "size size 3"]:
        return np.asarray(_LOG[_decoded(self._neutral)])


def texture_ratio(
    texture: UInt8[np.ndarray, "size size 3"], neutral: UInt8[np.ndarray, "size size 3"]
) -> Float16[np.ndarray, "size size 3"]:
    """The wrinkle map of a texture over the neutral one; a row at a time, as both may be large."""
    result = np.empty(texture.shape, np.float16)
    for row, above, below in zip(result, texture, neutral, strict=True):
        row[:] = _LOG[above] - _LOG[below]
    return result


class BasisRatios(Sequence[np.ndarray]):
    """Wrinkle maps as the sum of a few pictures: weight · (scale · texel / 255 + offset) over the pictures.

    weights (T, K), scale and offset (K,), K pictures, decoded when the first map is asked for. Refuses pictures as
    `TextureRatios` does, and more than MAX_BASIS (TooLarge).
    """

    def __init__(self, pictures: Sequence[bytes], scale: np.ndarray, offset: np.ndarray, weights: np.ndarray) -> None:
        if len(pictures) > MAX_BASIS:
            raise TooLarge(f"wrinkles of {len(pictures)} textures; the limit is {MAX_BASIS}: send fewer")
        if len({_size(picture) for picture in pictures}) != 1:
            raise MalformedInput("wrinkle textures of several sizes; send all at one size", code="bad_texture")
        self._pictures, self._scale, self._offset, self._weights = pictures, scale, offset, weights

    def __len__(self) -> int:
        return len(self._weights)

    def __getitem__(self, index: int) -> Float32[np.ndarray, "size size 3"]:  # type: ignore[override]
        """Add one up; slices are not taken."""
        weights = self._weights[index]
        total = np.full(self._texels[0].shape, weights @ self._offset, np.float32)
        for texels, factor in zip(self._texels, weights * self._scale / 255, strict=True):
            total += texels * np.float32(factor)
        return total

    @cached_property
    def _texels(self) -> list[UInt8[np.ndarray, "size size 3"]]:
        return [_decoded(picture) for picture in self._pictures]


def read_basis(fields: Mapping[str, Any], picture: Callable[[Any], bytes]) -> BasisRatios | None:
    """The basis that `fields` describe: scale, offset, weights, and `textures` or `images`, which `picture` fetches.

    None when they describe none. MalformedInput for a description that is none, and what `BasisRatios` refuses.
    """
    names = fields.get("textures", fields.get("images"))
    if not names:
        return None
    try:
        scale, offset, weights = (np.array(fields[name], np.float64) for name in ("scale", "offset", "weights"))
        if weights.ndim != 2 or not weights.shape[1:] == scale.shape == offset.shape == (len(names),):
            raise ValueError(f"shapes {weights.shape}, {scale.shape}, {offset.shape} for {len(names)} textures")
        pictures = [picture(name) for name in names[: MAX_BASIS + 1]]
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise MalformedInput(
            f"wrinkle textures whose weights cannot be read ({str(error)[:SHOWN]}); send the file as it was made",
            code="bad_texture",
        ) from error
    return BasisRatios(pictures, scale, offset, weights)


def _size(picture: bytes) -> int:
    return picture_size(BytesIO(picture), PictureLimits(MAX_SIZE))


def _decoded(picture: bytes) -> UInt8[np.ndarray, "size size 3"]:
    return decode_picture(BytesIO(picture), PictureLimits(MAX_SIZE))


def resize_map(ratios: np.ndarray, size: int) -> Float32[np.ndarray, "size size 3"]:
    """A wrinkle map (S, S, 3) at another size: mean over each texel's area, bilinear where it grows."""
    if len(ratios) == size:
        return ratios.astype(np.float32)
    filter_ = Image.Resampling.BOX if len(ratios) > size else Image.Resampling.BILINEAR
    return resize_planes(ratios, size, size, filter_)
