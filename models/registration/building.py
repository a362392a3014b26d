"""From places on the canonical head to a template: its mesh, how it moves, and what is told of it."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32, Int32
from scipy.sparse import csr_matrix, diags
from scipy.spatial.transform import Rotation

from models.atlas import Anchors
from models.core import Mesh, Source
from models.lips import LipSeal
from models.meshes.record import MeshFile
from models.registration.cloud import Points, vertex_normals
from models.registration.form import column_shares, make_form, parted_lips
from models.registration.guide import Guide
from models.registration.pieces import Piece, Welded
from models.registration.placing import Placed
from models.registration.pose import Similarity
from models.seams import corner_uvs
from models.surface import boundary_loops
from models.template import Report, Template, members_at

if TYPE_CHECKING:
    from models.registration.register import Fitted

STRENGTHS = (0.75, 1.1)
"""What the shares of a gap that both edges of the lips close may sum to before they are made to sum to 1: less than
that is no edge."""
UPRIGHT_DEG = 20
"""How far a head may lean from the axes of its file and still be upright in them."""
UNITS_M = (1.0, 0.01, 0.001, 0.0254)
"""Metres, centimetres, millimetres and inches."""
USUAL = 1.6
"""How much larger or smaller than the canonical head one may be in a usual unit."""
DOUBTFUL_MM = 1.5
FINE = 8
"""Vertices along each lip from which lips lie within a millimetre."""
LICENCE = "as uploaded"


def build_template(
    file: MeshFile, welded: Welded, pieces: list[Piece], fitted: "Fitted", placed: Placed, guide: Guide, id: str
) -> Template:
    """The template of a file whose vertices are placed."""
    head = guide.head
    anchors, follow = Anchors(*(part[welded.of] for part in placed.anchors)), placed.follow[welded.of]
    turn, unit_m = upright(fitted.pose.turn), unit_of(fitted.pose.scale)
    to_own = Similarity(unit_m, turn.T, np.zeros(3))
    to_metres = to_own.after(fitted.pose)
    form = make_form(guide, fitted.drawn, fitted.surface, _parts(pieces, placed, fitted.points), to_metres)
    at = head.atlas.weights_matrix(anchors)
    moving = at.multiply(follow[:, None]).tocsr()
    maps = (at @ form.maps.reshape(-1, 9)).reshape(-1, 3, 3) * follow[:, None, None]
    field = _meeting(guide, fitted, (moving @ head.seal.field).tocsr(), welded)
    seal = LipSeal(head.seal.gaps, field, parted_lips(guide, fitted.slit, to_metres, form))
    skin = int(np.bincount(file.material[fitted.piece.faces]).argmax())
    source = Source(
        file.vertices, (turn / unit_m).astype(np.float32), file.polygon, file.material, file.materials, skin
    )
    if file.uvs is None or file.uv_faces is None:
        uvs, uv_faces = _atlas_uvs(guide, anchors, file.faces)
    else:
        uvs, uv_faces = file.uvs, file.uv_faces
    vertices = to_own.apply(file.vertices.astype(np.float64)).astype(np.float32)
    return Template(
        mesh=Mesh(vertices, file.faces, uvs, uv_faces, None, source),
        maps=maps.astype(np.float32),
        seal=seal,
        id=id,
        anchors=anchors,
        regions={name: members_at(moving, members) for name, members in head.regions.items()},
        licence=LICENCE,
        form=form,
        report=_report(file, fitted, placed, guide, turn, unit_m),
    )


def upright(turn: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """What takes +Y up and +Z forward to a file's axes: the nearest that permutes them, if it is near enough."""
    signed = Rotation.create_group("O").as_matrix()
    cosine = (np.einsum("kij,ij->k", signed, turn) - 1) / 2
    best = int(cosine.argmax())
    return np.asarray(signed[best] if cosine[best] > np.cos(np.radians(UPRIGHT_DEG)) else turn)


def unit_of(scale: float) -> float:
    """Metres in a file's unit, of which the canonical head's metre is `scale`: the nearest usual one, or else what
    makes the head as large as the canonical one.
    """
    unit = min(UNITS_M, key=lambda usual: abs(np.log(scale * usual)))
    return unit if abs(np.log(scale * unit)) < np.log(USUAL) else 1 / scale


def _meeting(guide: Guide, fitted: "Fitted", field: csr_matrix, welded: Welded) -> csr_matrix:
    """The seal's field (V, J), column by column as strong as it takes for the edges of the lips to meet."""
    of_welded = np.zeros(len(welded.vertices))
    of_welded[welded.of] = np.asarray(field.sum(1)).ravel()
    upper, lower = (
        np.einsum("ck,ck->c", edge.weights, of_welded[fitted.surface.faces[edge.face]])
        for edge in (fitted.slit.upper, fitted.slit.lower)
    )
    whole = np.interp(column_shares(guide), fitted.slit.share, upper - lower)
    return (field @ diags(1 / whole.clip(*STRENGTHS))).tocsr()


def _parts(pieces: list[Piece], placed: Placed, points: Points) -> dict[str, Points]:
    """Vertices of eyeballs, teeth and tongue, by the canonical head's charts."""
    found: dict[str, list[Points]] = {}
    for piece, component in zip(pieces, placed.components, strict=True):
        own = points[piece.vertices]
        charts: tuple[str, ...] = (component.kind,)
        if component.kind == "eye":
            charts = ("eye_right" if own[:, 0].mean() < 0 else "eye_left",)
        elif component.kind == "teeth":
            charts = ("teeth_upper", "teeth_lower")
        for chart in charts:
            if chart.startswith(("eye", "teeth", "tongue")):
                found.setdefault(chart, []).append(own)
    return {chart: np.concatenate(parts) for chart, parts in found.items()}


def _atlas_uvs(
    guide: Guide, anchors: Anchors, faces: Int32[np.ndarray, "faces 3"]
) -> tuple[Float32[np.ndarray, "uvs 2"], Int32[np.ndarray, "faces 3"]]:
    """uvs on the atlas, for a file without; a face that straddles a seam has one place."""
    corners = corner_uvs(guide.head.atlas, anchors, faces)
    lost = np.flatnonzero(np.isnan(corners).any((1, 2)))
    corners[lost] = guide.head.atlas.uv_at(anchors)[faces[lost, :1]]
    uvs, index = np.unique(corners.reshape(-1, 2).astype(np.float32), axis=0, return_inverse=True)
    return uvs, index.reshape(-1, 3).astype(np.int32)


def _report(
    file: MeshFile, fitted: "Fitted", placed: Placed, guide: Guide, turn: Float[np.ndarray, "3 3"], unit_m: float
) -> Report:
    lips = np.intersect1d(guide.head.regions["lips"], guide.skin)
    normals = vertex_normals(fitted.drawn, guide.surface)
    face_mm, lips_mm = (_distance_mm(fitted, members, normals[members]) for members in (guide.face, lips))
    places = fitted.pose.apply(fitted.drawn[list(guide.landmarks.values())])
    return Report(
        registration_error_mm=face_mm,
        lips_error_mm=lips_mm,
        unit_m=float(unit_m),
        up_axis=_axis(turn[:, 1]),
        forward_axis=_axis(turn[:, 2]),
        components=placed.components,
        holes=len(boundary_loops(fitted.surface.faces)),
        landmarks={name: tuple(place.tolist()) for name, place in zip(guide.landmarks, places, strict=True)},
        warnings=(*file.warnings, *_coarse(fitted), *_warnings(placed, face_mm, lips_mm, unit_m)),
    )


def _coarse(fitted: "Fitted") -> tuple[str, ...]:
    """A warning of lips whose places are told by few vertices."""
    upper, lower = fitted.slit.vertex_counts(fitted.surface.faces)
    if min(upper, lower) >= FINE:
        return ()
    return (
        f"{upper} vertices along its upper lip and {lower} along the lower: fewer than {FINE} place lips to a "
        "millimetre or two; look at the preview, or send it with finer triangles at the mouth",
    )


def _warnings(placed: Placed, face_mm: float, lips_mm: float, unit_m: float) -> tuple[str, ...]:
    kinds = [component.kind for component in placed.components]
    found = []
    if max(face_mm, lips_mm) > DOUBTFUL_MM:
        found.append("the canonical head does not come near to it everywhere: look at the preview, or give landmarks")
    if "eye" not in kinds:
        found.append("it has no eyeballs of its own")
    if not any(kind.startswith("teeth") for kind in kinds):
        found.append("it has no teeth")
    if still := kinds.count("still"):
        found.append(f"{still} of its pieces, such as hair, do not move")
    if unit_m not in UNITS_M:
        found.append(f"its unit is not told; it is taken for {unit_m:.4g} m, which makes the head one of usual size")
    return tuple(found)


def _distance_mm(fitted: "Fitted", members: Int32[np.ndarray, " members"], normals: Points) -> float:
    place = fitted.surface.nearest(fitted.drawn[members], normals)
    return float(1e3 * np.median(np.linalg.norm(place.points - fitted.drawn[members], axis=1)))


def _axis(direction: Float[np.ndarray, " 3"]) -> str:
    number = int(np.abs(direction).argmax())
    return ("+" if direction[number] > 0 else "-") + "XYZ"[number]
