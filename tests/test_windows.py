"""The laws of the latent stream: cut anywhere, the frames are the same, and each window leaves once it can."""

from functools import cache, partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TORCH, noise, tiny_speech
from torch import Tensor, nn

from models.core import SAMPLE_RATE_HZ, Waveform, frame_count
from models.errors import OutOfRange, UnknownName
from models.lips import contact_amount
from models.mmtalker.blinks import BlinkTrack
from models.runtime import open_runtime
from models.textalker.denoiser import Denoiser, DenoiserConfig
from models.textalker.diffusion import SAMPLERS, Schedule
from models.textalker.windows import NOISE_STREAM, LatentBatch, LatentMotion, rows_between, stream_latents

CONFIG = DenoiserConfig(motion=6, wrinkle=4, features=16, width=16, layers=1, heads=2, window=30, previous=5, steps=20)
HOP = CONFIG.hop
NEEDED = CONFIG.heard - CONFIG.before
"""Features that the first window waits for."""


def tiny_denoiser() -> Denoiser:
    """Untrained, it would hardly tell one sound from another: its way from hearing to result is made louder."""
    torch.manual_seed(0)
    network = Denoiser(CONFIG).eval()
    nn.init.normal_(network.start)
    network.scale.copy_(torch.linspace(0.5, 2, CONFIG.size))
    for part in (network.layers[0].hear, network.hearing.linear, network.head[1], network.head[3]):
        part.weight.data *= 3
    network.hearing.contact.bias.data -= 2  # where the lips are neither apart nor shut
    return network


@cache
def tiny_motion(sampler: str = "dpm_solver_2m", steps: int = 4) -> LatentMotion:
    return LatentMotion(tiny_denoiser(), TORCH, sampler, steps)


def sound(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, CONFIG.features), np.float32))


def frames_of(features: int) -> int:
    return frame_count(features / 50, 30)


def draw(
    pieces: list[torch.Tensor], seed: int = 0, frames: int | None = None, motion: LatentMotion | None = None
) -> list[LatentBatch]:
    motion, lids = motion or tiny_motion(), BlinkTrack(seed)
    state, batches = motion.start(), []
    total = frames_of(sum(map(len, pieces))) if frames is None else frames
    for number, piece in enumerate(pieces):
        made, state = motion.step(state, piece, lids, seed, total if number == len(pieces) - 1 else None)
        batches += made
    return batches


def joined(batches: list[LatentBatch]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([batch.latents for batch in batches]), np.concatenate([batch.contact for batch in batches])


def same(one: list[LatentBatch], two: list[LatentBatch]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(joined(one), joined(two), strict=True))


# Law 1: one shot is the fold of the stream.


@given(st.lists(st.integers(0, 170), max_size=8), st.sampled_from(sorted(SAMPLERS)))
@settings(deadline=None, max_examples=30)
def test_cut_anywhere_the_latents_are_the_same(cuts, sampler):
    """Empty pieces too, the last one among them."""
    features, motion = sound(170), tiny_motion(sampler)
    pieces = [features[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 170], strict=True)]
    assert same(draw(pieces, motion=motion), draw([features], motion=motion))


@pytest.mark.parametrize("size", [160, 15_999, 16_001])
def test_cut_the_sound_anywhere_the_latents_are_the_same(size):
    """Through a speech encoder, as the engine does; in one piece, in seconds, in pieces of `size` samples."""
    samples, encoder, motion, lids = noise(50_000), tiny_speech(), tiny_motion(), BlinkTrack(3)
    listening, state, batches = encoder.start(), motion.start(), []
    for start in range(0, len(samples), size):
        piece, last = samples[start : start + size], start + size >= len(samples)
        features, listening = encoder.step(listening, piece, last=last)
        made, state = motion.step(state, features, lids, 3, frame_count(3.125, 30) if last else None)
        batches += made
    assert same(batches, list(stream_latents(encoder, motion, Waveform(samples), BlinkTrack(3), 3)))


@pytest.mark.parametrize("samples", [1, 320, 16_000, 15_999, 16_001, 48_000, 50_000])
def test_latents_cover_the_sound(samples):
    batches = list(stream_latents(tiny_speech(), tiny_motion(), Waveform(noise(samples)), BlinkTrack(0), 0))
    latents, contact = joined(batches)
    assert len(latents) == len(contact) == frame_count(samples / SAMPLE_RATE_HZ, 30)
    assert [batch.first for batch in batches] == [CONFIG.window * k for k in range(len(batches))]
    assert latents.dtype == contact.dtype == np.float32
    assert np.isfinite(latents).all()


def test_no_sound_is_no_latent():
    silence = Waveform(np.zeros(0, np.float32))
    assert list(stream_latents(tiny_speech(), tiny_motion(), silence, BlinkTrack(0), 0)) == []


def test_there_may_be_a_frame_after_the_sound():
    """So that who wants another frame rate has something to interpolate to, though a window begins there."""
    batches = draw([sound(HOP)], frames=CONFIG.window + 1)
    assert [len(batch.latents) for batch in batches] == [CONFIG.window, 1]


# When a window leaves, and what it depends on.


def test_the_first_window_leaves_once_what_it_hears_is_there():
    motion, lids = tiny_motion(), BlinkTrack(0)
    early, state = motion.step(motion.start(), sound(NEEDED - 1), lids, 0, None)
    assert early == []
    in_time, _ = motion.step(state, sound(NEEDED)[-1:], lids, 0, None)
    assert [len(batch.latents) for batch in in_time] == [CONFIG.window]


def changed(at: int) -> np.ndarray:
    """Which frames of five windows change with feature `at`."""
    features = sound(5 * HOP)
    before = joined(draw([features]))[0]
    features[at] += 3
    return ~np.isclose(joined(draw([features]))[0], before, atol=1e-6).all(1)


def test_later_sound_changes_no_window_that_has_left():
    """The second window is the first that hears the feature after the first one's last."""
    assert np.flatnonzero(changed(NEEDED))[0] >= CONFIG.window
    assert np.flatnonzero(changed(NEEDED - 1))[0] < CONFIG.window


def test_a_window_goes_on_from_the_one_before():
    """Sound that only the first window hears changes the second, which begins after the first's last frames."""
    assert changed(3)[: 2 * CONFIG.window].all()


def test_states_stay_small_however_long_the_clip():
    motion, lids, state = tiny_motion(), BlinkTrack(0), tiny_motion().start()
    for second in range(60):
        _, state = motion.step(state, sound(50, second), lids, 0, None)
        assert len(state.features) <= CONFIG.heard + 50
        assert state.features.untyped_storage().nbytes() <= (CONFIG.heard + 50) * CONFIG.features * 4
        assert state.previous.untyped_storage().nbytes() <= CONFIG.window * CONFIG.size * 4
    assert state.window == 60 * 50 // HOP - 1


# The network's own words.


def said(network: Denoiser, previous: Tensor, audio: Tensor, valid: Tensor, noisy: Tensor, n: int) -> Tensor:
    return network(noisy, previous, audio, torch.tensor([n]), valid)


@torch.no_grad()
def test_windows_are_what_the_network_says_of_the_whole_clip():
    """Step by step, in torch: hearing, noise of each window, the sampler, the last frames; and the last one cut."""
    network, seed, features = tiny_denoiser(), 7, sound(120)
    total, previous, expected, contacts = frames_of(120), network.start[None], [], []
    for window, first in enumerate(range(0, total, CONFIG.window)):
        low = first * 5 // 3 - CONFIG.before
        index = torch.arange(low, low + CONFIG.heard).clamp(0, 119)
        times = np.arange(first - CONFIG.previous, first + CONFIG.window) / 30
        closure = torch.from_numpy(BlinkTrack(seed).closure(times))
        audio, contact = network.hearing(features[index][None], closure[None])
        valid = torch.arange(first, first + CONFIG.window)[None] < total
        random = np.random.default_rng([seed, window, NOISE_STREAM])
        start = torch.from_numpy(random.standard_normal((1, CONFIG.window, CONFIG.size), np.float32))
        denoise = partial(said, network, previous, audio, valid)
        unit = SAMPLERS["dpm_solver_2m"](denoise, partial(torch.clone, start), Schedule(CONFIG.steps), 4)
        previous = unit[:, -CONFIG.previous :]
        expected.append((unit * network.scale)[0, : total - first])
        contacts.append(contact[0, CONFIG.previous :][: total - first])
    latents, contact = joined(draw([features], seed))
    assert np.mean((contact > 0) & (contact < 1)) > 0.5
    assert np.allclose(latents, torch.cat(expected).numpy(), atol=1e-5)
    assert np.allclose(contact, contact_amount(torch.cat(contacts).sigmoid().numpy()), atol=1e-5)


def test_the_seed_decides():
    """The same, the same bits; another, other latents from another noise, in every window."""
    features = sound(200)
    one, again, other = (joined(draw([features], seed))[0] for seed in (5, 5, 2**63 - 1))
    assert np.array_equal(one, again)
    assert not np.isclose(one, other).all(1).any()


def test_windows_of_the_same_sound_differ_by_their_noise():
    features = sound(1).expand(400, -1)
    latents = joined(draw([features]))[0].reshape(-1, CONFIG.window, CONFIG.size)
    assert np.abs(latents[2] - latents[3]).max() > 0.01


def test_lids_are_asked_for_at_the_frames_times():
    class Watched:
        def __init__(self) -> None:
            self.asked: list[np.ndarray] = []

        def closure(self, time_s: np.ndarray) -> np.ndarray:
            self.asked.append(time_s)
            return np.zeros(len(time_s), np.float32)

    lids, motion = Watched(), tiny_motion()
    motion.step(motion.start(), sound(2 * HOP), lids, 0, frames_of(2 * HOP))
    expected = [np.arange(first - CONFIG.previous, first + CONFIG.window) / 30 for first in (0, CONFIG.window)]
    assert np.allclose(lids.asked, expected)


def test_rows_beyond_the_ends_are_the_ends():
    rows = torch.arange(3.0)[:, None]
    assert rows_between(rows, -2, 5)[:, 0].tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert rows_between(rows, 1, 2)[:, 0].tolist() == [1]


def test_onnxruntime_draws_what_torch_draws(tmp_path):
    exported = LatentMotion(tiny_denoiser(), open_runtime("cpu", tmp_path, threads=1), "dpm_solver_2m", 4)
    features = sound(130)
    for mine, theirs in zip(joined(draw([features], motion=exported)), joined(draw([features])), strict=True):
        assert np.allclose(mine, theirs, atol=1e-4)


# Refusals.


def test_an_unknown_sampler_is_refused():
    with pytest.raises(UnknownName, match="unknown sampler 'euler'; known: ancestral, ddim, dpm_solver_2m"):
        LatentMotion(tiny_denoiser(), TORCH, "euler", 4)


@pytest.mark.parametrize("steps", [0, 21])
def test_more_steps_than_the_schedule_has_are_refused_at_once(steps):
    with pytest.raises(OutOfRange, match=f"{steps} sampler steps; wanted 1 to 20"):
        LatentMotion(tiny_denoiser(), TORCH, "ddim", steps)
