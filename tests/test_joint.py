"""The ablation Joint: one auto-encoder for motion and wrinkles, through the same recipes and the same judge."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_autoencoder_training import some_faces, talking_corpus
from test_face import small_rig
from tiny import TORCH, speech, tiny_encoder
from tiny_engine import tiny_networks
from tiny_textalker import DENOISER, JOINT, PlainField, face, tiny_autoencoder, tiny_denoiser

from models.checkpoint import Header, save_checkpoint
from models.errors import CheckpointError
from models.mmtalker.blinks import BlinkTrack
from models.performance import Pivots
from models.textalker.decoding import decode
from models.textalker.streaming import TexTalkerMotion
from training.autoencoder import MOTION_SHARE, MapMaker, Trainee
from training.corpus.wrinkles import WrinkleStyle
from training.evaluate import Talker
from training.joint import JointDecoders, JointEncoder, load_joint
from training.latents import Latents, encode_corpus
from training.textalker import train


def maker() -> MapMaker:
    return MapMaker(small_rig(), JOINT.size // MOTION_SHARE, JOINT.size, [PlainField(face(), WrinkleStyle())])


def test_latents_are_of_both_maps_in_one_image():
    """The motion's texels each twice along either side."""
    weights, contact = some_faces(3)
    motion, wrinkles = maker().motion(weights, contact), maker().wrinkles(weights, contact, [0, 0, 0])
    network = tiny_autoencoder(JOINT)
    (latents,) = JointEncoder(network, TORCH).encode_maps(motion, wrinkles)
    repeated = motion.repeat(MOTION_SHARE, axis=2).repeat(MOTION_SHARE, axis=3)
    image = torch.from_numpy(np.concatenate([repeated, wrinkles], 1))
    with torch.no_grad():
        wanted = network.encode(image).numpy().reshape(3, -1)
    assert latents == pytest.approx(wanted, abs=1e-5)


def test_one_latent_gives_both_maps():
    decoders = JointDecoders(face(), tiny_autoencoder(JOINT), TORCH)
    random = np.random.default_rng(0)
    offsets, pivot = (random.standard_normal((n, JOINT.latents)).astype(np.float32) for n in (11, 1))
    maps, ratios = decode(decoders, offsets, Pivots(pivot[0], None))
    assert decoders.latents == (JOINT.latents, 0)
    assert maps.shape == (11, 3, JOINT.size // MOTION_SHARE, JOINT.size // MOTION_SHARE)
    assert ratios is not None
    assert ratios.shape == (11, JOINT.size, JOINT.size, 3)
    moved, other = decode(decoders, offsets, Pivots(np.zeros_like(pivot[0]), None))
    assert np.abs(maps - moved).max() > 1e-4
    assert other is not None
    assert np.abs(ratios - other).max() > 1e-6


def save_run(path: Path, **changes: object) -> Path:
    trainee = Trainee(replace(JOINT, **({"atlas": face().atlas.fingerprint} | changes)))  # type: ignore[arg-type]
    save_checkpoint(path, trainee.state_dict(), Header("autoencoder", asdict(trainee.autoencoder.config)))
    return path


def test_a_run_is_read_without_its_critic(tmp_path):
    assert load_joint(save_run(tmp_path / "run"), face()).config.modality == "joint"


@pytest.mark.parametrize("changes", [{"modality": "motion"}, {"atlas": "another"}])
def test_another_autoencoder_is_refused(tmp_path, changes):
    with pytest.raises(CheckpointError, match="wanted joint ones"):
        load_joint(save_run(tmp_path / "run", **changes), face())


def test_the_diffusion_learns_and_speaks_joint_latents(tmp_path, monkeypatch):
    """From the corpus to frames: latents of one part, a denoiser without wrinkles of its own, and both maps."""
    corpus = talking_corpus(tmp_path / "corpus")
    monkeypatch.setattr("training.latents.WrinkleField", PlainField)
    network = tiny_autoencoder(JOINT)
    latents = encode_corpus(corpus, small_rig(), JointEncoder(network, TORCH), 60, tmp_path / "latents", "joint")
    assert Latents(latents.folder).parts == ("joint",)
    config = replace(DENOISER, motion=7, wrinkle=7)
    denoiser = train(corpus, face(), latents, tiny_encoder(), tmp_path / "run", 2, config)
    assert (denoiser.config.motion, denoiser.config.wrinkle) == (JOINT.latents, 0)
    motion = TexTalkerMotion(face(), denoiser, JointDecoders(face(), network, TORCH), TORCH, "ddim", 2)
    pivot = next(iter(latents.pivots("joint").values()))
    talker = Talker(replace(tiny_networks(), textalker=motion), "textalker", Pivots(pivot, pivot))
    batches = list(talker.speak(speech(0.5), face().atlas.vertex_anchors, BlinkTrack(0), 30.0))
    assert sum(len(batch.offsets) for batch in batches) == 15
    assert all(batch.wrinkles is not None and np.isfinite(batch.wrinkles).all() for batch in batches)


def test_a_denoiser_of_two_latents_does_not_fit_it():
    with pytest.raises(CheckpointError, match="train it again"):
        TexTalkerMotion(
            face(), tiny_denoiser(), JointDecoders(face(), tiny_autoencoder(JOINT), TORCH), TORCH, "ddim", 2
        )
