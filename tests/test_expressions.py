"""What faces do beside speaking: habits that breathe with the voice, episodes that come and go, eyes that blink."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from test_face import sentence, small_rig

from models.core import Waveform
from training.corpus.build import Speech, animate
from training.corpus.coarticulation import RATE_HZ
from training.corpus.expressions import EXPRESSIONS, UNPAIRED, Habit, draw_habit, expression_track
from training.corpus.face import ACTIONS
from training.corpus.subjects import draw_subjects

COUNT = 60 * RATE_HZ
EVEN = np.zeros(COUNT)


def worn(name: str, level: float = 0.5) -> Habit:
    """One expression, and nothing that comes and goes."""
    return Habit({name: level})


def tracks(
    habit: Habit, loudness: np.ndarray = EVEN, blinks: np.ndarray = EVEN, asymmetry: float = 0.0, seed: int = 0
) -> dict[str, np.ndarray]:
    return expression_track(habit, loudness, blinks, asymmetry, np.random.default_rng(seed))


def by_common_name(weights: Mapping[str, object]) -> set[str]:
    return {action.removesuffix("Left").removesuffix("Right") for action in weights}


def test_every_expression_is_made_of_actions_that_there_are():
    """Pairs by their common name; the two that are no pairs by their own."""
    for actions in EXPRESSIONS.values():
        for action, share in actions.items():
            sides = {action} if action in UNPAIRED else {action + "Left", action + "Right"}
            assert sides <= set(ACTIONS)
            assert 0 < share <= 1


# What a subject wears.


def test_the_same_seed_draws_the_same_habit():
    assert draw_habit(np.random.default_rng(3)) == draw_habit(np.random.default_rng(3))
    assert draw_habit(np.random.default_rng(3)) != draw_habit(np.random.default_rng(4))


def test_habits_are_none_one_or_two_expressions_within_their_bounds():
    """A quarter wears none and a quarter two, each of them the weaker for it; all have episodes."""
    random = np.random.default_rng(0)
    habits = [draw_habit(random) for _ in range(2000)]
    counts = np.array([len(habit.levels) for habit in habits])
    assert [np.mean(counts == k) for k in range(3)] == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    for count, name in ((1, "one"), (2, "two")):
        levels = [level for habit in habits if len(habit.levels) == count for level in habit.levels.values()]
        assert 0.25 <= min(levels) * count**0.5 <= max(levels) * count**0.5 <= 0.9, name
    assert {name for habit in habits for name in habit.levels} == set(EXPRESSIONS)
    assert all(2 <= habit.episodes_per_minute <= 8 for habit in habits)


# How it is worn.


def test_who_wears_nothing_does_nothing():
    assert tracks(Habit()) == {}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_habit_is_worn_at_its_level(name):
    """Its actions and no others; for an even voice at 0.95 of the level on average, and never gone."""
    results = [tracks(worn(name), seed=seed) for seed in range(8)]
    assert {action for result in results for action in by_common_name(result)} == set(EXPRESSIONS[name])
    for action in results[0]:
        (common,) = by_common_name({action: None})
        worn_at = np.stack([result[action] for result in results]) / EXPRESSIONS[name][common]
        assert worn_at.shape == (8, COUNT)
        assert worn_at.mean() == pytest.approx(0.95 * 0.5, rel=0.03)
        assert worn_at.min() > 0.05


def test_habits_add_up_where_they_share_an_action():
    """Anger and disgust both lower the brows; the one alone narrows eyes, and the other alone lifts cheeks."""
    result = tracks(Habit({"anger": 0.3, "disgust": 0.2}))
    angry = result["eyeSquintLeft"] / EXPRESSIONS["anger"]["eyeSquint"]
    disgusted = result["cheekSquintLeft"] / EXPRESSIONS["disgust"]["cheekSquint"]
    shares = (EXPRESSIONS[name]["browDown"] for name in ("anger", "disgust"))
    lowered = sum(share * strength for share, strength in zip(shares, (angry, disgusted), strict=True))
    assert result["browDownLeft"] == pytest.approx(lowered)


def test_a_habit_breathes_with_the_voice():
    """Stronger where it is loud, within about a second, so that it can be heard; the same seed wanders alike."""
    loudness = np.where(np.arange(COUNT) // (10 * RATE_HZ) % 2, 1.0, -1.0)
    breathing, even = (tracks(worn("smile"), loud)["mouthSmileLeft"] for loud in (loudness, EVEN))
    change = (breathing - even) / (0.5 * EXPRESSIONS["smile"]["mouthSmile"])
    settled = np.arange(COUNT) % (10 * RATE_HZ)
    inside = (settled > 1.5 * RATE_HZ) & (settled < 8.5 * RATE_HZ)
    assert change[inside & (loudness > 0)] == pytest.approx(0.35, abs=0.01)
    assert change[inside & (loudness < 0)] == pytest.approx(-0.35, abs=0.01)
    assert np.abs(np.diff(change)).max() < 0.02, "no jump where the voice has one"


def test_how_loud_a_shout_is_does_not_matter():
    """Beyond one and a half deviations."""
    loud, louder = (tracks(worn("anger"), np.full(COUNT, by))["browDownLeft"] for by in (1.5, 9.0))
    assert np.array_equal(loud, louder)


def test_a_habit_wanders_by_chance_alone():
    """By about an eighth, slowly; another seed wanders otherwise."""
    one, same, other = (tracks(worn("sadness"), seed=seed)["browInnerUp"] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert np.corrcoef(one, other)[0, 1] < 0.8
    assert one.std() / (0.5 * EXPRESSIONS["sadness"]["browInnerUp"]) == pytest.approx(0.12, rel=0.02)
    assert np.abs(np.diff(one)).max() < 0.01


@pytest.mark.parametrize("asymmetry", [0.1, -0.1])
def test_an_expression_is_stronger_on_the_subjects_stronger_side(asymmetry):
    """Of what comes in pairs; what does not is as it is without."""
    result, even = tracks(worn("sadness"), asymmetry=asymmetry), tracks(worn("sadness"))
    left, right = result["mouthFrownLeft"], result["mouthFrownRight"]
    assert left / right == pytest.approx(np.full(COUNT, (1 + asymmetry) / (1 - asymmetry)))
    assert (left + right) / 2 == pytest.approx(even["mouthFrownLeft"])
    assert np.array_equal(result["browInnerUp"], even["browInnerUp"])


def test_eyes_that_blink_neither_squint_nor_widen():
    """Not at all where they are shut, half where they are half shut; the rest of the face does not mind."""
    blinks = np.repeat([0.0, 0.5, 1.0], COUNT // 3)
    habit = Habit({"squint": 0.4, "surprise": 0.4, "smile": 0.3})
    blinking, open_eyed = tracks(habit, blinks=blinks), tracks(habit)
    hindered = {"eyeSquint", "eyeWide", "cheekSquint"}
    assert hindered < by_common_name(blinking)
    for action, track in blinking.items():
        share = 1 - blinks if by_common_name({action: track}) & hindered else 1
        assert track == pytest.approx(share * open_eyed[action], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_between_0_and_1_whatever_is_worn(seed):
    habit = Habit(dict.fromkeys(EXPRESSIONS, 1.0), 60.0)
    result = tracks(habit, np.full(COUNT, 1.5), seed=seed, asymmetry=0.2)
    assert all(0 <= track.min() <= track.max() <= 1 for track in result.values())
    assert max(track.max() for track in result.values()) == 1


# What comes and goes.


def episodes(per_minute: float, seed: int = 0) -> dict[str, np.ndarray]:
    return tracks(Habit({}, per_minute), seed=seed)


def test_episodes_come_as_often_as_the_habit_says():
    """Six a minute, at any moment, of every expression, counted by the rises of what only one of them moves."""
    marks = {"smile": "mouthSmileLeft", "sadness": "mouthFrownLeft", "surprise": "eyeWideLeft"}
    found = dict.fromkeys(marks, 0)
    for seed in range(60):
        result = episodes(6.0, seed)
        for name, action in marks.items():
            shown = result.get(action, EVEN) / EXPRESSIONS[name][action.removesuffix("Left")] > 0.2
            found[name] += int((shown[1:] & ~shown[:-1]).sum())
    assert [count / 60 for count in found.values()] == pytest.approx([1, 1, 1], rel=0.35)


def test_an_episode_rises_in_a_third_of_a_second_stays_and_falls_in_half_a_second():
    lasted, rose, fell, peaks = [], [], [], []
    for seed in range(200):
        track = episodes(1.0, seed).get("mouthFrownLeft", EVEN) / EXPRESSIONS["sadness"]["mouthFrown"]
        high = np.flatnonzero(track > 0.5 * track.max())
        if track.max() > 0.2 and np.ptp(high) < 3 * RATE_HZ and 2 * RATE_HZ < high[0] < high[-1] < COUNT - 2 * RATE_HZ:
            peak, up, down = track.max(), slice(high[0] - 100, high[0] + 20), slice(high[-1] - 30, high[-1] + 100)
            between = [(track[part] > 0.1 * peak) & (track[part] < 0.85 * peak) for part in (up, down)]
            lasted.append(np.ptp(high) / RATE_HZ)
            rose.append(between[0].sum() / RATE_HZ)
            fell.append(between[1].sum() / RATE_HZ)
            peaks.append(peak)
    assert len(lasted) > 10
    assert 0.6 < min(lasted) < max(lasted) < 2.2
    assert np.median(rose) == pytest.approx(0.28, abs=0.05)
    assert np.median(fell) == pytest.approx(0.4, abs=0.07)
    assert 0.25 < min(peaks) < max(peaks) <= 0.9


def test_an_episode_of_what_is_worn_already_adds_nothing_to_it():
    """The stronger of the two is seen."""
    worn_too = tracks(Habit({"sadness": 1.0}, 30.0))["mouthFrownLeft"]
    alone = tracks(Habit({"sadness": 1.0}))["mouthFrownLeft"]
    assert (worn_too >= alone).all()
    assert worn_too.max() <= max(alone.max(), 0.9 * EXPRESSIONS["sadness"]["mouthFrown"])


# The whole face.


def spoken(habit: Habit, number: int = 0, seed: int = 1) -> dict[str, np.ndarray]:
    """A clip of noise that is labelled as speech, by one of the cast."""
    phones = sentence(number)
    samples = np.random.default_rng(number).standard_normal(round(phones[-1].end_s * Waveform.rate_hz))
    speech = Speech("x", "flite:slt", Waveform((0.1 * samples).clip(-1, 1).astype(np.float32)), phones)
    return animate(speech, replace(draw_subjects()[number], habit=habit), small_rig(), np.random.default_rng(seed))


def test_an_expression_is_part_of_the_clip():
    """By its level, whatever is said."""
    plain, half, sad = (spoken(worn("sadness", level))["weights"].astype(float) for level in (0.0, 0.4, 0.8))
    frown = [ACTIONS.index(f"mouthFrown{side}") for side in ("Left", "Right")]
    assert not plain[:, frown].any()
    assert half[:, frown].min() > 0.05
    assert sad[:, frown] == pytest.approx(2 * half[:, frown], rel=2e-3)


def test_an_expression_changes_neither_lids_nor_when_lips_touch():
    plain, angry = spoken(Habit()), spoken(worn("anger", 0.9))
    for name in ("samples", "contact", "blinks", "phone_times"):
        assert np.array_equal(plain[name], angry[name])
    lids = [ACTIONS.index(f"eyeBlink{side}") for side in ("Left", "Right")]
    assert np.array_equal(plain["weights"][:, lids], angry["weights"][:, lids])
    assert not np.array_equal(plain["weights"], angry["weights"])
