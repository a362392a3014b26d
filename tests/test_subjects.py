"""The cast: seeded, varied, and its last members kept apart."""

import json
from dataclasses import asdict
from itertools import combinations

import numpy as np
import pytest

from training.corpus.coarticulation import MotionStyle
from training.corpus.expressions import EXPRESSIONS, Habit
from training.corpus.subjects import HELD_OUT, SHAPE_CHANGES, Subject, draw_subjects
from training.corpus.wrinkles import WrinkleStyle


def test_the_same_seed_gives_the_same_cast_and_another_seed_another():
    assert draw_subjects(3) == draw_subjects(3)
    assert all(one != other for one, other in zip(draw_subjects(3), draw_subjects(4), strict=True))


def test_the_last_subjects_are_held_out_and_at_least_24_are_trained_on():
    held_out = [subject.held_out for subject in draw_subjects()]
    assert held_out == sorted(held_out)
    assert sum(held_out) == HELD_OUT > 0
    assert len(held_out) - HELD_OUT >= 24


def test_a_larger_cast_begins_with_the_smaller_one():
    small, large = draw_subjects(0, 5, held_out=0), draw_subjects(0, 9, held_out=0)
    assert large[:5] == small


def test_no_two_subjects_look_or_speak_alike():
    cast = draw_subjects()
    assert len({subject.id for subject in cast}) == len(cast)
    for one, other in combinations(cast, 2):
        assert one.phenotypes != other.phenotypes
        assert one.changes != other.changes
        styles = np.array([list(asdict(subject.motion).values()) for subject in (one, other)])
        assert np.abs(np.subtract(*styles)).max() > 0.01
        assert one.wrinkles != other.wrinkles


def test_those_who_are_trained_on_wear_every_expression_and_some_of_them_none():
    """And no two who wear something wear it alike."""
    habits = [subject.habit for subject in draw_subjects() if not subject.held_out]
    assert {name for habit in habits for name in habit.levels} == set(EXPRESSIONS)
    assert any(not habit.levels for habit in habits)
    worn = [tuple(habit.levels.items()) for habit in habits if habit.levels]
    assert len(set(worn)) == len(worn)


def test_how_somebody_wrinkles_says_nothing_of_how_they_move():
    """The depth of lines goes with age, and with nothing that is a motion style."""
    cast = draw_subjects(0, 400)
    depth = [np.mean([*subject.wrinkles.depth.values()]) for subject in cast]
    motion = {
        "opening": [subject.motion.open_gain for subject in cast],
        "rounding": [subject.motion.round_gain for subject in cast],
        "smile": [subject.smile for subject in cast],
        "habit": [sum(subject.habit.levels.values()) for subject in cast],
    }
    for name, values in motion.items():
        assert abs(np.corrcoef(depth, values)[0, 1]) < 0.15, name
    assert np.corrcoef(depth, [subject.phenotypes["age"] for subject in cast])[0, 1] > 0.5


def test_styles_fill_the_published_ranges():
    """Gains of opening 0.6 to 1.3 and of rounding 0.6 to 1.4, time constants × 0.8 to 1.25, lead 0 to 40 ms."""
    cast = draw_subjects(0, 400)
    for name, low, high in (
        ("open_gain", 0.6, 1.3),
        ("round_gain", 0.6, 1.4),
        ("tau_scale", 0.8, 1.25),
        ("lead_s", 0.0, 0.02),
    ):
        values = np.array([getattr(subject.motion, name) for subject in cast])
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high


def test_the_cast_blinks_around_20_times_a_minute():
    intervals_s = [subject.blink_interval_s for subject in draw_subjects(0, 400)]
    assert 60 / np.median(intervals_s) == pytest.approx(20, rel=0.1)


def test_a_subject_survives_json():
    for subject in draw_subjects():
        entry = json.loads(json.dumps(asdict(subject)))
        kinds = {"motion": MotionStyle, "habit": Habit, "wrinkles": WrinkleStyle}
        styles = {name: kind(**entry[name]) for name, kind in kinds.items()}
        assert Subject(**{**entry, **styles}) == subject


def test_anny_knows_every_shape_change_and_gives_every_subject_a_head_of_its_own():
    pytest.importorskip("anny")
    from training.anny_head import local_changes, shape_vertices

    assert set(SHAPE_CHANGES) <= set(local_changes())
    one, other = (shape_vertices(subject.phenotypes, subject.changes) for subject in draw_subjects()[:2])
    assert np.linalg.norm(one - other, axis=1).max() > 0.005
