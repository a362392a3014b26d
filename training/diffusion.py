"""Recipe: TexTalker's latent diffusion, on latents that the auto-encoders made.

The paper's loss (4.3, Eq. 6): squared error of the predicted X⁰, each number in units of its spread. Beside it what
makes lips close: frames of labial contact weigh more, a linear reading of the rim of the lips may be compared in
millimetres, and a contact head learns when they touch. Windows start anywhere on the grid and are cut short at random;
the frames before them are true ones with a little noise, since in use they are generated ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32
from torch import Tensor, nn
from torch.nn import functional

from models.checkpoint import Header
from models.errors import MalformedInput
from models.features import FEATURE_RATE_HZ
from models.textalker.codes import RATE_HZ
from models.textalker.denoiser import GRID, Denoiser, DenoiserConfig
from models.textalker.diffusion import Schedule
from models.textalker.windows import rows_between
from training.loop import LoopConfig, fit

SEQUENCES = 8
"""Windows of a batch."""
BEGINNING = 0.25
"""Share of the windows that are a clip's first."""
TRUNCATED = 0.25
"""Share that is cut short before the clip ends."""
SHORTEST = 30
"""Frames that are left of a clip, at least, where a later window begins."""
PREVIOUS_NOISE = 0.2
"""Most noise that the frames before a window get, in unit latents."""
CLOSURE_WEIGHT, LIPS_WEIGHT, CONTACT_WEIGHT = 2.0, 1.0, 0.2
LEAST_SPREAD = 0.1
"""A number's unit is no less than this share of its modality's: what hardly varies is not blown up."""


@dataclass(frozen=True, eq=False)
class LatentClip:
    """A clip as the diffusion learns it: features of clean and of noisy sound at 50 Hz, and at 30 Hz the latents less
    their pivots, [Δz_motion, Δz_wrinkle], lip contact and closure of the lids, both 0..1.

    MalformedInput if the lengths differ.
    """

    features: tuple[Float[Tensor, "features width"], ...]
    latents: Float16[np.ndarray, "frames D"]
    contact: Float32[np.ndarray, " frames"]
    lids: Float32[np.ndarray, " frames"]

    def __post_init__(self) -> None:
        lengths = len(self.latents), len(self.contact), len(self.lids)
        if len(set(lengths)) > 1 or not lengths[0]:
            raise MalformedInput(
                f"latents, contact and lids of {lengths} frames; wanted as many of each, and some; make the clip again"
            )


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows of one step. Latents are as the auto-encoders made them; what is not `valid` is zero."""

    features: Float[Tensor, "sequences heard features"]
    lids: Float[Tensor, "sequences previous+window"]
    previous: Float[Tensor, "sequences previous D"]
    latents: Float[Tensor, "sequences window D"]
    contact: Float[Tensor, "sequences window"]
    valid: Bool[Tensor, "sequences window"]
    begins: Bool[Tensor, " sequences"]
    """Whether it is the clip's first, before which there are no frames."""


def draw_batch(clips: Sequence[LatentClip], config: DenoiserConfig, seed: int, sequences: int = SEQUENCES) -> Batch:
    """Windows of clips drawn by their number of frames; the same for the same seed."""
    random = np.random.default_rng(seed)
    frames = np.array([len(clip.latents) for clip in clips])
    chosen = random.choice(len(clips), sequences, p=frames / frames.sum())
    rows = [_draw_window(clips[k], config, random) for k in chosen]
    return Batch(*(torch.stack(column) for column in zip(*rows, strict=True)))


def _draw_window(clip: LatentClip, config: DenoiserConfig, random: np.random.Generator) -> tuple[Tensor, ...]:
    start = _draw_start(len(clip.latents), config, random)
    count = min(config.window, len(clip.latents) - start)
    features = clip.features[int(random.integers(len(clip.features)))]
    if random.random() < TRUNCATED:
        count = int(random.integers(1, count + 1))
        # as if the sound ended there
        features = features[: -(-(start + count) * FEATURE_RATE_HZ // RATE_HZ)]
    low = start * FEATURE_RATE_HZ // RATE_HZ - config.before
    before, frames = max(start - config.previous, 0), slice(start, start + count)
    latents = torch.from_numpy(np.asarray(clip.latents[before : start + count, config.part], np.float32))
    lids = torch.from_numpy(np.asarray(clip.lids[before : start + count], np.float32))
    missing, spare = config.previous - (start - before), config.window - count
    latents = functional.pad(latents, (0, 0, missing, spare))
    return (
        rows_between(features, low, low + config.heard),
        functional.pad(lids, (missing, spare)),
        latents[: config.previous],
        latents[config.previous :],
        functional.pad(torch.from_numpy(np.asarray(clip.contact[frames], np.float32)), (0, spare)),
        torch.arange(config.window) < count,
        torch.tensor(start == 0),
    )


def _draw_start(frames: int, config: DenoiserConfig, random: np.random.Generator) -> int:
    """The clip's first frame, or one that has all its previous ones, on the grid."""
    first, last = -(-config.previous // GRID), (frames - SHORTEST) // GRID
    if last < first or random.random() < BEGINNING:
        return 0
    return GRID * int(random.integers(first, last + 1))


class Objective:
    """The loss of a batch. lips reads the rim's coordinates, in millimetres, from a motion latent, if it is given."""

    def __init__(self, config: DenoiserConfig, lips: Float[Tensor, "coordinates motion"] | None = None) -> None:
        if lips is not None and (config.modalities == "wrinkle" or lips.shape[1] != config.motion):
            raise MalformedInput(
                f"a reading of lips from {lips.shape[1]} numbers; wanted the {config.motion} of a motion latent, and a "
                "network that makes them; leave it out otherwise"
            )
        self.lips = lips
        self.alpha_bar = torch.from_numpy(Schedule(config.steps).alpha_bar).float()

    def __call__(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Named terms: `x0` in unit latents squared, `lips` in mm², `contact` in nats."""
        assert isinstance(network, Denoiser)
        clean = batch.latents / network.scale
        step = torch.randint(1, network.config.steps + 1, (len(clean),))
        kept = self.alpha_bar[step, None, None]
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * torch.randn_like(clean)
        audio, contact = network.hearing(batch.features, batch.lids)
        error = network(noisy, _previous(network, batch), audio, step, batch.valid) - clean
        weight = batch.valid * (1 + CLOSURE_WEIGHT * batch.contact)
        terms = {"x0": _mean(error.square().mean(-1), weight)}
        if self.lips is not None:
            read = (error * network.scale)[..., : self.lips.shape[1]] @ self.lips.T
            terms["lips"] = _mean(read.square().mean(-1), weight)
        touching = functional.binary_cross_entropy_with_logits(
            contact[:, network.config.previous :], batch.contact, reduction="none"
        )
        terms["contact"] = _mean(touching, batch.valid)
        total = terms["x0"] + LIPS_WEIGHT * terms.get("lips", 0) + CONTACT_WEIGHT * terms["contact"]
        return {"total": total, **{name: term.detach() for name, term in terms.items()}}


def _previous(network: Denoiser, batch: Batch) -> Float[Tensor, "sequences previous D"]:
    """The frames before a window in unit latents, with noise; the learned ones where there are none."""
    previous = batch.previous / network.scale
    amount = PREVIOUS_NOISE * torch.rand(len(previous), 1, 1)
    previous = previous + amount * torch.randn_like(previous)
    return torch.where(batch.begins[:, None, None], network.start, previous)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum()


def spread_of(clips: Sequence[LatentClip], config: DenoiserConfig) -> Float[Tensor, " D"]:
    """The unit of each number: its root mean square, but no less than LEAST_SPREAD of its modality's."""
    frames = sum(len(clip.latents) for clip in clips)
    squares = sum(np.square(clip.latents, dtype=np.float64).sum(0) for clip in clips) / frames
    for modality in (squares[: config.motion], squares[config.motion :]):
        if modality.size:
            np.maximum(modality, max(LEAST_SPREAD**2 * modality.mean(), 1e-12), out=modality)
    return torch.from_numpy(np.sqrt(squares[config.part])).float()


def train(
    clips: Sequence[LatentClip],
    folder: Path,
    steps: int,
    config: DenoiserConfig,
    *,
    lips: Float[Tensor, "coordinates motion"] | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
) -> Denoiser:
    """Train for `steps`. MalformedInput for no clip, or latents and features that are not of `config`'s widths."""
    widths = {(clip.latents.shape[1], part.shape[1]) for clip in clips for part in clip.features}
    if widths != {(wanted := (config.motion + config.wrinkle, config.features))}:
        raise MalformedInput(f"clips of (latent, feature) widths {sorted(widths)}; wanted {wanted}; make them anew")
    torch.manual_seed(0)
    network = Denoiser(config)
    network.scale.copy_(spread_of(clips, config))
    minutes = sum(len(clip.latents) for clip in clips) / RATE_HZ / 60
    fit(
        network,
        lambda step: draw_batch(clips, config, step),
        Objective(config, lips),
        LoopConfig(steps, learning_rate=4e-4, weight_decay=0.0, ema=0.998),
        folder,
        Header("textalker-diffusion", asdict(config), data=f"{minutes:.0f} min of latents"),
        evaluate,
    )
    return network
