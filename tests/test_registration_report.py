"""What is said of a registration: a perfect one is faultless, and what is wrong with another is seen."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("anny")

from tiny import shipped_guide

from models.atlas import Anchors
from models.core import Source
from models.errors import OutOfRange
from models.meshes.record import MeshFile
from models.template import Head, Template
from training import registration
from training.__main__ import main
from training.corpus.face import FaceRig
from training.head import canonical_rig
from training.registration import Performance, judge, lip_sides, perform, registration_report, wrong_lip
from training.variants.catalogue import Variant, make_variant


@pytest.fixture(scope="module")
def rig() -> FaceRig:
    return canonical_rig()


@pytest.fixture(scope="module")
def acted(rig: FaceRig) -> Performance:
    return perform(rig)


def oracle(head: Head, variant: Variant) -> Template:
    """The truth as registration would give it, at another scale than the file's; what was added is at face 0."""
    face = np.maximum(variant.anchors.face, 0).astype(np.int32)
    anchors, scale = Anchors(face, variant.anchors.weights), np.float32(0.5)
    at = head.atlas.weights_matrix(anchors)
    file, truth = variant.file, variant.truth
    turn = (variant.turn / scale).astype(np.float32)
    source = Source(file.vertices, turn, file.polygon, file.material, file.materials)
    uvs = np.zeros((1, 2), np.float32)
    mesh = replace(
        truth.mesh,
        vertices=(scale * variant.metres()).astype(np.float32),
        faces=file.faces,
        uvs=uvs,
        uv_faces=np.zeros_like(file.faces),
        source=source,
    )
    maps = (at @ truth.maps.reshape(-1, 9)).reshape(-1, 3, 3).astype(np.float32)
    return replace(truth, mesh=mesh, maps=scale * maps, seal=truth.seal.at(at), anchors=anchors)


def judged(rig: FaceRig, variant: Variant, template: Template, acted: Performance, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registration, "register", lambda file, head, id: template)
    return judge(shipped_guide(), variant, acted)


@pytest.mark.parametrize("name", ["even-10k", "parted", "bust"])
def test_perfect(name: str, rig: FaceRig, acted: Performance, monkeypatch: pytest.MonkeyPatch) -> None:
    """The truth has no error, whatever size it is taken to be of."""
    variant = make_variant(rig.head, name, 2)
    score = judged(rig, variant, oracle(rig.head, variant), acted, monkeypatch)
    assert score.face_95_mm == score.lips_95_mm == 0
    assert score.lip_error < 0.01
    assert score.wrong_lip == 0


def test_moved_anchors(rig: FaceRig, acted: Performance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anchors at a corner of their faces are wrong by some of a face's size, and motion by some of it."""
    variant = make_variant(rig.head, "even-10k", 2)
    template = oracle(rig.head, variant)
    corners = np.eye(3, dtype=np.float32)[template.anchors.weights.argmin(1)]
    score = judged(
        rig, variant, replace(template, anchors=template.anchors._replace(weights=corners)), acted, monkeypatch
    )
    assert 1 < score.face_mm < 10
    assert 0.5 < score.lips_mm < 5
    assert score.lip_error > 0.05


def test_swapped_lips(rig: FaceRig) -> None:
    """Vertices that are registered on the other lip are counted, and no others."""
    variant = make_variant(rig.head, "even-10k", 2)
    template, (near, side) = oracle(rig.head, variant), lip_sides(rig.head)
    belongs, far = (rig.head.atlas.interpolate(value, variant.anchors) for value in (side, near))
    upper, lower = (np.flatnonzero((sign * belongs == 1) & (far < 0.008))[:5] for sign in (1, -1))
    face, weights = (part.copy() for part in template.anchors)
    for part in (face, weights):
        part[upper], part[lower] = part[lower], part[upper]
    swapped = replace(template, anchors=Anchors(face, weights))
    assert not wrong_lip(rig.head, variant, template).size
    assert set(wrong_lip(rig.head, variant, swapped)) == {*upper, *lower}


def test_refused(rig: FaceRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that is refused is counted, with the reason, and judged no further."""

    def refuse(file: MeshFile, head: Head, id: str) -> Template:
        raise OutOfRange("no face", code="not_a_head")

    monkeypatch.setattr(registration, "register", refuse)
    report = registration_report(shipped_guide(), rig, 2, ["even-2k"])
    assert report["summary"] == {"heads": 2, "refused": 2}
    assert report["heads"][0]["refused"] == "not_a_head: no face"


def test_every_head_is_another(rig: FaceRig) -> None:
    """Kinds come in turn, and no two heads are of one identity."""
    variants = list(registration.draw_variants(rig.head, 3, ["even-2k", "turned"]))
    assert [variant.name for variant in variants] == ["even-2k", "turned", "even-2k"]
    assert abs(variants[0].truth.mesh.vertices - variants[2].truth.mesh.vertices).max() > 1e-3


def test_performance(rig: FaceRig, acted: Performance) -> None:
    """It opens the mouth and closes it: lips come more than a centimetre apart, and contact is firm now and then."""
    opening = rig.head.seal.opening(acted.offsets[:, rig.head.rim])
    assert opening.max() > 0.01
    assert acted.contact.min() == 0
    assert acted.contact.max() == 1


def test_unknown_kinds_are_refused() -> None:
    """A kind of head that there is not is named, before anything is made."""
    with pytest.raises(SystemExit, match="unknown kind 'horse'; known: bare, bust"):
        main(["evaluate", "registration", "--kinds", "horse"])
