"""How near TexTalker's textures and motion come to the corpus': PSNR and SSIM of textures, and vertex errors.

    python -m training evaluate textures --corpus build/corpus --latents build/latents

Textures are compared at the wrinkle map's size and 8 bit, on the texels of the face, sequence by sequence; by LPIPS,
too, if AlexNet's weights are at hand. Beside the network stand the neutral texture, which does not move (`static`), and
the true maps through the auto-encoder (`ceiling`), the most that can be had. Test A is unseen sequences of subjects
that were trained on, with their pivots; test B is subjects that were held out, with a pivot from ten seconds of other
clips. Blinks are the corpus', since sound does not tell them.
"""

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure
from tqdm import tqdm

from models.core import SAMPLE_RATE_HZ, Waveform
from models.engine import Networks
from models.performance import Pivots
from models.template import Head, template_of_identity
from models.textalker.decoding import decode
from models.textalker.encoding import BATCH
from models.textalker.maps import from_network, log_ratio
from training.autoencoder import MapMaker
from training.corpus.canvas import Canvas
from training.corpus.coarticulation import RATE_HZ
from training.corpus.face import FaceRig
from training.corpus.wrinkles import WrinkleField
from training.datasets.corpus import Corpus, CorpusClip
from training.evaluate import EXAMPLE_S, TRUTH_FPS, Talker, TrueLids
from training.latents import Encoders, Latents, encode_clip, frames_of
from training.lpips import Lpips
from training.metrics import VertexErrors, mean_errors, vertex_errors
from training.textalker import subject_pivots

SHORTEST_S, LONGEST_S = 2.0, 8.0
"""Of a clip that is judged; shorter ones of unseen subjects are left out, longer ones are cut."""


@dataclass(frozen=True)
class TextureErrors:
    """Of the face's texels; lpips if AlexNet's weights are at hand."""

    psnr_db: float
    ssim: float
    lpips: float | None = None

    @staticmethod
    def mean(errors: "Sequence[TextureErrors]") -> "TextureErrors":
        """Of several sequences or takes."""
        lpips = [each.lpips for each in errors if each.lpips is not None]
        psnr_db, ssim = (float(np.mean([getattr(each, name) for each in errors])) for name in ("psnr_db", "ssim"))
        return TextureErrors(psnr_db, ssim, float(np.mean(lpips)) if lpips else None)


class Skin:
    """The default head's texture under wrinkles, at 8 bit, and where the face is."""

    def __init__(self, head: Head, size: int, lpips: Lpips | None = None) -> None:
        base = Image.open(io.BytesIO(head.base_color_png)).convert("RGB")
        self.base = np.asarray(base.resize((size, size), Image.Resampling.BOX), np.float32)
        self.face, self._lpips = face_texels(head, size), lpips

    def textures(
        self, log_ratios: Float32[np.ndarray, "frames size size 3"]
    ) -> UInt8[np.ndarray, "frames size size 3"]:
        """neutral · exp(log-ratio), rounded."""
        return np.round(np.clip(self.base * np.exp(log_ratios.astype(np.float32)), 0, 255)).astype(np.uint8)

    def errors(
        self, guess: UInt8[np.ndarray, "frames size size 3"], truth: UInt8[np.ndarray, "frames size size 3"]
    ) -> TextureErrors:
        """Of one sequence: PSNR of all its frames together, SSIM averaged over the face's texels, LPIPS over frames."""
        difference = guess[:, self.face].astype(np.float32) - truth[:, self.face]
        psnr_db = 10 * np.log10(255**2 / max(float(np.square(difference).mean()), 1e-6))
        similar = []
        for start in range(0, len(guess), BATCH):
            one, other = (_as_images(part[start : start + BATCH]) for part in (guess, truth))
            _, image = structural_similarity_index_measure(one, other, data_range=1.0, return_full_image=True)
            similar.append(image.mean(1).numpy()[:, self.face].mean(1))
        return TextureErrors(float(psnr_db), float(np.concatenate(similar).mean()), self._distance(guess, truth))

    def _distance(
        self, guess: UInt8[np.ndarray, "frames size size 3"], truth: UInt8[np.ndarray, "frames size size 3"]
    ) -> float | None:
        """LPIPS of the face's box, in which other texels are the truth's."""
        if self._lpips is None:
            return None
        box = tuple(slice(members.min(), members.max() + 1) for members in np.nonzero(self.face))
        masked = np.where(self.face[..., None], guess, truth)
        distances = []
        for start in range(0, len(guess), BATCH):
            one, other = (_as_images(part[start : start + BATCH, *box]) for part in (masked, truth))
            distances.append(self._lpips(one, other).numpy())
        return float(np.concatenate(distances).mean())


def face_texels(head: Head, size: int) -> Bool[np.ndarray, "size size"]:
    """Texels of the skin of the face: what is in front of the ears, between hairline and throat."""
    raster = head.atlas.rasterise(size)
    inside = head.atlas.paint(Canvas(head).face().astype(np.float32)[:, None], raster)[..., 0] > 0.5
    return np.asarray(inside & head.texels_of("skin", raster))


@dataclass(frozen=True, eq=False)
class Performance:
    """A clip that is judged, the pivots that it is spoken with, and the wrinkles of its subject."""

    clip: CorpusClip
    pivots: Pivots
    field: WrinkleField


class Judge:
    """Judges sequences of a corpus."""

    def __init__(
        self, networks: Networks, corpus: Corpus, encoders: Encoders | None = None, lpips: Lpips | None = None
    ) -> None:
        self.networks, self.corpus, self.head = networks, corpus, networks.head
        self.rig: FaceRig = corpus.rig(networks.head)
        self.encoders: Encoders = encoders or networks.encoders
        self.size = self.encoders.wrinkle_size
        self.skin = Skin(networks.head, self.size, lpips)
        face = np.flatnonzero(Canvas(networks.head).face())
        self.regions = dict(networks.head.regions) | {"face": face}

    def maker(self, field: WrinkleField) -> MapMaker:
        """True maps in one wrinkle style."""
        return MapMaker(self.rig, self.encoders.motion_size, self.size, [field])

    def unseen_sequences(self, latents: Latents, count: int) -> Iterator[Performance]:
        """Test A: clips that were kept from the diffusion, one of each subject first."""
        pivots_of = subject_pivots(latents, pivoted=True)
        kept = {clip.id for clip in latents.clips if clip.tested}
        fields = {s.id: s.wrinkles for s in self.corpus.subjects}
        clips = [clip for clip in self.corpus.clips(held_out=False) if clip.id in kept]
        turn: dict[str, int] = {}
        for clip in clips:
            turn[clip.id] = sum(other.subject == clip.subject for other in clips[: clips.index(clip)])
        for clip in islice(sorted(clips, key=lambda clip: turn[clip.id]), count):
            pivots = as_pivots(pivots_of[clip.subject])
            yield Performance(cut(clip, LONGEST_S), pivots, WrinkleField(self.head, fields[clip.subject]))

    def unseen_subjects(self, each: int) -> Iterator[Performance]:
        """Test B: the last clips of every held-out subject, with pivots of the first ones, which are not judged."""
        for subject in self.corpus.subjects:
            if subject.held_out:
                own = [clip for clip in self.corpus.clips(held_out=True) if clip.subject == subject.id]
                field = WrinkleField(self.head, subject.wrinkles)
                heard_s = np.cumsum([len(clip.samples) for clip in own]) / SAMPLE_RATE_HZ
                made_of = int(np.searchsorted(heard_s, EXAMPLE_S)) + 1
                pivots = self.pivots_of(own[:made_of], field)
                others = (clip for clip in reversed(own[made_of:]) if len(clip.samples) > SHORTEST_S * SAMPLE_RATE_HZ)
                for clip in islice(others, each):
                    yield Performance(cut(clip, LONGEST_S), pivots, field)

    def pivots_of(self, clips: Sequence[CorpusClip], field: WrinkleField) -> Pivots:
        """Mean latents of the first EXAMPLE_S seconds of a subject's clips, end to end."""
        tracks = [frames_of(clip)[:2] for clip in clips]
        count = int(EXAMPLE_S * TRUTH_FPS)
        weights, contact = (np.concatenate(column)[:count] for column in zip(*tracks, strict=True))
        rows = list(encode_clip(self.maker(field), self.encoders, weights, contact, 0))
        means = (np.concatenate(column).mean(0, dtype=np.float64) for column in zip(*rows, strict=True))
        return as_pivots([np.asarray(mean, np.float32) for mean in means])

    def judge(
        self, sequences: Sequence[Performance], talkers: Mapping[str, Talker], seeds: int, own: Mapping[str, Pivots]
    ) -> dict[str, dict[str, float]]:
        """Mean errors of every talker, of a static face and texture, and of the auto-encoders, over the sequences.

        Talkers speak with the sequences' pivots, but for those that have their `own`.
        """
        vertices: dict[str, list[VertexErrors]] = {}
        textures: dict[str, list[TextureErrors]] = {}
        for sequence in tqdm(sequences, desc="sequences", dynamic_ncols=True):
            head = template_of_identity(self.head, self.corpus.shapes[sequence.clip.subject], sequence.clip.subject)
            weights, contact, _ = frames_of(sequence.clip)
            offsets = self.rig.offsets(weights, contact)
            maker = self.maker(sequence.field)
            images = maker.wrinkles(weights, contact, [0] * len(weights))
            ratios = log_ratio(from_network(images.transpose(0, 2, 3, 1)))
            truth, placed = self.skin.textures(ratios), head.place(offsets)
            guesses = {"static": [(np.zeros_like(offsets), np.zeros_like(ratios))]}
            guesses["ceiling"] = [self._ceiling(maker.motion(weights, contact), images)]
            for name, talker in talkers.items():
                pivots = own.get(name, sequence.pivots)
                voices = [replace(talker, pivots=pivots, seed=seed) for seed in range(seeds)]
                guesses[name] = [self._spoken(voice, sequence.clip) for voice in voices]
            for name, several in guesses.items():
                errors = [vertex_errors(head.place(moved), placed, self.regions) for moved, _ in several]
                vertices.setdefault(name, []).append(mean_errors(errors))
                looks = [self.skin.errors(self.skin.textures(look), truth) for _, look in several]
                textures.setdefault(name, []).append(TextureErrors.mean(looks))
        return {name: asdict(mean_errors(vertices[name])) | _measured(textures[name]) for name in vertices}

    def _spoken(self, talker: Talker, clip: CorpusClip) -> tuple[np.ndarray, np.ndarray]:
        """Canonical offsets, sealed, and log-ratios: those of a still skin where the engine makes none."""
        batches = talker.speak(Waveform(clip.samples), self.head.atlas.vertex_anchors, TrueLids(clip), TRUTH_FPS)
        offsets, looks = list[np.ndarray](), list[np.ndarray]()
        for batch in batches:
            offsets.append(self.head.seal.close(batch.offsets, batch.rim_offsets, batch.contact))
            looks.append(
                np.zeros((len(batch.offsets), self.size, self.size, 3)) if batch.wrinkles is None else batch.wrinkles
            )
        return np.concatenate(offsets), np.concatenate(looks).astype(np.float32)

    def _ceiling(self, maps: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The truth through the auto-encoders."""
        talker, batches = self.networks.textalker, []
        for start in range(0, len(maps), BATCH):
            own = slice(start, start + BATCH)
            latents = self.encoders.encode_maps(maps[own], images[own])
            nothing = as_pivots([np.zeros_like(part[0]) for part in latents])
            batches.append(decode(talker.decoders, np.concatenate(latents, 1), nothing))
        decoded, ratios = (np.concatenate(column) for column in zip(*batches, strict=True))
        moved, rim = talker.query(self.head.atlas.vertex_anchors, self.head.rim_anchors).read(decoded)
        return self.head.seal.close(moved, rim, np.zeros(len(moved), np.float32)), ratios


def as_pivots(parts: Sequence[Float32[np.ndarray, " latents"]]) -> Pivots:
    """Pivots of motion and wrinkles, or one that is both."""
    return Pivots(parts[0], parts[-1])


def cut(clip: CorpusClip, longest_s: float) -> CorpusClip:
    """The beginning of a clip."""
    count = int(longest_s * RATE_HZ)
    tracks = {name: getattr(clip, name)[:count] for name in ("weights", "contact", "blinks")}
    return replace(clip, samples=clip.samples[: int(longest_s * SAMPLE_RATE_HZ)], **tracks)


def _as_images(textures: UInt8[np.ndarray, "frames size size 3"]) -> Tensor:
    return torch.from_numpy(textures.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def _measured(errors: Sequence[TextureErrors]) -> dict[str, float]:
    return {name: mean for name, mean in asdict(TextureErrors.mean(errors)).items() if mean is not None}


def appearance_report(
    talkers: Mapping[str, Talker],
    corpus: Corpus,
    latents: Latents,
    sequences: int,
    each: int,
    seeds: int,
    unpivoted: Collection[str] = (),
    encoders: Encoders | None = None,
    lpips: Lpips | None = None,
) -> dict[str, Any]:
    """Both tests. All talkers have the same auto-encoders; those `unpivoted` were trained with one pivot for all
    subjects, and speak with it.
    """
    judge = Judge(next(iter(talkers.values())).networks, corpus, encoders, lpips)
    mean = as_pivots(next(iter(subject_pivots(latents, pivoted=False).values())))
    own = dict.fromkeys(unpivoted, mean)
    tests = {"a": list(judge.unseen_sequences(latents, sequences)), "b": list(judge.unseen_subjects(each))}
    report: dict[str, Any] = {name: judge.judge(test, talkers, seeds, own) for name, test in tests.items()}
    report["sequences"] = {name: len(test) for name, test in tests.items()}
    return report | {"seeds": seeds, "face_texels": int(judge.skin.face.sum()), "size": judge.size}
