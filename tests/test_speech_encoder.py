"""The speech encoder's recipe: labels stay on the sound whatever is done to it, and closures count more."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_phones import tiled
from tiny import noise, tiny_encoder
from torch import Tensor

from models.compact_encoder import CompactConfig
from models.features import read_compact
from training import speech_encoder
from training.corpus.coarticulation import mouth_curves
from training.corpus.phones import PHONES, Phone, Viseme
from training.datasets.spoken import SpokenClip
from training.speech_encoder import (
    BINS,
    CROP,
    HEAD_START,
    POWER_SCALE,
    Augmentation,
    Batch,
    LabelledSpectrum,
    draw_batch,
    label,
    lip_tracks,
    losses_of,
    read_dataset,
    train,
)

CLIP = Path(__file__).parent / "data" / "LJ001-0002.flac"
PHRASE = tiled(("sil", 0.2), ("aa", 0.3), ("m", 0.1), ("iy", 0.2), ("f", 0.1), ("uw", 0.3), ("sil", 0.2))


def bursts(seconds: float) -> tuple[np.ndarray, list[Phone]]:
    """Noise for 0.3 s, called aa, and silence for as long, in turn."""
    phones = tiled(*[("aa", 0.3), ("sil", 0.3)] * round(seconds / 0.6))
    loud = np.repeat([0.2, 0.0] * (len(phones) // 2), 4800)
    return (loud * np.random.default_rng(0).standard_normal(len(loud))).clip(-1, 1).astype(np.float32), phones


@cache
def dataset() -> list[LabelledSpectrum]:
    """Three recorded clips of 1.4 s to 2.8 s, and two synthetic ones of 5.6 s."""
    clips = [(2, True), (1, True), (2, True), (4, False), (4, False)]
    result = []
    for seed, (times, recorded) in enumerate(clips):
        phones = tiled(*[(phone.name, phone.end_s - phone.start_s) for phone in PHRASE] * times)
        result.append(label(noise(round(16000 * phones[-1].end_s), seed), phones, recorded))
    return result


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: getattr(batch, name) for name in ("mel", "valid", "viseme", "phone", "targets")}


def terms(batch: Batch) -> Mapping[str, float]:
    with torch.no_grad():
        return {name: float(value) for name, value in losses_of(tiny_encoder(), batch).items()}


def test_labels_are_those_of_the_neutral_style():
    """At 50 Hz, beside spectra at 100 Hz: which phone, the mouth's curves, and where it is f or v."""
    item = label(noise(22400), PHRASE, recorded=True)
    curves = mouth_curves(PHRASE, 140)
    assert item.power.shape == (140, BINS)
    assert item.viseme.tolist()[::10] == [Viseme[name] for name in ("SIL", "AA", "AA", "IY", "FV", "UW", "SIL")]
    assert [PHONES[k] for k in item.phone.tolist()[::10]] == ["sil", "aa", "aa", "iy", "f", "uw", "sil"]
    wanted = np.stack([curves.open, curves.round, curves.contact], 1)[::2]
    assert item.targets[:, :3].numpy() == pytest.approx(wanted, abs=1e-6)
    assert np.flatnonzero(item.targets[:, 3].numpy()).tolist() == list(range(40, 45))


def test_what_no_phone_covers_is_silence():
    item = label(noise(16000), [Phone("aa", 0.2, 0.5)], recorded=False)
    assert set(item.viseme[:10].tolist()) | set(item.viseme[25:].tolist()) == {Viseme.SIL}
    assert {PHONES[k] for k in item.phone[25:].tolist()} == {"sil"}


def test_a_dataset_is_the_training_subjects_clips():
    asked = []

    def clips(*, held_out: bool):
        asked.append(held_out)
        yield SimpleNamespace(samples=noise(22400), phones=tuple(PHRASE), recorded=True)

    (item,) = read_dataset(SimpleNamespace(clips=clips))
    assert asked == [False]
    assert item.recorded is True


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_batch_is_crops_of_four_seconds(strength):
    batch = draw_batch(dataset(), seed=1, size=6, strength=strength)
    assert batch.mel.shape == (6, CROP, 80)
    assert batch.valid.shape == batch.viseme.shape == batch.phone.shape == (6, CROP // 2)
    assert batch.targets.shape == (6, CROP // 2, 4)
    assert torch.isfinite(batch.mel).all()


def test_padding_surrounds_the_sound_and_is_empty():
    """Crops may begin before their clip; recorded clips of this set are shorter than a crop."""
    batch = draw_batch(dataset(), seed=2, size=8, strength=1.0)
    for row in range(8):
        sounding = np.flatnonzero(batch.valid[row])
        first, end = sounding[0], sounding[-1] + 1
        assert first <= HEAD_START
        assert len(sounding) == end - first
        assert not batch.mel[row, : max(2 * first - 1, 0)].any()
        assert not batch.mel[row, 2 * end :].any()
        assert not batch.targets[row, end:].any()
        assert (end < CROP // 2) == (row % 2 == 0)


def test_nothing_sounds_before_a_clip(monkeypatch):
    """Rooms and noise are added to power, which has no sign."""
    heard: list[Tensor] = []
    plain = Augmentation.__call__
    monkeypatch.setattr(Augmentation, "__call__", lambda own, power: heard.append(power) or plain(own, power))
    for seed in range(10):
        draw_batch(dataset(), seed, size=8, strength=1.0)
    before = [power for power in heard if not power[0].any()]
    assert len(before) > 5
    assert min(float(power.min()) for power in heard) == 0


@pytest.mark.parametrize("kinds", [(True, False), (True,), (False,)])
def test_half_of_a_batch_is_recorded_as_far_as_there_are_both(kinds):
    """Labels tell the kinds apart: of recorded clips every phone is 1 here, of synthetic ones 2."""
    numbers = {True: 1, False: 2}
    items = [
        replace(item, phone=torch.full_like(item.phone, numbers[item.recorded]))
        for item in dataset()
        if item.recorded in kinds
    ]
    batch = draw_batch(items, 3, 6, 1.0)
    own = [int(row[valid > 0].unique()) for row, valid in zip(batch.phone, batch.valid, strict=True)]
    assert own == [numbers[kind] for kind in kinds] * (6 // len(kinds))


def test_the_same_seed_gives_the_same_batch_and_another_seed_another():
    one, same, other = (tensors(draw_batch(dataset(), seed, 4, 1.0)) for seed in (5, 5, 6))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["mel"], other["mel"])


def test_augmentation_of_no_strength_is_a_gain_alone():
    """Which the running mean takes away again; filters are an ordinary throat's."""
    power = dataset()[3].power.float() / POWER_SCALE
    for seed in range(20):
        augment = Augmentation(dataset(), np.random.default_rng(seed), 0.0)
        heard = augment(power)
        gain = heard.max() / power.max()
        assert torch.allclose(heard, gain * power, rtol=1e-5, atol=0)
        assert 10**-2.51 < gain < 10**0.51
        assert augment.filters() is Augmentation.plain


def test_augmentation_of_no_strength_changes_nothing():
    power = dataset()[3].power.float() / POWER_SCALE
    assert torch.equal(Augmentation(dataset(), np.random.default_rng(0), 0.0)(power), power)


def test_augmentation_of_full_strength_keeps_powers_finite_and_positive():
    power = dataset()[3].power.float() / POWER_SCALE
    heard = [Augmentation(dataset(), np.random.default_rng(seed), 1.0)(power) for seed in range(60)]
    assert all(torch.isfinite(one).all() and one.min() >= 0 and one.shape == power.shape for one in heard)
    assert sum(bool((one / one.sum() - power / power.sum()).abs().max() > 1e-6) for one in heard) > 40


def test_labels_stay_on_the_sound_under_a_change_of_tempo(monkeypatch):
    """Bursts of noise are called aa: where a crop is labelled so it is loud, however fast it is played.

    0.14 either way in the logarithm of the tempo would take labels that ignore it 0.5 s off at the end of a crop.
    """
    monkeypatch.setattr(Augmentation, "__call__", lambda self, power: power)
    monkeypatch.setattr(Augmentation, "filters", lambda self: self.plain)
    monkeypatch.setattr(speech_encoder, "normalise", lambda mel, valid: mel)
    items = [label(*bursts(7.2), recorded=False)]
    lengths = []
    for seed in range(12):
        batch = draw_batch(items, seed, 2, strength=1.0)
        for mel, viseme, valid in zip(batch.mel, batch.viseme, batch.valid, strict=True):
            level = mel[::2].median(1).values  # SpecAugment's masks are 0, as loud as can be, in a few of the bins
            masked = (mel[::2] == 0).all(1) | (valid == 0)
            loud = (level > -10) & ~masked
            assert ((viseme == Viseme.AA) == loud)[~masked].float().mean() > 0.9
            turns = np.flatnonzero(np.diff(viseme.numpy()))
            lengths.append(np.diff(turns).mean() / 15)
    assert min(lengths) < 0.92
    assert max(lengths) > 1.08


def test_closures_weigh_more_in_the_regression():
    """By 1 + 2.5 · 2 in contact and by 1 + 2.5 on f and v, of a weighted mean."""
    encoder = tiny_encoder()
    plain = draw_batch(dataset(), 0, 2, 0.0)
    valid = torch.ones_like(plain.valid)
    targets = torch.zeros_like(plain.targets)
    targets[0, :50, 2], targets[0, 50:70, 3] = 1.0, 1.0
    with torch.no_grad():
        error = encoder.curves(encoder(plain.mel)).square().sum(-1)
        weight = torch.ones(2, CROP // 2)
        weight[0, :50], weight[0, 50:70] = 6.0, 3.5
        wanted = float((error * weight).sum() / weight.sum())
    batch = replace(plain, valid=valid, targets=targets)
    assert terms(batch)["curves"] == pytest.approx(wanted, rel=1e-5)


def test_padding_does_not_count():
    batch = draw_batch(dataset(), 2, 2, 0.0)
    outside = batch.valid == 0
    targets = batch.targets.clone()
    targets[outside] = 1.0
    changed = replace(
        batch,
        viseme=batch.viseme.masked_fill(outside, 3),
        phone=batch.phone.masked_fill(outside, 3),
        targets=targets,
    )
    assert outside.any()
    assert terms(changed) == pytest.approx(terms(batch))


def test_the_loss_falls():
    """In 30 steps of a tiny network, on a batch that it is not trained on."""
    encoder = tiny_encoder().train()
    optimiser = torch.optim.Adam(encoder.parameters(), 3e-3)
    judged = draw_batch(dataset(), 1000, 4, 0.0)
    with torch.no_grad():
        before = float(losses_of(encoder, judged)["total"])
    for step in range(30):
        torch.manual_seed(step)
        optimiser.zero_grad()
        losses_of(encoder, draw_batch(dataset(), step, 4, step / 30))["total"].backward()
        optimiser.step()
    with torch.no_grad():
        after = float(losses_of(encoder.eval(), judged)["total"])
    assert after < 0.85 * before


def test_a_run_writes_an_encoder_that_loads_and_scores_the_folder_that_it_is_given(tmp_path):
    def clips(*, held_out: bool):
        for recorded in (True, False):
            yield SimpleNamespace(samples=noise(22400, 3), phones=tuple(PHRASE), recorded=recorded)

    phones = tuple(tiled(("aa", 0.4), ("m", 0.1), ("uw", 0.5), ("t", 0.1), ("iy", 0.5)))
    dev = [SpokenClip("LJ", CLIP, "LJ", None, False, phones, -10.0, "public domain")]
    result = train(SimpleNamespace(clips=clips), tmp_path, 1, dev, batch_size=2)
    read = read_compact(tmp_path / "averaged.safetensors")
    assert read.config == CompactConfig()
    assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in result.state_dict().items())
    assert '"evaluation": {"bcr"' in (tmp_path / "metrics.jsonl").read_text()


def test_lips_of_the_encoder_are_its_curves_gated_by_contact():
    """At 100 Hz, over the listed phones; an encoder that is sure of contact shuts the mouth."""
    phones = tuple(tiled(("aa", 0.4), ("m", 0.1), ("uw", 0.5)))
    clip = SpokenClip("LJ", CLIP, "LJ", None, False, phones, -10.0, "public domain")
    encoder = tiny_encoder()
    with torch.no_grad():
        encoder.contact.weight.zero_()
        encoder.curves.weight.zero_()
        encoder.curves.bias.copy_(torch.tensor([1.0, 0.0]))
        encoder.contact.bias.fill_(-9.0)
        (apart,) = lip_tracks(encoder, [clip])
        encoder.contact.bias.fill_(9.0)
        (shut,) = lip_tracks(encoder, [clip])
    assert apart.opening.shape == apart.rounding.shape == (100,)
    assert apart.opening == pytest.approx(np.ones(100))
    assert not shut.opening.any()
    assert (apart.speaker, list(apart.phones)) == ("LJ", list(phones))
