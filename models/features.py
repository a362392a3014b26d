"""Speech → features: what every engine listens with.

An encoder works on a fixed grid of blocks, each read with a bounded stretch of sound before and after it. So a feature
does not depend on how the sound was cut into pieces: the stream and the one shot are the same computation.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from models.batching import Axes
from models.checkpoint import config_from, load_into, read_header, read_tensors
from models.compact_encoder import (
    HOP,
    MEAN_FUTURE,
    MEAN_PAST,
    POWER_FLOOR,
    WINDOW,
    CompactConfig,
    CompactEncoder,
    PowerSpectrum,
    mel_filters,
    normalise,
)
from models.core import SAMPLE_RATE_HZ
from models.errors import CheckpointError
from models.runtime import Runtime

FEATURE_RATE_HZ = 50
STRIDE = SAMPLE_RATE_HZ // FEATURE_RATE_HZ
"""Samples between features: feature j is centred on sample j · STRIDE."""
BLOCK = 50
"""Features a block of the usual grid: one second."""
AHEAD = 200
"""Samples: feature j of the transformers' networks is centred on sample AHEAD + STRIDE · j, ours on STRIDE · j."""

Samples = Float32[np.ndarray, " samples"]
Features = Float[Tensor, "features width"]


class EncoderState(NamedTuple):
    """Sound that is still needed, the clip's sample that it begins with, and the next block."""

    samples: Samples
    first: int
    block: int


class SpeechEncoder(Protocol):
    """Samples in, features out at FEATURE_RATE_HZ."""

    @property
    def width(self) -> int:
        """Numbers in a feature."""
        ...

    @property
    def lookahead_s(self) -> float:
        """Seconds of sound after a feature that must be there before it is, apart from the rest of its block."""
        ...

    @property
    def block(self) -> int:
        """Features that come at a time."""
        ...

    def on_grid(self, block: int) -> "SpeechEncoder":
        """The same encoder on another grid: smaller blocks come earlier, and cost more, each read with its past."""
        ...

    def start(self) -> EncoderState:
        """The state before the first sample."""
        ...

    def step(self, state: EncoderState, samples: Samples, *, last: bool) -> tuple[Features, EncoderState]:
        """Features of the blocks that `samples` complete; all that are left when they are the `last`."""
        ...


class BlockEncoder:
    """The grid: which sound a block needs, and when it is there. Subclasses encode one window."""

    width: int
    past: int
    """Samples before a block that it reads."""
    future: int
    """Samples after a block that it reads."""
    block: int = BLOCK

    @property
    def lookahead_s(self) -> float:
        """See `SpeechEncoder.lookahead_s`."""
        return self.future / SAMPLE_RATE_HZ

    def start(self) -> EncoderState:
        """The state before the first sample."""
        return EncoderState(np.zeros(0, np.float32), 0, 0)

    def step(self, state: EncoderState, samples: Samples, *, last: bool) -> tuple[Features, EncoderState]:
        """See `SpeechEncoder.step`."""
        held, first, block = np.concatenate([state.samples, samples]), state.first, state.block
        end, blocks, span = first + len(held), [], self.block * STRIDE
        while (start := block * span) + span + self.future <= end or (last and start < end):
            low, high = start - self.past, start + span + self.future
            window = held[max(low - first, 0) : high - first]
            window = np.pad(window, (max(-low, 0), high - max(low, 0) - len(window)))
            count = min(self.block, -(-(end - start) // STRIDE))
            blocks.append(self.encode(window, low, end)[:count])
            block += 1
        keep = max(block * span - self.past - first, 0)
        features = torch.cat(blocks) if blocks else torch.zeros(0, self.width)
        return features, EncoderState(held[keep:], first + keep, block)

    def encode(self, window: Samples, first: int, end: int) -> Features:
        """Features (block, width) of one window, which begins at the clip's sample `first`.

        What lies before sample 0, and what lies after `end`, is zeros that are no sound.
        """
        raise NotImplementedError


class CompactSpeech(BlockEncoder):
    """The shipped encoder on the grid."""

    def __init__(self, encoder: CompactEncoder, runtime: Runtime, block: int = BLOCK) -> None:
        config = encoder.config
        self._encoder, self._runtime = encoder, runtime
        self.width, self.block = config.width, block
        self._frames_before = 2 * config.receptive_past + MEAN_PAST
        self._frames_after = 2 * config.receptive_future + MEAN_FUTURE
        self.past = self._frames_before * HOP + WINDOW // 2
        self.future = (self._frames_after - 1) * HOP + WINDOW // 2
        self._frames = self._frames_before + 2 * block + self._frames_after
        example = (torch.zeros(1, self.past + block * STRIDE + self.future), torch.ones(1, self._frames))
        window = _CompactWindow(encoder, self._frames_before, block)
        self._run = runtime.compile(f"speech-{block}", window, example, Axes((0, 0), (0,)))

    def on_grid(self, block: int) -> "CompactSpeech":
        """See `SpeechEncoder.on_grid`."""
        return CompactSpeech(self._encoder, self._runtime, block)

    def encode(self, window: Samples, first: int, end: int) -> Features:
        """See `BlockEncoder.encode`."""
        frame = np.arange(self._frames) + (first + WINDOW // 2) // HOP
        valid = (frame >= 0) & (frame < max(end // HOP, 1))
        (features,) = self._run(torch.from_numpy(window)[None], torch.from_numpy(valid[None].astype(np.float32)))
        return features[0].cpu()


class _CompactWindow(nn.Module):
    """A window of samples, and which of its frames are sound → the features of its block."""

    filters: Tensor

    def __init__(self, encoder: CompactEncoder, frames_before: int, block: int) -> None:
        super().__init__()
        self.spectrum, self.encoder = PowerSpectrum(), encoder
        self.register_buffer("filters", torch.from_numpy(mel_filters()), persistent=False)
        self.skipped = MEAN_PAST
        self.block = slice((frames_before - MEAN_PAST) // 2, (frames_before - MEAN_PAST) // 2 + block)

    def forward(
        self, samples: Float[Tensor, "batch samples"], valid: Float[Tensor, "batch frames"]
    ) -> Float[Tensor, "batch block width"]:
        log_mel = (self.spectrum(samples) @ self.filters).clamp_min(POWER_FLOOR).log()
        mel = normalise(log_mel, valid)[:, self.skipped :]
        return self.encoder(mel)[:, self.block]


class TransformerSpeech(BlockEncoder):
    """wav2vec 2.0 or HuBERT on the grid: last hidden layer, at 50 Hz (MMTalker III-C; TexTalker 4.3).

    Each block is read with 4 s before it and 0.5 s after it, and normalised as the checkpoint's pre-training was.
    """

    past = 4 * SAMPLE_RATE_HZ
    future = SAMPLE_RATE_HZ // 2

    def __init__(self, network: nn.Module, width: int, normalised: bool, runtime: Runtime, block: int = BLOCK) -> None:
        self._network, self._normalised, self._runtime = network, normalised, runtime
        self.width, self.block = width, block
        window = torch.zeros(1, self.past + block * STRIDE + self.future + 2 * AHEAD)
        in_torch = replace(runtime, exports=False)
        self._run = in_torch.compile(f"speech-{block}", _LastHidden(network), [window], Axes((0,), (0,)))

    def on_grid(self, block: int) -> "TransformerSpeech":
        """See `SpeechEncoder.on_grid`."""
        return TransformerSpeech(self._network, self.width, self._normalised, self._runtime, block)

    def encode(self, window: Samples, first: int, end: int) -> Features:
        """See `BlockEncoder.encode`."""
        inside = slice(max(-first, 0), len(window) - max(first + len(window) - end, 0))
        if self._normalised:
            sound = window[inside]
            window = (window - sound.mean()) / np.sqrt(sound.var() + 1e-7)
            window[: inside.start], window[inside.stop :] = 0, 0
        (hidden,) = self._run(torch.from_numpy(np.pad(window, AHEAD).astype(np.float32))[None])
        skipped = self.past // STRIDE
        return hidden[0, skipped : skipped + self.block].cpu()


class _LastHidden(nn.Module):
    """Samples → the last hidden layer of a model of transformers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, samples: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch features width"]:
        return self.network(samples).last_hidden_state.float()


def read_compact(path: Path) -> CompactEncoder:
    """The compact encoder's network from its checkpoint."""
    encoder = CompactEncoder(config_from(CompactConfig, read_header(path)))
    load_into(encoder, read_tensors(path), str(path))
    return encoder


def load_compact(path: Path, runtime: Runtime) -> CompactSpeech:
    """The compact encoder from its checkpoint, ready to run."""
    return CompactSpeech(read_compact(path), runtime)


def open_encoder(source: str, compact: Path, runtime: Runtime) -> SpeechEncoder:
    """The encoder that a network reads: `compact` from its checkpoint, any other by transformers."""
    return load_compact(compact, runtime) if source == "compact" else load_transformer(source, runtime)


def load_transformer(source: str, runtime: Runtime) -> TransformerSpeech:
    """wav2vec 2.0 or HuBERT from a local folder or the hub, by transformers. CheckpointError if it cannot be had."""
    try:
        from transformers import AutoConfig, AutoFeatureExtractor, AutoModel
    except ImportError as error:
        raise CheckpointError(f"{source} needs transformers ({error}); install the encoders extra") from error
    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type not in ("wav2vec2", "hubert"):
            raise CheckpointError(f"{source} is a {config.model_type}; wanted wav2vec2 or hubert")
        if (stride := math.prod(config.conv_stride)) != STRIDE:
            raise CheckpointError(f"{source} takes {stride} samples a feature; wanted {STRIDE}, which is 50 a second")
        network = AutoModel.from_pretrained(source)
        extractor = AutoFeatureExtractor.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source} cannot be loaded ({error}); give a folder or a hub name") from error
    return TransformerSpeech(network, config.hidden_size, bool(extractor.do_normalize), runtime)
