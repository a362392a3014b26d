"""Relayout: in every format the textures of a head with uvs of its own are its own picture, folded where it folds."""

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_encoders import clip_of, encoded
from test_glb import Glb
from test_layout import laid, mirrored
from test_textures import pixels
from tiny import tiny_head
from uploads import uploaded

from models.core import Clip
from models.relayout import Relayout
from models.template import default_template
from service.encoders.textures import shade
from talker_client.frames import read_frames

OWN = 64


def a_picture(size: int, kind: str) -> bytes:
    """Bright at the top, red on the right: nothing of it is lost at another size."""
    y, x = np.mgrid[0:size, 0:size] / size
    image = np.stack([80 + 100 * x, 160 - 100 * y, 90 + 0 * x], 2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, quality=100, subsampling=0)
    return file.getvalue()


def dark_left() -> np.ndarray:
    """A map whose left half is two thirds as bright."""
    return np.repeat(np.where(np.arange(OWN) < OWN // 2, np.log(2 / 3), 0)[None, :, None], OWN, 0).repeat(3, 2)


def textured(picture: bytes, size: int) -> Clip:
    """The tiny head as a file brings it, its uvs mirrored, with the same wrinkles in both frames."""
    mesh = default_template(tiny_head()).mesh
    uvs = mirrored(mesh.uvs).astype(np.float32)
    mesh = uploaded(replace(mesh, uvs=uvs, base_color_png=picture), materials=("skin",))
    maps = np.stack([dark_left()] * 2).astype(np.float16)
    clip = clip_of(mesh, np.zeros((2, *mesh.vertices.shape), np.float32), size, maps)
    return replace(clip, enlarger=Relayout(laid(mirrored), None, OWN))


def texture_of(name: str, data: bytes) -> np.ndarray:
    """What the file holds of frame 1."""
    if name == "npz-stream":
        header, chunks = read_frames(io.BytesIO(data))
        _, chunk = chunks
        return shade(header.arrays["base_color"], chunk.wrinkles[0].astype(np.float32))
    if name in ("glb", "bundle"):
        return textures_of_basis(name, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if name == "obj":
            return pixels(archive.read("frame_000001.jpg"))
        glb = Glb.parse(archive.read("frame_000001.glb"))
    return image_of(glb, 0)


def textures_of_basis(name: str, data: bytes) -> np.ndarray:
    with zipfile.ZipFile(io.BytesIO(data)) if name == "bundle" else io.BytesIO() as archive:
        files = {each: archive.read(each) for each in archive.namelist()} if name == "bundle" else {}
    glb = Glb.parse(files.get("animation.glb", data))
    if name == "glb":
        fields = glb.extras["wrinkles"]
        images = [image_of(glb, index) for index in fields["images"]]
    else:
        fields = json.loads(files["weights.json"])
        images = [pixels(files[each]) for each in fields["textures"]]
    ratio = np.zeros(images[0].shape, np.float32)
    for k, image in enumerate(images):
        ratio += fields["weights"][1][k] * (fields["scale"][k] * image.astype(np.float32) / 255 + fields["offset"][k])
    return shade(image_of(glb, 0), ratio)


def image_of(glb: Glb, index: int) -> np.ndarray:
    view = glb.root["bufferViews"][glb.root["images"][index]["bufferView"]]
    return pixels(glb.binary[view["byteOffset"] :][: view["byteLength"]])


@pytest.mark.parametrize("name", ["npz-stream", "obj", "glb-sequence", "glb", "bundle"])
@pytest.mark.parametrize(("kind", "own", "size"), [("png", 100, 512), ("jpeg", 1500, 512), ("png", 64, 2048)])
def test_a_frame_is_the_heads_own_picture_folded_where_its_layout_has_it(
    name: str, kind: str, own: int, size: int
) -> None:
    """The left of the atlas is the right of a mirrored texture; off the head nothing folds."""
    given = texture_of(name, encoded(name, textured(a_picture(own, kind), size))).astype(float)
    assert given.shape == (size, size, 3)
    with Image.open(io.BytesIO(a_picture(size, "png"))) as image:
        neutral = np.asarray(image).astype(float)
    inside = tiny_head().atlas.rasterise(size).covered[:, ::-1]
    right = np.arange(size) >= size // 2 + size // 32
    left = np.arange(size) < size // 2 - size // 32
    for where, share in ((inside & right, 2 / 3), (inside & left, 1.0)):
        assert where.mean() > 0.2
        assert np.abs(given - share * neutral)[where].mean() < 1.5
    corner = slice(0, size // 50)
    assert np.abs(given - neutral)[corner, corner].mean() < 3
