"""From the corpus' latents to a trained denoiser: pairs them with what is heard, and takes the pivots off.

    python -m training textalker --corpus build/corpus --latents build/latents --out build/textalker

`training/diffusion.py` has the loss. `without-pivot` of the ablations diffuses the latents themselves, less one mean
for all.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from tqdm import tqdm

from models.compact_encoder import CompactEncoder
from models.features import SpeechEncoder
from models.template import Head
from models.textalker.denoiser import Denoiser, DenoiserConfig
from training import diffusion
from training.corpus.face import FaceRig
from training.datasets.corpus import Corpus
from training.diffusion import LatentClip
from training.latents import Latents, draw_rows, frames_of, lip_reading
from training.mmtalker import hear_clip
from training.speech_encoder import Augmentation

READ_FRAMES = 3000
"""Frames from which the linear reading of the lips is made."""

Pivots = Mapping[str, tuple[Float32[np.ndarray, " latents"], ...]]
"""By subject, a pivot for each part of the latents: p_f and p_w."""


def subject_pivots(latents: Latents, *, pivoted: bool) -> Pivots:
    """Each subject's own, or the mean of all for everybody."""
    parts = [latents.pivots(part) for part in latents.parts]
    if pivoted:
        return {subject: tuple(part[subject] for part in parts) for subject in parts[0]}
    means = tuple(np.asarray(np.mean(list(part.values()), axis=0), np.float32) for part in parts)
    return dict.fromkeys(parts[0], means)


def pair_clips(
    corpus: Corpus, latents: Latents, encoder: CompactEncoder | SpeechEncoder, pivots: Pivots
) -> list[LatentClip]:
    """What the diffusion learns from: all clips that are not kept for the test, heard clean and in two other rooms."""
    entries = {clip.id: clip for clip in latents.clips if not clip.tested}
    rows = [latents.part(part) for part in latents.parts]
    augment = Augmentation([], np.random.default_rng(0), 1.0)
    clips = []
    for clip in tqdm(corpus.clips(held_out=False), desc="features", dynamic_ncols=True):
        if (entry := entries.get(clip.id)) is not None:
            own = slice(entry.start, entry.start + entry.count)
            offsets = [part[own] - pivot for part, pivot in zip(rows, pivots[clip.subject], strict=True)]
            _, contact, lids = frames_of(clip)
            features = hear_clip(clip, encoder, augment)
            clips.append(LatentClip(features, np.concatenate(offsets, 1).astype(np.float16), contact, lids))
    return clips


def read_lips(corpus: Corpus, latents: Latents, rig: FaceRig) -> Float[Tensor, "coordinates motion"]:
    """The linear reading of the rim of the lips, in millimetres, from motion latents."""
    picked = draw_rows([clip for clip in latents.clips if not clip.tested], READ_FRAMES)
    wanted: dict[str, list[int]] = {}
    for entry, frame in picked:
        wanted.setdefault(entry.id, []).append(frame)
    starts = {clip.id: clip.start for clip in latents.clips}
    motion, rows, rims = latents.part(latents.parts[0]), [], []
    basis = rig.basis[:, rig.head.rim]
    for clip in corpus.clips(held_out=False):
        if (frames := wanted.get(clip.id)) is not None:
            weights, _, _ = frames_of(clip)
            rims.append(1e3 * np.einsum("ta,arc->trc", weights[frames], basis).reshape(len(frames), -1))
            rows.append(motion[np.asarray(frames) + starts[clip.id]])
    return torch.from_numpy(lip_reading(np.concatenate(rows).astype(np.float32), np.concatenate(rims)))


def train(
    corpus: Corpus,
    head: Head,
    latents: Latents,
    encoder: CompactEncoder | SpeechEncoder,
    folder: Path,
    steps: int,
    config: DenoiserConfig,
    *,
    pivoted: bool = True,
) -> Denoiser:
    """Train for `steps`; see the model card for what that took."""
    motion, wrinkle = [*(latents.part(part).shape[1] for part in latents.parts), 0][:2]
    config = replace(
        config, motion=motion, wrinkle=wrinkle, features=encoder.width, autoencoders=latents.description["autoencoders"]
    )
    clips = pair_clips(corpus, latents, encoder, subject_pivots(latents, pivoted=pivoted))
    lips = None if config.modalities == "wrinkle" else read_lips(corpus, latents, corpus.rig(head))
    return diffusion.train(clips, folder, steps, config, lips=lips)
