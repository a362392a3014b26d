"""The auto-encoders' recipe: its maps are the corpus', its loss is zero where there and back is the same, and codes
that nobody uses begin anew.

`talking_corpus` serves other tests of TexTalker's training too.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_face import small_rig
from test_mmtalker_training import write_corpus
from tiny import shipped_head
from tiny_textalker import JOINT, MOTION, WRINKLE, PlainField, face, tiny_autoencoder
from torch import Tensor, nn

from models.checkpoint import Header, read_header, read_tensors, save_checkpoint
from models.textalker.autoencoder import AutoencoderConfig, Codebook, load_autoencoder
from models.textalker.maps import MotionMaps, to_network, wrinkle_map
from training import autoencoder
from training.autoencoder import (
    ADVERSARIAL,
    BATCHES,
    COMMITMENT,
    CRITICAL,
    REGION_WEIGHTS,
    RESTART_EVERY,
    SETTLED,
    UNQUANTISED,
    UPPER,
    Batch,
    Faces,
    MapMaker,
    Objective,
    Trainee,
    codebook_usage,
    join_maps,
    rim_vertices,
    texel_weights,
    train,
)
from training.corpus.face import ACTIONS
from training.corpus.wrinkles import WrinkleStyle
from training.datasets.corpus import Corpus
from training.perceptual import gradient_distance


def talking_corpus(folder: Path) -> Corpus:
    """The tiny corpus, with the records that TexTalker's recipes read; all of it counts as recorded."""
    corpus = write_corpus(folder)
    description = dict(corpus.description)
    for record in description["clips"]:
        with np.load(folder / "clips" / f"{record['id']}.npz") as arrays:
            record |= {"seconds": len(arrays["samples"]) / 16_000, "origin": "recorded: CC0"}
    (folder / "corpus.json").write_text(json.dumps(description))
    return Corpus(folder)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return talking_corpus(tmp_path_factory.mktemp("corpus") / "built")


def maker(joint: bool = False) -> MapMaker:
    """Two subjects' wrinkles: a smooth one's, and a lined one's."""
    fields = [PlainField(face(), WrinkleStyle(depth={"forehead": depth})) for depth in (0.1, 0.4)]
    return MapMaker(small_rig(), MOTION.size, JOINT.size if joint else WRINKLE.size, fields)


def some_faces(count: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights and contact: every other face's lips are firmly closed."""
    random = np.random.default_rng(seed)
    weights = random.uniform(0, 0.4, (count, len(ACTIONS))).astype(np.float32)
    return weights, (np.arange(count) % 2).astype(np.float32)


# What is drawn.


def test_a_drawn_face_is_the_lower_one_of_a_moment_with_the_upper_one_of_another():
    """Both as strong as each other; contact goes with the lips."""
    moments = np.arange(1.0, 201, dtype=np.float32)
    faces = Faces(np.repeat(moments[:, None], len(ACTIONS), 1), moments)
    weights, contact = faces.draw(400, np.random.default_rng(0))
    lower = np.setdiff1d(np.arange(len(ACTIONS)), UPPER)
    gain = weights[:, lower[0]] / contact
    assert np.allclose(weights[:, lower], (gain * contact)[:, None])
    upper = weights[:, UPPER] / gain[:, None]
    assert np.allclose(upper, upper.round(), atol=1e-3)
    assert np.ptp(upper, axis=1).max() < 1e-3
    assert np.mean(np.isclose(upper[:, 0], contact)) < 0.05
    assert 0.6 <= gain.min() < 0.7 < 1.2 < gain.max() <= 1.3
    assert 0.6 < np.mean(gain == 1) < 0.8
    assert (faces.weights[:, 0] == moments).all()


def test_brows_eyes_and_nose_are_the_upper_face():
    names = {ACTIONS[k] for k in UPPER}
    assert {"browInnerUp", "eyeBlinkLeft", "eyeSquintRight", "noseSneerLeft"} <= names
    assert not {name for name in names if name.startswith(("mouth", "jaw", "tongue", "cheek"))}


@pytest.mark.parametrize("held_out", [False, True])
def test_faces_are_those_of_the_clips(corpus, held_out):
    clips = list(corpus.clips(held_out=held_out))
    faces = Faces.of(corpus, held_out=held_out)
    assert len(faces.contact) == len(faces.weights) == sum(len(clip.contact) for clip in clips)
    assert np.array_equal(faces.weights[-len(clips[-1].weights) :], clips[-1].weights)


def test_motion_maps_are_those_of_the_rigs_offsets():
    """Made from maps of actions and of the seal, as exact as from the vertices."""
    weights, contact = some_faces()
    wanted = MotionMaps(face(), MOTION.size).rasterise(small_rig().offsets(weights, contact))
    made = maker().motion(weights, contact)
    assert made.shape == (6, 3, MOTION.size, MOTION.size)
    assert np.allclose(made, wanted.transpose(0, 3, 1, 2), atol=2e-3)
    assert not np.allclose(made, maker().motion(weights, 0 * contact), atol=2e-3)


def test_wrinkle_maps_are_each_in_the_style_of_its_subject():
    weights, contact = some_faces(4)
    made, fields = maker().wrinkles(weights, contact, [0, 1, 1, 0]), maker().fields
    offsets = small_rig().offsets(weights, contact)
    for n, k in enumerate([0, 1, 1, 0]):
        ratios = fields[k].maps(fields[k].activations(offsets[n : n + 1], contact[n : n + 1]), WRINKLE.size)
        assert np.array_equal(made[n], to_network(wrinkle_map(ratios))[0].transpose(2, 0, 1))
    assert np.abs(made[1]).max() > np.abs(made[0]).max() > 0


@pytest.mark.parametrize("config", [MOTION, WRINKLE, JOINT], ids=lambda config: config.modality)
def test_a_batch_is_what_the_auto_encoder_takes_and_the_seed_decides(config):
    faces, made = Faces(*some_faces(50)), maker(joint=config.modality == "joint")
    one, again, other = (made.draw(config.modality, faces, seed, 5) for seed in (1, 1, 2))
    assert one.shape == (5, config.channels, config.size, config.size)
    assert one.dtype == torch.float32
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_maps_of_both_modalities_are_one_image_of_the_larger_size():
    small, large = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 8, 8)
    joined = join_maps([small, large])
    assert torch.equal(joined[:, 3:], large)
    assert torch.equal(joined[:, :3], small.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(join_maps([large]), large)


# The loss.


class Perfect(nn.Module):
    """An auto-encoder whose latents are the maps, off by `error` when it decodes."""

    def __init__(self, error: float = 0.0, codes: int = 16) -> None:
        super().__init__()
        self.error = nn.Parameter(torch.tensor(error))
        self.codebook = Codebook(codes, 3)

    def encode(self, images: Tensor) -> Tensor:
        return images + 0 * self.error

    def decoder(self, latent: Tensor) -> Tensor:
        return self.images + self.error


def trainee(
    config: AutoencoderConfig = MOTION, perfect: Perfect | None = None, images: Tensor | None = None
) -> Trainee:
    torch.manual_seed(0)
    result = Trainee(config)
    if perfect is not None:
        perfect.images = images
        result.autoencoder = perfect
    return result


def images(config: AutoencoderConfig = MOTION, count: int = BATCHES["motion"], seed: int = 0) -> Tensor:
    return torch.randn(count, 3, config.size, config.size, generator=torch.Generator().manual_seed(seed))


def objective(weight: Tensor | None = None, rims: Tensor | None = None, size: int = MOTION.size) -> Objective:
    return Objective(torch.ones(size, size) if weight is None else weight, gradient_distance, rims)


EARLY = Batch(images(), 0, 0.0)


def test_there_and_back_without_a_difference_costs_nothing():
    """All terms but the one that keeps latents small."""
    terms = objective(rims=torch.randn(5, MOTION.size**2))(trainee(perfect=Perfect(), images=EARLY.images), EARLY)
    assert [float(terms[name]) for name in ("abs", "rec", "rims", "alike", "critic")] == [0] * 5
    assert terms["total"].item() == pytest.approx(0.01 * float(EARLY.images.square().mean()), rel=1e-5)


def test_an_error_everywhere_costs_itself_and_its_square():
    terms = objective()(trainee(perfect=Perfect(0.5), images=EARLY.images), EARLY)
    assert terms["abs"] == pytest.approx(0.5, rel=1e-5)
    assert terms["rec"] == pytest.approx(0.25, rel=1e-5)
    assert terms["alike"] == pytest.approx(0, abs=1e-6)


def test_texels_count_by_their_weight():
    """A half of the square that counts three times as much as the other."""
    weight = torch.ones(MOTION.size, MOTION.size)
    weight[: MOTION.size // 2] = 3
    wrong, batch = trainee(perfect=Perfect(), images=EARLY.images.clone()), EARLY
    wrong.autoencoder.images[:, :, : MOTION.size // 2] += 1
    assert objective(weight)(wrong, batch)["abs"] == pytest.approx(0.75, rel=1e-4)


def test_rims_are_what_their_matrix_reads():
    """Two points: one where the error is, one where there is none."""
    rims = torch.zeros(2, MOTION.size**2)
    rims[0, 5], rims[1, 100] = 1, 1
    wrong = trainee(perfect=Perfect(), images=EARLY.images.clone())
    wrong.autoencoder.images.flatten(2)[..., 5] += 1
    assert objective(rims=rims)(wrong, EARLY)["rims"] == pytest.approx(autoencoder.LIP_WEIGHT / 2, rel=1e-5)


def gradients(module: Trainee, batch: Batch) -> dict[str, Tensor | None]:
    module.zero_grad()
    objective()(module, batch)["total"].backward()
    return {name: part.grad for name, part in module.named_parameters()}


def moved(found: dict[str, Tensor | None], prefix: str) -> bool:
    return any(grad is not None and grad.abs().max() > 0 for name, grad in found.items() if name.startswith(prefix))


def test_codes_begin_after_a_quarter_of_a_run_and_the_critic_near_its_end():
    module = trainee()
    early = gradients(module, Batch(images(), 1, UNQUANTISED - 0.01))
    assert moved(early, "autoencoder.encoder")
    assert not moved(early, "autoencoder.codebook")
    later = gradients(module, Batch(images(), 1, UNQUANTISED))
    assert moved(later, "autoencoder.codebook")
    assert not moved(later, "critic")
    assert moved(gradients(module, Batch(images(), 1, CRITICAL)), "critic")


def test_gradients_pass_the_codes_as_if_they_were_not_there():
    """The decoder's into the encoder (straight through); the codebook learns from the code term alone."""
    module = trainee()
    module.used.fill_(1)
    encoder, book = module.autoencoder.encoder, module.autoencoder.codebook.entries
    batch = Batch(images(), 1, UNQUANTISED)
    found = gradients(module, batch)
    latent = module.autoencoder.encode(batch.images)
    nearest = module.autoencoder.codebook(latent).latent
    (wanted,) = torch.autograd.grad((nearest - latent.detach()).square().mean(), book, retain_graph=True)
    assert torch.allclose(found["autoencoder.codebook.entries"], wanted, atol=1e-7)
    entered = nearest.detach().requires_grad_()
    guess = module.autoencoder.decoder(entered)
    error = guess - batch.images
    loss = error.abs().mean() + error.square().mean() + gradient_distance(guess, batch.images)
    (into,) = torch.autograd.grad(loss, entered)
    commitment = COMMITMENT * (latent - nearest.detach()).square().mean()
    wanted = torch.autograd.grad((latent * into).sum() + commitment, list(encoder.parameters()))
    for (name, _), own in zip(encoder.named_parameters(), wanted, strict=True):
        assert torch.allclose(found[f"autoencoder.encoder.{name}"], own, atol=1e-5), name


def test_the_critic_and_the_auto_encoder_learn_apart():
    """The critic learns only to tell them apart; how it is fooled reaches only the auto-encoder."""
    module, batch = trainee(), Batch(images(), 1, CRITICAL)
    module.used.fill_(1)
    found = gradients(module, batch)
    guess = module.autoencoder(batch.images).detach()
    true, made = module.critic(batch.images), module.critic(guess)
    hinge = (1 - true).clamp(min=0).mean() + (1 + made).clamp(min=0).mean()
    for (name, _), own in zip(
        module.critic.named_parameters(), torch.autograd.grad(hinge, list(module.critic.parameters())), strict=True
    ):
        assert torch.allclose(found[f"critic.{name}"], own, atol=1e-6), name
    uncritical = gradients(module, replace(batch, progress=SETTLED))
    network, name = module.autoencoder, "autoencoder.decoder.enter.weight"
    fooled = -module.critic(network.decoder(network.codebook(network.encode(batch.images)).latent)).mean()
    (wanted,) = torch.autograd.grad(0.05 * ADVERSARIAL * fooled, network.decoder.enter.weight)
    assert wanted.abs().max() > 1e-5
    assert torch.allclose(found[name] - uncritical[name], wanted, atol=1e-6)


# Codes that are used.


def use(module: Trainee, step: int, progress: float) -> Tensor:
    """The entries after a batch at a moment of a run."""
    objective()(module, Batch(images(), step, progress))
    return module.autoencoder.codebook.entries.detach().clone()


def test_the_first_entries_are_latents():
    module = trainee()
    entries = use(module, 1, UNQUANTISED)
    latent = module.autoencoder.encode(images()).detach().permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.cdist(entries, latent).min(1).values.max() < 0.01 * 16
    assert module.used.max() > 0.9


def test_dead_entries_become_latents_now_and_then_and_no_others_change():
    module = trainee()
    module.used.fill_(1)
    module.used[3:9] = 0.01
    before = module.autoencoder.codebook.entries.detach().clone()
    assert torch.equal(use(module, RESTART_EVERY + 1, 0.5), before)
    module.used[3:9] = 0.01  # those that were used in between are alive again
    after = use(module, RESTART_EVERY, 0.5)
    changed = (after != before).any(1)
    assert changed[3:9].all()
    assert not changed[:3].any()
    assert not changed[9:].any()
    latent = module.autoencoder.encode(images()).detach().permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.cdist(after[3:9], latent).min(1).values.max() < 1e-3
    assert (module.used[3:9] > 0.9).all()


def test_entries_settle_before_the_end():
    module = trainee()
    module.used.fill_(1)
    module.used[3:9] = 0.01
    before = module.autoencoder.codebook.entries.detach().clone()
    assert torch.equal(use(module, RESTART_EVERY, SETTLED), before)


def test_who_is_used_stays_and_who_is_not_fades():
    module = trainee()
    module.used.fill_(1)
    for step in range(1, 20):
        use(module, step, 0.5)
    codes = module.autoencoder.codebook(module.autoencoder.encode(images())).codes.unique()
    unused = torch.ones(MOTION.codes, dtype=torch.bool)
    unused[codes] = False
    assert torch.allclose(module.used[unused], torch.tensor(0.98**19))
    assert (module.used[codes] > 1).all()


def test_a_collapsed_codebook_is_seen():
    """One code for all: one used, perplexity 1. As many as there are latents, all alike: as many."""
    network, maps = tiny_autoencoder(MOTION), images(count=4)
    latent = network.encode(maps).detach().permute(0, 2, 3, 1).flatten(0, 2)
    with torch.no_grad():
        network.codebook.entries.fill_(1e3)
        network.codebook.entries[7] = 0
        assert codebook_usage(network, maps) == pytest.approx({"used": 1, "perplexity": 1})
        network.codebook.entries[: len(latent)] = latent
    assert codebook_usage(network, maps) == pytest.approx({"used": len(latent), "perplexity": len(latent)})


# What counts.


def test_eyes_and_lips_count_most_in_motion_and_what_is_off_the_charts_hardly():
    weights = texel_weights(shipped_head(), replace(MOTION, size=128))
    raster = shipped_head().atlas.rasterise(128)
    assert (weights[~torch.from_numpy(raster.covered)] == 0.05).all()
    for region, members in shipped_head().regions.items():
        u, v = shipped_head().atlas.vertex_uvs[members].T
        found = weights[((1 - v) * 128).astype(int), (u * 128).astype(int)]
        assert found.median() == pytest.approx(REGION_WEIGHTS[region], rel=0.3)


def test_all_skin_counts_alike_in_wrinkles_and_nothing_else_does():
    weights = texel_weights(face(), WRINKLE)
    raster = face().atlas.rasterise(WRINKLE.size)
    skin = raster.covered & (face().atlas.chart[raster.face] == face().charts.index("skin"))
    assert np.array_equal(weights.numpy() == 1, skin)
    assert set(weights.unique().tolist()) == {torch.tensor(0.05).item(), 1.0}


def test_rims_are_the_lips_and_both_lids():
    head = shipped_head()
    rims = head.atlas.vertices[rim_vertices(head)]
    lids = rims[len(head.rim) :]
    assert np.array_equal(rims[: len(head.rim)], head.atlas.vertices[head.rim])
    assert 10 < np.sum(lids[:, 0] > 0.01) == np.sum(lids[:, 0] < -0.01)
    assert lids[:, 1].min() > rims[: len(head.rim), 1].max()


# The run.


@pytest.mark.parametrize("config", [MOTION, WRINKLE, JOINT], ids=lambda config: config.modality)
def test_a_run_leaves_an_auto_encoder_that_loads(config, corpus, tmp_path, monkeypatch):
    """Through all its phases; what is stored knows its atlas and what moves, and says what judged likeness."""
    monkeypatch.setattr(autoencoder, "WrinkleField", PlainField)
    monkeypatch.setattr(autoencoder, "rim_vertices", lambda head: head.rim)
    trained = train(corpus, face(), tmp_path, 10, replace(config, moving=0))
    header, prefix = read_header(tmp_path / "averaged.safetensors"), "autoencoder."
    assert "multi-scale gradients, in place of VGG-19" in header.data
    assert header.config["atlas"] == face().atlas.fingerprint
    tensors = read_tensors(tmp_path / "averaged.safetensors")
    own = {name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)}
    save_checkpoint(tmp_path / "own.safetensors", own, Header(header.kind, header.config))
    loaded = load_autoencoder(tmp_path / "own.safetensors", config.modality, face().atlas.fingerprint)
    moving = [] if config.modality == "wrinkle" else small_rig().moving.tolist()
    assert loaded.moving.tolist() == trained.moving.tolist() == moving
    assert torch.equal(loaded.codebook.entries, trained.codebook.entries)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert set(rows[-1]["evaluation"]) == {"mse", "used", "perplexity"}


def test_learning_brings_maps_nearer():
    """A hundred steps on one batch, codes and all: half the error is gone."""
    faces, module, loss = Faces(*some_faces(40)), trainee(), objective()
    optimiser = torch.optim.AdamW(module.autoencoder.parameters(), 3e-3)
    maps = maker().draw("motion", faces, 0)
    errors = []
    for step in range(100):
        torch.manual_seed(step)
        terms = loss(module, Batch(maps, step, step / 125))
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
        errors.append(float(terms["rec"]))
    assert errors[-1] < errors[0] / 2
