"""Pictures of strangers: read as 8-bit red, green and blue, or refused by their header."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from models.errors import InputError, MalformedInput, OutOfRange, TooLarge, UnsupportedMedia
from models.pictures import PictureLimits, decode_picture, picture_size

LIMITS = PictureLimits(largest=256, smallest=16)
SHADES = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def encoded(image: np.ndarray | Image.Image = SHADES, kind: str = "png", **options: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    """A PNG that claims what it likes."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", data or zlib.compress(bytes(99))),
        (b"IEND", b""),
    )
    body = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def decoded(data: bytes) -> np.ndarray:
    return decode_picture(io.BytesIO(data), LIMITS)


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    """Each costs a pass over all pixels: a small file could take hours."""
    data = encoded(kind="jpeg", progressive=True)
    decoded(data)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(TooLarge, match="100 scans"):
        decoded(data[:last] + data[last:-2] * 100 + data[-2:])


def test_a_png_comes_back_value_for_value() -> None:
    np.testing.assert_array_equal(decoded(encoded()), SHADES)


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "1", "CMYK"])
def test_pictures_of_other_modes_are_read_as_rgb(mode: str) -> None:
    grey = Image.fromarray(np.where(SHADES[..., :1] > 127, 255, 0).repeat(3, 2).astype(np.uint8))
    data = encoded(
        grey.convert(mode), "jpeg" if mode == "CMYK" else "png", **({"quality": 100} if mode == "CMYK" else {})
    )
    assert np.abs(decoded(data).astype(int) - np.asarray(grey)).max() < 6


@pytest.mark.parametrize("transparency", [0, bytes([0, 99])])
def test_a_palette_is_looked_up_and_its_transparency_dropped(transparency: int | bytes) -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([9, 8, 7, 200, 100, 50])
    data = encoded(image, transparency=transparency)
    assert (decoded(data) == (200, 100, 50)).all()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_transparent_colour_is_a_colour(mode: str) -> None:
    image = Image.new(mode, (16, 16), (7, 7, 7) if mode == "RGB" else 7)
    data = encoded(image, transparency=(7, 7, 7) if mode == "RGB" else 7)
    assert (decoded(data) == 7).all()


@pytest.mark.parametrize(
    ("error", "data"),
    [
        (UnsupportedMedia, b""),
        (UnsupportedMedia, b"nonsense"),
        (UnsupportedMedia, encoded(kind="gif")),
        (UnsupportedMedia, encoded(kind="webp")),
        (MalformedInput, encoded()[:-200]),
        (MalformedInput, encoded(kind="jpeg")[:-200]),
        (MalformedInput, encoded(SHADES[:16])),
        (MalformedInput, encoded(SHADES[..., 0].astype(np.uint16))),
        (MalformedInput, png_header(16, 16, depth=16)),
        (MalformedInput, encoded(save_all=True, append_images=[Image.fromarray(255 - SHADES)])),
        (TooLarge, encoded(np.zeros((257, 257, 3), np.uint8))),
        (OutOfRange, encoded(np.zeros((15, 15, 3), np.uint8))),
    ],
    ids=[
        "empty",
        "nonsense",
        "gif",
        "webp",
        "cut",
        "cut-jpeg",
        "oblong",
        "grey-16",
        "rgb-16",
        "animated",
        "large",
        "small",
    ],
)
def test_what_is_no_picture_of_ours_is_refused(error: type[InputError], data: bytes) -> None:
    with pytest.raises(error) as refusal:
        decoded(data)
    assert type(refusal.value) is error
    assert refusal.value.code == ("bad_texture" if error in (UnsupportedMedia, MalformedInput) else error.code)


@pytest.mark.parametrize("size", [60_000, 10_000, 12_000])
def test_a_bomb_is_refused_by_its_header(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(TooLarge, match="the limit"):
        picture_size(io.BytesIO(png_header(size, size)), LIMITS)


def test_data_that_inflates_far_beyond_the_picture_does_no_harm() -> None:
    """The header holds; what follows the last row is left alone."""
    packed = zlib.compress(bytes(200_000_000))
    assert decoded(png_header(16, 16, data=packed)).shape == (16, 16, 3)
