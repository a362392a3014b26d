"""Both engines over the tiny networks, on the tiny head, in torch; and any networks as a folder of weights."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny import tiny_encoder, tiny_motion, tiny_network, tiny_speech
from tiny_textalker import (
    MOTION,
    SHA256,
    WRINKLE,
    face,
    tiny_autoencoder,
    tiny_denoiser,
    tiny_encoders,
    tiny_map_upsampler,
    tiny_textalker,
    tiny_upsampler,
)
from torch import nn

from models.backend import autoencoders_id
from models.checkpoint import Header, file_sha256, pin, save_checkpoint
from models.core import StylePivot
from models.engine import CHECKPOINTS, ENGINES, LocalEngine, Networks
from models.mmtalker.streaming import MMTalkerMotion
from models.pivots import StyleBook, save_styles
from models.template import Head, head_tensors

AUTOENCODERS = ("textalker-motion", "textalker-wrinkle")
KINDS = dict.fromkeys(AUTOENCODERS, "autoencoder") | {"textalker-upsampler": "upsampler"}
"""What checkpoints are where their names do not say it."""


def a_style(id: str, seed: int = 0, motion: int = MOTION.latents, wrinkle: int | None = WRINKLE.latents) -> StylePivot:
    """Somebody's pivots, by seed."""
    random = np.random.default_rng([seed, 0x571])
    parts = [None if size is None else random.standard_normal(size, np.float32) for size in (motion, wrinkle)]
    return StylePivot(id, f"{id}, for tests", "drawn by seed", {"drawn": 1.0}, *parts)


@cache
def tiny_styles() -> tuple[StylePivot, ...]:
    """Three styles of both parts, and one that moves but has no wrinkles."""
    both = [a_style(id, seed) for seed, id in enumerate(("neutral", "calm", "lively"))]
    return (*both, a_style("smooth", 3, wrinkle=None))


class TinySkins:
    """In place of painted skins: noise, by size."""

    def png(self, size: int) -> bytes:
        file = BytesIO()
        noise = np.random.default_rng(size).integers(120, 136, (size // 8, size // 8, 3), np.uint8)
        Image.fromarray(noise).resize((size, size)).save(file, "png", compress_level=1)
        return file.getvalue()


def tiny_networks(motion: MMTalkerMotion | None = None) -> Networks:
    """The tiny networks, perhaps with another MMTalker."""
    motion, upsampler = motion or tiny_motion(), tiny_map_upsampler()
    return Networks(
        head=face(),
        encoder=tiny_speech(),
        motion=motion,
        textalker=tiny_textalker(),
        encoders=tiny_encoders(),
        upsampler=upsampler,
        skins=TinySkins(),
        shapes=Path("shapes.safetensors"),
        checkpoints=SHA256,
    )


def tiny_engine(styles: Path | None = None) -> LocalEngine:
    """The tiny networks with the tiny styles; users' own are kept in `styles`."""
    networks = tiny_networks()
    book = StyleBook(tiny_styles(), styles, networks.autoencoders)
    return LocalEngine(networks, book, {"checkpoints": SHA256, "engines": list(ENGINES)})


def write_weights(folder: Path) -> Path:
    """The tiny head, its networks and styles as a folder of weights."""
    parts = {
        "speech": tiny_encoder(),
        "mmtalker": tiny_network(),
        "textalker-motion": tiny_autoencoder(MOTION),
        "textalker-wrinkle": tiny_autoencoder(WRINKLE),
        "textalker": tiny_denoiser(),
        "textalker-upsampler": tiny_upsampler(),
    }
    return save_weights(folder, face(), parts, tiny_styles())


def save_weights(folder: Path, head: Head, parts: Mapping[str, nn.Module], styles: Iterable[StylePivot]) -> Path:
    """A folder of weights, pinned."""
    arrays = {name: torch.tensor(array) for name, array in head_tensors(head).items()}
    header = Header("head", {"charts": head.charts}, licence=head.licence)
    save_checkpoint(folder / "head.safetensors", arrays, header)
    for name, network in parts.items():
        header = Header(KINDS.get(name, name), asdict(network.config))
        save_checkpoint(folder / f"{name}.safetensors", network.state_dict(), header)
    digests = {part: file_sha256(folder / f"{part}.safetensors") for part in AUTOENCODERS}
    save_styles(folder / "styles.safetensors", styles, autoencoders_id(digests))
    header = Header("shapes", {"head": head.fingerprint})
    shapes = {"mean": arrays["vertices"], "modes": torch.zeros(1, *arrays["vertices"].shape)}
    save_checkpoint(folder / "shapes.safetensors", shapes, header)
    for name in CHECKPOINTS:
        pin(folder, name, folder / f"{name}.safetensors")
    return folder
