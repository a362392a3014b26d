"""Registration as a whole: what it refuses, and the canonical head itself, which comes back as it was."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from no_heads import Shape, body, coarse, cube, file_of, hand, sealed
from tiny import WEIGHTS, shipped_guide, shipped_head, tiny_head

from models.errors import CheckpointError, OutOfRange
from models.meshes.record import MeshFile
from models.registration.landmarks import Landmarks
from models.registration.register import register
from models.registration.shapes import load_shapes
from models.template import Template, default_template

TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
TO_X_UP = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
"""Axes of a file, from +Y up and +Z forward: +Z up and -Y forward; +X up and +Y forward."""
GIVEN = ("mouth_right", "mouth_left", "nose_tip", "eye_left_outer")


def canonical_file(turn: np.ndarray) -> MeshFile:
    """The canonical head in centimetres, in the axes that `turn` takes it to."""
    mesh = default_template(shipped_head()).mesh
    vertices = (100 * mesh.vertices.astype(float) @ turn.T).astype(np.float32)
    count = len(mesh.faces)
    material = np.minimum(shipped_head().atlas.chart, 2).astype(np.int32)
    polygon = np.arange(count, dtype=np.int32)
    names = ("skin", "inside", "others")
    return MeshFile("obj", vertices, mesh.faces, polygon, mesh.uvs, mesh.uv_faces, material, names)


@cache
def canonical(axes: str) -> Template:
    """The canonical head, registered from its file in one of two systems of axes."""
    return register(canonical_file({"z": TO_Z_UP, "x": TO_X_UP}[axes]), shipped_guide(), id="canonical")


@pytest.fixture(scope="module")
def template() -> Template:
    return canonical("z")


def moved(template: Template) -> np.ndarray:
    """How the vertices move, in metres, when the canonical jaw drops and the lips close half of the way."""
    head = shipped_head()
    offsets = np.zeros((1, *head.atlas.vertices.shape), np.float32)
    low = np.clip((shipped_guide().mouth[1] - head.atlas.vertices[:, 1]) / 0.03, 0, 1)
    offsets[0, :, 1] = -0.01 * low * (head.atlas.vertices[:, 2] > 0.05)
    offsets[0, :, 2] = 0.004 * low
    there = (head.atlas.weights_matrix(template.anchors) @ offsets[0])[None]
    closed = template.seal.close(there, offsets[:, head.rim], np.float32([0.5]))
    return np.asarray(template.place(closed)[0] - template.mesh.vertices)


def test_a_file_comes_back_exactly(template: Template) -> None:
    """Faces, uvs, polygons, materials, and the vertices at rest, bit for bit."""
    file, mesh = canonical_file(TO_Z_UP), template.mesh
    assert mesh.source is not None
    assert mesh.uv_faces.tobytes() == file.uv_faces.tobytes()
    assert mesh.uvs.tobytes() == file.uvs.tobytes()
    assert mesh.faces.tobytes() == file.faces.tobytes()
    assert mesh.source.polygon.tobytes() == file.polygon.tobytes()
    assert mesh.source.material.tobytes() == file.material.tobytes()
    assert mesh.source.materials == file.materials
    assert mesh.source.vertices.tobytes() == file.vertices.tobytes()
    assert mesh.own(mesh.vertices).tobytes() == file.vertices.tobytes()
    assert mesh.source.materials[mesh.source.skin] == "skin"


def test_it_is_in_metres_and_upright(template: Template) -> None:
    """Up, forward and unit are told; it is the canonical head again, and motion goes back to the file's axes."""
    assert template.report is not None
    assert (template.report.up_axis, template.report.forward_axis, template.report.unit_m) == ("+Z", "-Y", 0.01)
    assert template.mesh.vertices == pytest.approx(shipped_head().atlas.vertices, abs=1e-6)
    step = np.float32([0.001, 0.002, 0.003])
    away = template.mesh.own(template.mesh.vertices + step) - canonical_file(TO_Z_UP).vertices
    assert away == pytest.approx(np.tile([0.1, -0.3, 0.2], (len(away), 1)), abs=1e-4)
    assert template.report.registration_error_mm < 0.5
    assert template.report.lips_error_mm < 0.5


def test_vertices_are_placed_where_they_are(template: Template) -> None:
    """On the skin, half of the face within a millimetre of itself, and nobody on the other lip."""
    head, guide = shipped_head(), shipped_guide()
    away = 1e3 * np.linalg.norm(head.atlas.weights_matrix(template.anchors) @ guide.rest - guide.rest, axis=1)
    assert np.median(away[guide.face]) < 1
    assert np.percentile(away[guide.face], 95) < 4
    strength = guide.lip_side
    there = head.atlas.weights_matrix(template.anchors) @ strength
    near = abs(strength) > 0.2
    assert (np.sign(there[near]) == np.sign(strength[near])).mean() > 0.99


def test_it_moves_as_the_canonical_head_does(template: Template) -> None:
    """To a sixth of the motion, root mean square over the skin."""
    own = default_template(shipped_head())
    skin = shipped_head().part("skin")
    away, wanted = moved(template)[skin], moved(own)[skin]
    assert np.linalg.norm(away - wanted) < np.linalg.norm(wanted) / 6


def test_what_it_is_made_of_is_told(template: Template) -> None:
    """Skin, tongue, teeth and two eyeballs; a hole at the neck; landmarks near their places; nothing parted."""
    report = template.report
    assert report is not None
    kinds = sorted(component.kind for component in report.components)
    assert kinds.count("skin") == 1
    assert kinds.count("eye") == 2
    assert sum(kind.startswith("teeth") for kind in kinds) == 2
    assert sum(component.faces for component in report.components) == len(template.mesh.faces)
    assert sum(component.vertices for component in report.components) == len(template.mesh.vertices)
    for name, place in report.landmarks.items():
        wanted = 100 * shipped_guide().rest[shipped_guide().landmarks[name]] @ TO_Z_UP.T
        assert place == pytest.approx(wanted, abs=0.6), name
    assert template.seal.parted is None


def test_axes_do_not_matter(template: Template) -> None:
    """The same head with +X up is the same mesh in metres and moves the same, to a tenth of a millimetre."""
    other = canonical("x")
    assert other.report is not None
    assert (other.report.up_axis, other.report.forward_axis) == ("+X", "+Y")
    assert other.mesh.vertices == pytest.approx(template.mesh.vertices, abs=1e-4)
    assert moved(other) == pytest.approx(moved(template), abs=1e-4)


@cache
def cut_file() -> tuple[MeshFile, np.ndarray]:
    """The canonical head without its back, and which of its vertices are left."""
    file = canonical_file(TO_Z_UP)
    front = (shipped_guide().rest[file.faces, 2] > -0.02).all(1)
    kept, faces = np.unique(file.faces[front], return_inverse=True)
    faces = faces.reshape(-1, 3).astype(np.int32)
    polygon = np.arange(len(faces), dtype=np.int32)
    material = np.zeros_like(polygon)
    return MeshFile("obj", file.vertices[kept], faces, polygon, None, None, material, ("skin",)), kept


def test_landmarks_tell_how_a_head_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of them on a face without its back do what its shape does, to a millimetre; and no pose is looked for."""
    file, kept = cut_file()
    own = 100 * shipped_guide().rest @ TO_Z_UP.T
    given: Landmarks = {name: tuple(own[shipped_guide().landmarks[name]].tolist()) for name in GIVEN}
    alone = register(file, shipped_guide(), id="cut")

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("models.registration.register.find_poses", refuse)
    helped = register(file, shipped_guide(), id="cut", landmarks=given)
    places = [shipped_head().atlas.weights_matrix(one.anchors) @ shipped_guide().rest for one in (alone, helped)]
    face = np.isin(kept, shipped_guide().face)
    apart = np.linalg.norm(places[0] - places[1], axis=1)[face]
    assert np.median(apart) < 1e-3
    assert helped.report is not None
    assert (helped.report.up_axis, helped.report.forward_axis, helped.report.unit_m) == ("+Z", "-Y", 0.01)


def _skin() -> Shape:
    return shipped_guide().rest, shipped_head().faces_of("skin")


def _two_heads() -> Shape:
    vertices, faces = _skin()
    return np.concatenate([vertices, vertices + np.array([0.5, 0, 0])]), np.concatenate([faces, faces + len(vertices)])


def _flat() -> Shape:
    return np.ones((4, 3)), np.array([[0, 1, 2], [0, 2, 3]])


def _coarse(edge_m: float = 0.0155) -> Shape:
    guide = shipped_guide()
    return coarse(guide.rest, guide.surface, guide.mouth, edge_m)


def _square() -> Shape:
    return np.eye(4, 3), np.array([[0, 1, 2], [0, 2, 3]])


REFUSED = {
    "cube": (cube, "not_a_head", "looks like a head|no mouth"),
    "hand": (hand, "not_a_head", "looks like a head|no mouth"),
    "body": (body, "not_a_head", "looks like a head|no mouth"),
    "flat": (_flat, "not_a_head", "no area"),
    "square": (_square, "not_a_head", "up to 4 vertices"),
    "two": (_two_heads, "several_heads", "send them one by one"),
    "coarse": (_coarse, "mouth_too_coarse", "3 vertices along its upper lip and 3 along the lower; .* finer triangles"),
    "sewn": (lambda: sealed(*_skin()), "mouth_sealed", "cut the mouth open"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_head_is_refused(name: str) -> None:
    """By its code, and with what to do."""
    shape, code, message = REFUSED[name]
    with pytest.raises(OutOfRange, match=message) as refused:
        register(file_of(shape()), shipped_guide(), id=name)
    assert refused.value.code == code


def test_a_coarse_mouth_is_taken_with_a_warning(template: Template) -> None:
    report = register(file_of(_coarse(0.008)), shipped_guide(), id="coarse").report
    assert report is not None
    assert "5 vertices along its upper lip and 3 along the lower" in " ".join(report.warnings)
    assert template.report is not None
    assert "along" not in " ".join(template.report.warnings)


def test_progress_is_told_and_may_stop_it() -> None:
    """Steps are told in words as they come, and what is raised there passes through."""
    told: list[str] = []

    class Stopped(Exception):
        pass

    def progress(step: str) -> None:
        told.append(step)
        if "stage 2" in step:
            raise Stopped

    with pytest.raises(Stopped):
        register(canonical_file(TO_Z_UP), shipped_guide(), id="stopped", progress=progress)
    assert len(told) == 3
    assert f"{len(shipped_head().atlas.vertices):,} vertices" in told[0]


def test_shapes_of_another_kind_or_head_are_refused() -> None:
    """A file that holds a head, shapes of another head, and no file at all."""
    with pytest.raises(CheckpointError, match="wanted shapes"):
        load_shapes(WEIGHTS / "head.safetensors", shipped_head())
    with pytest.raises(CheckpointError, match="another head"):
        load_shapes(WEIGHTS / "shapes.safetensors", tiny_head())
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_shapes(Path("nowhere.safetensors"), shipped_head())


def test_shapes_are_the_heads_own() -> None:
    """A mean and modes of its vertices."""
    shapes = shipped_guide().shapes
    assert shapes.mean.shape == shipped_head().atlas.vertices.shape
    assert shapes.modes.shape[1:] == shapes.mean.shape
