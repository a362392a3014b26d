"""TexTalker's recipe: latents less their pivots are paired with what is heard of the same moments."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_autoencoder_training import talking_corpus
from test_face import small_rig
from tiny import tiny_encoder
from tiny_textalker import DENOISER, MOTION, WRINKLE, PlainField, face, tiny_encoders

from models.textalker.denoiser import DenoiserConfig
from training import diffusion, latents, textalker
from training.datasets.corpus import Corpus
from training.latents import Latents, encode_corpus, frames_of
from training.textalker import pair_clips, read_lips, subject_pivots, train


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return talking_corpus(tmp_path_factory.mktemp("corpus") / "built")


@pytest.fixture(scope="module")
def encoded(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Latents]:
    """Both clips of the corpus that are long enough; every second clip of a subject is kept for a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latents, "WrinkleField", PlainField)
        folder = tmp_path_factory.mktemp("latents")
        yield encode_corpus(corpus, small_rig(), tiny_encoders(), 60, folder, "these")


def test_everybody_has_a_pivot_of_both_parts(encoded):
    pivots = subject_pivots(encoded, pivoted=True)
    assert set(pivots) == {"S00", "S01"}
    for subject, (motion, wrinkle) in pivots.items():
        assert np.array_equal(motion, encoded.pivots("motion")[subject])
        assert np.array_equal(wrinkle, encoded.pivots("wrinkle")[subject])


def test_without_pivots_all_have_one_mean(encoded):
    """The ablation: the mean of the subjects, each as much as the other."""
    own, shared = (subject_pivots(encoded, pivoted=pivoted) for pivoted in (True, False))
    assert np.array_equal(shared["S00"][0], shared["S01"][0])
    assert not np.array_equal(own["S00"][1], own["S01"][1])
    for k in (0, 1):
        assert np.allclose(shared["S00"][k], (own["S00"][k] + own["S01"][k]) / 2, atol=1e-6)


def test_clips_are_latents_less_their_pivots_beside_what_is_heard(corpus, encoded):
    """By subject, motion first; at the same 30 frames a second as contact and lids; clean and in other rooms."""
    pairs = pair_clips(corpus, encoded, tiny_encoder(), subject_pivots(encoded, pivoted=True))
    spoken = {clip.id: clip for clip in corpus.clips(held_out=False)}
    assert len(pairs) == len(encoded.clips) == 2
    for pair, entry in zip(pairs, encoded.clips, strict=True):
        own = slice(entry.start, entry.start + entry.count)
        for part, columns in (("motion", slice(0, MOTION.latents)), ("wrinkle", slice(MOTION.latents, None))):
            wanted = encoded.part(part)[own] - encoded.pivots(part)[entry.subject]
            assert np.allclose(pair.latents[:, columns], wanted, atol=5e-3)
        assert pair.latents.shape == (entry.count, MOTION.latents + WRINKLE.latents)
        _, contact, lids = frames_of(spoken[entry.id])
        assert np.array_equal(pair.contact, contact)
        assert np.array_equal(pair.lids, lids)
        seconds = len(spoken[entry.id].samples) / 16_000
        assert len(pair.features) > 1
        assert all(abs(len(part) - 50 * seconds) <= 1 for part in pair.features)


def test_offsets_of_a_subject_are_about_nothing(corpus, encoded):
    for pair in pair_clips(corpus, encoded, tiny_encoder(), subject_pivots(encoded, pivoted=True)):
        assert np.abs(pair.latents.astype(float).mean(0)).max() < 0.01


def test_what_is_kept_for_the_test_is_neither_heard_nor_read(corpus, encoded, monkeypatch):
    first, second = encoded.clips
    monkeypatch.setitem(vars(encoded), "clips", (first, replace(second, tested=True)))
    (pair,) = pair_clips(corpus, encoded, tiny_encoder(), subject_pivots(encoded, pivoted=False) | {"S01": None})
    assert len(pair.latents) == first.count
    read = []
    monkeypatch.setattr(textalker, "lip_reading", lambda motion, rim_mm: read.append(motion) or np.zeros((1, 1)))
    read_lips(corpus, encoded, small_rig())
    assert np.array_equal(read[0], encoded.part("motion")[: first.count])


def test_the_rim_is_read_from_motion_latents(corpus, encoded):
    """Better than its mean does, in millimetres, on all frames."""
    reading = read_lips(corpus, encoded, small_rig()).numpy()
    rim = small_rig().head.rim
    assert reading.shape == (3 * len(rim), MOTION.latents)
    motion = encoded.part("motion").astype(np.float32)
    rows = []
    for clip in corpus.clips(held_out=False):
        if clip.id in {entry.id for entry in encoded.clips}:
            weights, _, _ = frames_of(clip)
            rows.append(1e3 * np.einsum("ta,arc->trc", weights, small_rig().basis[:, rim]).reshape(len(weights), -1))
    rim_mm = np.concatenate(rows)
    rest = (rim_mm - rim_mm.mean(0)) - (motion - motion.mean(0)) @ reading.T
    assert (rest**2).sum() < 0.5 * ((rim_mm - rim_mm.mean(0)) ** 2).sum()


@pytest.mark.parametrize(("modalities", "read"), [("both", True), ("motion", True), ("wrinkle", False)])
def test_the_network_is_made_for_these_latents_and_this_encoder(
    modalities, read, corpus, encoded, tmp_path, monkeypatch
):
    calls = []
    monkeypatch.setattr(diffusion, "train", lambda *given, **named: calls.append((given, named)))
    config = DenoiserConfig(width=16, heads=2, modalities=modalities)
    train(corpus, face(), encoded, tiny_encoder(), tmp_path, 7, config)
    (((clips, folder, steps, made), named),) = calls
    assert (len(clips), folder, steps) == (2, tmp_path, 7)
    assert made == replace(
        config, motion=MOTION.latents, wrinkle=WRINKLE.latents, features=tiny_encoder().width, autoencoders="these"
    )
    assert isinstance(named["lips"], torch.Tensor) == read


def test_two_steps_of_the_recipe_run(corpus, encoded, tmp_path):
    network = train(corpus, face(), encoded, tiny_encoder(), tmp_path, 2, replace(DENOISER, window=30))
    assert network.config.autoencoders == "these"
    assert (tmp_path / "averaged.safetensors").is_file()
