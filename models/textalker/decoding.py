"""From latents and pivots to maps: f = G_f(Q_f(p_f + Δz_f)) and W = G_w(Q_w(p_w + Δz_w)) (TexTalker 4.4, Eq. 5).

Q and G are apart: between them lie the codes, which `codes` carries to clients.
"""

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt16
from scipy.ndimage import binary_dilation
from torch import Tensor, nn

from models.batching import Axes
from models.core import Codes, CodeSpace
from models.graphs import in_batches
from models.performance import Pivots
from models.runtime import Runtime, on_arrays
from models.template import Head
from models.textalker.autoencoder import Autoencoder
from models.textalker.playback import BATCH, Generators, LogRatios, Maps, generate, generator_facts

PARTS, PAIR = ("motion", "wrinkle"), ("textalker-motion", "textalker-wrinkle")
"""What maps are of, and the checkpoints of their auto-encoders."""
GUTTER = 2
"""Texels around the skin that keep their wrinkles, so that filtering finds no edge."""

Offsets = Float32[np.ndarray, "frames latents"]


class MapDecoders(Protocol):
    """What makes maps of latents."""

    @property
    def latents(self) -> tuple[int, int]:
        """Numbers in a motion latent and in a wrinkle latent."""
        ...

    @property
    def motion_size(self) -> int:
        """Texels along the side of a motion map."""
        ...

    @property
    def moving(self) -> Int64[np.ndarray, " moving"]:
        """The vertices that motion moves at all."""
        ...

    @property
    def coders(self) -> Mapping[str, "Coder"]:
        """Whose codes there are, by part."""
        ...

    @property
    def skin(self) -> Bool[np.ndarray, "size size"]:
        """Texels that may wrinkle."""
        ...

    def quantise(self, offsets: Offsets, pivots: Pivots) -> Codes:
        """Q: codes of latents, of wrinkles too where there is a pivot of them."""
        ...

    def maps(self, codes: Codes) -> tuple[Maps, LogRatios | None]:
        """G: motion maps as networks see them, and log-ratios, zero off the skin, of codes that have wrinkles."""
        ...


def decode(decoders: MapDecoders, offsets: Offsets, pivots: Pivots) -> tuple[Maps, LogRatios | None]:
    """G(Q(·)): maps of latents."""
    return decoders.maps(decoders.quantise(offsets, pivots))


class PairDecoders:
    """Two auto-encoders, one for motion and one for wrinkles, so that neither style reaches the other's codes.

    `checkpoints` has their sha256.
    """

    def __init__(
        self, head: Head, motion: Autoencoder, wrinkle: Autoencoder, runtime: Runtime, checkpoints: Mapping[str, str]
    ) -> None:
        self.latents = motion.config.latents, wrinkle.config.latents
        self.motion_size, self.moving = motion.config.size, motion.moving.cpu().numpy()
        self.coders = {
            part: Coder(network, runtime, name, checkpoints[name])
            for part, name, network in zip(PARTS, PAIR, (motion, wrinkle), strict=True)
        }
        self.skin = skin_texels(head, wrinkle.config.size)
        self._generators = Generators(self.coders["motion"].generate, self.coders["wrinkle"].generate, self.skin)

    def quantise(self, offsets: Offsets, pivots: Pivots) -> Codes:
        """See `MapDecoders.quantise`."""
        split, wrinkle = self.latents[0], None
        motion = self.coders["motion"].quantise(offsets[:, :split] + pivots.motion)
        if pivots.wrinkle is not None:
            wrinkle = self.coders["wrinkle"].quantise(offsets[:, split:] + pivots.wrinkle)
        return Codes(motion, wrinkle)

    def maps(self, codes: Codes) -> tuple[Maps, LogRatios | None]:
        """See `MapDecoders.maps`."""
        return self._generators.maps(codes)


class Coder:
    """Q and G of an auto-encoder, compiled, BATCH maps at a time.

    G is what clients decode with, too: its graph says of which checkpoint it is, by name and sha256.
    """

    def __init__(self, network: Autoencoder, runtime: Runtime, checkpoint: str, sha256: str = "") -> None:
        config = network.config
        self.space = CodeSpace(checkpoint, config.codes, config.grid)
        self._latent = config.latent, config.grid, config.grid
        latents = (torch.zeros(BATCH, *self._latent),)
        quantise = runtime.compile(f"{checkpoint}-codes", _Quantiser(network), latents, Axes((0,), (0,)))
        indices = torch.zeros(BATCH, config.grid, config.grid, dtype=torch.int64)
        generator, facts = _Generator(network), generator_facts(self.space, sha256)
        self._quantise = on_arrays(quantise)
        # one by one: BATCH maps fill a device, and the graph stays the one that clients decode with
        self._generate = on_arrays(runtime.compile(checkpoint, generator, (indices,), facts=facts))
        self._export = partial(runtime.export, checkpoint, generator, (indices,), facts=facts)

    def quantise(self, latents: Offsets) -> UInt16[np.ndarray, "frames rows columns"]:
        """Numbers of the nearest entries."""
        return in_batches(self._quantise, latents.reshape(-1, *self._latent), BATCH).astype(np.uint16)

    def generate(self, codes: UInt16[np.ndarray, "frames rows columns"]) -> Maps:
        """Maps of codes."""
        return generate(self._generate, codes)

    @cached_property
    def file(self) -> Path:
        """G as an ONNX file: on the CPU the one that runs here."""
        return self._export()


def skin_texels(head: Head, size: int) -> Bool[np.ndarray, "size size"]:
    """Texels of the skin, and GUTTER around it that belong to no other chart."""
    raster = head.atlas.rasterise(size)
    skin = head.texels_of("skin", raster)
    return np.asarray(binary_dilation(skin, iterations=GUTTER) & (skin | ~raster.covered))


class _Quantiser(nn.Module):
    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.codebook = network.codebook

    def forward(self, latent: Tensor) -> Tensor:
        return self.codebook(latent).codes


class _Generator(nn.Module):
    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.decoder, self.codebook = network.decoder, network.codebook

    def forward(self, codes: Tensor) -> Tensor:
        return self.decoder(self.codebook.look_up(codes))
