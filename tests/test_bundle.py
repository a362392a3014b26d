"""The bundle: a GLB, its wrinkles' basis, and a receipt that vouches for both."""

import hashlib
import json
from io import BytesIO

import numpy as np
from PIL import Image
from test_encoders import FPS, bumpy_clip, bumpy_mesh, clip_of, encoded, folds, smooth_motion
from test_glb import Glb
from test_obj import entries
from test_textures import noise_png, pixels

from service.encoders.textures import TextureComposer


def bundled(texture: int = 64, frames: int = 40) -> dict[str, bytes]:
    return entries(encoded("bundle", bumpy_clip(frames=frames, texture=texture, png=noise_png())))


def test_it_holds_what_the_contract_names_and_the_receipt_last() -> None:
    names = list(bundled())
    count = len(names) - 3
    assert 5 <= count <= 8
    assert names == ["animation.glb", *(f"wrinkle_{k}.png" for k in range(count)), "weights.json", "receipt.json"]


def test_the_receipt_vouches_for_every_other_member() -> None:
    files = bundled()
    receipt = json.loads(files.pop("receipt.json"))
    assert receipt["sha256"] == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert (receipt["engine"], receipt["seed"], receipt["checkpoints"]) == ("mmtalker", 7, {"mmtalker": "a" * 64})
    assert receipt["styles"] == {"motion": "calm", "wrinkle": "neutral"}
    assert (receipt["fps"], receipt["frames"], receipt["texture"]) == (FPS, 40, 64)
    assert receipt["max_error_mm"] <= 0.05
    assert receipt["psnr_db"] > 40


def test_weights_and_textures_give_the_log_ratios_back() -> None:
    files = bundled()
    weights = json.loads(files["weights.json"])
    shapes = [
        scale * (pixels(files[name]) / 255) + offset
        for name, scale, offset in zip(weights["textures"], weights["scale"], weights["offset"], strict=True)
    ]
    ratios = np.einsum("tk,kyxc->tyxc", np.array(weights["weights"]), np.stack(shapes))
    composer = TextureComposer(noise_png(), 64)
    assert weights["fps"] == FPS
    for ratio, wrinkles in zip(ratios, folds(40), strict=True):
        assert np.abs(ratio - composer.log_ratio(wrinkles)).max() < 0.02


def test_the_animation_is_the_glb_of_the_clip_with_the_neutral_texture_of_the_size_asked_for() -> None:
    mesh = bumpy_mesh(png=noise_png())
    offsets = smooth_motion(mesh, 40)
    glb = Glb.parse(entries(encoded("bundle", clip_of(mesh, offsets, 64)))["animation.glb"])
    assert glb.error_mm(mesh, offsets) <= glb.extras["max_error_mm"]
    (image,) = glb.root["images"]
    view = glb.root["bufferViews"][image["bufferView"]]
    texture = glb.binary[view["byteOffset"] :][: view["byteLength"]]
    assert (pixels(texture) == TextureComposer(noise_png(), 64).base).all()


def test_the_images_have_the_size_that_was_asked_for() -> None:
    with Image.open(BytesIO(bundled(texture=96)["wrinkle_0.png"])) as image:
        assert (image.size, image.mode) == ((96, 96), "RGB")


def test_a_clip_whose_skin_never_changes_needs_no_image() -> None:
    mesh = bumpy_mesh()
    still = np.zeros((3, 16, 16, 3), np.float16)
    files = entries(encoded("bundle", clip_of(mesh, smooth_motion(mesh, 3), 64, still)))
    assert list(files) == ["animation.glb", "weights.json", "receipt.json"]
    weights = json.loads(files["weights.json"])
    assert (weights["textures"], weights["weights"]) == ([], [[], [], []])
    assert json.loads(files["receipt.json"])["psnr_db"] is None
