"""From latents and pivots to maps: f = G_f(Q_f(p_f + Δz_f)) and W = G_w(Q_w(p_w + Δz_w)) (TexTalker 4.4, Eq. 5)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from scipy.ndimage import binary_dilation
from torch import Tensor, nn

from models.runtime import Runtime, in_batches
from models.template import Head
from models.textalker.autoencoder import Autoencoder
from models.textalker.maps import from_network, log_ratio

BATCH = 8
"""Maps that are decoded at a time."""
GUTTER = 2
"""Texels around the skin that keep their wrinkles, so that filtering finds no edge."""

Maps = Float32[np.ndarray, "frames channels size size"]
LogRatios = Float32[np.ndarray, "frames size size 3"]


@dataclass(frozen=True, eq=False)
class Pivots:
    """p_f and p_w: what the motion and the wrinkles of a clip are offsets from. wrinkle is None without textures."""

    motion: Float32[np.ndarray, " motion"]
    wrinkle: Float32[np.ndarray, " wrinkle"] | None


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

    def decode(self, offsets: Float32[np.ndarray, "frames latents"], pivots: Pivots) -> tuple[Maps, LogRatios | None]:
        """Motion maps as networks see them and, with a wrinkle pivot, log-ratios, zero off the skin."""
        ...


class PairDecoders:
    """Two auto-encoders, one for motion and one for wrinkles, so that neither style reaches the other's codes."""

    def __init__(self, head: Head, motion: Autoencoder, wrinkle: Autoencoder, runtime: Runtime) -> None:
        self.latents = motion.config.latents, wrinkle.config.latents
        self.motion_size, self.moving = motion.config.size, motion.moving.cpu().numpy()
        self._motion = compile_decoder("textalker-motion", motion, runtime)
        self._wrinkle = compile_decoder("textalker-wrinkle", wrinkle, runtime)
        self._skin = skin_texels(head, wrinkle.config.size)[..., None].astype(np.float32)

    def decode(self, offsets: Float32[np.ndarray, "frames latents"], pivots: Pivots) -> tuple[Maps, LogRatios | None]:
        """See `MapDecoders.decode`."""
        split = self.latents[0]
        maps = self.motion(offsets[:, :split] + pivots.motion)
        return maps, None if pivots.wrinkle is None else self.wrinkles(offsets[:, split:] + pivots.wrinkle)

    def motion(self, latents: Float32[np.ndarray, "frames motion"]) -> Maps:
        """G_f(Q_f(z)): motion maps as networks see them."""
        return self._motion(latents)

    def wrinkles(self, latents: Float32[np.ndarray, "frames wrinkle"]) -> LogRatios:
        """G_w(Q_w(z)) as log-ratios, zero off the skin."""
        return np.asarray(log_ratio(from_network(self._wrinkle(latents).transpose(0, 2, 3, 1))) * self._skin)


def compile_decoder(
    name: str, network: Autoencoder, runtime: Runtime
) -> Callable[[Float32[np.ndarray, "frames latents"]], Maps]:
    """G(Q(·)) of an auto-encoder, as a function from latents to maps, BATCH at a time."""
    grid = network.config.latent, network.config.grid, network.config.grid
    run = runtime.compile(name, _Decoder(network), (torch.zeros(BATCH, *grid),))

    return lambda latents: in_batches(run, latents.reshape(-1, *grid), BATCH)


def skin_texels(head: Head, size: int) -> Bool[np.ndarray, "size size"]:
    """Texels of the skin, and GUTTER around it that belong to no other chart."""
    raster = head.atlas.rasterise(size)
    skin = head.texels_of("skin", raster)
    return np.asarray(binary_dilation(skin, iterations=GUTTER) & (skin | ~raster.covered))


class _Decoder(nn.Module):
    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.decoder, self.codebook = network.decoder, network.codebook

    def forward(self, latent: Tensor) -> Tensor:
        return self.decoder(self.codebook(latent).latent)
