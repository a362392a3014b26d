"""A picture of a wrinkle style: a face and its map for every expression, drawn here, without a browser."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image, ImageDraw

from models.atlas import sample
from models.template import Head
from models.texels import Fragments, rasterise
from training.corpus.face import ACTIONS, FaceRig
from training.corpus.wrinkles import WrinkleField, WrinkleStyle

TEXTURE, FACE, ABOVE = 1024, 480, 2
"""Sizes in pixels: of the texture, of a face on the sheet; and how many times finer a face is drawn."""
CENTRE_M, SPAN_M = (0.0, 0.112), 0.205
"""What a face's picture shows."""
LIGHTS = ((0.55, (-0.35, 0.45, 0.82)), (0.22, (0.75, 0.25, 0.6)), (0.14, (0.0, -0.6, 0.8)))
AMBIENT, BACKGROUND, GAMMA = 0.30, 0.8, 2.2
COLUMNS = 4


def _both(name: str, weight: float) -> dict[str, float]:
    return {f"{name}Left": weight, f"{name}Right": weight}


EXPRESSIONS: Mapping[str, Mapping[str, float]] = {
    "neutral": {},
    "brows up": {"browInnerUp": 1.0} | _both("browOuterUp", 0.9),
    "frown": _both("browDown", 1.0) | _both("eyeSquint", 0.3),
    "squint": _both("eyeSquint", 1.0) | _both("cheekSquint", 0.7),
    "smile": _both("mouthSmile", 0.9) | _both("cheekSquint", 0.5),
    "nose sneer": _both("noseSneer", 1.0) | _both("mouthUpperUp", 0.4) | _both("browDown", 0.3),
    "mouth frown": _both("mouthFrown", 1.0) | {"mouthShrugLower": 0.6},
    "jaw open": {"jawOpen": 0.8},
    "pucker": {"mouthPucker": 1.0},
    "lips pressed": _both("mouthPress", 0.9) | {"mouthRollLower": 0.3, "mouthRollUpper": 0.3},
    "blink, cheeks up": _both("eyeBlink", 1.0) | _both("cheekSquint", 0.8),
    "surprise": {"browInnerUp": 1.0, "jawOpen": 0.5} | _both("browOuterUp", 1.0) | _both("eyeWide", 0.8),
}
PRESSED = "lips pressed"


def contact_sheet(head: Head, rig: FaceRig, style: WrinkleStyle, path: Path) -> None:
    """Write the sheet: for each expression the face with its texture, and its map, mid-grey where nothing changes."""
    field = WrinkleField(head, style)
    tiles = []
    for name, actions in EXPRESSIONS.items():
        weights = np.array([[actions.get(action, 0.0) for action in ACTIONS]])
        contact = np.array([float(name == PRESSED)])
        offsets = rig.offsets(weights, contact)
        wrinkles = field.maps(field.activations(offsets, contact), TEXTURE)[0]
        face = draw_face(head, head.atlas.vertices + offsets[0], textured(head, wrinkles))
        tiles.append(_tile(name, face, wrinkles))
    height, width = tiles[0].shape[:2]
    sheet = np.full((-(-len(tiles) // COLUMNS) * height, COLUMNS * width, 3), 255, np.uint8)
    for k, tile in enumerate(tiles):
        row, column = k // COLUMNS * height, k % COLUMNS * width
        sheet[row : row + height, column : column + width] = tile
    Image.fromarray(sheet).save(path)


def textured(head: Head, wrinkles: Float32[np.ndarray, "size size 3"]) -> Float[np.ndarray, "size size 3"]:
    """The head's base colour under a map of log-ratios, 0..255."""
    with Image.open(io.BytesIO(head.base_color_png)) as image:
        base = image.convert("RGB").resize(wrinkles.shape[:2], Image.Resampling.LANCZOS)
    return np.asarray(base, float) * np.exp(wrinkles)


def draw_face(
    head: Head, vertices: Float[np.ndarray, "vertices 3"], texture: Float[np.ndarray, "size size 3"]
) -> UInt8[np.ndarray, "height width 3"]:
    """The head from the front, orthographic, under three soft lights."""
    atlas, size = head.atlas, FACE * ABOVE
    found = _in_front(vertices, atlas.faces, size)
    uv = np.einsum("nk,nkd->nd", found.weights, atlas.corners[found.face])
    color = sample(texture.astype(np.float32), uv)
    normal = np.einsum("nk,nkd->nd", found.weights, _normals(vertices, atlas.faces)[atlas.faces[found.face]])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    image = np.full((size, size, 3), BACKGROUND)
    image[found.row, found.column] = (np.clip(color, 0, 255) / 255) ** GAMMA * _light(normal)[:, None]
    image = image.reshape(FACE, ABOVE, FACE, ABOVE, 3).mean((1, 3))
    return (255 * np.clip(image, 0, 1) ** (1 / GAMMA)).astype(np.uint8)


def _in_front(vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"], size: int) -> Fragments:
    """The foremost face of every pixel that shows one."""
    screen = np.stack([vertices[:, 0] - CENTRE_M[0], CENTRE_M[1] - vertices[:, 1]], 1) / SPAN_M * size + size / 2
    corners = vertices[faces]
    seen = np.flatnonzero(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] > 0)
    found = rasterise(screen[faces[seen]], slice(0, size), slice(0, size))
    found = found._replace(face=seen[found.face])
    depth = np.einsum("nk,nk->n", found.weights, corners[found.face, :, 2])
    found = found.of(np.argsort(depth, kind="stable"))
    last = np.full(size * size, -1)
    last[found.row * size + found.column] = np.arange(len(found.row))
    return found.of(last[last >= 0])


def _light(normal: Float[np.ndarray, "pixels 3"]) -> Float[np.ndarray, " pixels"]:
    total = np.full(len(normal), AMBIENT)
    for strength, direction in LIGHTS:
        total += strength * np.clip(normal @ (np.array(direction) / np.linalg.norm(direction)), 0, None)
    return total


def _normals(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> Float[np.ndarray, "vertices 3"]:
    corners, normals = vertices[faces], np.zeros(vertices.shape)
    for k in range(3):
        np.add.at(normals, faces[:, k], np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    return normals


def _tile(
    name: str, face: UInt8[np.ndarray, "height width 3"], wrinkles: Float32[np.ndarray, "size size 3"]
) -> UInt8[np.ndarray, "height width 3"]:
    """The face beside its map, with its name."""
    grey = (127.5 + 127.5 * np.clip(wrinkles / 0.4, -1, 1)).astype(np.uint8)
    small = np.asarray(Image.fromarray(grey).resize((FACE, FACE), Image.Resampling.BOX))
    image = Image.fromarray(np.concatenate([face, small], 1))
    ImageDraw.Draw(image).text((8, 6), name, fill=(0, 0, 0))
    return np.asarray(image)
