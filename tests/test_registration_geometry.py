"""What registration is built of: nearest places, welding, poses, slits, matches; laws and closed-form answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from no_heads import coarse, sealed
from scipy.spatial.transform import Rotation
from tiny import grid_faces, grid_plane, rotation, shipped_guide, shipped_head

from models.registration.building import unit_of, upright
from models.registration.cloud import Cloud, closest, fit_sphere, unit, vertex_normals
from models.registration.guide import POSE_POINTS
from models.registration.landmarks import LANDMARKS, canonical_landmarks, lid_rims, lip_arcs
from models.registration.matching import match, match_back
from models.registration.mouth import Slit, find_slit
from models.registration.pieces import signed_volume, split, weld
from models.registration.pose import Similarity, find_poses, rotations, similarity, spread
from models.surface import face_areas
from models.template import default_template

UP = np.array([0.0, 0, 1])
CUBE = np.array([[x, y, z] for x in (0.0, 2) for y in (0.0, 2) for z in (0.0, 2)])
SIDES = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
CUBE_FACES = np.concatenate([SIDES[:, [0, 1, 2]], SIDES[:, [0, 2, 3]]])
"""Of side 2, its faces outwards."""
SEEDS = st.integers(0, 2**32 - 1)


def sheet(z: float = 0.0, size: int = 9, flip: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A square of side 0.1 m at a height, its normals along +Z, or flipped."""
    faces = grid_faces(size, size)
    return np.c_[0.1 * grid_plane(size, size), np.full(size**2, z)], faces[:, ::-1] if flip else faces


@given(SEEDS)
def test_no_sampled_point_of_a_triangle_is_nearer(seed: int) -> None:
    """What is found lies on the triangle, at its weights, and nothing else on it is nearer; needles included."""
    random = np.random.default_rng(seed)
    corners = random.normal(size=(20, 3, 3)) * 10.0 ** random.uniform(-2, 0, (20, 1, 3))
    points = random.normal(size=(20, 3))
    weights, found = closest(points, corners)
    assert weights.min() >= 0
    assert weights.sum(1) == pytest.approx(1)
    assert found == pytest.approx(np.einsum("pk,pkd->pd", weights, corners))
    others = np.concatenate([random.dirichlet([0.5] * 3, 300), np.eye(3)])
    away = np.linalg.norm(np.einsum("sk,pkd->psd", others, corners) - points[:, None], axis=2)
    assert (np.linalg.norm(found - points, axis=1) <= away.min(1) + 1e-9).all()


def test_nearest_points_equal_libigls() -> None:
    """Over an eighth of the head's triangles, the nearest is as near as libigl's."""
    igl = pytest.importorskip("igl", reason="the oracle is libigl")
    vertices, faces = shipped_guide().rest, shipped_guide().surface[::8]
    points = vertices[::200] + np.random.default_rng(0).normal(size=vertices[::200].shape) * 0.01
    _, found = closest(points[:, None], vertices[faces])
    squared = ((found - points[:, None]) ** 2).sum(2).min(1)
    assert squared == pytest.approx(igl.point_mesh_squared_distance(points, vertices, faces.astype(np.int64))[0])


def test_the_nearest_place_of_a_cloud_is_libigls() -> None:
    """Just off the surface, candidates hide no nearer place."""
    igl = pytest.importorskip("igl", reason="the oracle is libigl")
    vertices, faces = sheet()
    vertices[:, 2] = 0.02 * np.sin(40 * vertices[:, 0])
    normals = vertex_normals(vertices, faces)
    points = vertices + 0.002 * normals
    found = Cloud(vertices, faces, turn_m=1e-6).nearest(points, normals)
    squared = ((found.points - points) ** 2).sum(1)
    assert squared == pytest.approx(igl.point_mesh_squared_distance(points, vertices, faces.astype(np.int64))[0])


@pytest.mark.parametrize("facing", [1, -1])
@pytest.mark.parametrize(("spacing_m", "candidates"), [(0.0005, 4), (0.01, 256)])
def test_the_side_that_faces_the_same_way_is_preferred(facing: int, spacing_m: float, candidates: int) -> None:
    """Of two sheets a millimetre apart, the upper faces up and the lower down, whichever is nearer; whether few of many
    samples are looked at, or all."""
    (over, up), (under, down) = sheet(0.001), sheet(flip=True)
    both = Cloud(np.concatenate([over, under]), np.concatenate([up, down + len(over)]), spacing_m=spacing_m)
    points = np.c_[0.01 + 0.08 * np.random.default_rng(0).random((50, 2)), np.linspace(-0.001, 0.002, 50)]
    place = both.nearest(points, np.tile(facing * UP, (50, 1)), candidates)
    assert place.points == pytest.approx(np.c_[points[:, :2], np.full(50, 0.001 if facing > 0 else 0)])
    assert place.normals == pytest.approx(np.tile(facing * UP, (50, 1)))
    assert np.einsum("pk,pkd->pd", place.weights, both.vertices[both.faces[place.face]]) == pytest.approx(place.points)


def test_picked_vertices_stand_for_the_whole_area() -> None:
    """All of them sum to the surface; of fewer, no more come than were asked for, and none without a face."""
    vertices, faces = sheet()
    cloud = Cloud(np.concatenate([vertices, [[9.0, 9, 9]]]), faces)
    assert cloud.picked(1000)[2].sum() == pytest.approx(0.01)
    points, normals, _ = cloud.picked(20)
    assert 10 < len(points) <= 20
    assert points.max() <= 0.1
    assert normals == pytest.approx(np.tile(UP, (len(points), 1)))


@given(SEEDS)
def test_a_sphere_is_fitted_exactly(seed: int) -> None:
    """Points on a piece of a sphere give its centre and radius."""
    random = np.random.default_rng(seed)
    centre, radius = random.normal(size=3), random.uniform(0.01, 2)
    cap = unit(random.normal(size=(30, 3)) * 0.7 + UP)
    found, size = fit_sphere(centre + radius * cap)
    assert found == pytest.approx(centre, abs=1e-6)
    assert size == pytest.approx(radius, rel=1e-6)


def test_normals_and_areas() -> None:
    """Normals are by area; a vertex of no face, and a face of no area, have +Z and 0."""
    normals = vertex_normals(np.concatenate([CUBE, [[5.0, 5, 5]]]), CUBE_FACES)
    assert normals[-1].tolist() == [0, 0, 1]
    assert ((normals[:8] * (CUBE - 1)).sum(1) > 1).all()
    assert face_areas(CUBE, np.array([[0, 1, 2], [0, 1, 1]])).tolist() == [2, 0]


def cut_seams(vertices: np.ndarray, faces: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A mesh whose faces are two charts at random, each with vertices of its own."""
    cut = np.random.default_rng(seed).normal(size=3)
    second = (vertices[faces].mean(1) - vertices.mean(0)) @ cut > 0
    apart = np.where(second[:, None], faces + len(vertices), faces)
    used, again = np.unique(apart, return_inverse=True)
    return np.concatenate([vertices, vertices])[used], again.reshape(-1, 3)


@pytest.mark.parametrize("seed", range(4))
def test_welding_undoes_a_seam(seed: int) -> None:
    """The canonical skin, cut in two along some edges, is welded to as many vertices, and the same mesh."""
    head = shipped_head()
    vertices, faces = cut_seams(shipped_guide().rest, head.faces_of("skin"), seed)
    whole = len(head.part("skin"))
    assert len(vertices) > whole
    welded = weld(vertices, faces)
    assert len(welded.vertices) == whole
    assert (welded.vertices[welded.of] == vertices).all()
    assert (welded.faces == welded.of[faces]).all()


def test_every_face_on_its_own_is_welded() -> None:
    """Triangles that share no vertex at all, as STL has them, make the grid they were cut from."""
    vertices, faces = sheet()
    welded = weld(vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3))
    assert len(welded.vertices) == len(vertices)
    assert len(split(welded)) == 1


def test_lips_that_touch_stay_apart() -> None:
    """Two sheets that meet at an edge where both run the same way, and one that touches in single vertices."""
    vertices, faces = sheet()
    folded = vertices * [1, -1, 1]
    same = weld(np.concatenate([vertices, folded]), np.concatenate([faces, faces + len(vertices)]))
    assert len(same.vertices) == 2 * len(vertices)
    offset = vertices @ np.diag([0.5, -1, 1])
    other = weld(np.concatenate([vertices, offset]), np.concatenate([faces, faces[:, ::-1] + len(vertices)]))
    assert len(other.vertices) == 2 * len(vertices)


def test_pieces_and_their_areas() -> None:
    """The largest is first; faces of no area make no piece, and every other vertex and face is of one."""
    (large, one), (small, other) = sheet(), sheet(0.3, 4)
    points = np.concatenate([0.5 * small, large, np.ones((3, 3))])
    faces = np.concatenate([other, one + len(small), [np.arange(3) + len(small) + len(large)]])
    found = split(weld(points, faces))
    assert [piece.area for piece in found] == pytest.approx([0.01, 0.0025])
    assert found[0].vertices.tolist() == list(range(len(small), len(small) + len(large)))
    assert found[1].faces.tolist() == list(range(len(other)))
    assert split(weld(np.ones((3, 3)), np.array([[0, 1, 2]]))) == []


def test_the_head_is_in_six_pieces() -> None:
    """Skin with cavity and sockets; tongue; eyeballs; teeth."""
    mesh = default_template(shipped_head()).mesh
    found = split(weld(mesh.vertices.astype(float), mesh.faces))
    assert len(found) == 6
    assert set(shipped_head().part("skin")) <= set(found[0].vertices)


@given(SEEDS)
def test_a_cubes_volume(seed: int) -> None:
    """8, wherever it lies; -8 inside out; without one of its sides, what the others span with its middle."""
    shift = np.random.default_rng(seed).normal(size=3) * 10
    assert signed_volume(CUBE + shift, CUBE_FACES) == pytest.approx(8)
    assert signed_volume(CUBE + shift, CUBE_FACES[:, ::-1]) == pytest.approx(-8)
    assert signed_volume(CUBE + shift, np.delete(CUBE_FACES, [0, 6], 0)) == pytest.approx(8 * 5 / 6)


@given(SEEDS)
def test_a_known_similarity_is_recovered(seed: int) -> None:
    """Scale, turn and shift, whatever the weights; and points of weight 0 do not count."""
    random = np.random.default_rng(seed)
    known = Similarity(random.uniform(0.01, 100), rotation(seed), random.normal(size=3) * 10)
    points = random.normal(size=(12, 3))
    after = known.apply(points)
    after[0] += 100
    weights = np.r_[0, random.uniform(0.1, 1, 11)]
    scale, turn, shift = (part[0] for part in similarity(points[None], after[None], weights[None]))
    assert scale == pytest.approx(known.scale)
    assert turn == pytest.approx(known.turn, abs=1e-9)
    assert shift == pytest.approx(known.shift, abs=1e-6)


def test_a_mirrored_cloud_is_not_mirrored() -> None:
    """The turn is a rotation even where a reflection fits better, and the scale what fits best with it."""
    points = np.concatenate([np.diag([3.0, 2, 1]), -np.diag([3.0, 2, 1])])[None]
    scale, turn, _ = similarity(points, points * [-1, 1, 1], np.ones((1, 6)))
    assert turn[0] == pytest.approx(np.diag([-1, 1, -1]), abs=1e-9)
    assert scale[0] == pytest.approx((9 + 4 - 1) / (9 + 4 + 1))


@given(SEEDS)
def test_similarities_form_a_group(seed: int) -> None:
    """`undo` undoes, and `after` composes."""
    random = np.random.default_rng(seed)
    one, other = (Similarity(random.uniform(0.1, 9), rotation(seed + k), random.normal(size=3)) for k in range(2))
    points = random.normal(size=(5, 3))
    assert one.undo(one.apply(points)) == pytest.approx(points)
    assert one.after(other).apply(points) == pytest.approx(one.apply(other.apply(points)))


def test_rotations_are_different_rotations() -> None:
    """24 that permute the axes, then others; none is far from all of them."""
    found = rotations(200)
    assert found @ found.transpose(0, 2, 1) == pytest.approx(np.tile(np.eye(3), (224, 1, 1)), abs=1e-12)
    assert np.linalg.det(found) == pytest.approx(1)
    assert set(np.abs(found[:24].round(12)).ravel()) == {0.0, 1.0}
    turns = Rotation.random(500, rng=np.random.default_rng(0)).as_matrix()
    away = np.arccos((np.einsum("aij,bij->ab", turns, found).max(1) - 1) / 2)
    assert np.degrees(away.max()) < 50


def test_points_are_spread_by_area_and_weight() -> None:
    """As many as a face's area, with its normal; all within the face."""
    cloud = spread(CUBE, CUBE_FACES, np.ones(12), 1200)
    on = (cloud.points == 0) | (cloud.points == 2)
    assert on.any(1).all()
    assert set(np.unique(cloud.normals, axis=0, return_counts=True)[1]) == {200}
    one = spread(CUBE, CUBE_FACES, np.eye(12)[5], 100)
    assert one.normals == pytest.approx(np.tile(one.normals[:1], (100, 1)))
    assert closest(one.points, np.tile(CUBE[CUBE_FACES[5]], (100, 1, 1)))[1] == pytest.approx(one.points)


@pytest.mark.parametrize(("seed", "size"), [(1, 0.001), (2, 1.0), (3, 39.37), (4, 1000.0)])
def test_the_head_is_found_however_it_lies(seed: int, size: float) -> None:
    """Turned anyhow, in any unit, and far from the origin: to three degrees, three hundredths and 5 mm."""
    guide = shipped_guide()
    known = Similarity(size, rotation(seed), size * np.array([0.3, -2.0, 0.7]))
    faces = guide.head.faces_of("skin")
    target = spread(known.apply(guide.rest), faces, np.ones(len(faces)), POSE_POINTS, seed=9)
    poses = find_poses(guide.cloud, target)
    assert [pose.score for pose in poses] == sorted((pose.score for pose in poses), reverse=True)
    found = poses[0].similarity
    angle = np.arccos(((found.turn.T @ known.turn).trace() - 1) / 2)
    assert np.degrees(angle) < 3
    assert found.scale == pytest.approx(known.scale, rel=0.03)
    assert known.undo(found.apply(guide.mouth[None]))[0] == pytest.approx(guide.mouth, abs=0.005)
    assert poses[0].score > 0.5


def opened(opening_m: float) -> Slit | None:
    """The skin's mouth with the lower lip, and what is below it, down by `opening_m`; found or not."""
    guide = shipped_guide()
    vertices = guide.rest.copy()
    strength = guide.lip_side.copy()
    lower = strength < 0
    vertices[lower, 1] += opening_m * strength[lower] / 0.6
    return find_slit(Cloud(vertices, guide.surface), guide.mouth)


def test_the_canonical_mouth_is_found() -> None:
    """From right to left at the mouth's height, its edges on the lips, its share increasing from 0 to 1."""
    guide = shipped_guide()
    slit = guide.slit
    corners = guide.rest[[guide.landmarks["mouth_right"], guide.landmarks["mouth_left"]]]
    assert (np.diff(slit.share) > 0).all()
    assert 0 < slit.share[0] < slit.share[-1] < 1
    for edge, side in ((slit.upper, 1), (slit.lower, -1)):
        assert (np.diff(edge.points[:, 0]) > 0).all()
        assert edge.points[:, 1] == pytest.approx(np.full(len(slit.share), guide.mouth[1]), abs=0.004)
        strength = (edge.weights * guide.lip_side[guide.surface[edge.face]]).sum(1)
        assert (side * strength > 0).all()
        corner = guide.rest[guide.surface[edge.face]]
        assert np.einsum("ck,ckd->cd", edge.weights, corner) == pytest.approx(edge.points)
    assert 0.7 < slit.length_m / np.ptp(corners[:, 0]) < 1.01


def test_lips_that_touch_are_hardly_open() -> None:
    """A pixel apart, and not more."""
    assert 0 <= shipped_guide().slit.opening_m < 0.001


@pytest.mark.parametrize("opening_m", [0.003, 0.006, 0.012])
def test_an_opening_is_as_wide_as_it_is(opening_m: float) -> None:
    """Lips parted by so many millimetres are found so far apart, to a millimetre."""
    slit = opened(opening_m)
    assert slit is not None
    assert slit.opening_m == pytest.approx(opening_m, abs=0.0012)


def test_sewn_lips_have_no_slit() -> None:
    """A skin without cavity has a slit, and has none once its lips are sewn together."""
    guide = shipped_guide()
    skin = guide.head.faces_of("skin")
    assert find_slit(Cloud(guide.rest, skin), guide.mouth) is not None
    assert find_slit(Cloud(*sealed(guide.rest, skin)), guide.mouth) is None


@pytest.mark.parametrize("apart_m", [0.004, 0.008, 0.012])
def test_the_slit_of_a_coarse_mouth_is_found(apart_m: float) -> None:
    """However long the edges at the lips are: where it is, and most of it; sewn, there is none."""
    guide = shipped_guide()
    slit = find_slit(Cloud(*coarse(guide.rest, guide.surface, guide.mouth, apart_m)), guide.mouth)
    assert slit is not None
    assert slit.length_m > 0.5 * guide.slit.length_m
    assert np.median(slit.upper.points[:, 1]) == pytest.approx(guide.mouth[1], abs=0.004)
    sewn = sealed(guide.rest, guide.head.faces_of("skin"))
    assert find_slit(Cloud(*coarse(*sewn, guide.mouth, apart_m)), guide.mouth) is None


def test_vertices_along_lips_are_counted() -> None:
    """Fewer, the further they are apart."""
    guide = shipped_guide()
    surfaces = [Cloud(*coarse(guide.rest, guide.surface, guide.mouth, apart_m)) for apart_m in (0.004, 0.008, 0.014)]
    slits = [find_slit(surface, guide.mouth) for surface in surfaces]
    counts = [slit.upper.vertex_count(surface.faces) for slit, surface in zip(slits, surfaces, strict=True)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 8
    assert counts[-1] < 5


def test_there_is_no_slit_where_nothing_is() -> None:
    """Far from the head, and on its brow."""
    guide = shipped_guide()
    surface = Cloud(guide.rest, guide.surface)
    assert find_slit(surface, guide.mouth + 1) is None
    assert find_slit(surface, guide.mouth + np.array([0, 0.13, 0])) is None


def test_faces_larger_than_a_head_have_no_slit() -> None:
    """Two walls, one above the other, that fill the view."""
    (vertices, faces), drop = sheet(size=2), np.array([0, -0.1005, 0])
    walls = np.concatenate([vertices, vertices + drop]) * [10, 10, 1] - [0.5, 0, 0]
    assert find_slit(Cloud(walls, np.concatenate([faces, faces + len(vertices)])), np.zeros(3)) is None


def test_the_canonical_eyes_are_open() -> None:
    """Each between its own corners, the right one at -x, some millimetres apart."""
    guide = shipped_guide()
    for side, slit in zip(("right", "left"), guide.eye_slits, strict=True):
        assert slit is not None
        ends = sorted(guide.rest[guide.landmarks[f"eye_{side}_{end}"], 0] for end in ("outer", "inner"))
        assert ends[0] - 0.002 < slit.upper.points[0, 0] < slit.upper.points[-1, 0] < ends[1] + 0.002
        assert 0.004 < slit.opening_m < 0.012


def test_what_hangs_over_a_rim_is_not_matched() -> None:
    """Points over a sheet match it straight below; those beside its rim, and those that face away, do not."""
    cloud = Cloud(*sheet())
    points = np.array([[0.05, 0.05, 0.002], [0.05, -0.002, 0.0], [0.05, -0.01, 0.0], [0.05, -0.01, 0.002]])
    found = match(points, np.tile(UP, (4, 1)), cloud, 0.006)
    assert found.points[0] == pytest.approx([0.05, 0.05, 0])
    assert found.weights == pytest.approx([np.exp(-1 / 9), 0, 0, 0])
    assert match(points, np.tile(-UP, (4, 1)), cloud, 0.006).weights.max() == 0
    beyond = match(points[:1] + 0.03 * UP, UP[None], cloud, 0.006)
    assert beyond.weights[0] < 1e-6


def test_tilted_matches_count_less() -> None:
    """By the cosine of the normals; over 60 degrees not at all."""
    cloud, points = Cloud(*sheet()), np.tile([0.05, 0.05, 0.0], (3, 1))
    normals = np.array([[0, np.sin(angle), np.cos(angle)] for angle in np.radians([0, 30, 65])])
    assert match(points, normals, cloud, 0.006).weights == pytest.approx([1, np.sqrt(0.75), 0])


def test_matches_back_read_the_head_where_they_lie() -> None:
    """A fine sheet over a coarse one: each vertex reads the coarse one straight below itself, and counts its area."""
    vertices, faces = sheet(size=3)
    count = np.full(len(vertices), 1 / len(vertices))
    fine = Cloud(*sheet(0.001, 17))
    back = match_back(vertices, faces, np.arange(len(vertices)), count, fine, 0.006)
    assert back.at @ vertices == pytest.approx(fine.vertices * [1, 1, 0], abs=1e-9)
    assert back.match.points == pytest.approx(fine.vertices)
    assert back.match.weights.min() > 0
    assert back.match.weights[18] > back.match.weights[1] > back.match.weights[0]


@given(SEEDS, st.floats(0, 19))
def test_a_head_that_leans_little_is_upright(seed: int, angle: float) -> None:
    """In the axes of its file, whichever of the 24 they are; one that leans more is turned as it lies."""
    random = np.random.default_rng(seed)
    axes = rotations(0)[random.integers(24)]
    leaning = Rotation.from_rotvec(np.radians(angle) * unit(random.normal(size=3))).as_matrix()
    assert upright(leaning @ axes) == pytest.approx(axes)
    oblique = Rotation.from_euler("x", 30, degrees=True).as_matrix() @ axes
    assert (upright(oblique) == oblique).all()


@pytest.mark.parametrize("unit_m", [1.0, 0.01, 0.001, 0.0254])
@pytest.mark.parametrize("size", [0.8, 1.0, 1.2])
def test_usual_units_are_recognised(unit_m: float, size: float) -> None:
    """A head somewhat smaller or larger than the canonical one, in metres, centimetres, millimetres or inches."""
    assert unit_of(size / unit_m) == unit_m


def test_another_unit_makes_the_head_as_large_as_the_canonical_one() -> None:
    """Decimetres are no usual unit, and neither are sizes of a giant."""
    assert unit_of(10.0) == pytest.approx(0.1)
    assert unit_of(5e5) == pytest.approx(2e-6)


def test_landmarks_lie_where_their_names_say() -> None:
    """Right is -x, upper above lower, the outer corners outside, nose and chin in the middle and foremost."""
    head = shipped_head()
    found = canonical_landmarks(head)
    assert tuple(found) == LANDMARKS
    at = {name: head.atlas.vertices[vertex] for name, vertex in found.items()}
    across = ("eye_right_outer", "eye_right_inner", "nose_tip", "eye_left_inner", "eye_left_outer")
    assert (np.diff([at[name][0] for name in across]) > 0.01).all()
    assert at["mouth_right"][0] < -0.015
    assert at["mouth_left"][0] > 0.015
    upwards = ("chin", "mouth_left", "nose_tip", "eye_left_outer")
    assert (np.diff([at[name][1] for name in upwards]) > 0.01).all()
    assert abs(np.array([at[name][0] for name in ("nose_tip", "chin", "lip_upper", "lip_lower")])).max() < 0.001
    assert at["nose_tip"][2] == head.atlas.vertices[:, 2].max()
    assert found["lip_upper"] != found["lip_lower"]


def test_lips_and_lids_have_two_sides() -> None:
    """Upper and lower arcs make the rim with its corners; skin at one is over that at the other; right is -x."""
    head, rest = shipped_head(), shipped_guide().rest
    upper, lower = lip_arcs(head)
    assert {*upper, *lower, *(shipped_guide().landmarks[f"mouth_{side}"] for side in ("right", "left"))} == {*head.rim}
    assert not {*upper} & {*lower}
    faces = head.faces_of("skin")
    above, below = (rest[faces[np.isin(faces, arc).any(1)]].mean(1)[:, 1] for arc in (upper, lower))
    assert below.mean() + 0.0001 < above.mean()
    right, left = lid_rims(head)
    assert rest[right, 0].max() < 0 < rest[left, 0].min()


def test_the_nearest_place_of_a_triangle_without_area_is_on_it() -> None:
    """Two corners in one place, or three on a line: the nearest point of the edge that is left."""
    flat = np.array([[[0.0, 0, 0], [0, 0, 0], [1, 0, 0]], [[0.0, 0, 0], [0.5, 0, 0], [1, 0, 0]]])
    weights, points = closest(np.array([[0.75, 1.0, 0], [0.75, 1.0, 0]]), flat)
    assert np.allclose(points, [0.75, 0, 0])
    assert np.allclose(weights.sum(1), 1)
