"""The head in weights/ looks like one: what is measured here is what a person would look for."""

import io

import numpy as np
import pytest
from PIL import Image
from tiny import WEIGHTS, areas, shipped_head

from models.checkpoint import pinned_file, read_header
from models.surface import boundary_loops, pieces

BEHIND = ("tongue", "teeth_upper", "teeth_lower")


def vertices() -> np.ndarray:
    return shipped_head().atlas.vertices.astype(float)


def faces_of(*charts: str) -> np.ndarray:
    head = shipped_head()
    return head.atlas.faces[np.isin(head.atlas.chart, [head.charts.index(chart) for chart in charts])]


def hits(origin: np.ndarray, direction: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(R, F) distance along rays to triangles in units of their direction, NaN where they miss (Möller, Trumbore)."""
    a, b, c = (vertices()[faces[:, k]] for k in range(3))
    across = np.cross(direction[:, None], c - a)
    determinant = ((b - a) * across).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        from_corner = origin[:, None] - a
        u = (from_corner * across).sum(-1) / determinant
        beside = np.cross(from_corner, b - a)
        v = (direction[:, None] * beside).sum(-1) / determinant
        distance = ((c - a) * beside).sum(-1) / determinant
        return np.where((u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9), distance, np.nan)


def seen_from_the_front(low: np.ndarray, high: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Places (R, 2) of a grid over x and y, and the chart that a viewer in front sees at each, -1 for none."""
    head = shipped_head()
    corners = vertices()[head.atlas.faces]
    near = ((corners[..., :2].min(1) < high) & (corners[..., :2].max(1) > low)).all(1) & (corners[..., 2].max(1) > 0.05)
    candidates = np.flatnonzero(near)
    grid = np.stack(np.meshgrid(*(np.arange(a, b, step) for a, b in zip(low, high, strict=True))), -1).reshape(-1, 2)
    seen = []
    for block in np.array_split(grid, len(grid) // 300 + 1):
        eye = np.c_[block, np.full(len(block), 1.0)]
        distance = hits(eye, np.tile([0.0, 0.0, -1.0], (len(eye), 1)), head.atlas.faces[candidates])
        distance[np.isnan(distance)] = np.inf
        chart = head.atlas.chart[candidates[distance.argmin(1)]]
        seen.append(np.where(np.isfinite(distance.min(1)), chart, -1))
    return grid, np.concatenate(seen)


def winding(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """How often a surface of triangles (F, 3, 3) winds around each point: 1 inside a closed one, 0 outside."""
    a, b, c = (corners[None, :, k] - points[:, None] for k in range(3))
    la, lb, lc = (np.linalg.norm(side, axis=2) for side in (a, b, c))
    numerator = (a * np.cross(b, c)).sum(2)
    denominator = la * lb * lc + (a * b).sum(2) * lc + (b * c).sum(2) * la + (c * a).sum(2) * lb
    return np.arctan2(numerator, denominator).sum(1) / (2 * np.pi)


def skin_with_its_holes_filled() -> np.ndarray:
    """Triangles (F, 3, 3): the skin, and a fan over the neck, the mouth and each eye."""
    skin, points = faces_of("skin"), vertices()
    fans = []
    for loop in boundary_loops(skin):
        rim = points[loop]
        fans.append(np.stack([np.roll(rim, -1, 0), rim, np.broadcast_to(rim.mean(0), rim.shape)], 1))
    return np.concatenate([points[skin], *fans])


def eye(side: str) -> tuple[np.ndarray, np.ndarray]:
    """The eyeball's vertices and centre."""
    ball = vertices()[shipped_head().part(f"eye_{side}")]
    fit = np.linalg.lstsq(np.c_[2 * ball, np.ones(len(ball))], (ball**2).sum(1), rcond=None)[0]
    return ball, fit[:3]


def test_it_is_pinned_and_says_what_it_is():
    path, _ = pinned_file(WEIGHTS, "head")
    header = read_header(path)
    assert header.kind == "head"
    assert "CC0" in header.licence


def test_it_is_as_large_as_a_head_in_metres_and_looks_along_z():
    low, high = vertices().min(0), vertices().max(0)
    assert 0.13 < high[0] - low[0] < 0.20
    assert 0.20 < high[1] - low[1] < 0.32
    nose = vertices()[np.argmax(vertices()[:, 2])]
    assert abs(nose[0]) < 1e-3
    ears = np.abs(vertices()[:, 0]).argmax()
    assert vertices()[ears, 2] < nose[2] - 0.05


def test_it_is_symmetrical():
    """Every vertex of the skin has a partner across the middle, within a tenth of a millimetre."""
    skin = vertices()[shipped_head().part("skin")]
    mirrored = skin * [-1, 1, 1]
    nearest = np.concatenate(
        [np.linalg.norm(block[:, None] - skin, axis=2).min(1) for block in np.array_split(mirrored, 20)]
    )
    assert nearest.max() < 1e-4


def test_every_face_has_area_and_every_vertex_a_face():
    atlas = shipped_head().atlas
    assert areas(atlas.vertices, atlas.faces).min() > 1e-10
    assert np.array_equal(np.unique(atlas.faces), np.arange(len(atlas.vertices)))


def test_skin_mouth_and_sockets_are_one_surface_open_only_at_the_neck():
    flesh = faces_of("skin", "cavity", "socket_right", "socket_left")
    (neck,) = boundary_loops(flesh)
    assert vertices()[neck, 1].max() < 0.06
    assert len(set(pieces(flesh, len(vertices()))[np.unique(flesh)])) == 1


def test_the_lips_touch_at_rest():
    """Every column of the seal: under half a millimetre, and no opening over 0.15 mm."""
    head = shipped_head()
    rest = head.atlas.vertices[head.rim]
    gap_mm = 1e3 * np.linalg.norm(head.seal.gaps @ rest, axis=1)
    assert gap_mm.max() < 0.5
    assert 1e3 * head.seal.opening(rest[None]).max() < 0.15


def test_the_mouth_is_shut_when_seen_from_the_front():
    """Nothing but skin over 50 mm × 12 mm, save a third of a square millimetre in each corner of the lips."""
    step = 0.0005
    place, chart = seen_from_the_front(np.array([-0.025, 0.062]), np.array([0.025, 0.074]), step)
    inside = chart != shipped_head().charts.index("skin")
    assert inside.sum() * step**2 < 0.7e-6
    assert (np.abs(place[inside, 0]) > 0.019).all()


def test_teeth_and_tongue_lie_within_the_mouth():
    """Inside the cavity's bounds, behind the lips by a tooth's distance, and inside the skin."""
    head, shell = shipped_head(), skin_with_its_holes_filled()
    cavity, lips = vertices()[head.part("cavity")], vertices()[head.rim]
    for chart in BEHIND:
        part = vertices()[head.part(chart)]
        assert (part > cavity.min(0)).all(), chart
        assert (part < cavity.max(0)).all(), chart
        assert part[:, 2].max() < lips[:, 2].max() - 0.0015, chart
        assert winding(part, shell).min() > 0.99, chart


def test_the_tongue_lies_between_the_rows_of_teeth():
    upper, lower, tongue = (vertices()[shipped_head().part(name)] for name in ("teeth_upper", "teeth_lower", "tongue"))
    assert lower[:, 1].mean() < upper[:, 1].mean()
    assert np.abs(tongue[:, 0]).max() < np.abs(upper[:, 0]).max()
    assert tongue[:, 2].max() < min(upper[:, 2].max(), lower[:, 2].max())


@pytest.mark.parametrize("side", ["right", "left"])
def test_eyeballs_lie_behind_the_lids(side):
    """Along every radius of the ball that meets skin, the outermost skin is over a millimetre in front of it."""
    ball, centre = eye(side)
    skin = faces_of("skin")
    skin = skin[np.linalg.norm(vertices()[skin].mean(1) - centre, axis=1) < 0.03]
    along = hits(np.tile(centre, (len(ball), 1)), ball - centre, skin)
    along[along < 0] = np.nan
    covered = ~np.isnan(along).all(1)
    clearance = (np.nanmax(along[covered], 1) - 1) * np.linalg.norm(ball - centre, axis=1)[covered]
    assert covered.sum() > 50
    assert clearance.min() > 0.001


@pytest.mark.parametrize("side", ["right", "left"])
def test_eyes_are_seen_through_their_lids_only(side):
    """From the front, the eyeball fills an almond of 1 to 2.5 cm² within the rim, and no socket is seen beside it."""
    step, head = 0.001, shipped_head()
    _, centre = eye(side)
    place, chart = seen_from_the_front(centre[:2] - 0.025, centre[:2] + 0.025, step)
    shown = place[chart == head.charts.index(f"eye_{side}")]
    loops = (vertices()[loop] for loop in boundary_loops(faces_of("skin")))
    rim = next(loop for loop in loops if abs(loop[:, 0].mean() - centre[0]) < 0.01)
    assert 1.0e-4 < len(shown) * step**2 < 2.5e-4
    assert (shown > rim[:, :2].min(0) - 1e-4).all()
    assert (shown < rim[:, :2].max(0) + 1e-4).all()
    assert set(chart) == {head.charts.index("skin"), head.charts.index(f"eye_{side}")}


def test_regions_are_where_their_names_say():
    """Lips within 15 mm of the rim, eyes within 30 mm of a ball's centre, the upper face above the nose's tip."""
    head = shipped_head()
    lips, eyes, upper = (vertices()[head.regions[name]] for name in ("lips", "eyes", "upper_face"))
    rim = vertices()[head.rim]
    assert min(len(lips), len(eyes), len(upper)) > 200
    assert np.linalg.norm(lips[:, None] - rim, axis=2).min(1).max() < 0.015
    centres = np.stack([eye(side)[1] for side in ("right", "left")])
    assert np.linalg.norm(eyes[:, None] - centres, axis=2).min(1).max() < 0.03
    assert upper[:, 1].min() > vertices()[np.argmax(vertices()[:, 2]), 1]


def test_the_texture_is_a_square_picture_whose_lips_are_redder_than_its_cheeks():
    head = shipped_head()
    Image.open(io.BytesIO(head.base_color_png)).verify()
    picture = Image.open(io.BytesIO(head.base_color_png))
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    assert picture.width == picture.height >= 512
    pixels = np.asarray(picture, float)

    def redness(members: np.ndarray) -> float:
        column, row = (head.atlas.vertex_uvs[members] * [1, -1] + [0, 1]).T * picture.width
        red, green, _ = pixels[row.astype(int), column.astype(int)].T
        return float((red / green).mean())

    cheeks = np.setdiff1d(head.part("skin"), np.concatenate([head.regions["lips"], head.regions["eyes"]]))
    assert redness(head.rim) > 1.15 * redness(cheeks)
