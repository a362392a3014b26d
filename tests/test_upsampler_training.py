"""The upsampler's recipe and judge: crops are the exact maps', guides the subjects' skins, and figures add up."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import TORCH, shipped_head
from torchmetrics.functional.image import structural_similarity_index_measure

from models.checkpoint import Header, read_header, save_checkpoint
from models.textalker.maps import to_network, wrinkle_map
from models.textalker.upsampler import MapUpsampler, Upsampler, UpsamplerConfig, load_upsampler, sharpen
from training import __main__ as command
from training import enlargement, upsampler
from training.autoencoder import Faces
from training.corpus.face import ACTIONS, FaceRig
from training.corpus.wrinkles import WrinkleStyle
from training.enlargement import Judge, Tally, similarity, upsampler_report
from training.upsampler import (
    CROP,
    CROPS,
    TRACES,
    Batch,
    CropMaker,
    Face,
    Objective,
    Trainee,
    Window,
    inner,
    train,
    trained,
)

CONFIG = UpsamplerConfig(64, 1, width=4, depth=1, tile=64)
STYLE = WrinkleStyle(grain=0.4)


@cache
def rig() -> FaceRig:
    """The shipped head, squeezed a little, this way or that, by every action."""
    head, random = shipped_head(), np.random.default_rng(0)
    away = head.atlas.vertices - head.atlas.vertices.mean(0)
    basis = [away @ random.normal(0, 0.05, (3, 3)) for _ in ACTIONS]
    return FaceRig(head, np.stack(basis).astype(np.float32))


@cache
def moments() -> Faces:
    random = np.random.default_rng(1)
    return Faces(random.uniform(0, 0.3, (40, len(ACTIONS))).astype(np.float32), np.zeros(40, np.float32))


@cache
def face() -> Face:
    return Face(shipped_head(), STYLE, CONFIG.large)


def bare() -> np.ndarray:
    return np.random.default_rng(2).normal(0, 0.02, (CONFIG.large, CONFIG.large)).astype(np.float32)


def maker(**changes: object) -> CropMaker:
    return CropMaker(rig(), [face()], CONFIG, bare(), **changes)


def test_crops_are_exact_at_both_sizes():
    """The large one averages to the small one, 26 dB below what it says."""
    batch = maker().draw(moments(), 0, plain=True)
    assert batch.small.shape == (4 * CROPS, 3, CROP, CROP)
    assert batch.guide.shape == (4 * CROPS, 1, 4 * CROP, 4 * CROP)
    reduced = torch.nn.functional.avg_pool2d(batch.exact, 4)
    assert batch.small.square().mean() > 1e-3
    assert (reduced - batch.small).square().mean() < batch.small.square().mean() / 20


def test_crops_depend_on_the_step_alone():
    first, again, other = (maker().draw(moments(), step) for step in (3, 3, 4))
    for name in ("small", "guide", "exact"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))


def test_some_maps_have_been_through_the_auto_encoder_and_truth_never_has():
    dark = maker(blur=lambda image: torch.full_like(image, -7.0))
    blurred = torch.cat([dark.draw(moments(), step).small for step in range(6)]).flatten(1)
    share = (blurred == -7).all(1).float().mean()
    assert 0.1 < share < 0.9
    assert not (dark.draw(moments(), 0).exact == -7).any()


def test_large_maps_are_drawn_window_by_window(monkeypatch):
    """What is too large to hold whole is the same."""
    window = Window(slice(40, 90), slice(100, 170))
    activations = face().field.activations(rig().offsets(moments().weights[:1], moments().contact[:1]), np.zeros(1))[0]
    whole = face().exact(activations, window), face().relief(TRACES, window)
    monkeypatch.setattr(upsampler, "WHOLE", 0)
    np.testing.assert_allclose(face().exact(activations, window), whole[0], atol=1e-6)
    np.testing.assert_allclose(face().relief(TRACES, window), whole[1], atol=1e-6)


def test_a_guide_of_a_window_is_that_of_the_whole():
    whole = Window(slice(0, CONFIG.large), slice(0, CONFIG.large))
    everything = sharpen(bare() + face().relief(TRACES, whole), CONFIG.large)
    part = maker().guide(face(), TRACES, Window(slice(50, 90), slice(0, 70)))
    np.testing.assert_allclose(part, everything[50:90, :70], atol=1e-5)


def test_a_neutral_texture_shows_where_its_face_creases_and_its_grain():
    """Traces darken it, in proportion; without them only the grain is left, which is of its style."""
    window = Window(slice(0, CONFIG.large), slice(0, CONFIG.large))
    grain, faint, strong = (face().relief(traces, window) for traces in (0.0, 0.1, 0.2))
    np.testing.assert_allclose(strong - grain, 2 * (faint - grain), atol=1e-6)
    assert (strong - grain).min() < -0.01
    assert 0 < grain.std() < 0.1


class Exact(torch.nn.Module):
    """Gives back what it is told is right."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, small: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
        return self.answer


def some_batch() -> Batch:
    torch.manual_seed(0)
    return Batch(
        torch.randn(2, 3, CROP, CROP), torch.randn(2, 1, 4 * CROP, 4 * CROP), torch.randn(2, 3, 4 * CROP, 4 * CROP)
    )


def test_the_loss_of_pixels_is_zero_where_they_are_right_and_edges_do_not_count():
    batch, trainee = some_batch(), Trainee(CONFIG)
    answer = batch.exact.clone()
    answer[..., :4] += 1
    trainee.upsampler = Exact(answer)
    terms = Objective("pixel", lambda one, other: torch.zeros(()))(trainee, batch)
    assert terms["total"] == 0
    assert terms.keys() == {"total", "abs", "square"}
    trainee.upsampler = Exact(batch.exact + 0.5)
    terms = Objective("pixel", lambda one, other: torch.zeros(()))(trainee, batch)
    torch.testing.assert_close(terms["total"], torch.tensor(0.5 + 10 * 0.25))


def test_the_critic_teaches_the_upsampler_and_is_not_taught_by_it():
    trainee, batch = Trainee(CONFIG), some_batch()
    terms = Objective("adversarial", lambda one, other: (one - other).abs().mean())(trainee, batch)
    terms["total"].backward()
    assert {"alike", "fooled", "critic"} < terms.keys()
    before = [p.grad.clone() for p in trainee.critic.parameters()]
    trainee.zero_grad()
    critical = torch.relu(1 - trainee.critic(inner(batch.exact))).mean()
    critical = (
        critical + torch.relu(1 + trainee.critic(inner(trainee.upsampler(batch.small, batch.guide)).detach())).mean()
    )
    critical.backward()
    for one, p in zip(before, trainee.critic.parameters(), strict=True):
        torch.testing.assert_close(one, p.grad)


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two subjects, one of them held out, and a skin without a face."""
    monkeypatch.setattr(upsampler, "bare_skin", lambda head, large: bare())
    monkeypatch.setattr(enlargement, "bare_skin", lambda head, large: bare())
    subjects = tuple(SimpleNamespace(held_out=held_out, wrinkles=STYLE) for held_out in (False, True))
    clip = SimpleNamespace(weights=moments().weights, contact=moments().contact)
    return SimpleNamespace(subjects=subjects, rig=lambda head: rig(), clips=lambda held_out: [clip])


def test_a_run_can_be_exported_and_loaded(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(upsampler, "FRAMES", 1)
    train(corpus, shipped_head(), tmp_path / "run", 2, CONFIG)
    header = read_header(tmp_path / "run" / "averaged.safetensors")
    assert header.kind == "upsampler"
    assert "1 subjects; pixel loss" in header.data
    command.main(["export", "textalker-upsampler", str(tmp_path / "run"), "--weights", str(tmp_path)])
    shipped = load_upsampler(tmp_path / "textalker-upsampler.safetensors", shipped_head().atlas.fingerprint)
    own = trained(tmp_path / "run" / "averaged.safetensors")
    assert shipped.config == own.config == replace(CONFIG, atlas=shipped_head().atlas.fingerprint)
    for name, tensor in own.state_dict().items():
        torch.testing.assert_close(shipped.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)


def test_an_adversarial_run_starts_where_another_ended(corpus, tmp_path):
    trainee = Trainee(CONFIG)
    trainee.upsampler.stages[0].leave.bias.data.fill_(0.25)
    save_checkpoint(tmp_path / "start.safetensors", trainee.state_dict(), Header("upsampler", {}))
    network = train(corpus, shipped_head(), tmp_path / "run", 1, CONFIG, "adversarial", tmp_path / "start.safetensors")
    torch.testing.assert_close(network.stages[0].leave.bias, torch.full((48,), 0.25), atol=1e-3, rtol=0)


# How it is judged.


def test_similarity_is_that_of_torchmetrics():
    one, other = np.random.default_rng(0).random((2, 40, 50, 3)).astype(np.float32)
    images = (torch.from_numpy(image.transpose(2, 0, 1))[None] for image in (one, other))
    _, wanted = structural_similarity_index_measure(*images, data_range=1.0, return_full_image=True)
    inside = slice(6, -6), slice(6, -6)
    np.testing.assert_allclose(similarity(one, other)[inside], wanted[0].mean(0).numpy()[inside], atol=2e-3)
    np.testing.assert_allclose(similarity(one, one), 1, atol=1e-5)


def test_errors_count_on_the_face_alone():
    truth, guess, mask = np.zeros((16, 20, 3), np.float32), np.zeros((16, 20, 3), np.float32), np.zeros((16, 20), bool)
    guess[:, :10], guess[:, 10:], mask[:, 10:] = 1.0, 0.01, True
    tally = Tally()
    tally.add(guess, truth, mask)
    assert tally.report()["psnr_db"] == pytest.approx(40, abs=1e-3)
    assert tally.judged == 6 * 10


class Oracle:
    """Upsamples by knowing the answer."""

    config = CONFIG

    def __init__(self, answer: np.ndarray) -> None:
        self.answer = answer

    def enlarge(self, wrinkles: np.ndarray, guide: np.ndarray | None = None) -> torch.Tensor:
        return torch.from_numpy(to_network(wrinkle_map(self.answer)).transpose(2, 0, 1).copy())[None]


def test_a_judge_knows_the_exact_map(corpus):
    """At the network's own size; an untrained network is as good as bicubic, and one that knows is perfect."""
    untrained = MapUpsampler(Upsampler(CONFIG), TORCH)
    judge = Judge({"untrained": untrained}, corpus, shipped_head())
    activations = judge._moments(face(), 1)
    judge = Judge(
        {"untrained": untrained, "oracle": Oracle(face().field.maps(activations, CONFIG.large)[0])},
        corpus,
        shipped_head(),
    )
    report = upsampler_report(judge, CONFIG.large, 1)
    rows = report["rows"]
    assert rows["oracle, no guide, exact map"]["psnr_db"] > 90
    assert rows["oracle, no guide, exact map"]["ssim"] == pytest.approx(1, abs=1e-4)
    assert rows["untrained, own skin, exact map"] == pytest.approx(rows["bicubic, exact map"])
    assert 20 < rows["bicubic, exact map"]["psnr_db"] < 60
    assert report["subjects"] == 1


def test_a_figure_has_five_tiles_for_each_place(corpus):
    judge = Judge({"untrained": MapUpsampler(Upsampler(CONFIG), TORCH)}, corpus, shipped_head())
    picture = judge.figure(512, crop=32, moments=2)
    assert picture.shape == (3 * 32, 5 * 32, 3)
    bicubic, ours = picture[:, 64:96], picture[:, 96:128]
    assert np.abs(bicubic.astype(int) - ours).max() <= 1
