"""Recipe: MMTalker on the canonical head.

    python -m training mmtalker --corpus build/corpus --out build/mmtalker

The paper's loss (Eq. 7 to 10) in millimetres, at points that the learned sampler draws; beside it what makes lips
close: frames of labial contact weigh more, the distance between the lips is a term of its own, and a contact head
learns when they touch. Blinks, which sound does not tell, are an input: some are drawn anew, and the rims of the lids
weigh as the lips' do. A style is a motion pivot, a clip's own or its subject's, as TexTalker's auto-encoder makes them
(`training/autoencoder.py` comes first). The speech encoder is frozen: the compact one, or a wav2vec 2.0 or HuBERT
(`--encoder FOLDER`); its features are computed once, of clean and of noisy sound.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from scipy.linalg import block_diag
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from models.atlas import Anchors, join_anchors
from models.checkpoint import Header
from models.compact_encoder import CompactEncoder
from models.core import Waveform
from models.errors import MalformedInput
from models.features import SpeechEncoder
from models.lips import column_gaps
from models.mmtalker.blinks import draw_blink
from models.mmtalker.network import (
    FEATURE_RATE_HZ,
    KEY_OFFSETS,
    LOCAL_REACH,
    AudioFeatures,
    Instants,
    MMTalker,
    MMTalkerConfig,
    SurfaceDecoder,
    active_points,
)
from models.mmtalker.sampling import initial_log_density
from models.mmtalker.streaming import instants_at, interpolate
from models.template import Head
from models.textalker.encoding import MapEncoders
from training.autoencoder import MapMaker
from training.corpus.coarticulation import RATE_HZ
from training.corpus.face import ACTIONS, FaceRig
from training.datasets.corpus import Corpus, CorpusClip, tracks_at
from training.latents import means_by_subject
from training.loop import LoopConfig, fit
from training.noise import add_noise
from training.openings import eye_openings
from training.speech_encoder import POWER_SCALE, Augmentation, hear, label

FRAMES = 6
"""Frames of a training sequence, at 30 a second."""
SEQUENCES = 8
"""Sequences of a batch."""
POINTS = 256
"""Points at which a batch is compared, beside the rim of the lips."""
MEMORY_S = 2.0
"""Speech that the LSTM hears before the first frame of a sequence."""
CLOSURE_WEIGHT = 5.0
"""How much more a frame of labial contact weighs."""
RIM_WEIGHT, LIP_DISTANCE_WEIGHT, LID_DISTANCE_WEIGHT, CONTACT_WEIGHT = 0.1, 1.0, 0.3, 0.5
SAMPLER_WEIGHT, SAMPLER_SPREAD = 0.05, 1.0
BLINKING = 0.4
"""Share of the sequences in which a blink is drawn, beside the clip's own."""
PIVOT_RATE_HZ = 2
LEAST_AXIS = 0.2
"""An axis along which pivots hardly differ is not stretched beyond this share of the first."""
LIDS = [ACTIONS.index(f"eyeBlink{side}") for side in ("Left", "Right")]


@dataclass(frozen=True, eq=False)
class HeardClip:
    """A clip as MMTalker learns it: motion pivots of the clip and of its subject, features of clean and of noisy sound,
    and the face at 100 Hz.
    """

    subject: str
    pivots: Float[Tensor, "2 pivot"]
    features: tuple[Float[Tensor, "features width"], ...]
    weights: Float32[np.ndarray, "samples actions"]
    contact: Float32[np.ndarray, " samples"]
    blinks: Float32[np.ndarray, " samples"]


class Window(NamedTuple):
    """What a sequence hears: features padded to one length, the clip's feature that follows the padding, and how many
    there are.
    """

    features: Float[Tensor, "padded features"]
    first: int
    length: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences of one step, and the points at which they are compared. Offsets are true ones, in metres."""

    pivot: Float[Tensor, "sequences pivot"]
    features: Float[Tensor, "sequences padded features"]
    first: list[int]
    length: list[int]
    time_s: Float[Tensor, "sequences frames"]
    lids: Float[Tensor, "sequences frames"]
    contact: Float[Tensor, "sequences frames"]
    anchors: Anchors
    offsets: Float[Tensor, "points sequences*frames 3"]
    rim_offsets: Float[Tensor, "rims sequences*frames 3"]
    """Of the lips' rim, then of the lids'."""


class Rims(NamedTuple):
    """The rims of lips and lids, one after the other: vertices as anchors, and gap vectors (columns, rims) between
    their lower and upper edges.
    """

    anchors: Anchors
    lip_gaps: Float32[np.ndarray, "columns rims"]
    lid_gaps: Float32[np.ndarray, "columns rims"]


@cache
def rims_of(head: Head) -> Rims:
    """The rims of a head; one without eyes has no lids."""
    eyes = list(eye_openings(head.atlas.vertices, head.faces_of("skin")))
    gaps = [column_gaps(head.atlas.vertices[eye.rim, 0], eye.upper, eye.lower)[1] for eye in eyes]
    rims = np.concatenate([head.rim, *(eye.rim for eye in eyes)])
    blocks = block_diag(head.seal.gaps, *gaps).astype(np.float32)
    count = len(head.seal.gaps)
    return Rims(head.atlas.anchors_of(rims), blocks[:count], blocks[count:])


def hear_clip(
    clip: CorpusClip, encoder: CompactEncoder | SpeechEncoder, augment: Augmentation, copies: int = 2
) -> tuple[Float[Tensor, "features width"], ...]:
    """The frozen encoder's features of a clip, clean and in `copies` other rooms."""
    return tuple(_listen(encoder, clip, augment if number else None) for number in range(1 + copies))


def _listen(encoder: CompactEncoder | SpeechEncoder, clip: CorpusClip, augment: Augmentation | None) -> Tensor:
    """The compact encoder hears other rooms in power spectra; one that needs samples hears noise over them."""
    if isinstance(encoder, CompactEncoder):
        power = label(clip.samples, clip.phones, clip.recorded).power.float() / POWER_SCALE
        heard, filters = (augment(power), augment.filters()) if augment else (power, Augmentation.plain)
        with torch.inference_mode():
            return hear(encoder, heard @ filters).clone()
    waveform = Waveform(clip.samples)
    if augment:
        waveform = add_noise(waveform, augment.random.uniform(5, 35), int(augment.random.integers(2**31)))
    return encoder.step(encoder.start(), waveform.samples, last=True)[0]


def hear_corpus(
    corpus: Corpus,
    encoder: CompactEncoder | SpeechEncoder,
    pivots: Mapping[str, Float32[np.ndarray, " pivot"]],
    *,
    held_out: bool,
    copies: int = 2,
) -> list[HeardClip]:
    """Every clip of the subjects that are, or are not, held out; `pivots` are the clips' own."""
    augment = Augmentation([], np.random.default_rng(0), 1.0)
    clips = list(corpus.clips(held_out=held_out))
    means = subject_pivots(clips, pivots)
    return [
        HeardClip(
            clip.subject,
            torch.from_numpy(np.stack([pivots[clip.id], means[clip.subject]])),
            hear_clip(clip, encoder, augment, copies),
            clip.weights,
            clip.contact,
            clip.blinks,
        )
        for clip in tqdm(clips, desc="features", dynamic_ncols=True)
    ]


def clip_pivots(
    corpus: Corpus, rig: FaceRig, encoders: MapEncoders, *, held_out: bool
) -> dict[str, Float32[np.ndarray, " pivot"]]:
    """Mean motion latents of every clip, over PIVOT_RATE_HZ frames a second."""
    maker, result = MapMaker(rig, encoders.maps.size, encoders.wrinkle_size, ()), {}
    for clip in tqdm(corpus.clips(held_out=held_out), desc="pivots", dynamic_ncols=True):
        chosen = slice(None, None, RATE_HZ // PIVOT_RATE_HZ)
        maps = maker.motion(clip.weights[chosen], clip.contact[chosen])
        result[clip.id] = encoders.encode("motion", maps).mean(0)
    return result


def subject_pivots(
    clips: Sequence[CorpusClip], pivots: Mapping[str, Float32[np.ndarray, " pivot"]]
) -> dict[str, Float32[np.ndarray, " pivot"]]:
    """The mean of each subject's clips' pivots, by the clips' lengths."""
    lengths = ((clip, len(clip.contact)) for clip in clips)
    return means_by_subject((clip.subject, pivots[clip.id].astype(np.float64) * n, n) for clip, n in lengths)


def principal_axes(
    pivots: Mapping[str, Float[Tensor, " pivot"]], count: int
) -> tuple[Float[Tensor, " pivot"], Float[Tensor, "pivot axes"]]:
    """The pivots' mean, and the axes along which subjects differ most, each divided by its spread; then zeros."""
    known = torch.stack(list(pivots.values())).double()
    mean = known.mean(0)
    _, spread, axes = torch.linalg.svd(known - mean, full_matrices=False)
    unit = spread.clamp_min(LEAST_AXIS * float(spread[0])) / len(known) ** 0.5
    real = spread > 1e-6 * known.norm()  # what is left are directions in which nobody differs
    scaled = (axes[real] / unit[real, None]).T[:, :count].float()
    return mean.float(), functional.pad(scaled, (0, count - scaled.shape[1]))


def draw_batch(clips: Sequence[HeardClip], rig: FaceRig, log_density: Tensor, seed: int) -> Batch:
    """Sequences of clips that are long enough, at times that are no multiples of anything."""
    random = np.random.default_rng(seed)
    anchors = _draw_anchors(log_density, random)
    chosen = [clips[int(random.integers(len(clips)))] for _ in range(SEQUENCES)]
    starts = [random.uniform(0, max(0.01, len(c.contact) / RATE_HZ - FRAMES / 30)) for c in chosen]
    times = [start + np.arange(FRAMES) / 30 for start in starts]
    faces = [_face_at(clip, time_s, random) for clip, time_s in zip(chosen, times, strict=True)]
    weights, contact, lids = (np.concatenate(column) for column in zip(*faces, strict=True))
    atlas = rig.head.atlas
    at = atlas.weights_matrix(join_anchors(anchors, rims_of(rig.head).anchors))
    offsets = torch.from_numpy(rig.offsets(weights, contact, at).transpose(1, 0, 2).copy())
    windows = [
        _window(clip.features[int(random.integers(len(clip.features)))], time)
        for clip, time in zip(chosen, times, strict=True)
    ]
    return Batch(
        pivot=torch.stack([clip.pivots[int(random.integers(2))] for clip in chosen]),
        features=torch.stack([window.features for window in windows]),
        first=[window.first for window in windows],
        length=[window.length for window in windows],
        time_s=torch.from_numpy(np.stack(times)),
        lids=torch.from_numpy(lids.reshape(SEQUENCES, FRAMES)).float(),
        contact=torch.from_numpy(contact.reshape(SEQUENCES, FRAMES)).float(),
        anchors=anchors,
        offsets=offsets[:POINTS],
        rim_offsets=offsets[POINTS:],
    )


def _draw_anchors(log_density: Tensor, random: np.random.Generator) -> Anchors:
    share = log_density.detach().double().softmax(0).numpy()
    face = random.choice(len(share), POINTS, p=share).astype(np.int32)
    return Anchors(face, random.dirichlet([1, 1, 1], POINTS).astype(np.float32))


def _face_at(clip: HeardClip, time_s: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Weights, contact and closure of the lids; in some sequences with one more blink."""
    weights, contact, lids = tracks_at(time_s, clip.weights, clip.contact, clip.blinks)
    if random.random() < BLINKING:
        closure = draw_blink(random, random.uniform(time_s[0] - 0.25, time_s[-1])).closure(time_s)
        weights[:, LIDS] = np.maximum(weights[:, LIDS], closure[:, None])
        lids = np.maximum(lids, closure)
    return weights, contact, lids


def _window(features: Tensor, time_s: np.ndarray) -> Window:
    length = round((MEMORY_S + FRAMES / 30) * FEATURE_RATE_HZ) + KEY_OFFSETS[-1] + 2
    first = int((time_s[0] - MEMORY_S) * FEATURE_RATE_HZ)
    low, high = first - LOCAL_REACH, first + length + LOCAL_REACH
    padding = (max(-low, 0), max(high - len(features), 0))
    if low < 0:  # the clip begins here: the LSTM starts with its first feature, not with padding
        first, low, high = 0, -LOCAL_REACH, length + LOCAL_REACH
        padding = (LOCAL_REACH, max(high - len(features), 0))
    padded = functional.pad(features[max(low, 0) : high], (0, 0, *padding))
    return Window(padded, first, min(length, len(features) - first))


def hear_batch(network: MMTalker, batch: Batch) -> tuple[Instants, Float[Tensor, "sequences frames"]]:
    """What the decoder needs at all frames of a batch, one sequence after the other, and contact logits."""
    audio = network.audio
    heard, _ = audio(batch.features, audio.style_of(batch.pivot), audio.start(len(batch.pivot)))
    instants, contact = [], []
    for k, (first, length) in enumerate(zip(batch.first, batch.length, strict=True)):
        own = AudioFeatures(*(part[k, :length] for part in heard))
        instants.append(instants_at(own, first, batch.time_s[k], batch.lids[k]))
        contact.append(interpolate(own.contact, batch.time_s[k] * FEATURE_RATE_HZ - first))
    return Instants(*(torch.cat(parts) for parts in zip(*instants, strict=True))), torch.stack(contact)


class Objective:
    """The loss of a batch: the paper's three terms, the lips' and the sampler's."""

    def __init__(self, rig: FaceRig, moving: Int64[np.ndarray, " moving"]) -> None:
        self.head, self.moving = rig.head, moving
        self.initial = torch.from_numpy(initial_log_density(rig.head)).log_softmax(0)
        self.rims = rims_of(rig.head)
        self.eye = np.zeros(len(rig.head.atlas.vertices), bool)
        self.eye[rig.head.regions["eyes"]] = True

    def __call__(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Named terms, in mm² where they are distances."""
        assert isinstance(network, MMTalker)
        instants, contact_logits = hear_batch(network, batch)
        everywhere = self.displace(network.surface, instants, join_anchors(batch.anchors, self.rims.anchors))
        predicted, rim = (1e3 * everywhere).split([POINTS, len(everywhere) - POINTS])
        truth, true_rim = 1e3 * batch.offsets, 1e3 * batch.rim_offsets
        error = (predicted - truth).square().sum(-1)
        rims, lips, lids = self._rim_errors(rim - true_rim, batch)
        reconstruction = error.mean() + RIM_WEIGHT * rims
        velocity = _velocity(predicted - truth) + RIM_WEIGHT * _velocity(rim - true_rim)
        eyes = self._eye_divergence(predicted, truth, batch.anchors)
        touching = functional.binary_cross_entropy_with_logits(contact_logits, batch.contact)
        sampler = self._sampler(network.log_density, batch.anchors, error.detach().mean(1))
        total = reconstruction + 10 * velocity + 0.01 * eyes
        total = total + LIP_DISTANCE_WEIGHT * lips + LID_DISTANCE_WEIGHT * lids
        total = total + CONTACT_WEIGHT * touching + SAMPLER_WEIGHT * sampler
        terms = {"rec": reconstruction, "vel": velocity, "eye": eyes, "lips": lips, "lids": lids, "contact": touching}
        return {"total": total, **{name: term.detach() for name, term in terms.items()}}

    def _rim_errors(self, difference: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Mean squares of the rims' errors, of the lips' gaps and of the lids'; frames of contact and blinks weigh
        more.
        """
        touch, shut = (1 + CLOSURE_WEIGHT * amount.flatten() for amount in (batch.contact, batch.lids))
        lips = len(self.head.rim)
        square = difference.square().sum(-1)
        rims = torch.cat([square[:lips] * touch, square[lips:] * shut])
        gaps = [torch.from_numpy(gaps) for gaps in (self.rims.lip_gaps, self.rims.lid_gaps)]
        apart = [torch.einsum("jr,rtc->jtc", gap, difference).square().sum(-1) for gap in gaps]
        return rims.mean(), (apart[0] * touch).mean(), (apart[1] * shut).sum() / max(1, apart[1].numel())

    def displace(
        self, surface: SurfaceDecoder, instants: Instants, anchors: Anchors
    ) -> Float[Tensor, "points frames 3"]:
        """Displacements in metres at anchors, zero where nothing moves. Features are made at their corners only."""
        points = active_points(self.head.atlas, self.moving, anchors)
        rows, corners = np.unique(points.corners, return_inverse=True)
        fused = surface.fused(instants, torch.from_numpy(rows))
        weights = torch.from_numpy(points.weights)
        fused = surface.interpolate(fused, torch.from_numpy(corners.reshape(-1, 3)), weights)
        moved = surface.decode(surface.decoder[0](fused)) * torch.from_numpy(points.mask)[:, None, None]
        everywhere = moved.new_zeros(len(anchors.face), *moved.shape[1:])
        return everywhere.index_copy(0, torch.from_numpy(points.index), moved)

    def _eye_divergence(self, predicted: Tensor, truth: Tensor, anchors: Anchors) -> Tensor:
        """Eq. 10: KL between how true and predicted movement of each point at the eyes spreads over the frames."""
        eye = torch.from_numpy(self.eye[self.head.atlas.faces[anchors.face]].all(1))
        if not eye.any():
            return predicted.new_zeros(())
        own, true = (movement[eye].norm(dim=-1).log_softmax(1) for movement in (predicted + 1e-6, truth + 1e-6))
        return functional.kl_div(own, true, log_target=True, reduction="batchmean")

    def _sampler(self, log_density: Tensor, anchors: Anchors, error: Tensor) -> Tensor:
        """Draws points to where the error is, by the score of the drawn triangles, not too far from the start."""
        log_share = log_density.log_softmax(0)
        reward = (error / error.mean().clamp_min(1e-9)).clamp(max=10) - 1
        drawn = (log_share[torch.from_numpy(anchors.face).long()] * reward).mean()
        return SAMPLER_SPREAD * functional.kl_div(self.initial, log_share, log_target=True, reduction="sum") - drawn


def _velocity(difference: Float[Tensor, "points sequences*frames 3"]) -> Tensor:
    """Eq. 9: mean square of the frame-to-frame change of an error, sequence by sequence."""
    steps = difference.unflatten(1, (SEQUENCES, FRAMES)).diff(dim=2)
    return steps.square().sum(-1).mean()


def train(
    corpus: Corpus,
    encoders: MapEncoders,
    encoder: CompactEncoder | SpeechEncoder,
    folder: Path,
    steps: int,
    config: MMTalkerConfig,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
) -> MMTalker:
    """Train for `steps`; see the model card for what that took."""
    head = encoders.head
    rig = corpus.rig(head)
    pivots = clip_pivots(corpus, rig, encoders, held_out=False)
    clips = [clip for clip in hear_corpus(corpus, encoder, pivots, held_out=False) if len(clip.contact) > RATE_HZ]
    if not clips:
        raise MalformedInput(f"no clip of {corpus.folder} is longer than 1 s; build a larger corpus")
    config = replace(config, features=encoder.width, pivot=clips[0].pivots.shape[1])
    torch.manual_seed(0)
    network = MMTalker(config, head.atlas, rig.moving, initial_log_density(head))
    mean, axes = principal_axes({clip.subject: clip.pivots[1] for clip in clips}, config.pivot_axes)
    network.audio.pivot_mean.copy_(mean)
    network.audio.pivot_axes.copy_(axes)
    minutes = sum(len(clip.contact) for clip in clips) / RATE_HZ / 60
    spoken = len({clip.subject for clip in clips})
    header = Header(
        "mmtalker",
        asdict(network.config),
        data=f"{minutes:.0f} min of speech, with synthetic faces of {spoken} subjects",
    )
    fit(
        network,
        lambda step: draw_batch(clips, rig, network.log_density, step),
        Objective(rig, rig.moving),
        LoopConfig(steps, learning_rate=2e-3, weight_decay=0.0, ema=0.998),
        folder,
        header,
        evaluate,
    )
    return network
