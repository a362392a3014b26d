"""Small things to test with: a patch with a slit for a mouth, seeded networks, torch without ONNX, the shipped head."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.atlas import Atlas
from models.compact_encoder import CompactConfig, CompactEncoder
from models.core import Waveform
from models.features import CompactSpeech
from models.lips import LipSeal, column_gaps, seal_field
from models.mmtalker.network import MMTalker, MMTalkerConfig
from models.mmtalker.sampling import Sampling, initial_log_density, sample_surface
from models.mmtalker.streaming import MMTalkerMotion
from models.registration.guide import Guide
from models.registration.shapes import load_shapes
from models.runtime import Runtime
from models.template import Head, load_head

WEIGHTS = Path(__file__).parent.parent / "weights"
CONFIG = MMTalkerConfig(features=16, width=8, channels=2, degrees=3, decoder=8, pivot=64, pivot_axes=3, style_width=2)
SPEECH = CompactConfig(width=16, layers=1, heads=2, feed_forward=16, past=4, future=1, kernel=3)


TORCH = Runtime(torch.device("cpu"), Path("unused"), exports=False)
"""Quick to compile, and the reference for what is exported."""


def grid_faces(rows: int, columns: int) -> np.ndarray:
    """Faces of a grid of rows × columns vertices, row after row from below, counter-clockwise."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1, 1)
    quads = corner + np.array([0, 1, columns + 1, columns])
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)


def grid_plane(rows: int, columns: int) -> np.ndarray:
    """The grid's vertices (rows · columns, 2) over the unit square."""
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    return np.stack([x.ravel(), y.ravel()], 1)


def cylinder(rows: int = 12, columns: int = 16, angle: float = 2.0, radius: float = 0.1) -> tuple[np.ndarray, ...]:
    """A piece of a faceted cylinder, cut open: vertices (V, 3), the same unrolled (V, 2), and faces."""
    turn, height = (grid_plane(rows, columns) * [angle, 0.15]).T
    facet = angle / (columns - 1)
    unrolled = turn * 2 * radius * np.sin(facet / 2) / facet
    space = np.stack([radius * np.sin(turn), height, radius * np.cos(turn)], 1)
    return space, np.stack([unrolled, height], 1), grid_faces(rows, columns)


def rotation(seed: int = 0) -> np.ndarray:
    """A rotation matrix in general position."""
    left, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return left * np.sign(np.linalg.det(left))


ROWS, COLUMNS, SLIT_ROW = 13, 13, 4
MOUTH = np.arange(4, 9)
"""Columns of the tiny head's slit, corners included."""


@cache
def tiny_head() -> Head:
    """A curved patch, 80 mm by 100 mm, with a slit along one of its rows, and a smaller patch behind it for an eye.

    The lower lip's vertices lie between the upper lip's, so that columns are interpolated on both sides.
    """
    plane = grid_plane(ROWS, COLUMNS)
    faces = grid_faces(ROWS, COLUMNS)
    upper = SLIT_ROW * COLUMNS + MOUTH[1:-1]
    lower = len(plane) + np.arange(len(upper))
    below = plane[faces].mean(1)[:, 1] < SLIT_ROW / (ROWS - 1)
    copies = dict(zip(upper.tolist(), lower.tolist(), strict=True))
    faces[below] = [[copies.get(v, v) for v in face] for face in faces[below].tolist()]
    plane = np.concatenate([plane, plane[upper] + [0.3 / (COLUMNS - 1), 0]])
    uvs = 0.05 + 0.9 * plane * [1, 0.8] + [0, 0.15]
    uvs[upper, 1] += 0.01
    uvs[lower, 1] -= 0.01
    space = (plane - 0.5) * [0.08, 0.1]
    skin = np.c_[space, 0.1 * np.cos(space[:, 0] / 0.1)]
    eye = np.c_[(grid_plane(4, 4) - [0.5, -0.2]) * 0.02, np.full(16, 0.07)]
    vertices = np.concatenate([skin, eye]).astype(np.float32)
    both = np.concatenate([faces, grid_faces(4, 4) + len(skin)]).astype(np.int32)
    chart = np.repeat([0, 1], [len(faces), 18]).astype(np.int32)
    uvs = np.concatenate([uvs, 0.02 + 0.1 * grid_plane(4, 4)]).astype(np.float32)
    rim = np.concatenate([SLIT_ROW * COLUMNS + MOUTH, lower]).astype(np.int32)
    top = np.arange((ROWS - 1) * COLUMNS, ROWS * COLUMNS, dtype=np.int32)
    regions = {"lips": rim, "eyes": top, "upper_face": np.arange(ROWS * COLUMNS // 2, ROWS * COLUMNS, dtype=np.int32)}
    atlas = Atlas(vertices, both, uvs, both, chart)
    return Head(atlas, ("skin", "eye_left"), rim, _tiny_seal(vertices, rim, len(skin)), regions, b"", "CC0-1.0")


def _tiny_seal(vertices: np.ndarray, rim: np.ndarray, skin: int) -> LipSeal:
    count = len(MOUTH)
    arcs = np.arange(count), np.array([0, *range(count, len(rim)), count - 1])
    columns, gaps = column_gaps(vertices[rim, 0].astype(float), *arcs)
    strength = np.zeros(len(vertices))
    for arc, share in zip(arcs, (0.4, -0.6), strict=True):
        away = np.linalg.norm(vertices[:skin, None] - vertices[rim[arc[1:-1]]][None], axis=2).min(1)
        side = np.sign(vertices[:skin, 1] - vertices[rim[0], 1]) == np.sign(share)
        side[rim[arc[1:-1]]] = True
        side[rim[arcs[0][1:-1]] if share < 0 else rim[arcs[1][1:-1]]] = False
        strength[:skin] += side * share * np.clip(1 - away / 0.02, 0, 1) ** 2
    strength[rim[[0, count - 1]]] = 0
    return LipSeal(gaps, seal_field(vertices[:, 0].astype(float), columns, strength))


def tiny_moving() -> np.ndarray:
    """What moves on the tiny head: a disc around the mouth."""
    vertices = tiny_head().atlas.vertices
    centre = vertices[tiny_head().rim].mean(0)
    return np.flatnonzero(np.linalg.norm(vertices - centre, axis=1) < 0.03)


def enliven(network: MMTalker, factor: float) -> MMTalker:
    """The network, its decoder's weights times `factor`, and with a place for pivots: untrained, it hardly tells one
    place on the surface from another, and no style at all.
    """
    for layer in network.surface.decoder:
        layer.weight.data *= factor
    random = torch.Generator().manual_seed(0)
    network.audio.pivot_mean.normal_(generator=random)
    network.audio.pivot_axes.normal_(0, network.config.pivot**-0.5, generator=random)
    return network.eval()


def tiny_pivot(seed: int = 0) -> np.ndarray:
    """Somebody's motion pivot (P,), for the tiny network."""
    return np.random.default_rng(seed).standard_normal(CONFIG.pivot).astype(np.float32)


def nobody(config: MMTalkerConfig = CONFIG) -> Tensor:
    """The embedding (1, S) of the mean pivot."""
    return torch.zeros(1, config.style_width)


def tiny_style(seed: int = 0) -> Tensor:
    """The tiny network's embedding (1, S) of `tiny_pivot`."""
    return tiny_motion().style_of(tiny_pivot(seed))


def tiny_network(config: MMTalkerConfig = CONFIG, seed: int = 0) -> MMTalker:
    """A seeded, untrained MMTalker on the tiny head."""
    torch.manual_seed(seed)
    head = tiny_head()
    return enliven(MMTalker(config, head.atlas, tiny_moving(), initial_log_density(head)), 3.0)


@cache
def tiny_motion() -> MMTalkerMotion:
    """The tiny network, streaming in torch."""
    return MMTalkerMotion(tiny_network(), tiny_head().atlas, TORCH)


def tiny_encoder(seed: int = 0) -> CompactEncoder:
    """A seeded, untrained speech encoder."""
    torch.manual_seed(seed)
    return CompactEncoder(SPEECH).eval()


@cache
def tiny_speech() -> CompactSpeech:
    """The tiny speech encoder, streaming in torch."""
    return CompactSpeech(tiny_encoder(), TORCH)


def noise(count: int, seed: int = 0) -> np.ndarray:
    """Samples (count,) whose loudness changes, as speech's does."""
    random = np.random.default_rng(seed)
    loudness = np.repeat(random.random(count // 800 + 1), 800)[:count]
    return (0.3 * loudness * random.standard_normal(count)).clip(-1, 1).astype(np.float32)


def speech(seconds: float, seed: int = 0) -> Waveform:
    """`noise` as a waveform."""
    return Waveform(noise(round(seconds * Waveform.rate_hz), seed))


@cache
def shipped_head() -> Head:
    """The head in weights/."""
    return load_head(WEIGHTS / "head.safetensors")


@cache
def shipped_guide() -> Guide:
    """What heads are registered by."""
    head = shipped_head()
    return Guide(head, load_shapes(WEIGHTS / "shapes.safetensors", head))


@cache
def shipped_sampling(count: int) -> Sampling:
    """The shipped head's surface at `count` points, by the initial density."""
    head = shipped_head()
    return sample_surface(head.atlas, initial_log_density(head), count)


@cache
def shipped_motion() -> MMTalkerMotion:
    """A seeded, untrained MMTalker of compact size on the shipped head, streaming in torch."""
    return MMTalkerMotion(shipped_network(), shipped_head().atlas, TORCH)


@cache
def shipped_network() -> MMTalker:
    """A seeded, untrained MMTalker of compact size on the shipped head; the front of the face moves."""
    torch.manual_seed(0)
    head = shipped_head()
    _, y, z = head.atlas.vertices.T
    front = np.flatnonzero((z > 0.06) & (y > 0.02) & (y < 0.2))
    moving = np.intersect1d(front, np.concatenate([head.part("skin"), head.part("tongue"), head.part("teeth_lower")]))
    return enliven(MMTalker(MMTalkerConfig(), head.atlas, moving, initial_log_density(head)), 3.0)


def areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area of each face in space."""
    corners = vertices[faces].astype(float)
    return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2


def distance_to_segments(points: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance (P,) of points (P, D) from the nearest of the segments."""
    along = end - begin
    length = np.maximum((along**2).sum(1), 1e-30)
    result = []
    for block in np.array_split(points, max(1, len(points) * len(begin) // 200_000)):
        share = np.clip(((block[:, None] - begin) * along).sum(-1) / length, 0, 1)
        result.append(np.linalg.norm(block[:, None] - begin - share[..., None] * along, axis=-1).min(1))
    return np.concatenate(result)
