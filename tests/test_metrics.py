"""Vertex metrics: closed-form numbers, what they must not see, and what the signed form hides."""

from dataclasses import astuple, fields, replace

import numpy as np
import pytest

from training.metrics import VertexErrors, difference_intervals, mean_errors, vertex_errors

REGIONS = {"lips": np.array([0, 1]), "eyes": np.array([2, 3]), "upper_face": np.array([3, 4, 5])}


def motion(seed: int = 0, frames: int = 20) -> np.ndarray:
    """Offsets (frames, 6, 3) of some millimetres."""
    return 0.004 * np.random.default_rng(seed).standard_normal((frames, 6, 3))


def test_equal_motion_has_no_error():
    assert astuple(vertex_errors(motion(), motion(), REGIONS)) == (0,) * len(fields(VertexErrors))


def test_the_largest_error_of_each_frame_counts_and_frames_are_averaged():
    """Lips 3 and 4 mm in frame 0, 0 and 1 mm in frame 1: mean of 4 and 1; of their squares 8.5. Eyes 5 and 0; anywhere,
    5 and 1.
    """
    truth, predicted = np.zeros((2, 6, 3)), np.zeros((2, 6, 3))
    predicted[0, 0, 0], predicted[0, 1, 1], predicted[1, 1, 2] = 0.003, 0.004, -0.001
    predicted[0, 2] = [0.003, 0.0, 0.004]
    errors = vertex_errors(predicted, truth, REGIONS)
    assert (errors.lve_mm, errors.lve_mm2) == pytest.approx((2.5, 8.5))
    assert (errors.eve_mm, errors.eve_mm2) == pytest.approx((2.5, 12.5))
    assert (errors.mve_mm, errors.mve_mm2) == pytest.approx((3, 13))


def test_anywhere_is_on_the_face_if_it_is_told_what_that_is():
    """2 mm at a vertex of it, 7 mm at the back of the head."""
    truth, predicted = np.zeros((2, 6, 3)), np.zeros((2, 6, 3))
    predicted[:, 1, 0], predicted[:, 5, 0] = 0.002, 0.007
    everywhere, face = (vertex_errors(predicted, truth, REGIONS | own) for own in ({}, {"face": np.arange(4)}))
    assert (everywhere.mve_mm, everywhere.mve_mm2) == pytest.approx((7, 49))
    assert (face.mve_mm, face.mve_mm2) == pytest.approx((2, 4))
    assert replace(face, mve_mm=0, mve_mm2=0) == replace(everywhere, mve_mm=0, mve_mm2=0)


def test_no_region_is_more_wrong_than_the_whole():
    errors = vertex_errors(motion(1), motion(2), REGIONS)
    assert errors.mve_mm >= max(errors.lve_mm, errors.eve_mm)
    assert errors.mve_mm2 >= max(errors.lve_mm2, errors.eve_mm2, errors.mve_mm**2)


def test_a_static_face_misses_all_of_the_dynamics():
    """One vertex of three swings by 2 mm to either side: a standard deviation of 2 mm, a third of it in the mean."""
    truth = np.zeros((40, 6, 3))
    truth[:, 4, 1] = 0.002 * (-1) ** np.arange(40)
    errors = vertex_errors(np.zeros_like(truth), truth, REGIONS)
    assert errors.fdd_mm == errors.fdd_abs_mm == pytest.approx(2 / 3)


def test_the_deviation_of_a_vertex_is_that_of_its_place_in_space():
    """3 mm across and 4 mm along, together: 5 mm."""
    truth = np.zeros((2, 6, 3))
    truth[:, 3] = [[0.003, 0.004, 0], [-0.003, -0.004, 0]]
    assert vertex_errors(np.zeros_like(truth), truth, REGIONS).fdd_mm == pytest.approx(5 / 3)


def test_the_signed_deviation_cancels_where_the_absolute_one_does_not():
    """The truth moves one vertex, the prediction moves its neighbour as much."""
    truth, predicted = np.zeros((30, 6, 3)), np.zeros((30, 6, 3))
    truth[:, 3, 0] = predicted[:, 4, 0] = 0.001 * np.sin(np.arange(30))
    errors = vertex_errors(predicted, truth, REGIONS)
    assert errors.fdd_mm == pytest.approx(0, abs=1e-12)
    assert errors.fdd_abs_mm > 0.3


def test_too_much_motion_is_a_negative_deviation():
    assert vertex_errors(2 * motion(), motion(), REGIONS).fdd_mm < 0


def test_positions_give_what_offsets_give():
    """The head at rest cancels."""
    rest = np.random.default_rng(9).standard_normal((6, 3))
    given = vertex_errors(rest + motion(1), rest + motion(2), REGIONS)
    assert astuple(given) == pytest.approx(astuple(vertex_errors(motion(1), motion(2), REGIONS)))


def test_vertices_outside_the_regions_do_not_count():
    regions = {name: np.array([0]) for name in (*REGIONS, "face")}
    changed = motion()
    changed[:, 1:] += 1.0
    assert astuple(vertex_errors(changed, motion(), regions)) == (0,) * len(fields(VertexErrors))


def test_sequences_count_alike():
    errors = [VertexErrors(*range(8)), VertexErrors(*range(2, 10))]
    assert astuple(mean_errors(errors)) == (1, 2, 3, 4, 5, 6, 7, 8)


def test_the_squared_error_is_that_of_torchmetrics():
    torch, multimodal = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.functional.multimodal")
    predicted, truth = motion(1), motion(2)
    other = multimodal.lip_vertex_error(
        *(torch.from_numpy(1e3 * positions) for positions in (predicted, truth)), REGIONS["lips"].tolist()
    )
    assert vertex_errors(predicted, truth, REGIONS).lve_mm2 == pytest.approx(float(other))


def clips(values: np.ndarray) -> list[VertexErrors]:
    return [VertexErrors(*[float(value)] * len(fields(VertexErrors))) for value in values]


def test_differences_are_of_pairs():
    """Clips differ by far more than the two networks, one of which is always 0.1 worse."""
    hard = np.random.default_rng(0).uniform(1, 5, 30)
    assert difference_intervals(clips(hard + 0.1), clips(hard))["lve_mm"] == pytest.approx((0.1, 0.1))


def test_an_interval_holds_the_mean_and_narrows_with_the_number_of_clips():
    """About 1.96 standard errors to either side."""
    noise = np.random.default_rng(1).standard_normal(400)
    for count in (25, 400):
        low, high = difference_intervals(clips(noise[:count]), clips(np.zeros(count)))["eve_mm"]
        assert low < noise[:count].mean() < high
        assert high - low == pytest.approx(2 * 1.96 * noise[:count].std() / count**0.5, rel=0.15)
