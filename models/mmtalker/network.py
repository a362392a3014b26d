"""MMTalker: speech features and a surface → displacements at any point of it.

Two halves. `AudioStream` runs once over the features, frame after frame, and carries its state; `SurfaceDecoder` turns
what it says at any instants into displacements at any anchors. Instants are independent, so they are evaluated in any
order and at any frame rate.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import identity
from torch import Tensor, nn
from torch.nn import functional

from models.atlas import Anchors, Atlas
from models.checkpoint import config_from, load_into, read_header, read_tensors
from models.errors import CheckpointError
from models.mmtalker.attention import DirectFusion, DualCrossAttention
from models.mmtalker.encoding import VertexEncoding, chebyshev_tables
from models.mmtalker.graph import Factors, Propagation, ResidualGraph, Rows, propagation_matrix

FEATURE_RATE_HZ = 50
KEY_OFFSETS = tuple(range(-20, 12, 2))
"""Where DCAM looks, in features (20 ms) from the frame: 0.4 s back to 0.2 s ahead."""
LOCAL_REACH = 2
"""Features to either side that the local audio features see."""
UNIT_M = 0.01
"""The networks' unit of length: a centimetre."""


@dataclass(frozen=True)
class MMTalkerConfig:
    """What the network is. `ste`, `rgcn` and `dcam` switch the paper's three components off for its ablation."""

    features: int = 144
    width: int = 64
    channels: int = 8
    degrees: int = 8
    decoder: int = 64
    pivot: int = 4096
    """Numbers in a motion style: the mean latents of somebody's motion, as TexTalker's auto-encoder makes them."""
    pivot_axes: int = 12
    style_width: int = 8
    encoder: str = "compact"
    """Whose features it reads: the compact encoder's, or those of a wav2vec 2.0 or HuBERT, by folder or hub name."""
    encoder_sha256: str = ""
    """Of the compact encoder's checkpoint."""
    autoencoder_sha256: str = ""
    """Of the checkpoint whose latents the pivots are."""
    atlas: str = ""
    """Fingerprint of the atlas that it was made for; the network itself fills it in."""
    ste: bool = True
    rgcn: bool = True
    dcam: bool = True


SIZES: Mapping[str, MMTalkerConfig] = {
    "compact": MMTalkerConfig(),
    "paper": MMTalkerConfig(features=768, width=128, channels=16, degrees=16, decoder=256),
}


class AudioState(NamedTuple):
    """What the LSTM carries: hidden and cell, each (1, batch, width)."""

    hidden: Float[Tensor, "1 batch width"]
    cell: Float[Tensor, "1 batch width"]


class AudioFeatures(NamedTuple):
    """At the features' rate: global f_ag, the channels that vertices mix into f_al, and the logit of labial contact."""

    overall: Float[Tensor, "batch frames width"]
    local: Float[Tensor, "batch frames channels width"]
    contact: Float[Tensor, "batch frames"]


class AudioStream(nn.Module):
    """III-C: an LSTM over the speech features (global), 1-D convolutions and an MLP (local), coloured by style.

    A style is an embedding, as the field has it; but of a motion pivot, not of a speaker's number: of its place along
    the principal axes of the pivots that were trained on. The embedding is linear, so pivots mix before it as after it,
    and one that was never trained on has its place.
    """

    pivot_mean: Tensor
    pivot_axes: Tensor

    def __init__(self, config: MMTalkerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.styles = nn.Linear(config.pivot_axes, config.style_width, bias=False)
        self.register_buffer("pivot_mean", torch.zeros(config.pivot))
        self.register_buffer("pivot_axes", torch.zeros(config.pivot, config.pivot_axes))
        self.reduce = nn.Linear(config.features, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.convolution = nn.Conv1d(config.features, 2 * width, 2 * LOCAL_REACH + 1)
        self.mix = nn.Sequential(nn.ReLU(), nn.Linear(2 * width, config.channels * width))
        self.tone = nn.Linear(config.style_width, 3 * width)
        self.contact = nn.Sequential(nn.ReLU(), nn.Linear(2 * width, 1))

    def start(self, batch: int = 1) -> AudioState:
        """The state before the first feature."""
        zeros = self.reduce.weight.new_zeros(1, batch, self.config.width)
        return AudioState(zeros, zeros)

    def style_of(self, pivot: Float[Tensor, "*batch pivot"]) -> Float[Tensor, "*batch style"]:
        """A motion pivot's embedding; the mean of the pivots that were trained on is 0."""
        return self.styles((pivot - self.pivot_mean) @ self.pivot_axes)

    def forward(
        self, features: Float[Tensor, "batch padded features"], style: Float[Tensor, "batch style"], state: AudioState
    ) -> tuple[AudioFeatures, AudioState]:
        """`features` holds LOCAL_REACH more at either end than the result."""
        tone = self.tone(style)[:, None]
        shift, gain, offset = tone.chunk(3, -1)
        within = features[:, LOCAL_REACH:-LOCAL_REACH]
        overall, (hidden, cell) = self.lstm(self.reduce(within) + shift, tuple(state))
        hidden_local = self.convolution(features.transpose(1, 2)).transpose(1, 2)
        contact = self.contact(hidden_local)[..., 0]
        local = self.mix(hidden_local).unflatten(-1, (self.config.channels, self.config.width))
        local = local * (1 + gain[..., None, :]) + offset[..., None, :]
        return AudioFeatures(overall, local, contact), AudioState(hidden, cell)


class Instants(NamedTuple):
    """What the surface decoder is told of T moments.

    time_s (T,); local (T, K, H); overall (T, H) and around (T, keys, H): f_ag at the moment and around it; lids (T,):
    how far the eyes are closed, 0..1.
    """

    time_s: Float[Tensor, " frames"]
    local: Float[Tensor, "frames channels width"]
    overall: Float[Tensor, "frames width"]
    around: Float[Tensor, "frames keys width"]
    lids: Float[Tensor, " frames"]


class SurfaceDecoder(nn.Module):
    """STE, RGCN, DCAM at the vertices that move; interpolation and five layers (Eq. 6) at any point.

    moving: the vertices that speech moves at all. Everywhere else the displacement is exactly zero, by a mask that is
    interpolated like any vertex quantity.
    """

    moving: Tensor
    cosine: Tensor
    sine: Tensor
    near_cosine: Tensor
    near_sine: Tensor
    place: Tensor

    def __init__(self, config: MMTalkerConfig, atlas: Atlas, moving: Int[np.ndarray, " moving"]) -> None:
        super().__init__()
        self.config = config
        width, encoding = config.width, 2 * config.degrees
        self.active = active_vertices(atlas, moving)
        self.register_buffer("moving", torch.from_numpy(np.asarray(moving, np.int64)))
        matrix = propagation_matrix(atlas.faces, len(atlas.vertices))[self.active][:, self.active]
        self.propagation = Propagation(matrix if config.rgcn else identity(len(self.active), format="csr"))
        uvs = torch.from_numpy(atlas.vertex_uvs[self.active])
        for name, table in zip(("cosine", "sine"), chebyshev_tables(uvs, config.degrees), strict=True):
            self.register_buffer(name, table, persistent=False)
            self.register_buffer(f"near_{name}", self.propagation(table[:, None])[:, 0], persistent=False)
        self.register_buffer("place", chebyshev_tables(uvs, 2 * config.degrees)[0], persistent=False)
        self.encoding = VertexEncoding(timed=config.ste)
        self.mixing = nn.Sequential(nn.Linear(2 * encoding, width), nn.ReLU(), nn.Linear(width, config.channels + 1))
        self.lids = nn.Parameter(torch.randn(width) * 0.1)
        self.graph = ResidualGraph(encoding, width)
        self.fusion = DualCrossAttention(width, len(KEY_OFFSETS)) if config.dcam else DirectFusion(width)
        sizes = [2 * width, *[config.decoder] * 4, 3]
        self.decoder = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))

    def fused(self, instants: Instants, rows: Rows | None = None) -> Float[Tensor, "active frames 2*width"]:
        """f_fa at the active vertices, or at `rows` of them."""
        channels = torch.cat([instants.local, instants.lids[:, None, None] * self.lids], 1)
        mixing = self.mixing(self.place)
        near_mixing = self.propagation(mixing[:, None])[:, 0]
        if rows is None:
            hidden = self._first(instants.time_s, slice(None), mixing, near_mixing, channels)
            motion = self.graph.last(self.propagation(hidden), hidden)
        else:
            ring, neighbours = self.propagation.around(rows)
            hidden = self._first(instants.time_s, ring, mixing[ring], near_mixing[ring], channels)
            gathered = self.propagation.gather(hidden, neighbours, self.propagation.weights[:, rows])
            motion = self.graph.last(gathered, hidden[torch.searchsorted(ring, rows)])
        return self.fusion(motion, instants.overall, instants.around)

    def _first(
        self, time_s: Tensor, at: slice | Rows, mixing: Tensor, near_mixing: Tensor, channels: Tensor
    ) -> Float[Tensor, "vertices frames width"]:
        near = Factors(self.encoding(time_s, self.near_cosine[at], self.near_sine[at]), near_mixing)
        own = Factors(self.encoding(time_s, self.cosine[at], self.sine[at]), mixing)
        return self.graph.first(near, own, channels)

    def latent(self, instants: Instants) -> Float[Tensor, "active frames decoder"]:
        """f_fa through the decoder's first layer.

        That layer is linear, so it commutes with the interpolation of Eq. 6, and is done where there are fewer points.
        """
        return self.decoder[0](self.fused(instants))

    def interpolate(
        self,
        latent: Float[Tensor, "active frames decoder"],
        corners: Int[Tensor, "points 3"],
        weights: Float[Tensor, "points 3"],
    ) -> Float[Tensor, "points frames decoder"]:
        """Eq. 6: the features of three corners, by barycentric weights."""
        return sum(latent[corners[:, k]] * weights[:, k, None, None] for k in range(3))  # type: ignore[return-value]

    def decode(self, latent: Float[Tensor, "points frames decoder"]) -> Float[Tensor, "points frames 3"]:
        """The other four layers, at points: displacements in metres, before the mask."""
        x = functional.relu(latent)
        for layer in self.decoder[1:-1]:
            x = functional.relu(layer(x))
        return self.decoder[-1](x) * UNIT_M


@dataclass(frozen=True, eq=False)
class ActivePoints:
    """Anchors that can move, for a decoder: corners (P, 3) into its active vertices, weights (P, 3), mask (P,)."""

    index: Int[np.ndarray, " points"]
    """Which of the anchors these are; the others never move."""
    corners: Int[np.ndarray, "points 3"]
    weights: Float[np.ndarray, "points 3"]
    mask: Float[np.ndarray, " points"]


def active_vertices(atlas: Atlas, moving: Int[np.ndarray, " moving"]) -> Int[np.ndarray, " active"]:
    """The moving vertices and every corner of a face that has one: where features are needed."""
    touched = np.isin(atlas.faces, moving).any(1)
    return np.unique(atlas.faces[touched])


def active_points(atlas: Atlas, moving: Int[np.ndarray, " moving"], anchors: Anchors) -> ActivePoints:
    """The anchors at which the decoder must be asked."""
    active = active_vertices(atlas, moving)
    place = np.full(len(atlas.vertices), -1)
    place[active] = np.arange(len(active))
    is_moving = np.zeros(len(atlas.vertices), np.float32)
    is_moving[moving] = 1
    corners = atlas.faces[anchors.face]
    mask = (anchors.weights * is_moving[corners]).sum(1)
    index = np.flatnonzero(mask > 0)
    weights = anchors.weights[index] * (place[corners[index]] >= 0)
    return ActivePoints(index, np.maximum(place[corners[index]], 0), weights, mask[index])


class MMTalker(nn.Module):
    """Both halves, and the sampler's logit for every triangle (III-B)."""

    def __init__(
        self, config: MMTalkerConfig, atlas: Atlas, moving: Int[np.ndarray, " moving"], log_density: np.ndarray
    ) -> None:
        super().__init__()
        self.config = config = replace(config, atlas=atlas.fingerprint)
        self.audio = AudioStream(config)
        self.surface = SurfaceDecoder(config, atlas, moving)
        self.log_density = nn.Parameter(torch.from_numpy(np.array(log_density, np.float32)))


def load_mmtalker(path: Path, atlas: Atlas) -> MMTalker:
    """A trained network. CheckpointError if the file does not fit this atlas or this code."""
    config = config_from(MMTalkerConfig, read_header(path))
    if config.atlas != atlas.fingerprint:
        raise CheckpointError(
            f"{path} was trained on atlas {config.atlas or 'unknown'}, the head has {atlas.fingerprint}: train it again"
        )
    tensors = read_tensors(path)
    if "surface.moving" not in tensors:
        raise CheckpointError(f"{path} has no surface.moving; it is no MMTalker checkpoint")
    network = MMTalker(config, atlas, tensors["surface.moving"].numpy(), np.zeros(len(atlas.faces)))
    load_into(network, tensors, str(path))
    return network.eval()
