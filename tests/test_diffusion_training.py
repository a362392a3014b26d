"""The diffusion's recipe: what a batch holds, what the loss compares, and that it learns."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.checkpoint import read_header
from models.errors import MalformedInput
from models.textalker.denoiser import Denoiser, DenoiserConfig, load_denoiser
from models.textalker.diffusion import SAMPLERS, Schedule
from training.diffusion import (
    CLOSURE_WEIGHT,
    CONTACT_WEIGHT,
    LEAST_SPREAD,
    SHORTEST,
    Batch,
    LatentClip,
    Objective,
    draw_batch,
    spread_of,
    train,
)

CONFIG = DenoiserConfig(motion=3, wrinkle=2, features=4, width=32, layers=1, heads=2, window=30, previous=5, steps=50)


def numbered(frames: int, copies: int = 1) -> LatentClip:
    """Everything in it tells where in the clip it lies: frame t is t + 1, feature j is j + 1."""
    t = np.arange(1, frames + 1)
    features = torch.arange(1.0, -(-frames * 5 // 3) + 1)[:, None].expand(-1, CONFIG.features)
    contact, lids = (t % 7 / 7).astype(np.float32), (t % 5 / 5).astype(np.float32)
    return LatentClip((features,) * copies, np.repeat(t[:, None], 5, 1).astype(np.float16), contact, lids)


def windows(frames: int, count: int = 200) -> Batch:
    return draw_batch([numbered(frames)], CONFIG, 0, count)


# Batches.


@pytest.mark.parametrize("frames", [1, 2, 29, 30, 31, 60, 400])
def test_windows_hold_consecutive_frames_and_what_was_before_them(frames):
    batch = windows(frames)
    assert batch.features.shape == (200, CONFIG.heard, CONFIG.features)
    for previous, latents, valid, begins in zip(
        batch.previous[..., 0], batch.latents[..., 0], batch.valid, batch.begins, strict=True
    ):
        first, count = int(latents[0]), int(valid.sum())
        assert valid.tolist() == [True] * count + [False] * (CONFIG.window - count)
        assert count >= 1
        assert latents.tolist() == [*range(first, first + count), *[0] * (CONFIG.window - count)]
        before = [0] * CONFIG.previous if begins else [*range(first - CONFIG.previous, first)]
        assert previous.tolist() == before
        assert begins == (first == 1)
        assert first + count - 1 <= frames


def test_contact_and_lids_are_those_of_the_frames():
    batch, clip = windows(400), numbered(400)
    for k in range(200):
        first, count = int(batch.latents[k, 0, 0]) - 1, int(batch.valid[k].sum())
        assert np.array_equal(batch.contact[k, :count], clip.contact[first : first + count])
        low = max(first - CONFIG.previous, 0)
        skipped = CONFIG.previous - (first - low)
        assert np.array_equal(batch.lids[k, skipped : CONFIG.previous + count], clip.lids[low : first + count])
        assert not batch.lids[k, :skipped].any()


def test_features_are_at_the_moments_of_the_frames():
    """Feature `before` lies on the first frame; beyond the clip's ends, or the cut, is its end's."""
    for frames in (2, 45, 400):
        batch = windows(frames)
        for k in range(200):
            first, count = int(batch.latents[k, 0, 0]) - 1, int(batch.valid[k].sum())
            there = first * 5 / 3 - CONFIG.before + np.arange(CONFIG.heard)
            whole, cut = -(-frames * 5 // 3), -(-(first + count) * 5 // 3)
            heard = batch.features[k, :, 0].numpy() - 1
            assert any(np.array_equal(heard, there.clip(0, end - 1)) for end in (whole, cut))
            if count < min(CONFIG.window, frames - first):
                assert np.array_equal(heard, there.clip(0, cut - 1))


def test_windows_begin_everywhere_and_are_cut_short():
    batch = windows(400, 1000)
    first, count = batch.latents[:, 0, 0] - 1, batch.valid.sum(1)
    assert 0.2 < batch.begins.float().mean() < 0.32
    assert set((first % 3).tolist()) == {0.0}
    assert first.unique().tolist() == [0, *range(6, 400 - SHORTEST + 1, 3)]
    assert 0.15 < (count < CONFIG.window).float().mean() < 0.35
    assert count.min() < 4


def test_long_clips_are_drawn_more_often():
    batch = draw_batch([numbered(40), replace(numbered(360), latents=-numbered(360).latents)], CONFIG, 0, 1000)
    assert (batch.latents[:, 0, 0] < 0).float().mean() == pytest.approx(0.9, abs=0.03)


def test_other_rooms_are_heard_too():
    clip = numbered(100)
    clip = replace(clip, features=(clip.features[0], -clip.features[0]))
    heard = draw_batch([clip], CONFIG, 0, 400).features[:, -1, 0]
    assert (heard < 0).float().mean() == pytest.approx(0.5, abs=0.1)


def test_a_batch_depends_on_its_seed_alone():
    clips = [numbered(100), numbered(50)]
    one, again, other = (draw_batch(clips, CONFIG, seed) for seed in (3, 3, 4))
    for name in vars(one):
        assert torch.equal(getattr(one, name), getattr(again, name))
    assert not torch.equal(one.latents, other.latents)


@pytest.mark.parametrize(("modalities", "columns"), [("motion", slice(0, 3)), ("wrinkle", slice(3, 5))])
def test_an_ablation_learns_its_own_part(modalities, columns):
    clip = replace(numbered(90), latents=np.tile(np.arange(5, dtype=np.float16), (90, 1)))
    batch = draw_batch([clip], replace(CONFIG, modalities=modalities), 0)
    expected = torch.arange(5.0)[columns]
    assert torch.equal(batch.latents[0, 0], expected)
    assert torch.equal(batch.previous[~batch.begins][0, 0], expected)


# The loss.


class Wrong(Denoiser):
    """Knows the true latents, and is wrong by `error` in unit latents; hears contact with the logit 0."""

    def __init__(self, batch: Batch, error: Tensor, config: DenoiserConfig = CONFIG) -> None:
        super().__init__(config)
        self.scale.copy_(torch.linspace(0.5, 2, config.size))
        self.known, self.error = batch.latents / self.scale, error
        nn.init.zeros_(self.hearing.contact.weight)
        nn.init.zeros_(self.hearing.contact.bias)

    def forward(self, noisy: Tensor, previous: Tensor, audio: Tensor, step: Tensor, valid: Tensor) -> Tensor:
        self.seen = noisy, previous, step
        return self.known + self.error


def losses(error: Tensor, batch: Batch, lips: Tensor | None = None) -> dict[str, float]:
    terms = Objective(CONFIG, lips)(Wrong(batch, error), batch)
    return {name: value.item() for name, value in terms.items()}


def test_the_truth_costs_nothing():
    terms = losses(torch.zeros(()), windows(100, 8), lips=torch.ones(4, 3))
    assert terms["x0"] == terms["lips"] == pytest.approx(0, abs=1e-10)
    assert terms["total"] == pytest.approx(CONTACT_WEIGHT * terms["contact"])


def test_an_error_costs_its_square_in_units_of_the_spread():
    assert losses(torch.full((5,), 0.5), windows(100, 8))["x0"] == pytest.approx(0.25, rel=1e-4)


def test_frames_of_contact_cost_more_and_those_beyond_the_end_nothing():
    batch = windows(100, 8)
    for k, t in ((0, 0), (3, 0), (5, 0)):
        error = torch.zeros(8, CONFIG.window, 5)
        error[k, t] = 1
        weight = batch.valid * (1 + CLOSURE_WEIGHT * batch.contact)
        assert losses(error, batch)["x0"] == pytest.approx((weight[k, t] / weight.sum()).item(), rel=1e-4)
    beyond = torch.where(batch.valid[..., None], 0.0, 9.0).expand(-1, -1, 5)
    assert beyond.any()
    assert losses(beyond, batch)["x0"] == pytest.approx(0, abs=1e-10)


def test_lips_are_compared_in_millimetres():
    """An error in the wrinkles moves no lips."""
    lips = torch.tensor([[1.0, 0, 0], [0, 2.0, 0]])
    scale = torch.linspace(0.5, 2, 5)
    error = torch.tensor([0.3, 0.1, 5.0, 7.0, 7.0])
    expected = ((error * scale)[0] ** 2 + (2 * (error * scale)[1]) ** 2) / 2
    assert losses(error, windows(100, 8), lips)["lips"] == pytest.approx(expected.item(), rel=1e-4)


def test_contact_costs_its_cross_entropy():
    """An ear that has not learned anything gives each frame a half."""
    assert losses(torch.zeros(()), windows(100, 8))["contact"] == pytest.approx(np.log(2), rel=1e-5)


def test_contact_is_compared_at_the_windows_frames():
    batch = windows(100, 8)
    network = Wrong(batch, torch.zeros(()))
    nn.init.normal_(network.hearing.contact.weight)
    logits = network.hearing(batch.features, batch.lids)[1][:, CONFIG.previous :]
    expected = functional.binary_cross_entropy_with_logits(logits[batch.valid], batch.contact[batch.valid])
    assert Objective(CONFIG)(network, batch)["contact"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_is_shown_is_noisy_by_its_step():
    """x_n − √ᾱ_n x_0 is noise of variance 1 − ᾱ_n; every step is drawn."""
    batch = windows(100, 2000)
    network = Wrong(batch, torch.zeros(()))
    Objective(CONFIG)(network, batch)
    noisy, _, step = network.seen
    assert step.unique().tolist() == list(range(1, 51))
    kept = torch.from_numpy(Schedule(50).alpha_bar).float()[step, None, None]
    noise = (noisy - kept.sqrt() * network.known) / (1 - kept).sqrt()
    assert noise.std(dim=(1, 2)).mean().item() == pytest.approx(1, abs=0.02)
    assert abs(noise.mean().item()) < 0.01


def test_before_the_first_window_are_the_learned_frames():
    batch = windows(400, 50)
    network = Wrong(batch, torch.zeros(()))
    nn.init.normal_(network.start)
    Objective(CONFIG)(network, batch)
    previous = network.seen[1]
    assert torch.equal(previous[batch.begins], network.start.expand(int(batch.begins.sum()), -1, -1))
    off = (previous - batch.previous / network.scale)[~batch.begins].square().mean((1, 2)).sqrt()
    assert 0 < off.max() < 0.3


# The unit of each number.


def test_the_unit_is_the_root_mean_square():
    random = np.random.default_rng(0)
    wide = np.array([1, 2, 3, 10, 20])
    clips = [replace(numbered(n), latents=(wide * random.standard_normal((n, 5))).astype(np.float16)) for n in (500, 9)]
    every = np.concatenate([clip.latents for clip in clips]).astype(float)
    assert spread_of(clips, CONFIG).numpy() == pytest.approx(np.sqrt((every**2).mean(0)), rel=1e-5)
    part = spread_of(clips, replace(CONFIG, modalities="wrinkle"))
    assert torch.equal(part, spread_of(clips, CONFIG)[3:])


def test_what_hardly_varies_is_not_blown_up():
    """Not beyond a tenth of its modality's spread; a modality that never moves has some unit."""
    latents = np.zeros((40, 5), np.float16)
    latents[:, 0] = 3
    units = spread_of([replace(numbered(40), latents=latents)], CONFIG)
    floor = LEAST_SPREAD * 3 / np.sqrt(3)
    assert units.tolist() == pytest.approx([3, floor, floor, 1e-6, 1e-6], rel=1e-3)


# Training.


def heard_clips(count: int = 12, frames: int = 120) -> list[LatentClip]:
    """Latents that the sound tells: a smooth walk, read from the features at the same moment, times different units."""
    random = np.random.default_rng(0)
    clips = []
    for _ in range(count):
        walk = np.cumsum(random.standard_normal((frames + 12, 4)), 0)
        smooth = np.stack([np.convolve(column, np.ones(12) / 12, "valid") for column in walk.T], 1)[:frames]
        smooth = (smooth - smooth.mean(0)) / smooth.std(0)
        position = np.arange(frames * 5 // 3) * 0.6
        features = np.stack([np.interp(position, np.arange(frames), column) for column in smooth.T], 1)
        latents = np.c_[smooth[:, :3] * [0.1, 1, 10], smooth[:, :2]].astype(np.float16)
        contact = (smooth[:, 3] > 0.5).astype(np.float32)
        clips.append(LatentClip((torch.from_numpy(features).float(),), latents, contact, np.zeros(frames, np.float32)))
    return clips


def test_it_learns_what_the_sound_tells(tmp_path):
    """A few hundred steps; then a window drawn from noise follows its sound, the first of the clip and a later one."""
    clips = heard_clips()
    network = train(clips, tmp_path, 400, CONFIG)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["x0"] < 0.5 * rows[0]["x0"]
    assert rows[-1]["contact"] < rows[0]["contact"]
    batch = draw_batch(clips, CONFIG, 10_000, 32)
    begins = batch.begins[:, None, None]
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        previous = torch.where(begins, network.start, batch.previous / network.scale)
        audio, _ = network.hearing(batch.features, batch.lids)
        drawn = SAMPLERS["dpm_solver_2m"](
            lambda x, n: network(x, previous, audio, torch.full((32,), n), batch.valid),
            lambda: torch.randn(batch.latents.shape, generator=random),
            Schedule(CONFIG.steps),
            10,
        )
    for which in (batch.begins, ~batch.begins):
        mine, true = drawn[which][batch.valid[which]], (batch.latents / network.scale)[which][batch.valid[which]]
        assert torch.corrcoef(torch.stack([mine.flatten(), true.flatten()]))[0, 1] > 0.8


def test_the_checkpoint_knows_what_it_learned_from(tmp_path):
    clips = heard_clips(2, 900)
    network = train(clips, tmp_path, 2, CONFIG, evaluate=lambda module: {"mse": 0.25})
    header = read_header(tmp_path / "averaged.safetensors")
    assert (header.kind, header.data) == ("textalker-diffusion", "1 min of latents")
    loaded = load_denoiser(tmp_path / "averaged.safetensors")
    assert torch.equal(loaded.scale, spread_of(clips, CONFIG))
    assert torch.equal(loaded.start, network.start)
    assert '"mse": 0.25' in (tmp_path / "metrics.jsonl").read_text()


# Refusals.


@pytest.mark.parametrize("change", [{"contact": np.zeros(9, np.float32)}, {"lids": np.zeros(11, np.float32)}])
def test_tracks_of_other_lengths_are_refused(change):
    with pytest.raises(MalformedInput, match="wanted as many of each"):
        replace(numbered(10), **change)


def test_a_clip_without_frames_is_refused():
    nothing = np.zeros(0, np.float32)
    with pytest.raises(MalformedInput, match=r"\(0, 0, 0\) frames"):
        LatentClip((torch.zeros(1, 4),), np.zeros((0, 5), np.float16), nothing, nothing)


@pytest.mark.parametrize("change", [{"motion": 4}, {"features": 5}])
def test_clips_of_other_widths_are_refused(change, tmp_path):
    with pytest.raises(MalformedInput, match=r"widths \[\(5, 4\)\]; wanted"):
        train([numbered(40)], tmp_path, 1, replace(CONFIG, **change))


def test_no_clips_are_refused(tmp_path):
    with pytest.raises(MalformedInput, match=r"widths \[\]; wanted \(5, 4\)"):
        train([], tmp_path, 1, CONFIG)


@pytest.mark.parametrize(("width", "modalities"), [(5, "both"), (2, "motion"), (3, "wrinkle")])
def test_a_reading_of_lips_from_anything_but_motion_is_refused(width, modalities):
    with pytest.raises(MalformedInput, match=f"a reading of lips from {width} numbers; wanted the 3"):
        Objective(replace(CONFIG, modalities=modalities), torch.zeros(4, width))
