"""What the shipped weights can do.

python -m training evaluate speech FOLDER      lip-sync on recorded speech, beside two baselines
python -m training evaluate corpus CORPUS      LVE, EVE and FDD on the corpus' held-out subjects
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from models.atlas import Anchors
from models.checkpoint import pinned_file
from models.core import SAMPLE_RATE_HZ, Waveform, frame_count
from models.engine import DEFAULT_SAMPLING, Networks, Sampling, open_networks
from models.mmtalker.blinks import BlinkTrack
from models.mmtalker.streaming import Lids, stream_motion
from models.performance import Pivots
from models.pivots import StyleBook, load_styles
from models.puppet import MotionBatch
from models.runtime import open_runtime
from models.template import Head, template_of_identity
from training.autoencoder import MapMaker
from training.corpus.coarticulation import RATE_HZ
from training.corpus.face import FaceRig, middle_gap_mm
from training.datasets.corpus import Corpus, CorpusClip, tracks_at
from training.datasets.spoken import SpokenClip
from training.lipsync import LipTrack, bootstrap, loudness_track, oracle_track, score
from training.metrics import VertexErrors, difference_intervals, mean_errors, vertex_errors
from training.noise import add_noise

EXAMPLE_S = 10.0
"""Seconds of other clips that the pivot of a held-out subject is made of."""
FPS, TRUTH_FPS = 50.0, 30.0
"""Frames a second at which lips are judged, and at which surfaces are compared."""


@dataclass(frozen=True, eq=False)
class Talker:
    """One engine in one style: what is judged."""

    networks: Networks
    engine: str
    pivots: Pivots
    seed: int = 0

    @property
    def head(self) -> Head:
        """The canonical head."""
        return self.networks.head

    def speak(self, waveform: Waveform, anchors: Anchors, lids: Lids, fps: float) -> Iterator[MotionBatch]:
        """Displacements at anchors and at the rim of the lips, not yet sealed."""
        networks, rim = self.networks, self.head.rim_anchors
        if self.engine == "mmtalker":
            query, style = networks.motion.query(anchors, rim), networks.motion.style_of(self.pivots.motion)
            return stream_motion(networks.encoder, networks.motion, waveform, query, lids, fps, style)
        maps = networks.textalker.query(anchors, rim)
        return networks.textalker.stream(networks.encoder, waveform, maps, lids, self.pivots, fps, self.seed)


def open_talker(
    weights: Path,
    cache: Path,
    engine: str = "mmtalker",
    checkpoint: Path | None = None,
    style: str = "neutral",
    sampling: Sampling = DEFAULT_SAMPLING,
) -> Talker:
    """An engine of a weights folder in a shipped motion style, with another checkpoint of its own if one is given."""
    replaced = {} if checkpoint is None else {engine: checkpoint}
    networks = open_networks(weights, open_runtime("auto", cache), sampling, replaced)
    book = StyleBook(load_styles(pinned_file(weights, "styles")[0], networks.autoencoders))
    return Talker(networks, engine, Pivots(book.mix(style, "motion"), None))


def speech_report(talker: Talker, clips: Sequence[SpokenClip], noise_db: float | None = None) -> dict[str, Any]:
    """Lip-sync of the engine, of the oracle and of a loudness-driven jaw, with bootstrap intervals of the engine's."""
    tracks: dict[str, list[LipTrack]] = {talker.engine: [], "oracle": [], "loudness": []}
    for clip in tqdm(clips, desc="speech", dynamic_ncols=True):
        waveform = clip.waveform()
        phones, _ = clip.aligned(waveform)
        waveform = Waveform(waveform.samples[: int(phones[-1].end_s * waveform.rate_hz)])
        count = int(waveform.duration_s * RATE_HZ)
        heard = waveform if noise_db is None else add_noise(waveform, noise_db)
        opening, rounding = lips_of(talker, heard, count)
        tracks[talker.engine].append(LipTrack.from_mm(clip.speaker, opening, rounding, phones))
        tracks["oracle"].append(oracle_track(clip.speaker, phones, count))
        loud = loudness_track(clip.speaker, heard.samples, phones, heard.rate_hz)
        tracks["loudness"].append(LipTrack(loud.speaker, loud.opening[:count], loud.rounding[:count], phones))
    report: dict[str, Any] = {name: asdict(score(own)) for name, own in tracks.items()}
    report[talker.engine]["intervals"] = bootstrap(tracks[talker.engine])
    return report | {"clips": len(clips), "speakers": len({clip.speaker for clip in clips}), "noise_db": noise_db}


def lips_of(
    talker: Talker, waveform: Waveform, count: int
) -> tuple[Float32[np.ndarray, " samples"], Float32[np.ndarray, " samples"]]:
    """Inner opening in mm, 0 at contact, and rounding (minus the rim's width in mm), at 100 Hz, of the skin as
    produced.
    """
    head, rim = talker.head, talker.head.rim_anchors
    seal = head.seal.at(head.atlas.weights_matrix(rim))
    batches = talker.speak(waveform, rim, BlinkTrack(0), FPS)
    offsets = np.concatenate([seal.close(batch.offsets, batch.rim_offsets, batch.contact) for batch in batches])
    opening = np.maximum(middle_gap_mm(head, offsets), 0)
    places = head.atlas.vertices[head.rim] + offsets
    left, right = np.argmin(head.atlas.vertices[head.rim, 0]), np.argmax(head.atlas.vertices[head.rim, 0])
    width = 1e3 * np.linalg.norm(places[:, right] - places[:, left], axis=-1)
    time_s, own_s = np.arange(count) / RATE_HZ, np.arange(len(opening)) / FPS
    return np.interp(time_s, own_s, opening).astype(np.float32), np.interp(time_s, own_s, -width).astype(np.float32)


class TrueLids:
    """The corpus' own blinks, to judge the rest of the face without guessing them."""

    def __init__(self, clip: CorpusClip) -> None:
        self._blinks = clip.blinks

    def closure(self, time_s: Float32[np.ndarray, " frames"]) -> Float32[np.ndarray, " frames"]:
        """See `Lids.closure`."""
        return np.interp(time_s * RATE_HZ, np.arange(len(self._blinks)), self._blinks).astype(np.float32)


def corpus_report(talkers: Mapping[str, Talker], corpus: Corpus, clips: Sequence[CorpusClip]) -> dict[str, Any]:
    """LVE, EVE and FDD on held-out subjects of each network, of a static face and of the training set's mean motion.

    Networks speak in the neutral style, on the subject's head, and are given the corpus' blinks, which sound does not
    tell. Of the first network there is also a row with blinks of its own, drawn by seed, and one in the subjects'
    styles, from ten seconds of clips that are not judged, if every subject has some. `less_full` holds 95 % intervals
    of each row less that of `full`, or of the first network if there is no such row, over pairs of clips.
    """
    first = next(iter(talkers))
    head = talkers[first].head
    rig, mean = corpus.rig(head), mean_offsets(corpus, head)
    styles = own_styles(corpus, talkers[first].networks, {clip.id for clip in clips})
    rows: dict[str, list[VertexErrors]] = {}
    for clip in tqdm(clips, desc="held-out subjects", dynamic_ncols=True):
        template = template_of_identity(head, corpus.shapes[clip.subject], clip.subject)
        truth = true_offsets(rig, clip)
        guesses = {name: offsets_of(talker, clip, TrueLids(clip)) for name, talker in talkers.items()}
        guesses[f"{first}, own blinks"] = offsets_of(talkers[first], clip, BlinkTrack(0))
        if styles.keys() >= {each.subject for each in clips}:
            own = replace(talkers[first], pivots=styles[clip.subject])
            guesses[f"{first}, own style"] = offsets_of(own, clip, TrueLids(clip))
        guesses |= {"static face": np.zeros_like(truth), "mean motion": np.broadcast_to(mean, truth.shape)}
        for name, offsets in guesses.items():
            placed, wanted = template.place(offsets), template.place(truth)
            rows.setdefault(name, []).append(vertex_errors(placed, wanted, head.regions))
    reference = rows.get("full", rows[first])
    return {
        "rows": {name: asdict(mean_errors(errors)) for name, errors in rows.items()},
        "less_full": {name: difference_intervals(errors, reference) for name, errors in rows.items()},
        "clips": len(clips),
        "masks": {name: len(members) for name, members in head.regions.items()},
    }


def own_styles(corpus: Corpus, networks: Networks, judged: Collection[str]) -> dict[str, Pivots]:
    """Motion pivots of the held-out subjects, from the first EXAMPLE_S seconds of their clips that are not `judged`."""
    encoders, rig = networks.encoders, corpus.rig(networks.head)
    maker = MapMaker(rig, encoders.motion_size, encoders.wrinkle_size, ())
    count, heard = int(EXAMPLE_S * TRUTH_FPS), dict[str, list[tuple[np.ndarray, np.ndarray]]]()
    for clip in corpus.clips(held_out=True):
        own = heard.setdefault(clip.subject, [])
        if clip.id not in judged and sum(len(contact) for _, contact in own) < count:
            frames = np.arange(frame_count(len(clip.samples) / SAMPLE_RATE_HZ, TRUTH_FPS))
            weights, contact = tracks_at(frames / TRUTH_FPS, clip.weights, clip.contact)
            own.append((weights, contact))
    styles = {}
    for subject, tracks in heard.items():
        if tracks:
            weights, contact = (np.concatenate(column)[:count] for column in zip(*tracks, strict=True))
            styles[subject] = Pivots(encoders.encode("motion", maker.motion(weights, contact)).mean(0), None)
    return styles


def offsets_of(talker: Talker, clip: CorpusClip, lids: Lids) -> Float32[np.ndarray, "frames vertices 3"]:
    """Canonical offsets at 30 fps, lips sealed."""
    head = talker.head
    batches = talker.speak(Waveform(clip.samples), head.atlas.vertex_anchors, lids, TRUTH_FPS)
    return np.concatenate([head.seal.close(batch.offsets, batch.rim_offsets, batch.contact) for batch in batches])


def true_offsets(rig: FaceRig, clip: CorpusClip) -> Float32[np.ndarray, "frames vertices 3"]:
    """The corpus' canonical offsets at 30 fps."""
    count = frame_count(len(clip.samples) / SAMPLE_RATE_HZ, TRUTH_FPS)
    return rig.offsets(*tracks_at(np.arange(count) / TRUTH_FPS, clip.weights, clip.contact))


def mean_offsets(corpus: Corpus, head: Head, every: int = 97) -> Float32[np.ndarray, "vertices 3"]:
    """The mean displacement of the training subjects, over every 97th sample of all their clips, end to end."""
    rig, picked, seen = corpus.rig(head), [], 0
    for clip in corpus.clips(held_out=False):
        chosen = slice(-seen % every, None, every)
        picked.append((clip.weights[chosen], clip.contact[chosen]))
        seen += len(clip.contact)
    weights, contact = (np.concatenate(column) for column in zip(*picked, strict=True))
    return np.mean([rig.offsets(weights[k : k + 1], contact[k : k + 1])[0] for k in range(len(weights))], axis=0)
