"""The corpus as latents: whose frames lie where, pivots without the test's clips, and the reading of the lips."""

import json

import numpy as np
import pytest
from test_autoencoder_training import talking_corpus
from test_face import small_rig
from tiny_textalker import MOTION, WRINKLE, PlainField, face, tiny_encoders

from models.core import SAMPLE_RATE_HZ, frame_count
from models.errors import MalformedInput
from training import latents
from training.datasets.corpus import Corpus
from training.latents import (
    EncodedClip,
    Latents,
    choose_clips,
    draw_rows,
    encode_corpus,
    frames_of,
    lip_reading,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return talking_corpus(tmp_path_factory.mktemp("corpus") / "built")


@pytest.fixture(scope="module")
def encoded(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Latents:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latents, "WrinkleField", PlainField)
        folder = tmp_path_factory.mktemp("latents")
        return encode_corpus(corpus, small_rig(), tiny_encoders(), 60, folder, "the auto-encoders")


# Encoding.


def test_a_folder_without_latents_is_refused(tmp_path):
    with pytest.raises(MalformedInput, match=r"no latents in .*; make them: python -m training latents"):
        Latents(tmp_path)


def test_every_frame_is_encoded_once_and_lies_where_its_clip_says(corpus, encoded):
    """In the wrinkle style of its own subject; as float16."""
    clips = {clip.id: clip for clip in corpus.clips(held_out=False)}
    styles = {subject.id: subject.wrinkles for subject in corpus.subjects}
    assert [clip.start for clip in encoded.clips] == [0, encoded.clips[0].count]
    assert len(encoded.part("motion")) == len(encoded.part("wrinkle")) == sum(clip.count for clip in encoded.clips)
    for entry in encoded.clips:
        weights, contact, _ = frames_of(clips[entry.id])
        assert entry.count == len(weights) == frame_count(len(clips[entry.id].samples) / SAMPLE_RATE_HZ, 30)
        own = slice(entry.start, entry.start + entry.count)
        offsets = small_rig().offsets(weights, contact)
        field = PlainField(face(), styles[entry.subject])
        ratios = field.maps(field.activations(offsets, contact), WRINKLE.size)
        assert np.allclose(encoded.part("motion")[own], tiny_encoders().motion(offsets), atol=5e-3)
        assert np.allclose(encoded.part("wrinkle")[own], tiny_encoders().wrinkles(ratios), atol=5e-3)


def test_latents_say_whose_they_are(encoded):
    assert encoded.description["autoencoders"] == "the auto-encoders"
    assert encoded.part("motion").dtype == np.float16
    assert encoded.part("motion").shape[1] == MOTION.latents
    assert encoded.part("wrinkle").shape[1] == WRINKLE.latents


@pytest.mark.parametrize("minutes", [0.0, 0.001])
def test_too_few_minutes_for_a_single_clip_are_refused(minutes, corpus, tmp_path):
    """Before anything is written."""
    with pytest.raises(MalformedInput, match="no clip of over a second for"):
        encode_corpus(corpus, small_rig(), tiny_encoders(), minutes, tmp_path / "new", "these")
    assert not (tmp_path / "new").exists()


def test_frames_are_thirty_a_second(corpus):
    """Of tracks at 100 Hz; every third of them is a whole number of samples."""
    clip = next(corpus.clips(held_out=False))
    weights, contact, lids = frames_of(clip)
    assert np.allclose(weights[3], clip.weights[10], atol=1e-5)
    assert np.allclose(contact[::3], clip.contact[::10][: len(contact[::3])], atol=1e-4)
    assert np.allclose(lids[30], clip.blinks[100], atol=1e-4)


# Which clips.


def listed(folder, *records: tuple[str, str, float]) -> Corpus:
    """A corpus of the first subjects of the tiny one: clips by id, subject and seconds."""
    whole = talking_corpus(folder)
    clips = [{"id": id, "subject": subject, "seconds": seconds, "origin": "noise"} for id, subject, seconds in records]
    for id, _, seconds in records:
        np.savez(folder / "clips" / f"{id}.npz", samples=np.zeros(round(seconds * SAMPLE_RATE_HZ), np.int16))
    (folder / "corpus.json").write_text(json.dumps({**whole.description, "clips": clips}))
    return Corpus(folder)


def test_clips_are_of_over_a_second_by_those_who_are_not_held_out(tmp_path):
    """S03 is held out. Frames follow one another."""
    corpus = listed(tmp_path / "c", ("a", "S00", 1.5), ("b", "S03", 4), ("c", "S01", 1.0), ("d", "S01", 2.01))
    assert choose_clips(corpus, 60) == [EncodedClip("a", "S00", 0, 45, False), EncodedClip("d", "S01", 45, 61, False)]


def test_a_share_of_the_corpus_is_spread_over_it(tmp_path):
    """A minute out of three: every third clip."""
    corpus = listed(tmp_path / "c", *((f"c{k:02d}", f"S0{k % 3}", 3.0) for k in range(60)))
    assert [clip.id for clip in choose_clips(corpus, 1)] == [f"c{k:02d}" for k in range(2, 60, 3)]
    assert len(choose_clips(corpus, 2)) == 40
    assert len(choose_clips(corpus, 3)) == len(choose_clips(corpus, 1000)) == 60


def test_every_twelfth_clip_of_a_subject_is_kept_for_the_test(tmp_path):
    corpus = listed(tmp_path / "c", *((f"c{k:02d}", f"S0{k % 2}", 2.0) for k in range(50)))
    tested = [clip.id for clip in choose_clips(corpus, 60) if clip.tested]
    assert tested == ["c22", "c23", "c46", "c47"]


# Pivots.


def stored(folder, rows: np.ndarray, *clips: EncodedClip) -> Latents:
    np.save(folder / "motion.npy", rows.astype(np.float16))
    (folder / "latents.json").write_text(json.dumps({"clips": [vars(clip) for clip in clips]}))
    return Latents(folder)


def test_a_pivot_is_the_mean_of_a_subjects_frames_without_those_of_the_test(tmp_path):
    """Long clips count as many times as they have frames."""
    rows = np.repeat([[1.0, 2], [4, 8], [100, 100], [9, 9]], [3, 1, 2, 2], axis=0)
    clips = (
        EncodedClip("a", "S00", 0, 3, False),
        EncodedClip("b", "S00", 3, 1, False),
        EncodedClip("c", "S00", 4, 2, True),
        EncodedClip("d", "S01", 6, 2, False),
    )
    pivots = stored(tmp_path, rows, *clips).pivots("motion")
    assert {subject: pivot.tolist() for subject, pivot in pivots.items()} == {"S00": [1.75, 3.5], "S01": [9, 9]}
    assert pivots["S00"].dtype == np.float32


def test_a_pivot_of_many_frames_is_not_rounded_on_the_way(tmp_path):
    """The sum of 40,000 would overflow the latents' own float16."""
    rows = np.full((40_000, 1), 3.0)
    assert stored(tmp_path, rows, EncodedClip("a", "S00", 0, 40_000, False)).pivots("motion")["S00"] == 3


# The reading of the lips.


def test_the_lips_are_read_from_latents_that_tell_them():
    """Exactly, where there is little to smooth: rows of the reading are the map that made them."""
    random = np.random.default_rng(0)
    latents, reading = random.standard_normal((200, 12)).astype(np.float32), random.standard_normal((5, 12))
    rim_mm = latents @ reading.T + 7
    found = lip_reading(latents + 3, rim_mm, ridge=1e-6)
    assert found.shape == (5, 12)
    assert np.allclose(found, reading, atol=1e-3)


def test_the_reading_is_the_ridge_regression():
    """(XᵀX + λ)⁻¹ XᵀY about the means, with fewer frames than latents, too."""
    random = np.random.default_rng(0)
    latents, rim_mm = random.standard_normal((20, 50)).astype(np.float32), random.standard_normal((20, 4))
    x, y = (values - values.mean(0) for values in (latents.astype(float), rim_mm))
    penalty = 0.3 * (x**2).sum() / len(x)
    wanted = np.linalg.solve(x.T @ x + penalty * np.eye(50), x.T @ y).T
    assert np.allclose(lip_reading(latents, rim_mm, ridge=0.3), wanted, atol=1e-5)


def test_rows_are_frames_of_clips_each_at_most_once():
    clips = [EncodedClip("a", "S00", 0, 30, False), EncodedClip("b", "S00", 50, 300, False)]
    drawn = [(clip.id, frame) for clip, frame in draw_rows(clips, 100)]
    assert len(set(drawn)) == 100
    assert all(0 <= frame < {"a": 30, "b": 300}[id] for id, frame in drawn)
    assert 2 <= sum(id == "a" for id, _ in drawn) <= 20
    assert drawn == [(clip.id, frame) for clip, frame in draw_rows(clips, 100)]
    assert len(draw_rows(clips, 10_000)) == 330
