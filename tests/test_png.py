"""PNG in strips: what is written is what Pillow reads."""

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from models.png import is_whole, write_png


@pytest.mark.parametrize("heights", [[16], [1] * 16, [5, 0, 10, 1]])
def test_strips_of_any_height_are_one_image(heights):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    file, starts = io.BytesIO(), np.cumsum([0, *heights])
    write_png(file, 16, (image[a:b] for a, b in pairwise(starts) if b > a))
    with Image.open(file) as read:
        assert (read.mode, read.size) == ("RGB", (16, 16))
        np.testing.assert_array_equal(np.asarray(read), image)


def test_a_file_is_whole_if_its_size_is_the_one_wanted_and_its_end_is_there(tmp_path):
    path = tmp_path / "image.png"
    assert not is_whole(path, 16)
    with path.open("wb") as file:
        write_png(file, 16, [np.zeros((16, 16, 3), np.uint8)])
    assert is_whole(path, 16)
    assert not is_whole(path, 17)
    for shorter in (-1, 12, 0):
        (tmp_path / "cut.png").write_bytes(path.read_bytes()[:shorter])
        assert not is_whole(tmp_path / "cut.png", 16)
