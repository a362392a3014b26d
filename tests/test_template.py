"""Heads: at rest they are themselves, turned they turn, scaled they scale; and a file that is no head is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from scipy.spatial.transform import Rotation
from tiny import WEIGHTS, rotation, shipped_head, tiny_head

from models.checkpoint import Header, save_checkpoint
from models.errors import CheckpointError
from models.template import Head, default_template, head_tensors, load_head, similarity_maps, template_of_identity


@pytest.fixture(params=[tiny_head, shipped_head], ids=["tiny", "shipped"])
def head(request: pytest.FixtureRequest) -> Head:
    return request.param()


def random_offsets(count: int, frames: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.01, (frames, count, 3)).astype(np.float32)


def test_zero_offsets_are_the_head_bit_for_bit(head):
    vertices = (head.atlas.vertices @ rotation().T.astype(np.float32)) * np.float32(1.3)
    for template in (default_template(head), template_of_identity(head, vertices, "another")):
        placed = template.place(np.zeros((2, len(vertices), 3), np.float32), intensity=1.7)
        assert np.array_equal(placed, np.stack([template.mesh.vertices] * 2))
        assert placed.dtype == np.float32


def test_intensity_zero_is_the_head_bit_for_bit(head):
    template = default_template(head)
    placed = template.place(random_offsets(len(head.atlas.vertices)), intensity=0.0)
    assert np.array_equal(placed, np.stack([template.mesh.vertices] * 3))


def test_the_default_templates_maps_are_identities():
    head = shipped_head()
    template = default_template(head)
    offsets = random_offsets(len(head.atlas.vertices))
    assert np.array_equal(template.maps, np.broadcast_to(np.eye(3, dtype=np.float32), template.maps.shape))
    assert np.array_equal(template.place(offsets), head.atlas.vertices + offsets)
    assert np.array_equal(template.anchors.weights.max(1), np.ones(len(head.atlas.vertices)))


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 5.0))
@settings(deadline=None, max_examples=20)
def test_turning_and_scaling_a_head_turns_and_scales_its_motion(seed, scale):
    """Animating the turned head is turning the animated head: to a micrometre times the scale."""
    head = tiny_head()
    turn, shift = scale * rotation(seed), np.array([0.3, -0.2, 1.0])
    vertices = (head.atlas.vertices @ turn.T + shift).astype(np.float32)
    offsets = random_offsets(len(vertices))
    moved = template_of_identity(head, vertices, "turned").place(offsets)
    expected = default_template(head).place(offsets) @ turn.T + shift
    assert np.abs(moved - expected).max() < 1e-6 * max(scale, 1)


def test_turning_and_scaling_the_shipped_head_turns_and_scales_its_motion():
    head = shipped_head()
    turn = 0.8 * rotation(3)
    vertices = (head.atlas.vertices @ turn.T).astype(np.float32)
    offsets = random_offsets(len(vertices))
    moved = template_of_identity(head, vertices, "turned").place(offsets)
    assert np.abs(moved - default_template(head).place(offsets) @ turn.T).max() < 1e-5


def test_a_head_of_itself_has_identity_maps(head):
    maps = similarity_maps(head.atlas, head.atlas.vertices)
    assert np.abs(maps - np.eye(3)).max() < 1e-5


def test_maps_of_a_stretched_head_are_similarities_and_never_mirror():
    """Twice as wide: a rotation times one positive scale between 1 and 2, at every vertex."""
    head = shipped_head()
    maps = similarity_maps(head.atlas, head.atlas.vertices * np.float32([2, 1, 1])).astype(float)
    scale = np.cbrt(np.linalg.det(maps))
    gram = maps @ maps.transpose(0, 2, 1) / scale[:, None, None] ** 2
    assert scale.min() > 1
    assert scale.max() < 2
    assert np.abs(gram - np.eye(3)).max() < 1e-4


def test_the_scale_of_a_stretched_patch_is_the_mean_of_its_stretches():
    """A flat patch, twice as wide: 2 across, 1 along, and √2 for the normal, which is as long as the area's root."""
    head = tiny_head()
    flat = replace(head.atlas, vertices=head.atlas.vertices * np.float32([1, 1, 0]))
    maps = similarity_maps(flat, flat.vertices * np.float32([2, 1, 1]))
    assert np.abs(maps - (2 + 1 + np.sqrt(2)) / 3 * np.eye(3)).max() < 1e-4


def test_lips_that_touch_on_the_canonical_head_touch_on_another():
    """Its jaw is half as large again and turned aside, so that its lips would not turn and scale alike."""
    head = shipped_head()
    rest = head.atlas.vertices.astype(float)
    mouth = rest[head.rim].mean(0)
    low = 1 / (1 + np.exp((rest[:, 1] - mouth[1]) / 0.004))[:, None]
    aside = (rest - mouth) @ (1.5 * Rotation.from_euler("z", 20, degrees=True).as_matrix().T) + mouth
    other = template_of_identity(head, (rest + low * (aside - rest)).astype(np.float32), "jaw")
    field = 0.02 * np.stack([np.sin(40 * rest[:, 0]), np.cos(30 * rest[:, 0]) - 1, 0.5 + 0 * rest[:, 0]], 1)
    sealed = head.seal.close(*(field[None].astype(np.float32)[:, v] for v in (slice(None), head.rim)), np.ones(1, "f4"))
    assert np.abs(head.seal.gaps @ sealed[0, head.rim]).max() < 1e-4
    placed = other.place(sealed)[0] - other.mesh.vertices
    plain = np.einsum("vij,vj->vi", similarity_maps(head.atlas, other.mesh.vertices), sealed[0])
    apart, before = (np.abs(head.seal.gaps @ moved[head.rim]).max() for moved in (placed, plain))
    assert before > 1e-3
    assert apart < 0.1 * before


def test_an_identity_keeps_topology_seal_and_regions():
    head = tiny_head()
    own, other = default_template(head), template_of_identity(head, head.atlas.vertices * 2, "large")
    assert other.id == "large"
    assert np.array_equal(other.mesh.faces, own.mesh.faces)
    assert other.seal is own.seal
    assert other.region_sizes == {"lips": 8, "eyes": 13, "upper_face": 85}


def test_parts_are_the_vertices_of_their_chart():
    head = shipped_head()
    assert sum(len(head.part(chart)) for chart in ("eye_right", "eye_left", "teeth_upper", "teeth_lower")) == 1412
    assert not np.intersect1d(head.part("tongue"), head.part("skin")).size
    assert np.isin(head.rim, head.part("skin")).all()
    assert np.isin(head.rim, head.part("cavity")).all()


def test_the_rims_anchors_are_the_rim():
    head = shipped_head()
    assert np.array_equal(head.atlas.interpolate(head.atlas.vertices, head.rim_anchors), head.atlas.vertices[head.rim])


def write(path: Path, arrays: dict[str, np.ndarray], header: Header) -> Path:
    save_checkpoint(path, {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, header)
    return path


def test_a_head_survives_its_file(tmp_path):
    head = replace(tiny_head(), base_color_png=b"\x89PNG and so on")
    header = Header("head", {"charts": list(head.charts)}, licence=head.licence)
    again = load_head(write(tmp_path / "head.safetensors", head_tensors(head), header))
    assert (again.charts, again.licence, again.base_color_png) == (head.charts, head.licence, head.base_color_png)
    assert np.abs((again.seal.field - head.seal.field).toarray()).max() == 0
    for name, array in head_tensors(head).items():
        assert np.array_equal(head_tensors(again)[name], array), name
        assert head_tensors(again)[name].dtype == array.dtype, name


def test_a_missing_head_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_head(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 7, 5000, -1])
def test_a_head_cut_short_is_refused(tmp_path, keep):
    path = tmp_path / "head.safetensors"
    path.write_bytes((WEIGHTS / "head.safetensors").read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_head(path)


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(CheckpointError, match="no talker header"):
        load_head(path)


@pytest.mark.parametrize("kind", ["head", "speech"])
def test_a_checkpoint_that_is_no_head_is_refused(tmp_path, kind):
    path = write(tmp_path / "other.safetensors", {"weight": np.zeros(3, np.float32)}, Header(kind, {}))
    with pytest.raises(CheckpointError):
        load_head(path)
