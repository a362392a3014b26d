"""The foreign head has what tests of registration need of a head, and nothing of the canonical one's."""

import numpy as np
import pytest
from foreign_head import REALISTIC, SLIT_M, STYLISED, ForeignHead, Proportions, foreign_head, surface_nets

from models.surface import boundary_loops, edge_distance, pieces

BOTH = pytest.mark.parametrize("proportions", [REALISTIC, STYLISED], ids=["realistic", "stylised"])


def skin(head: ForeignHead) -> np.ndarray:
    return head.triangles[np.repeat(head.component, 2) == 0]


def test_a_sphere() -> None:
    """Surface nets of a sphere are a closed surface of its radius, seen from outside, of quads with four neighbours."""
    planes = (np.linspace(-1.5, 1.5, 24),) * 3
    vertices, quads = surface_nets(lambda at: np.linalg.norm(at, axis=-1) - 1, planes)
    faces = quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
    assert not boundary_loops(faces)
    assert len(vertices) - len(quads) * 2 + len(quads) == 2
    assert abs(np.linalg.norm(vertices, axis=1) - 1).max() < 0.01
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    assert (np.cross(a, b) * c).sum() / 6 == pytest.approx(4 / 3 * np.pi, rel=0.02)


@BOTH
def test_sound(proportions: Proportions) -> None:
    """About 20 000 vertices, all used; the skin is one piece, open at the neck only."""
    head = foreign_head(proportions)
    assert 12_000 < len(head.vertices) < 25_000
    assert set(np.unique(head.quads)) == set(range(len(head.vertices)))
    assert len(set(pieces(skin(head), len(head.vertices))[head.part("skin")])) == 1
    assert [set(loop) for loop in boundary_loops(skin(head))] == [set(head.places["neck"])]


@BOTH
def test_the_slit_is_open(proportions: Proportions) -> None:
    """Lips nearly touch, and yet the way from one to the other is around the corners, or through the mouth."""
    head = foreign_head(proportions)
    upper, lower = head.places["upper_lip"], head.places["lower_lip"]
    middle = abs(head.vertices[:, 0]) < 0.005
    upper, lower = upper[middle[upper]], lower[middle[lower]]
    gap = head.vertices[upper, 1].min() - head.vertices[lower, 1].max()
    assert 0 < gap < SLIT_M / 2
    assert edge_distance(head.vertices, skin(head), upper)[lower].min() > 0.012


@BOTH
def test_places(proportions: Proportions) -> None:
    """From above: scalp, upper lids, lower lids, nose, upper lip, lower lip, chin, neck; the nose is in front."""
    head = foreign_head(proportions)
    heights = [
        head.vertices[head.places[name], 1].mean()
        for name in ("scalp", "upper_lids", "lower_lids", "nose", "upper_lip", "lower_lip", "chin", "neck")
    ]
    assert (np.diff(heights) < 0).all()
    assert head.places["nose"].size > 100
    assert head.vertices[:, 2].argmax() in head.places["nose"]
    assert all(len(members) > 40 for members in head.places.values())


@BOTH
def test_parts_lie_inside(proportions: Proportions) -> None:
    """Eyeballs stand in their sockets, in front of the skull, and teeth behind the lips."""
    head = foreign_head(proportions)
    lips = head.vertices[head.places["upper_lip"], 2].max()
    for name in ("teeth_upper", "teeth_lower"):
        assert head.vertices[head.part(name), 2].max() < lips - 0.004
    lids = head.vertices[head.places["upper_lids"]]
    for name, side in (("eye_right", -1), ("eye_left", 1)):
        ball = head.vertices[head.part(name)]
        assert ball[:, 2].max() < lids[lids[:, 0] * side > 0, 2].max()
        assert (ball[:, 0] * side > 0).all()


def test_file() -> None:
    """Its file is of quads, a material each component; a turn of it turns its vertices."""
    head = foreign_head()
    turn = 100 * np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    file = head.file(turn)
    assert (np.bincount(file.polygon) == 2).all()
    assert file.materials == ("skin", "eye_right", "eye_left", "teeth_upper", "teeth_lower", "hair")
    assert np.allclose(file.vertices[:, 2], 100 * head.vertices[:, 1], atol=1e-4)
    assert "hair" not in foreign_head(REALISTIC, hair=False).file().materials
