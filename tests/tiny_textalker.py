"""A TexTalker to test with: seeded, untrained, on the tiny head, and wrinkles that need no geometry of a face."""

import hashlib
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from tiny import COLUMNS, SPEECH, TORCH, tiny_head, tiny_moving

from models.engine import CHECKPOINTS
from models.template import Head
from models.textalker.autoencoder import Autoencoder, AutoencoderConfig
from models.textalker.decoding import PairDecoders
from models.textalker.denoiser import Denoiser, DenoiserConfig
from models.textalker.encoding import MapEncoders
from models.textalker.streaming import TexTalkerMotion
from models.textalker.upsampler import MapUpsampler, Upsampler, UpsamplerConfig
from training.corpus.wrinkles import WrinkleStyle

SHA256 = {name: hashlib.sha256(name.encode()).hexdigest() for name in CHECKPOINTS}
"""What stands for the sums of files that there are not."""
EYES = 9
"""Row of the tiny head's eyes: there are brows above them."""
MOTION = AutoencoderConfig("motion", size=16, patch=4, widths=(8, 8), blocks=1, codes=64, moving=len(tiny_moving()))
WRINKLE = AutoencoderConfig("wrinkle", size=32, patch=8, widths=(8,), blocks=1, latent=8, codes=64)
JOINT = AutoencoderConfig("joint", size=32, channels=6, patch=8, widths=(8,), blocks=1, latent=8, codes=64)
UPSAMPLER = UpsamplerConfig(size=32, width=4, depth=2, tile=16)
DENOISER = DenoiserConfig(
    MOTION.latents, WRINKLE.latents, SPEECH.width, width=16, layers=1, heads=2, mlp=1, window=6, previous=3, steps=40
)


@cache
def face() -> Head:
    """The tiny head with eyes that have brows above them."""
    head = tiny_head()
    eyes = np.arange(EYES * COLUMNS, (EYES + 1) * COLUMNS, dtype=np.int32)
    return replace(head, regions={**head.regions, "eyes": eyes})


def tiny_autoencoder(config: AutoencoderConfig, seed: int = 0) -> Autoencoder:
    """A seeded, untrained auto-encoder of the tiny head's maps; what moves is `tiny_moving`."""
    torch.manual_seed(seed)
    network = Autoencoder(replace(config, atlas=face().atlas.fingerprint))
    if config.moving:
        network.moving.copy_(torch.from_numpy(tiny_moving()))
    return network.eval()


def tiny_denoiser(config: DenoiserConfig = DENOISER, seed: int = 0) -> Denoiser:
    """A seeded, untrained denoiser whose latents are spread widely enough to change codes."""
    torch.manual_seed(seed)
    network = Denoiser(config)
    network.scale.fill_(4.0)
    return network.eval()


def tiny_upsampler(seed: int = 0) -> Upsampler:
    """A seeded upsampler of the tiny head's wrinkle maps, to 128², which adds noise where something folds."""
    torch.manual_seed(seed)
    network = Upsampler(replace(UPSAMPLER, atlas=face().atlas.fingerprint))
    for stage in network.stages:
        torch.nn.init.normal_(stage.leave.weight, std=0.02)
    return network.eval()


@cache
def tiny_map_upsampler() -> MapUpsampler:
    """The tiny upsampler, in torch."""
    return MapUpsampler(tiny_upsampler(), TORCH)


@cache
def tiny_encoders() -> MapEncoders:
    """Both tiny encoders, in torch."""
    return MapEncoders(face(), tiny_autoencoder(MOTION), tiny_autoencoder(WRINKLE), TORCH)


@cache
def tiny_textalker() -> TexTalkerMotion:
    """The tiny TexTalker, streaming in torch."""
    return TexTalkerMotion(face(), tiny_denoiser(), tiny_decoders(), TORCH, "dpm_solver_2m", 3)


@cache
def tiny_decoders() -> PairDecoders:
    """Both tiny decoders, in torch."""
    return PairDecoders(face(), tiny_autoencoder(MOTION), tiny_autoencoder(WRINKLE), TORCH, SHA256)


class PlainField:
    """In place of a WrinkleField: the left half darkens as far as vertices move, the right half as lips press."""

    def __init__(self, head: Head, style: WrinkleStyle) -> None:
        self.depth = style.depth["forehead"]

    def activations(self, offsets: np.ndarray, contact: np.ndarray) -> np.ndarray:
        return np.stack([1e3 * np.linalg.norm(offsets, axis=2).mean(1), contact], 1).astype(np.float32)

    def maps(self, activations: np.ndarray, size: int) -> np.ndarray:
        sides = np.repeat(np.eye(2, dtype=np.float32), size // 2, axis=1)
        rows = -self.depth * activations @ sides
        return np.broadcast_to(rows[:, None, :, None], (len(rows), size, size, 3)).copy()


def some_offsets(frames: int, seed: int = 0, metres: float = 0.003) -> np.ndarray:
    """Offsets of the face (frames, V, 3), smooth in space."""
    random, places = np.random.default_rng(seed), face().atlas.vertices.astype(float)
    waves = np.sin(places @ random.normal(0, 30, (3, 5)) + random.uniform(0, 6, 5))
    return np.asarray(np.einsum("vw,twc->tvc", waves, random.normal(0, metres / 2, (frames, 5, 3))), np.float32)
