"""The ablation Joint (TexTalker 4.5): one auto-encoder and one codebook for motion and wrinkles together.

    python -m training autoencoder joint
    python -m training latents --joint build/autoencoder_joint/averaged.safetensors --out build/latents_joint
    python -m training textalker --latents build/latents_joint --out build/ablations/joint

Its maps are six channels at the wrinkles' size: the motion's, each texel repeated, then the wrinkles'. A pivot is one
latent for both, so styles cannot be parted.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch.nn import functional

from models.checkpoint import config_from, load_into, read_header, read_tensors
from models.core import Codes
from models.engine import Sampling
from models.errors import CheckpointError
from models.performance import Pivots
from models.runtime import Runtime, open_runtime
from models.template import Head
from models.textalker.autoencoder import Autoencoder, AutoencoderConfig
from models.textalker.decoding import Coder, skin_texels
from models.textalker.denoiser import load_denoiser
from models.textalker.encoding import BATCH
from models.textalker.maps import from_network, log_ratio
from models.textalker.playback import LogRatios, Maps
from models.textalker.streaming import TexTalkerMotion
from training.autoencoder import MOTION_SHARE, join_maps
from training.evaluate import Talker


class JointDecoders:
    """`MapDecoders` of one auto-encoder for both."""

    def __init__(self, head: Head, network: Autoencoder, runtime: Runtime) -> None:
        config = network.config
        self.latents = config.latents, 0
        self.motion_size: int = config.size // MOTION_SHARE
        self.moving: Int64[np.ndarray, " moving"] = network.moving.cpu().numpy()
        self.coders = {"motion": Coder(network, runtime, "textalker-joint")}
        self.skin = skin_texels(head, config.size)

    def quantise(self, offsets: Float32[np.ndarray, "frames latents"], pivots: Pivots) -> Codes:
        """See `MapDecoders.quantise`. `pivots.motion` is the pivot of both, and the codes count as the motion's."""
        return Codes(self.coders["motion"].quantise(offsets + pivots.motion), None)

    def maps(self, codes: Codes) -> tuple[Maps, LogRatios | None]:
        """See `MapDecoders.maps`."""
        images = self.coders["motion"].generate(codes.motion)
        motion = functional.avg_pool2d(torch.from_numpy(images[:, :3]), MOTION_SHARE).numpy()
        ratios = log_ratio(from_network(images[:, 3:].transpose(0, 2, 3, 1)))
        return motion, np.asarray(ratios * self.skin[..., None].astype(np.float32))


class JointEncoder:
    """`Encoders` of one auto-encoder for both."""

    parts: tuple[str, ...] = ("joint",)

    def __init__(self, network: Autoencoder, runtime: Runtime) -> None:
        size = network.config.size
        self.motion_size, self.wrinkle_size = size // MOTION_SHARE, size
        self._run = runtime.compile("textalker-joint-encoder", network.encoder, (torch.zeros(BATCH, 6, size, size),))

    def encode_maps(self, motion: Maps, wrinkles: Maps) -> tuple[Float32[np.ndarray, "frames latents"]]:
        """Latents of at most BATCH frames, maps as networks see them."""
        images = join_maps([torch.from_numpy(np.ascontiguousarray(part)) for part in (motion, wrinkles)])
        (latent,) = self._run(functional.pad(images, (0, 0, 0, 0, 0, 0, 0, BATCH - len(images))))
        return (latent[: len(images)].cpu().numpy().reshape(len(images), -1),)


def load_joint(path: Path, head: Head) -> Autoencoder:
    """The auto-encoder of a training run, its critic left behind. CheckpointError if it is none of both maps."""
    config = config_from(AutoencoderConfig, read_header(path))
    if (config.modality, config.atlas) != ("joint", head.atlas.fingerprint):
        raise CheckpointError(f"{path} is of {config.modality} maps; wanted joint ones of this atlas: train it again")
    network, prefix = Autoencoder(config), "autoencoder."
    tensors = {name.removeprefix(prefix): part for name, part in read_tensors(path).items() if name.startswith(prefix)}
    load_into(network, tensors, str(path))
    return network.eval()


def open_joint(
    shipped: Talker, autoencoder: Path, run: Path, sampling: Sampling, cache: Path
) -> tuple[Talker, JointEncoder]:
    """The denoiser of a run on joint latents, as a talker beside the shipped one, and what encodes for it."""
    head, runtime = shipped.head, open_runtime("auto", cache)
    network = load_joint(autoencoder, head)
    denoiser = load_denoiser(run / "averaged.safetensors")
    decoders = JointDecoders(head, network, runtime)
    motion = TexTalkerMotion(head, denoiser, decoders, runtime, sampling.name, sampling.steps)
    return replace(shipped, networks=replace(shipped.networks, textalker=motion)), JointEncoder(network, runtime)
