"""The heads that registration is judged with: what is said of them is true."""

from functools import cache

import numpy as np
import pytest

pytest.importorskip("anny")

from tiny import shipped_head

from models.atlas import Anchors
from models.surface import boundary_loops, edge_distance, pieces
from training.variants.catalogue import AXIS_TURNS, VARIANTS, Variant, make_variant
from training.variants.figure import NOWHERE, own_figure, quadrangulate, shuffle, shuffle_components
from training.variants.identities import draw_identity
from training.variants.remeshing import nearest_on_triangles

DECIMATED_M = 1e-3
"""How far quadrics lay a vertex from the surface that it stands for, at 2000 of them."""


@cache
def variant(name: str, seed: int = 1) -> Variant:
    return make_variant(shipped_head(), name, seed)


def true_places(variant: Variant) -> np.ndarray:
    known = Anchors(*(part[variant.known] for part in variant.anchors))
    return shipped_head().atlas.interpolate(variant.truth.mesh.vertices.astype(float), known)


@pytest.mark.parametrize("name", VARIANTS)
def test_anchors_are_true(name: str) -> None:
    """Anchors evaluated on the identity give the file back to a micrometre; of decimated heads, to a millimetre."""
    away = np.linalg.norm(true_places(variant(name)) - variant(name).metres()[variant(name).known], axis=1)
    assert away.max() < (DECIMATED_M if name.startswith("decimated") else 1e-6)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.endswith(("2k", "10k", "50k"))])
def test_counts(name: str) -> None:
    """A head has about as many vertices as its name says: samples at which charts meet become one."""
    asked = int(name.split("-")[1][:-1]) * 1000
    assert 0.93 * asked < len(variant(name).file.vertices) <= asked


@pytest.mark.parametrize("name", VARIANTS)
def test_files_are_sound(name: str) -> None:
    """No vertex is unused, no face has a vertex twice, and polygons are fans from their first corner."""
    file = variant(name).file
    assert set(np.unique(file.faces)) == set(range(len(file.vertices)))
    assert (np.diff(np.sort(file.faces, 1), axis=1) > 0).all()
    assert (np.diff(file.polygon) >= 0).all()
    second = np.flatnonzero(np.diff(file.polygon) == 0)
    assert (file.faces[second, 0] == file.faces[second + 1, 0]).all()
    assert (file.faces[second, 2] == file.faces[second + 1, 1]).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_slit_is_open(name: str) -> None:
    """No face leads from the middle of a lip to the other's: on the skin the way round is by the corners."""
    head, file, anchors = shipped_head(), variant(name).file, variant(name).anchors
    upper, lower = middles_of_lips(variant(name))
    skin = (anchors.face != NOWHERE) & (head.atlas.chart[anchors.face] == head.charts.index("skin"))
    distance = edge_distance(file.vertices.astype(float), file.faces[skin[file.faces].all(1)], upper)
    unit = np.cbrt(abs(np.linalg.det(variant(name).turn)))
    assert distance[lower].min() > 0.02 * unit


def middles_of_lips(variant: Variant) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of the skin near the middle of the upper and of the lower lip's rim."""
    head = shipped_head()
    side = np.sign(np.asarray(head.seal.field.sum(1)).ravel())
    rest = head.atlas.vertices.astype(float)
    place, belongs = (head.atlas.interpolate(value, variant.anchors) for value in (rest, side))
    lips = np.zeros(len(rest))
    lips[head.regions["lips"]] = 1
    middle = (abs(place[:, 0]) < 0.012) & (head.atlas.interpolate(lips, variant.anchors) > 0.99) & variant.known
    return np.flatnonzero(middle & (belongs > 0.99)), np.flatnonzero(middle & (belongs < -0.99))


def test_welded() -> None:
    """Where charts meet a sampled head is closed: what is open are the neck, the eyeballs and the rows of teeth."""
    file = variant("even-10k").file
    assert len(boundary_loops(file.faces)) == len(boundary_loops(shipped_head().atlas.faces))
    assert pieces(file.faces, len(file.vertices)).max() == pieces(shipped_head().atlas.faces, 5838).max()
    assert len(boundary_loops(variant("unwelded").file.faces)) > 10


def test_uneven() -> None:
    """Uneven heads are four times as coarse in some places of the face as in others, even ones are not."""
    ratios = {}
    for name in ("even-10k", "uneven-10k"):
        corners = variant(name).metres()[variant(name).file.faces]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
        front = corners[:, :, 2].min(1) > variant(name).metres()[:, 2].max() - 0.05
        low, high = np.percentile(area[front], [10, 90])
        ratios[name] = high / low
    assert ratios["even-10k"] < 8
    assert ratios["uneven-10k"] > 16


def test_left_out() -> None:
    """What a variant's name says is missing is missing, and the face is all that is left of a mask."""
    head = shipped_head()
    for name, charts in (
        ("without-eyes", ("eye_",)),
        ("without-teeth", ("teeth_", "tongue")),
        ("without-mouth", ("cavity", "tongue", "teeth_")),
    ):
        inside = variant(name).anchors.weights.min(1) > 1e-4
        present = {head.charts[number] for number in head.atlas.chart[variant(name).anchors.face[inside]]}
        assert not any(chart.startswith(charts) for chart in present)
        assert "skin" in present
    mask = variant("mask")
    place = head.atlas.interpolate(head.atlas.vertices.astype(float), mask.anchors)
    assert np.ptp(place[:, 2]) < 0.5 * np.ptp(head.atlas.vertices[:, 2])
    assert place[:, 1].min() > head.atlas.vertices[:, 1].min() + 0.015


def test_added() -> None:
    """What is added has no anchor; hair, glasses and eyelashes are pieces of their own, shoulders are not."""
    for name, more in (("bust", 0), ("hair", 1), ("glasses", 5), ("eyelashes", 2)):
        plain, own = variant("even-10k"), variant(name)
        count = own.file.vertices.shape[0] - plain.file.vertices.shape[0]
        assert (~own.known).sum() == count > 0
        found = pieces(own.file.faces, len(own.file.vertices)).max()
        assert found - pieces(plain.file.faces, len(plain.file.vertices)).max() == more


def test_parted() -> None:
    """At rest its lips are apart by a millimetre or more in the middle, and its seal knows by how much."""
    truth = variant("parted").truth
    still = np.zeros((1, len(truth.mesh.vertices), 3), np.float32)
    rim = still[:, shipped_head().rim]
    assert 0.001 < truth.seal.opening(rim).max() < 0.006
    closed = truth.place(truth.seal.close(still, rim, np.ones(1, np.float32)))[0]
    gaps = shipped_head().seal.gaps @ closed[shipped_head().rim]
    apart = shipped_head().seal.gaps @ truth.mesh.vertices[shipped_head().rim]
    assert abs(gaps[:, 1]).max() < 0.15 * abs(apart[:, 1]).max()


def test_quads() -> None:
    """Most triangles find another, and the surface stays what it was."""
    file = variant("quads").file
    assert np.bincount(file.polygon).max() == 2
    assert file.polygon.max() + 1 < 0.6 * len(file.faces)
    figure = own_figure(shipped_head(), shipped_head().atlas.vertices.astype(float))
    joined = quadrangulate(figure)
    normals = [np.cross(c[:, 1] - c[:, 0], c[:, 2] - c[:, 0]).sum(0) for c in (figure.vertices[figure.faces],
               joined.vertices[joined.faces])]  # fmt: skip
    assert np.allclose(*normals, atol=1e-7)


@pytest.mark.parametrize("scramble", [shuffle, shuffle_components])
def test_order(scramble: object) -> None:
    """In another order it is the same set of triangles, with the same anchors."""
    figure = own_figure(shipped_head(), shipped_head().atlas.vertices.astype(float))
    other = scramble(figure, 3)

    def triangles(figure: object) -> np.ndarray:
        table = np.concatenate([figure.vertices[figure.faces].reshape(-1, 9), figure.chart[:, None]], 1)
        return table[np.lexsort(table.T)]

    assert not np.array_equal(figure.vertices, other.vertices)
    assert np.array_equal(triangles(figure), triangles(other))
    atlas = shipped_head().atlas
    assert np.allclose(atlas.interpolate(atlas.vertices, other.anchors), other.vertices)


def test_deterministic() -> None:
    """A name and a seed make one head; another seed makes another."""
    again, other = make_variant(shipped_head(), "uneven-2k", 1), make_variant(shipped_head(), "uneven-2k", 2)
    assert np.array_equal(again.file.vertices, variant("uneven-2k").file.vertices)
    assert abs(again.truth.mesh.vertices - other.truth.mesh.vertices).max() > 1e-3


def test_turns() -> None:
    """There are 24 turns of the axes, all different; a head may be turned anyhow."""
    assert len({turn.tobytes() for turn in AXIS_TURNS}) == 24
    assert all(np.linalg.det(turn) == pytest.approx(1) for turn in AXIS_TURNS)
    turn = variant("turned").turn
    unit = np.cbrt(np.linalg.det(turn))
    assert np.allclose(turn @ turn.T, unit**2 * np.eye(3))
    assert (abs(turn / unit) < 0.99).all()


def test_identities_are_various() -> None:
    """From the mean head they are further than the corpus' subjects, and none is inside out at the nose."""
    mean = shipped_head().atlas.vertices
    heads = [draw_identity(seed).vertices() for seed in range(6)]
    sizes = [np.ptp(head[:, 1]) / np.ptp(mean[:, 1]) for head in heads]
    assert max(sizes) - min(sizes) > 0.05
    skin = shipped_head().part("skin")
    nose = skin[mean[skin, 2].argmax()]
    assert all(head[nose, 2] > head[shipped_head().regions["eyes"], 2].max() for head in heads)


def test_nearest_on_triangles() -> None:
    """A foot inside is the nearest place; else it is on the nearest edge, or at a corner."""
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])[None, None]
    points = np.array([[0.2, 0.3, 5], [0.5, -1, 0], [-1, -1, 1], [1, 1, 0]])
    expected = [[0.5, 0.2, 0.3], [0.5, 0.5, 0], [1, 0, 0], [0, 0.5, 0.5]]
    assert np.allclose(nearest_on_triangles(points, np.repeat(corners, 4, 0))[:, 0], expected)
