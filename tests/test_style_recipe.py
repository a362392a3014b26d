"""The shipped styles: actors who each change one thing, and pivots that keep what an example of them would give."""

from dataclasses import replace

import numpy as np
import pytest
from test_autoencoder_training import talking_corpus
from test_face import small_rig
from tiny_textalker import MOTION, WRINKLE, PlainField, face, tiny_encoders

from models.checkpoint import pinned_file
from models.core import StylePivot
from models.examples import Example
from models.pivots import load_styles
from models.template import default_template
from training import styles
from training.corpus.expressions import EXPRESSIONS, Habit
from training.corpus.face import ACTIONS
from training.corpus.subjects import draw_subjects
from training.corpus.wrinkles import FOLDS, WrinkleStyle
from training.datasets.corpus import Corpus
from training.styles import CLIPS, MOTIONS, NOBODY, WRINKLES, act, make_styles, write_styles


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return talking_corpus(tmp_path_factory.mktemp("corpus") / "built")


@pytest.fixture(scope="module")
def made(corpus: Corpus) -> dict[str, StylePivot]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(styles, "WrinkleField", PlainField)
        patch.setattr(styles, "MOMENTS", 20)
        return {pivot.id: pivot for pivot in make_styles(corpus, small_rig(), tiny_encoders())}


# The actors.


def test_every_style_changes_one_thing():
    """A habit, or the articulation; or the skin, and faces that fold it; `neutral` nothing."""
    assert MOTIONS["neutral"].subjects == (NOBODY,)
    for name, actor in (MOTIONS | WRINKLES).items():
        parts = ("motion", "habit", "wrinkles")
        changed = [
            part for part in parts if any(getattr(each, part) != getattr(NOBODY, part) for each in actor.subjects)
        ]
        if name in WRINKLES:
            assert changed in (["wrinkles"], ["habit", "wrinkles"]), name
        else:
            assert len(changed) == (name != "neutral"), name
            assert "wrinkles" not in changed
        for each in actor.subjects:
            assert replace(each, motion=NOBODY.motion, habit=Habit(), wrinkles=NOBODY.wrinkles) == NOBODY


def test_nobody_has_what_every_subject_has():
    cast = draw_subjects(0, 40)
    assert min(s.jaw_share for s in cast) < NOBODY.jaw_share < max(s.jaw_share for s in cast)
    assert not NOBODY.habit.levels
    assert NOBODY.wrinkles == WrinkleStyle()


def test_habits_are_expressions():
    worn = [habit.levels for actor in (MOTIONS | WRINKLES).values() for habit in actor.habits]
    assert {name for levels in worn for name in levels} <= set(EXPRESSIONS)


def test_skins_have_all_families_and_their_own_deepest_ones():
    depths = {name: actor.wrinkles.depth for name, actor in WRINKLES.items()}
    assert all(set(depth) == set(FOLDS) for depth in depths.values())
    assert all(depths["smooth"][name] < WrinkleStyle().depth[name] < depths["lined"][name] for name in FOLDS)
    assert depths["furrowed"]["forehead"] > depths["lined"]["forehead"] > 3 * depths["laugh-lined"]["forehead"]
    assert depths["laugh-lined"]["crows_feet"] > depths["lined"]["crows_feet"] > 3 * depths["furrowed"]["crows_feet"]


def test_an_actor_speaks_the_clips_at_thirty_frames_a_second_and_always_alike(corpus):
    speech = list(corpus.clips(held_out=False))[:2]
    takes = [list(act(speech, [NOBODY], small_rig())) for _ in range(2)]
    for (weights, contact), (again, _), clip in zip(*takes, speech, strict=True):
        assert len(weights) == len(contact) == pytest.approx(len(clip.samples) / 16_000 * 30, abs=2)
        assert np.array_equal(weights, again)
    smiling = next(act(speech, MOTIONS["smiling"].subjects, small_rig()))[0]
    stronger = np.flatnonzero(smiling.mean(0) > takes[0][0][0].mean(0) + 0.1)
    assert {"mouthSmileLeft", "mouthSmileRight"} <= {ACTIONS[k] for k in stronger}


def test_habits_take_turns_clip_by_clip(corpus):
    speech = list(corpus.clips(held_out=False))[:3]
    brows_up, brows_down = (ACTIONS.index(name) for name in ("browOuterUpLeft", "browDownLeft"))
    means = [weights.mean(0) for weights, _ in act(speech, WRINKLES["furrowed"].subjects, small_rig())]
    assert [mean[brows_up] > mean[brows_down] for mean in means] == [True, False, True]


# The pivots.


def test_every_style_has_both_parts_and_says_what_it_looks_like(made):
    assert list(made) == [*MOTIONS, *WRINKLES]
    for name, pivot in made.items():
        assert pivot.motion.shape == (MOTION.latents,)
        assert pivot.wrinkle.shape == (WRINKLE.latents,)
        assert pivot.description == (MOTIONS | WRINKLES)[name].description
        assert ("lip_opening_mm" in pivot.statistics) == (name in MOTIONS)
        assert "wrinkle_face" in pivot.statistics


def test_a_skin_is_worn_by_an_actor_with_no_habit(made):
    for name in WRINKLES:
        assert np.array_equal(made[name].motion, made["neutral"].motion)
        assert not np.array_equal(made[name].wrinkle, made["neutral"].wrinkle)


def test_styles_differ_from_one_another(made):
    for part, names in (("motion", list(MOTIONS)), ("wrinkle", list(WRINKLES))):
        pivots = np.stack([getattr(made[name], part) for name in names])
        apart = np.abs(pivots[:, None] - pivots[None]).max(2) + np.eye(len(names))
        assert apart.min() > 1e-4


def test_statistics_are_of_what_was_asked_for(made):
    assert made["broad"].statistics["lip_opening_mm"] > 1.2 * made["mumbled"].statistics["lip_opening_mm"]
    assert made["lined"].statistics["wrinkle_face"] > 3 * made["smooth"].statistics["wrinkle_face"] > 0


def test_a_pivot_is_what_an_example_of_the_actor_gives(corpus, made):
    """The recipe's way, by maps of actions, and the service's, by vertices, meet."""
    speech = list(corpus.clips(held_out=False))[:CLIPS]
    takes = list(act(speech, MOTIONS["stern"].subjects, small_rig()))
    weights, contact = (np.concatenate(column) for column in zip(*takes, strict=True))
    performed = Example(face().atlas.vertices + small_rig().offsets(weights, contact))
    pivot = tiny_encoders().pivot(performed, default_template(face()), "stern")
    assert np.allclose(pivot.motion, made["stern"].motion, atol=2e-3)
    own = {name: made["stern"].statistics[name] for name in pivot.statistics}
    assert pivot.statistics == pytest.approx(own, abs=1e-3)


def test_styles_are_written_pinned_and_for_their_auto_encoders_alone(made, tmp_path):
    path = write_styles(tmp_path, list(made.values()), "these")
    assert pinned_file(tmp_path, "styles")[0] == path
    loaded = {pivot.id: pivot for pivot in load_styles(path, "these")}
    assert set(loaded) == set(made)
    assert np.array_equal(loaded["broad"].motion, made["broad"].motion)
