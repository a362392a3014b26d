"""Lips that meet: what closes is closed, what is far stays, and nothing passes through."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array
from tiny import distance_to_segments, shipped_head, tiny_head

from models.lips import LipSeal, column_gaps, contact_amount, seal_field
from models.template import Head

ONE, NONE = np.ones(1, np.float32), np.zeros(1, np.float32)


@pytest.fixture(params=[tiny_head, shipped_head], ids=["tiny", "shipped"])
def head(request: pytest.FixtureRequest) -> Head:
    return request.param()


def matched_seal() -> LipSeal:
    """Rims that match: corners at x = 0 and 4, three pairs between. Its points are the rim and one more."""
    x = np.array([0.0, 1, 2, 3, 4, 1, 2, 3])
    columns, gaps = column_gaps(x, np.arange(5), np.array([0, 5, 6, 7, 4]))
    strength = np.array([0, 0.4, 0.4, 0.4, 0, -0.6, -0.6, -0.6, 0])
    return LipSeal(gaps, seal_field(np.append(x, 2), columns, strength))


def gaps(seal: LipSeal, rim_offsets: np.ndarray) -> np.ndarray:
    return np.einsum("jr,trc->tjc", seal.gaps, rim_offsets)


def opened(head: Head, lower_m: float, forward_m: float = 0.0) -> np.ndarray:
    """Offsets (1, V, 3) of a lower lip that drops as a parabola from corner to corner, and moves forward with it."""
    x = head.atlas.vertices[head.rim, 0]
    turn = int(np.argmax(x))
    lower = np.arange(len(x)) > turn
    sag = lower * (1 - ((2 * x - x[0] - x[turn]) / np.ptp(x)) ** 2)
    offsets = np.zeros((1, len(head.atlas.vertices), 3), np.float32)
    offsets[0, head.rim, 1], offsets[0, head.rim, 2] = -lower_m * sag, forward_m * sag
    return offsets


def test_columns_of_matched_rims_compare_vertex_with_vertex():
    columns, matrix = column_gaps(np.array([0.0, 1, 2, 3, 1, 2]), np.arange(4), np.array([0, 4, 5, 3]))
    assert columns.tolist() == [1, 1, 2, 2]
    assert matrix[[0, 2]].tolist() == [[0, -1, 0, 0, 1, 0], [0, 0, -1, 0, 0, 1]]


def test_a_column_between_two_vertices_takes_a_share_of_each():
    """Upper lip at 0, 1, 2; lower lip at 0, 1.5, 2: the column at 1 is two thirds of the way to 1.5."""
    columns, matrix = column_gaps(np.array([0.0, 1, 2, 1.5]), np.arange(3), np.array([0, 3, 2]))
    assert columns.tolist() == [1, 1.5]
    assert matrix == pytest.approx(np.array([[1 / 3, -1, 0, 2 / 3], [0, -0.5, -0.5, 1]]))


def test_a_field_takes_the_gap_at_its_own_place():
    field = seal_field(np.array([-1.0, 0.0, 0.25, 5.0]), np.array([0.0, 1.0]), np.array([1.0, 0.5, -1.0, 0.0]))
    assert field.toarray() == pytest.approx(np.array([[1, 0], [0.5, 0], [-0.75, -0.25], [0, 0]]))


@given(st.integers(0, 2**32 - 1))
def test_matched_rims_close_exactly_whatever_the_offsets(seed):
    offsets = np.random.default_rng(seed).normal(0, 0.01, (2, 9, 3)).astype(np.float32)
    seal = matched_seal()
    closed = seal.close(offsets, offsets[:, :8], np.ones(2, np.float32))
    assert np.abs(gaps(seal, closed[:, :8])).max() < 1e-7
    assert np.array_equal(closed[:, [0, 4, 8]], offsets[:, [0, 4, 8]]), "corners stay"


@pytest.mark.parametrize("contact", [0.25, 1.0])
def test_contact_closes_its_share_of_an_open_mouth(head, contact):
    """To a hundredth of the opening on the shipped head, a tenth on the patch, which has three columns a lip."""
    offsets = opened(head, lower_m=0.010, forward_m=0.002)
    before = gaps(head.seal, offsets[:, head.rim])
    closed = head.seal.close(offsets, offsets[:, head.rim], np.float32([contact]))
    tolerance = (0.01 if head is shipped_head() else 0.1) * float(np.abs(before).max())
    assert np.abs(before[..., 1]).max() > 0.007
    assert gaps(head.seal, closed[:, head.rim]) == pytest.approx((1 - contact) * before, abs=tolerance)


def test_without_contact_an_open_mouth_stays_as_it_is(head):
    offsets = opened(head, lower_m=0.010)
    assert np.array_equal(head.seal.close(offsets, offsets[:, head.rim], NONE), offsets)


@pytest.mark.parametrize("contact", [0.0, 1.0])
def test_lips_that_cross_are_parted(head, contact):
    """A lower lip 3 mm above the upper: nearly all of it is taken back, whatever the contact."""
    offsets = opened(head, lower_m=-0.003)
    parted = head.seal.close(offsets, offsets[:, head.rim], np.float32([contact]))
    before, after = (gaps(head.seal, each[:, head.rim])[..., 1].max() for each in (offsets, parted))
    assert before > 0.002
    assert after < (0.01 if head is shipped_head() else 0.1) * before


def test_parting_moves_lips_up_and_down_only():
    head = shipped_head()
    offsets = opened(head, lower_m=-0.003, forward_m=0.002)
    parted = head.seal.close(offsets, offsets[:, head.rim], NONE)
    assert np.array_equal(parted[..., [0, 2]], offsets[..., [0, 2]])


def test_the_upper_lip_comes_down_and_the_lower_lip_up(head):
    offsets = opened(head, lower_m=0.010)
    moved = (head.seal.close(offsets, offsets[:, head.rim], ONE) - offsets)[0, :, 1]
    turn = int(np.argmax(head.atlas.vertices[head.rim, 0]))
    upper, lower = head.rim[1:turn], head.rim[turn + 1 :]
    assert moved[upper].min() < -0.003
    assert moved[upper].max() <= 0
    assert moved[lower].max() > 0.003
    assert moved[lower].min() >= 0


def test_what_is_far_from_the_lips_stays():
    """Three centimetres, bit for bit."""
    head = shipped_head()
    vertices, rim = head.atlas.vertices, head.atlas.vertices[head.rim]
    random = np.random.default_rng(0).normal(0, 0.01, (3, len(vertices), 3)).astype(np.float32)
    closed = head.seal.close(random, random[:, head.rim], np.ones(3, np.float32))
    far = distance_to_segments(vertices, rim, rim) > 0.03
    assert far.sum() > 2000
    assert np.array_equal(closed[:, far], random[:, far])
    assert not np.array_equal(closed, random)


def test_close_leaves_its_input_alone():
    head = tiny_head()
    offsets = opened(head, lower_m=0.010)
    before = offsets.copy()
    head.seal.close(offsets, offsets[:, head.rim], ONE)
    assert np.array_equal(offsets, before)


def test_a_seal_that_moves_no_point_of_these_changes_nothing():
    head = tiny_head()
    offsets = opened(head, lower_m=0.010)
    eye = head.part("eye_left")
    nowhere = replace(head.seal, field=head.seal.field[eye])
    assert np.array_equal(nowhere.close(offsets[:, eye], offsets[:, head.rim], ONE), offsets[:, eye])


def test_a_seal_elsewhere_moves_sums_of_points_as_their_sums():
    head = tiny_head()
    count = len(head.atlas.vertices)
    weights = csr_matrix(
        random_array((20, count), density=0.1, random_state=np.random.default_rng(0)), dtype=np.float32
    )
    offsets = opened(head, lower_m=0.010)
    whole = head.seal.close(offsets, offsets[:, head.rim], ONE)[0]
    there = head.seal.at(weights).close((weights @ offsets[0])[None], offsets[:, head.rim], ONE)[0]
    assert np.abs(there - weights @ whole).max() < 1e-7


def test_seals_elsewhere_compose():
    head = tiny_head()
    random = np.random.default_rng(0)
    first = csr_matrix(random_array((20, len(head.atlas.vertices)), density=0.2, random_state=random))
    second = csr_matrix(random_array((7, 20), density=0.5, random_state=random))
    twice, once = head.seal.at(first).at(second), head.seal.at(second @ first)
    assert np.abs((twice.field - once.field).toarray()).max() < 1e-6


def test_opening_is_the_drop_of_the_lower_lip_and_never_negative(head):
    offsets = np.concatenate([opened(head, lower_m=0.010), opened(head, lower_m=-0.010)])
    opening = head.seal.opening(offsets[:, head.rim])
    assert opening[0] == pytest.approx(-gaps(head.seal, offsets[:, head.rim])[0, :, 1])
    assert opening[0].max() > 0.007
    assert (opening[1] == 0).all()


def test_contact_amount_begins_at_3_and_ends_at_23_percent():
    assert contact_amount(np.array([0.0, 0.03, 0.13, 0.23, 1.0])) == pytest.approx(
        np.array([0, 0, 0.5, 1, 1]), abs=1e-6
    )
