"""Recipe: the compact speech encoder.

    python -m training speech-encoder --corpus build/corpus --out build/speech_encoder

Learns visemes, phones, the mouth's curves in the neutral style, and labial contact, from recorded and synthetic speech
in equal parts. Closures weigh more in the regression, since a plain mean blurs them away.
Augmentation acts on power spectra and grows over the first third of the run: too heavy too early costs accuracy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from models.checkpoint import Header
from models.compact_encoder import (
    FFT,
    HOP,
    MEL_BINS,
    POWER_FLOOR,
    WINDOW,
    CompactConfig,
    CompactEncoder,
    PowerSpectrum,
    mel_filters,
    normalise,
)
from models.lips import contact_amount
from training.corpus.coarticulation import mouth_curves
from training.corpus.phones import PHONES, Phone, Viseme, segments
from training.datasets.corpus import Corpus
from training.datasets.spoken import SpokenClip
from training.lipsync import LipTrack, score
from training.loop import LoopConfig, fit

BINS = FFT // 2 + 1
CROP = 400
"""Log-mel frames of a training crop: 4 s."""
HEAD_START = 25
"""Features by which a crop may begin before its clip, so that clips' beginnings are heard as the service hears them."""
POWER_SCALE = 4096.0
"""Powers are kept as float16, times this."""
WARPS = tuple(np.round(np.arange(0.86, 1.161, 0.02), 2).tolist())


@dataclass(frozen=True, eq=False)
class LabelledSpectrum:
    """A clip as the encoder learns it: power spectra at 100 Hz, labels at 50 Hz.

    targets: opening, rounding, contact, and 1 where the phone is f or v.
    """

    recorded: bool
    power: Float[Tensor, "frames bins"]
    viseme: Int[Tensor, " half"]
    phone: Int[Tensor, " half"]
    targets: Float[Tensor, "half 4"]


@dataclass(frozen=True)
class Batch:
    """Normalised log-mel crops with their labels; valid is 0 in the padding."""

    mel: Float[Tensor, "batch frames bins"]
    valid: Float[Tensor, "batch half"]
    viseme: Int[Tensor, "batch half"]
    phone: Int[Tensor, "batch half"]
    targets: Float[Tensor, "batch half 4"]


def label(samples: Float[np.ndarray, " samples"], phones: Sequence[Phone], recorded: bool) -> LabelledSpectrum:
    """Spectra and neutral labels of one clip."""
    with torch.no_grad():
        padded = np.pad(samples, (WINDOW // 2, WINDOW // 2))
        power = PowerSpectrum()(torch.from_numpy(padded)[None])[0]
    count = len(samples) // HOP
    curves = mouth_curves(phones, count)
    time_s = np.arange(0, count, 2) / 100
    viseme, phone = np.zeros(len(time_s), np.int64), np.full(len(time_s), PHONES.index("sil"))
    for part in segments(list(phones)):
        inside = (time_s >= part.start_s) & (time_s < part.end_s)
        viseme[inside], phone[inside] = part.viseme, PHONES.index(part.phone)
    columns = (curves.open[::2], curves.round[::2], curves.contact[::2], viseme == Viseme.FV)
    return LabelledSpectrum(
        recorded,
        (power[:count] * POWER_SCALE).clamp(max=60000).half(),
        torch.from_numpy(viseme),
        torch.from_numpy(phone),
        torch.from_numpy(np.stack(columns, 1).astype(np.float32)),
    )


def read_dataset(corpus: Corpus) -> list[LabelledSpectrum]:
    """Every clip of the subjects that are trained on, as spectra and labels."""
    clips = corpus.clips(held_out=False)
    return [label(clip.samples, clip.phones, clip.recorded) for clip in tqdm(clips, desc="spectra", dynamic_ncols=True)]


class Augmentation:
    """Random rooms, microphones, noises and throats, on power spectra (frames, bins); `strength` 0 to 1."""

    def __init__(self, dataset: Sequence[LabelledSpectrum], random: np.random.Generator, strength: float) -> None:
        self.dataset, self.random, self.strength = dataset, random, strength

    def __call__(self, power: Tensor) -> Tensor:
        """The crop, as some other microphone would have heard it."""
        if self._happens(0.7):
            noise = self._babble(len(power)) if self.dataset and self._happens(0.4) else self._coloured(len(power))
            snr_db = self.random.uniform(5, 35) if self._happens(0.7) else self.random.uniform(0, 15)
            power = power + noise * (power.mean() / noise.mean().clamp_min(1e-12) * 10 ** (-snr_db / 10))
        if self._happens(0.5):
            power = power * self._curve(self.random.uniform(8, 40), self.random.uniform(0, 8)).clamp(-4, 4).exp()
        if self._happens(0.15):
            power = power * (torch.arange(BINS) < BINS * self.random.uniform(0.4, 0.9)).float().clamp_min(1e-4)
        if self._happens(0.3):
            power = self._reverberate(power)
        return power * 10 ** (self.strength * self.random.uniform(-2.5, 0.5))

    plain = torch.from_numpy(mel_filters())
    """Mel filters of an ordinary throat."""

    def filters(self) -> Tensor:
        """Mel filters of a shorter or longer throat."""
        return _FILTERS[float(self.random.choice(WARPS))] if self._happens(1.0) else self.plain

    def _happens(self, probability: float) -> bool:
        return bool(self.random.random() < probability * self.strength)

    def _curve(self, smoothness: float, depth: float) -> Tensor:
        return torch.from_numpy(gaussian_filter1d(self.random.standard_normal(BINS), smoothness) * depth).float()

    def _coloured(self, count: int) -> Tensor:
        slope = -self.random.uniform(0, 1.5) * torch.log(torch.arange(BINS) / 20 + 1)
        noise = (self._curve(self.random.uniform(10, 60), self.random.uniform(0, 20)) + slope).exp()
        noise = noise * torch.from_numpy(self.random.exponential(1, (count, BINS))).float()
        if self._happens(0.3):
            swell = np.exp(gaussian_filter1d(self.random.standard_normal(count), 30) * 5)
            noise = noise * torch.from_numpy(swell).float()[:, None]
        return noise

    def _babble(self, count: int) -> Tensor:
        other = self.dataset[int(self.random.integers(len(self.dataset)))].power
        start = self.random.integers(max(1, len(other) - count))
        voice = other[start : start + count].float() / POWER_SCALE
        return functional.pad(voice, (0, 0, 0, count - len(voice)))

    def _reverberate(self, power: Tensor) -> Tensor:
        tail = torch.exp(-torch.arange(30) / self.random.uniform(3, 12)) * self.random.uniform(0.05, 0.5)
        tail[0] = 1
        padded = functional.pad(power.T[:, None], (29, 0))
        return functional.conv1d(padded, tail.flip(0)[None, None])[:, 0].T


_FILTERS = {warp: torch.from_numpy(mel_filters(warp)) for warp in WARPS}


def draw_batch(dataset: Sequence[LabelledSpectrum], seed: int, size: int, strength: float) -> Batch:
    """Crops of 4 s: half recorded, half synthetic, as far as there are both."""
    random = np.random.default_rng(seed)
    augment = Augmentation(dataset, random, strength)
    kinds = [kind for flag in (True, False) if (kind := [item for item in dataset if item.recorded is flag])]
    rows = [_draw_crop(kinds[k % len(kinds)], random, augment) for k in range(size)]
    log_mel, frames, viseme, phone, targets = (torch.stack(column) for column in zip(*rows, strict=True))
    mel = normalise(log_mel, frames)
    for row in mel:
        for _ in range(2):
            width, first = round(strength * random.integers(14)), random.integers(MEL_BINS - 14)
            row[:, first : first + width] = 0
        for _ in range(3):
            width, first = round(strength * random.integers(12)), random.integers(CROP - 12)
            row[first : first + width] = 0
    return Batch(mel, frames[:, ::2], viseme, phone, targets)


def _draw_crop(
    items: Sequence[LabelledSpectrum], random: np.random.Generator, augment: Augmentation
) -> tuple[Tensor, ...]:
    item = items[int(random.integers(len(items)))]
    tempo = float(np.exp(random.uniform(-0.14, 0.14) * augment.strength))
    last = max(0, int(len(item.power) - CROP * tempo) // 2)
    place = torch.arange(2 * int(random.integers(-HEAD_START, last + 1)), len(item.power), tempo)[:CROP]
    low = place.floor().long().clamp(0, len(item.power) - 2)
    share = (place - low).clamp(0, 1)[:, None]
    power = torch.lerp(item.power[low].float(), item.power[low + 1].float(), share) / POWER_SCALE
    power[place < 0] = 0
    log_mel = (augment(power) @ augment.filters()).clamp_min(POWER_FLOOR).log()
    half = (place[::2] / 2).round().long().clamp(0, len(item.viseme) - 1)
    missing = CROP - len(power)

    def padded(values: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros((CROP // 2 - len(values), *values.shape[1:]))])

    return (
        functional.pad(log_mel, (0, 0, 0, missing), value=float(np.log(POWER_FLOOR))),
        functional.pad((place >= 0).float(), (0, missing)),
        *(padded(values[half]) for values in (item.viseme, item.phone, item.targets)),
    )


def losses_of(encoder: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """Cross entropies of viseme and phone, closure-weighted regression of the curves, and contact."""
    assert isinstance(encoder, CompactEncoder)
    hidden = encoder(batch.mel)
    valid = batch.valid / batch.valid.sum()
    curves, contact, labiodental = batch.targets[..., :2], batch.targets[..., 2], batch.targets[..., 3]
    weight = (1 + 2.5 * (2 * contact + labiodental)) * batch.valid

    def entropy(logits: Tensor, target: Tensor) -> Tensor:
        losses = functional.cross_entropy(logits.transpose(1, 2), target, reduction="none", label_smoothing=0.05)
        return (losses * valid).sum()

    touch = encoder.contact(hidden)[..., 0]
    touching = functional.binary_cross_entropy_with_logits(touch, contact, reduction="none")
    terms = {
        "viseme": entropy(encoder.viseme(hidden), batch.viseme),
        "phone": entropy(encoder.phone(hidden), batch.phone),
        "curves": ((encoder.curves(hidden) - curves).square().sum(-1) * weight).sum() / weight.sum(),
        "contact": (touching * (1 + 2 * contact) * valid).sum(),
    }
    total = terms["viseme"] + 0.5 * terms["phone"] + 4 * terms["curves"] + terms["contact"]
    return {"total": total, **{name: term.detach() for name, term in terms.items()}}


def hear(encoder: CompactEncoder, mel_power: Float[Tensor, "frames bins"]) -> Float[Tensor, "half width"]:
    """Features of a whole clip, as the service hears it: with nothing before and after it that sounds."""
    before, after = 2 * encoder.config.receptive_past, 2 * encoder.config.receptive_future
    log_mel = functional.pad(mel_power.clamp_min(POWER_FLOOR).log(), (0, 0, before, after))
    valid = functional.pad(torch.ones(len(mel_power)), (before, after))
    return encoder(normalise(log_mel[None], valid[None]))[0, before // 2 :][: -(-len(mel_power) // 2)]


def lip_tracks(encoder: CompactEncoder, clips: Sequence[SpokenClip]) -> list[LipTrack]:
    """What the encoder's own curves would make the lips do, contact gating the opening, on recorded clips."""
    tracks = []
    for clip in clips:
        waveform = clip.waveform()
        phones, _ = clip.aligned(waveform)
        item = label(waveform.samples[: int(phones[-1].end_s * waveform.rate_hz)], phones, recorded=True)
        with torch.no_grad():
            hidden = hear(encoder, item.power.float() / POWER_SCALE @ Augmentation.plain)[None]
            opening, rounding = encoder.curves(hidden)[0].T.numpy()
            touching = contact_amount(encoder.contact(hidden)[0, :, 0].sigmoid().numpy())
        half, full = np.arange(len(opening)) * 2, np.arange(len(item.power))
        opening = np.interp(full, half, np.maximum(opening, 0) * (1 - touching))
        tracks.append(LipTrack(clip.speaker, opening, np.interp(full, half, rounding), phones))
    return tracks


def train(
    corpus: Corpus, folder: Path, steps: int, dev: Sequence[SpokenClip] = (), batch_size: int = 16
) -> CompactEncoder:
    """Train for `steps` (8,000 take about 90 minutes on two cores), scoring `dev` as it goes."""
    dataset = read_dataset(corpus)
    config = CompactConfig()
    minutes = {flag: sum(len(item.power) for item in dataset if item.recorded is flag) / 6000 for flag in (True, False)}
    data = f"{minutes[True]:.0f} min recorded, {minutes[False]:.0f} min synthetic speech"
    header = Header(kind="compact-encoder", config=asdict(config), data=data)
    torch.manual_seed(0)
    encoder = CompactEncoder(config)
    fit(
        encoder,
        lambda step: draw_batch(dataset, step, batch_size, min(1.0, step / (0.3 * steps))),
        losses_of,
        LoopConfig(steps, learning_rate=2e-3, ema=0.9985),
        folder,
        header,
        evaluate=(lambda _: asdict(score(lip_tracks(encoder, dev)))) if dev else None,
    )
    return encoder
