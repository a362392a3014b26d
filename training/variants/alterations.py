"""What makers of heads leave out or add: only the face, shoulders, hair, glasses, eyelashes. All in metres."""

import numpy as np

from models.surface import boundary_loops
from models.template import Head
from training.openings import eye_openings
from training.variants.figure import Faces, Figure, Positions, without

MASK_BACK, MASK_LOW = 0.035, 0.012
"""A face mask reaches so far behind the lids and below the chin, of a head as large as the canonical one."""
HAIR_M, HAIR_BACK = 0.012, 0.09
"""How thick hair is, and how far behind the lids it begins to hang down."""
SEGMENTS = 24


def mask(figure: Figure, head: Head) -> Figure:
    """The face alone: no back of the head, no neck, no ears, nothing behind the skin but the mouth and the eyes."""
    rest = head.atlas.vertices.astype(float)
    place = head.atlas.interpolate(rest, figure.anchors)
    lids, chin = rest[head.regions["eyes"], 2].min(), _chin(head)
    kept = (place[:, 2] > lids - MASK_BACK) & (place[:, 1] > chin - MASK_LOW) & (abs(place[:, 0]) < 0.068)
    cut = figure.keep(kept[figure.faces].all(1))
    skin = cut.faces[cut.chart == head.charts.index("skin")]
    component = cut.component
    largest = np.bincount(component[skin[:, 0]]).argmax()
    scrap = (cut.chart == head.charts.index("skin")) & (component[cut.faces[:, 0]] != largest)
    return cut.keep(~scrap)


def bust(figure: Figure, head: Head, rings: int = 10) -> Figure:
    """Shoulders below the neck, sewn to its boundary and open below."""
    skin = figure.faces[figure.chart == head.charts.index("skin")]
    loop = min(boundary_loops(skin), key=lambda loop: figure.vertices[loop, 1].mean())
    neck = figure.vertices[loop]
    centre, size = neck.mean(0), figure.vertices[:, 1].max() - neck[:, 1].min()
    around = neck - centre
    angle = np.arctan2(around[:, 2], around[:, 0])
    outline = np.stack([np.cos(angle), np.zeros_like(angle), np.sin(angle)], 1) * [0.85, 0, 0.45] * size
    down = np.linspace(0, 1, rings + 1)[1:]
    wide = np.clip(down / 0.6, 0, 1) ** 1.5
    drop = np.minimum(down * 0.35, 0.12) + np.clip(down - 0.5, 0, None)
    new = [
        centre + around * [1, 1 - w, 1] + w * (outline - around * [1, 0, 1]) - [0, d * size, 0]
        for w, d in zip(wide, drop, strict=True)
    ]
    count = len(loop)
    rows = np.concatenate([loop, len(figure.vertices) + np.arange(rings * count)]).reshape(rings + 1, count)
    return figure.add(np.concatenate(new), _strip(rows, closed=True))


def hair(figure: Figure, head: Head) -> Figure:
    """A shell over the scalp, a piece of its own."""
    rest = head.atlas.vertices.astype(float)
    place = head.atlas.interpolate(rest, figure.anchors)
    brow, lids = rest[head.regions["upper_face"], 1].max(), rest[head.regions["eyes"]]
    line = lids[:, 1].max() + 0.045 + np.clip(place[:, 2] - lids[:, 2].min() + HAIR_BACK, -0.06, 0) * 1.5
    scalp = (place[:, 1] > np.minimum(line, brow)) & (figure.anchors.face >= 0)
    on_skin = figure.chart == head.charts.index("skin")
    chosen = figure.faces[on_skin & scalp[figure.faces].all(1)]
    used, faces = np.unique(chosen, return_inverse=True)
    normals = np.zeros_like(figure.vertices)
    skin = figure.vertices[figure.faces[on_skin]]
    for k in range(3):
        np.add.at(normals, figure.faces[on_skin][:, k], np.cross(skin[:, 1] - skin[:, 0], skin[:, 2] - skin[:, 0]))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-18)
    shell = figure.vertices[used] + HAIR_M * normals[used]
    return figure.add(shell, faces.reshape(-1, 3) + len(figure.vertices))


def glasses(figure: Figure, head: Head, identity: Positions) -> Figure:
    """Two rings in front of the eyes, a bridge, and temples to the ears: four pieces and no lenses."""
    eyes = [identity[head.part(f"eye_{side}")] for side in ("right", "left")]
    centres = [eye.mean(0) + np.array([0, -0.002, 0.024]) for eye in eyes]
    turn = np.linspace(0, 2 * np.pi, SEGMENTS, endpoint=False)
    radius = 0.40 * abs(centres[0][0] - centres[1][0])
    for centre, side in zip(centres, (-1, 1), strict=True):
        ring = centre + radius * np.stack([np.cos(turn), 0.75 * np.sin(turn), 0 * turn], 1)
        figure = _tube(figure, ring, closed=True)
        temple = centre + side * np.array([radius, 0, 0])
        way = np.linspace(0, 1, 12)[:, None]
        figure = _tube(figure, temple + way * [side * 0.012, 0.004, -0.105], closed=False)
    way = np.linspace(-1, 1, 8)[:, None]
    middle, half = (centres[0] + centres[1]) / 2, (centres[1] - centres[0]) / 2 - [radius, 0, 0]
    return _tube(figure, middle + way * half + (1 - way**2) * [0, 0.004, 0.003], closed=False)


def eyelashes(figure: Figure, head: Head, identity: Positions) -> Figure:
    """A strip along each upper lid, a piece of its own on each side."""
    skin = head.faces_of("skin")
    for eye in eye_openings(head.atlas.vertices.astype(float), skin):
        lid = identity[eye.rim[eye.upper]]
        along = np.linspace(0, 1, len(lid))[:, None]
        tips = lid + [0, 0.003, 0.007] * np.sqrt(np.clip(along * (1 - along) * 4, 0, 1)) + [0, 0, 0.001]
        rows = len(figure.vertices) + np.arange(2 * len(lid)).reshape(2, -1)
        figure = figure.add(np.concatenate([lid + np.array([0, 0, 0.0005]), tips]), _strip(rows, closed=False))
    return figure


def without_mouth(figure: Figure, head: Head) -> Figure:
    """The lips end in an open slit, with nothing behind."""
    return without(figure, head, "cavity", "tongue", "teeth")


def _chin(head: Head) -> float:
    """Height of the chin of the canonical head: where the skin in front, below the mouth, is furthest forward."""
    rest = head.atlas.vertices.astype(float)[head.part("skin")]
    mouth = head.atlas.vertices[head.rim].astype(float)
    below = rest[(abs(rest[:, 0]) < 0.012) & (rest[:, 1] < mouth[:, 1].min() - 0.02) & (rest[:, 2] > 0.05)]
    return float(below[below[:, 2] > below[:, 2].max() - 0.012, 1].min())


def _tube(figure: Figure, path: Positions, *, closed: bool, radius: float = 0.0013, sides: int = 6) -> Figure:
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    across = np.cross(ahead, [0.3, 0.9, 0.31])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)[:, None, None]
    rings = path + radius * (np.cos(turn) * across + np.sin(turn) * np.cross(ahead, across))
    rows = len(figure.vertices) + np.arange(sides * len(path)).reshape(sides, len(path))
    rows = np.concatenate([rows, rows[:1]])
    return figure.add(rings.reshape(-1, 3), _strip(rows, closed=closed))


def _strip(rows: np.ndarray, *, closed: bool) -> Faces:
    """Triangles between the rows of a grid of vertices, whose columns may close."""
    if closed:
        rows = np.concatenate([rows, rows[:, :1]], 1)
    quads = np.stack([rows[:-1, :-1], rows[1:, :-1], rows[1:, 1:], rows[:-1, 1:]], -1).reshape(-1, 4)
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
